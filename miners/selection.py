"""Which of the candidates that passed the guards are taken: ranks, range, number per query, and caps against hubs.

Names and meanings are those of sentence-transformers' `mine_hard_negatives`, per query: `range_min` and `range_max`
bound the rank, `num_negatives` the number, `sampling_strategy` says whether the hardest or random ones of the range are
taken. A cap bounds how often the other side of the pairs (the picture, or the phrase) may stand in the result.
"""

# C candidates, Q queries, T others (the side of the pairs that is no query)

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shards.splits import seeded_hash

Strategy = Literal["top", "random"]
_NO_LIMIT = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """How much of what is taken."""

    num_q: NDArray[np.int64]  # per query
    cap: int  # per other
    cap_share: float | None = None  # cap as a share of the rows that may come, where that is less
    seed: int = 0  # of the order in which random takes candidates
    range_min: int = 0
    range_max: int | None = None
    strategy: Strategy = "top"


def ranks(query_c: NDArray[np.int64], listed_c: NDArray[np.bool_]) -> NDArray[np.int32]:
    """0-based rank of each candidate among the listed ones of its query, whose candidates stand hardest first; else −1.

    `query_c` is sorted.
    """
    counted = np.cumsum(listed_c)
    first = np.searchsorted(query_c, query_c, side="left")
    before: NDArray[np.int64] = counted[first] - listed_c[first]
    return np.where(listed_c, counted - 1 - before, -1).astype(np.int32)


def select(
    query_c: NDArray[np.int64],
    other_c: NDArray[np.int64],
    rank_c: NDArray[np.int32],
    kept_c: NDArray[np.bool_],
    wanted: Wanted,
) -> NDArray[np.bool_]:
    """Which candidates are taken.

    All queries choose at the same time, round by round: each names its next candidate. Where an other is named more
    often than its cap allows, earlier rounds come first, then the lower query. A query that is refused goes on to its
    next candidate, so a hub costs it rank and not number.

    Args:
        query_c: Query of each candidate, sorted; a query's candidates stand hardest first.
        other_c: The other side of each candidate.
        rank_c: Rank within the query, see `ranks`.
        kept_c: False for what a guard took.
        wanted: See there. Where the strategy is random, a hash of the pair decides the order of a query's candidates,
            so that a guard's verdict on one does not reshuffle the others.
    """
    last = _NO_LIMIT if wanted.range_max is None else wanted.range_max
    free_c = kept_c & (rank_c >= wanted.range_min) & (rank_c < last)
    rows = np.flatnonzero(free_c)
    if wanted.strategy == "random":
        pairs = query_c[rows].astype(np.uint64) << np.uint64(32) | other_c[rows].astype(np.uint64)
        rows = rows[np.lexsort((seeded_hash(pairs, f"{wanted.seed} select"), query_c[rows]))]
    return _rounds(rows, query_c, other_c, wanted)


def _rounds(
    rows: NDArray[np.int64], query_c: NDArray[np.int64], other_c: NDArray[np.int64], wanted: Wanted
) -> NDArray[np.bool_]:
    """`select` over the free candidates `rows`, in the order in which each query names them."""
    taken_c = np.zeros(len(query_c), np.bool_)
    num_others = int(other_c.max()) + 1 if len(other_c) else 0
    left_q, left_t = wanted.num_q.copy(), np.full(num_others, _cap(wanted, len(rows)), np.int64)
    ends = np.searchsorted(query_c[rows], np.arange(len(left_q)), side="right")
    next_q = np.searchsorted(query_c[rows], np.arange(len(left_q)), side="left")
    while True:
        asking = np.flatnonzero((left_q > 0) & (next_q < ends))
        if not len(asking):
            return taken_c
        named = rows[next_q[asking]]
        next_q[asking] += 1
        other = other_c[named]
        granted = _place_among_equals(other) < left_t[other]
        taken_c[named[granted]] = True
        np.subtract.at(left_t, other[granted], 1)
        left_q[asking[granted]] -= 1


def _cap(wanted: Wanted, num_free: int) -> int:
    """How often an other may be taken."""
    if wanted.cap_share is None:
        return wanted.cap
    may_come = min(int(wanted.num_q.sum()), num_free)
    return max(1, min(wanted.cap, math.ceil(wanted.cap_share * may_come)))


def _place_among_equals(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each value, how many equal ones stand before it."""
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values), np.int64)
    found[order] = np.arange(len(values)) - np.searchsorted(values[order], values[order], side="left")
    return found
