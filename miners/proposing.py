"""How deep each kind is searched, and how much of it is wanted; what the recipe leaves open is decided here."""

# Q queries, N pictures of the pool, V phrases, P present pairs

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from manifests import files
from manifests.errors import BuildError
from manifests.recipe import Mine
from manifests.sample import MinedKind, NegativeKind
from miners.candidates import Candidates, NearKind, Searcher, near_image, near_text
from miners.context import gather_context, nobody_votes
from miners.index import open_index
from miners.phrase_queries import phrase_queries
from miners.pool import Pool
from miners.selection import Wanted
from miners.standard import pool_statistics

PHRASES_A_PICTURE = 4  # near_text rows of a picture, where num_negatives is left out
PICTURES_A_PRESENCE = 1  # near_image rows of a phrase for each of its presences, which keeps its prior flat
FEWEST_PICTURES = 4
_TRIES = 10  # candidates looked at for each one wanted; sentence-transformers' factor
_SLACK = 16


def open_searcher(pool: Pool, settings: Mine, folder: str, *, votes: bool) -> Searcher:
    """The pool, ready to be searched; the index is kept in `folder`. With `votes`, each picture's neighbours vote."""
    statistics = pool_statistics(pool.images_nd, pool.keys)
    index = open_index(
        pool.images_nd, pool.keys, folder=files.join(folder, "index"), memory_bytes=int(settings.memory_gb * 2**30)
    )
    context = gather_context(pool, index) if votes else nobody_votes(pool)
    return Searcher(pool=pool, queries=phrase_queries(pool, statistics), index=index, context=context)


def wanted_of(kind: MinedKind, pool: Pool, settings: Mine, seed: int) -> Wanted:
    """How many rows each query of a kind may take, and how often a picture or phrase may stand in the result."""
    cap_share: float | None
    match kind:
        case NegativeKind.NEAR_IMAGE:
            _, column = pool.present()
            present_v = np.bincount(column, minlength=pool.num_phrases)
            open_v = np.maximum(PICTURES_A_PRESENCE * present_v, FEWEST_PICTURES)
            num_q = _as_asked(settings, open_v)
            cap, cap_share = settings.max_per_image, None
        case NegativeKind.NEAR_TEXT | NegativeKind.FALSE_ALARM:
            open_n = np.full(pool.num_pictures, PHRASES_A_PICTURE)
            num_q = _as_asked(settings, open_n)
            # never below twice an even share, or few phrases could not fill the table
            cap, cap_share = pool.num_pictures, max(settings.max_per_phrase_share, 2 / max(1, pool.num_phrases))
    return Wanted(
        num_q=num_q,
        cap=cap,
        cap_share=cap_share,
        seed=seed,
        range_min=settings.range_min,
        range_max=settings.range_max,
        strategy=settings.sampling_strategy,
    )


def _as_asked(settings: Mine, otherwise_q: NDArray[np.int64]) -> NDArray[np.int64]:
    num = settings.num_negatives
    return otherwise_q if num is None else np.full(len(otherwise_q), num, np.int64)


def require_enough(pool: Pool, settings: Mine) -> None:
    """Stop before anything is searched if a query could never find as many negatives as are asked for.

    Raises:
        BuildError: `num_negatives` is larger than the pool.
    """
    num = settings.num_negatives
    for size, what in ((pool.num_pictures, "pictures"), (pool.num_phrases, "phrases")):
        if num is not None and num > size:
            raise BuildError(
                f"num_negatives = {num}, but the pool has only {size} {what}; expected at most as many. Lower "
                "num_negatives, or mine a larger split or vocabulary"
            )


def propose(kind: NearKind, searcher: Searcher, wanted: Wanted) -> Iterator[Candidates]:
    """The candidates of a kind, deep enough to leave the wanted number after the guards."""
    row, column = searcher.pool.blocked()
    deepest_q = wanted.range_min + _TRIES * wanted.num_q + _SLACK
    if wanted.range_max is not None:
        deepest_q = np.minimum(deepest_q, wanted.range_max)
    match kind:
        case NegativeKind.NEAR_IMAGE:
            blocked_v = np.bincount(column, minlength=searcher.pool.num_phrases)
            return near_image(searcher, blocked_v + deepest_q)
        case NegativeKind.NEAR_TEXT:
            most_blocked = np.bincount(row, minlength=1).max(initial=0)
            return near_text(searcher, int(most_blocked + deepest_q.max(initial=0)))
