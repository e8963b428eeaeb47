"""Rows that lie as real embeddings do, as many as wanted: mixtures of a few related concepts, no two alike.

ConSE places a picture at the mean of its likely class names, weighted by probability. These rows are made so: 1,000
concept vectors whose variance falls off along the axes, and for each row 12 of them, ten near one another and two from
anywhere, with uneven weights. Mask crops of COCO under ConSE: intrinsic dimension 4.0, median cosine of nearest rows
0.91 and of any two 0.38 (2,002 rows); the benchmark prints the first for these rows, which are a little harder.
"""

import numpy as np
from numpy.typing import NDArray

# N rows, C concepts, M concepts of a row, B rows of a block, D width

Rows = NDArray[np.float16]
_CONCEPTS, _RELATED, _STRAY = 1000, 10, 2
_DECAY = 0.3  # standard deviation of axis i is i^-0.3
_SHARED = 0.7  # of one direction in all concepts, as in any encoder's rows
_UNEVEN = 0.2  # of the Dirichlet weights; 1 is even odds
_BLOCK = 4096


def concept_rows(num: int, width: int, seed: int) -> Rows:
    """`num` unit rows [N, D] of one world; another seed gives other rows of the same concepts."""
    world, rng = np.random.default_rng(0), np.random.default_rng([1, seed])
    concepts_cd = world.standard_normal((_CONCEPTS, width)) * np.arange(1, width + 1) ** -_DECAY
    concepts_cd = unit(concepts_cd)
    concepts_cd += _SHARED * unit(world.standard_normal((1, width)))
    concepts_cd = unit(concepts_cd).astype(np.float32)
    related_cm = np.argsort(-(concepts_cd @ concepts_cd.T), axis=1)[:, :_RELATED]
    rows_nd = np.empty((num, width), np.float16)
    for start in range(0, num, _BLOCK):
        size = min(_BLOCK, num - start)
        topic_b = np.minimum(rng.zipf(1.3, size) - 1, rng.integers(0, _CONCEPTS, size))
        chosen_bm = np.concatenate([related_cm[topic_b], rng.integers(0, _CONCEPTS, (size, _STRAY))], axis=1)
        weight_bm = rng.dirichlet(np.full(_RELATED + _STRAY, _UNEVEN), size).astype(np.float32)
        mixed_bd = np.einsum("bm,bmd->bd", weight_bm, concepts_cd[chosen_bm])
        rows_nd[start : start + size] = unit(mixed_bd)
    return rows_nd


def unit(rows_nd: NDArray[np.floating]) -> NDArray[np.floating]:
    """The rows at length 1."""
    scaled: NDArray[np.floating] = rows_nd / np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return scaled


def intrinsic_dimension(rows_nd: Rows, num_neighbours: int = 20) -> float:
    """How many directions rows spread into around a row. Source: Levina and Bickel (2004), equation 8, mean inverse."""
    exact_nd = rows_nd.astype(np.float64)
    distance_nk = np.sqrt(np.maximum(2 - 2 * np.sort(exact_nd @ exact_nd.T, axis=1)[:, ::-1], 1e-12))
    near_nk = distance_nk[:, 1 : num_neighbours + 1]
    return float(1 / np.mean(np.log(near_nk[:, -1:] / near_nk[:, :-1])))
