"""sentence-transformers' `mine_hard_negatives`, run on stored rows with many of its settings.

Its model is a fake that hands out the rows of the same encoder; everything else is theirs. Each query of theirs has its
known presences as positives.
"""

# N pictures of the pool, V phrases, P pairs of a picture and a phrase

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from manifests.sample import NegativeKind
from miners.pool import Pool

RECOMMENDED, TOP = "relative_margin 0.05", "top-k"
_RELATIVE = (-4.0, -2.0, -1.0, -0.5, -0.2, 0.0, 0.1, 0.2, 0.4)  # beside the recommended one; below 0 softer than none
_ABSOLUTE = (-0.4, -0.3, -0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1)
_SCORE_LEVELS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.99)  # of all cosines
_FIRST_RANKS = (1, 2, 3, 5, 8, 12, 20, 30, 50)

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]  # row of the pool, column


def their_rows(pool: Pool, kind: NegativeKind, known_nv: NDArray[np.bool_], num: int) -> Iterator[tuple[str, Pairs]]:
    """The pairs that `mine_hard_negatives` mines at each of its settings, `num` for each query."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    rows = {"n": pool.images_nd.astype(np.float32), "v": pool.texts_vd.astype(np.float32)}
    asks, answers = ("v", "n") if kind is NegativeKind.NEAR_IMAGE else ("n", "v")
    number = dict(zip("nv", np.nonzero(known_nv), strict=True))
    pairs = Dataset.from_dict(
        {
            "anchor": [f"{asks}{place}" for place in number[asks].tolist()],
            "positive": [f"{answers}{place}" for place in number[answers].tolist()],
        }
    )
    corpus = [f"{answers}{place}" for place in range(len(rows[answers]))]
    model = _stored(rows)
    for name, setting in _their_settings(rows["n"] @ rows["v"].T):
        mined = mine_hard_negatives(
            pairs,
            model,  # type: ignore[arg-type]
            corpus=corpus,
            num_negatives=num,
            output_format="labeled-pair",
            verbose=False,
            **setting,  # type: ignore[arg-type]
        )
        negative = [not label for label in mined["label"][:]]
        asked, found = (_numbers(mined[column][:], negative) for column in ("anchor", "positive"))
        yield name, ((found, asked) if kind is NegativeKind.NEAR_IMAGE else (asked, found))


def _numbers(names: Sequence[str], chosen: Sequence[bool]) -> NDArray[np.int64]:
    """The numbers in the chosen names."""
    return np.array([int(name[1:]) for name, wanted in zip(names, chosen, strict=True) if wanted], np.int64)


def _stored(rows: Mapping[str, NDArray[np.float32]]) -> object:
    """A model that hands out the stored rows: a text is the first letter of a side and the number of a row."""
    import torch
    from sentence_transformers.util import cos_sim, pairwise_cos_sim

    class Stored:
        device = torch.device("cpu")
        similarity = staticmethod(cos_sim)
        similarity_pairwise = staticmethod(pairwise_cos_sim)

        def encode_document(self, texts: list[str], **_: object) -> NDArray[np.float32]:
            return np.stack([rows[text[0]][int(text[1:])] for text in texts])

        encode_query = encode_document

    return Stored()


def _their_settings(cosines_nv: NDArray[np.float32]) -> Iterator[tuple[str, dict[str, float]]]:
    yield TOP, {}
    yield RECOMMENDED, {"relative_margin": 0.05}
    for margin in _RELATIVE:
        yield f"relative_margin {margin:g}", {"relative_margin": margin}
    for margin in _ABSOLUTE:
        yield f"absolute_margin {margin:g}", {"absolute_margin": margin}
    for level in _SCORE_LEVELS:
        yield f"max_score at {level:g}", {"max_score": float(np.quantile(cosines_nv, level))}
    for first in _FIRST_RANKS:
        yield f"range_min {first}", {"range_min": first}
