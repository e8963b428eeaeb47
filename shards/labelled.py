"""What the labels say of pairs of a picture and a phrase, many pairs at once.

Pictures are looked up block by block in a table of bits, so that memory does not grow with the pairs.
"""

# C pairs, B pictures of a block, V phrases

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from shards.inventory import ABSENT, Inventory

_BLOCK_CELLS = 1 << 24  # pictures × phrases looked up together
_BLOCK_PICTURES = 4096
_SPARSE = 8  # numbers up to so many times their count are told apart by marking

_Bool = NDArray[np.bool_]
_Int64 = NDArray[np.int64]
Pairs = tuple[_Int64, NDArray[np.int32]]  # (position among some pictures, phrase)


def blocked(inventory: Inventory, image_c: _Int64, phrase_c: NDArray[np.integer]) -> _Bool:
    """Whether a label calls the phrase present, or open; synonyms and hypernyms count."""
    return among(len(inventory.phrases), image_c, phrase_c, inventory.blocked)


def denied_by_name(inventory: Inventory, image_c: _Int64, phrase_c: NDArray[np.integer]) -> _Bool:
    """Whether the picture's source denies the phrase by name."""

    def denied(pictures: _Int64) -> Pairs:
        rows, owner = inventory.labels.rows_of(pictures)
        absent = inventory.labels.state_l[rows] == ABSENT
        return owner[absent], inventory.labels.phrase_l[rows[absent]]

    return among(len(inventory.phrases), image_c, phrase_c, denied)


def denied(inventory: Inventory, image_c: _Int64, phrase_c: NDArray[np.integer]) -> _Bool:
    """Whether the source denies the phrase: by name, or by a vocabulary over which the picture is exhaustive."""
    listed_c: _Bool = inventory.vocabulary_g[inventory.group_n[image_c], phrase_c]
    return listed_c | denied_by_name(inventory, image_c, phrase_c)


def among(num_phrases: int, owner_c: _Int64, phrase_c: NDArray[np.integer], pairs: Callable[[_Int64], Pairs]) -> _Bool:
    """Whether (owner, phrase) of each pair is among those that `pairs` gives for some owners."""
    owners, row_c = distinct(owner_c)
    step = min(_BLOCK_PICTURES, max(1, _BLOCK_CELLS // max(1, num_phrases)))
    num_blocks = -(-len(owners) // step)
    block_c = (row_c // step).astype(np.uint16 if num_blocks <= np.iinfo(np.uint16).max else np.int64)
    order = np.argsort(block_c, kind="stable")  # small numbers are sorted by counting
    edges = np.searchsorted(block_c[order], np.arange(num_blocks + 1))
    cells_bv = np.zeros((min(step, len(owners)), num_phrases), np.bool_)
    found_c = np.zeros(len(owner_c), np.bool_)
    for block in range(num_blocks):
        start = block * step
        owner, phrase = pairs(owners[start : start + step])
        cells_bv[owner, phrase] = True
        here = order[edges[block] : edges[block + 1]]
        found_c[here] = cells_bv[row_c[here] - start, phrase_c[here]]
        cells_bv[owner, phrase] = False
    return found_c


def distinct(owner_c: _Int64) -> tuple[_Int64, _Int64]:
    """The distinct owners, sorted, and the place among them of each; as `np.unique`, without sorting many of few."""
    num = int(owner_c.max(initial=-1)) + 1
    if num > _SPARSE * len(owner_c):
        return np.unique(owner_c, return_inverse=True)
    used = np.zeros(num, np.bool_)
    used[owner_c] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[owner_c]
