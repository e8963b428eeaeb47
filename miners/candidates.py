"""Pairs of picture and phrase that look alike, hardest first: for each phrase its nearest pictures, and the reverse.

All scores are standardised per phrase: how unusual a picture is for that phrase, in deviations of the pool. So scores
of different phrases can be compared, and a picture's nearest phrases are no longer always the same few hub phrases.
"""

# N pictures, V phrases, C candidates, Q queries, K candidates per query, D width, B pictures of a block

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from manifests.sample import CALLED_PRESENT, MinedKind, NegativeKind
from miners.context import Context
from miners.exact_search import exact_scores, float32_error
from miners.index import Index
from miners.outside import Said
from miners.phrase_queries import PhraseQueries, Scores, pair_scores
from miners.pool import NO_COLUMN, Pool

MAX_DEPTH = 1 << 14  # pictures that are looked at for one phrase
CONTEXT_WEIGHT = 1.5  # of the logarithm of the neighbours' vote, beside a standard score
_BLOCK_CELLS = 1 << 22

NearKind = Literal[NegativeKind.NEAR_IMAGE, NegativeKind.NEAR_TEXT]  # found by rows, where false alarms are answered
_Side = NDArray[np.int64]


def sides(kind: MinedKind, row_c: _Side, column_c: _Side) -> tuple[_Side, _Side]:
    """Of each candidate the side that asks and the other: a phrase asks for pictures, or a picture for phrases."""
    match kind:
        case NegativeKind.NEAR_IMAGE:
            return column_c, row_c
        case NegativeKind.NEAR_TEXT | NegativeKind.FALSE_ALARM:
            return row_c, column_c


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Pairs, sorted by query and hardest first within it; rows and columns are the pool's."""

    kind: MinedKind
    row_c: NDArray[np.int64]
    column_c: NDArray[np.int64]
    score_c: NDArray[np.float64]  # cosine; presence for a false alarm
    standard_c: NDArray[np.float64]
    evidence_c: NDArray[np.float64]  # that the phrase is there after all; NaN for a false alarm
    positive_c: NDArray[np.float64]  # standard score that margins compare with; NaN where there is none
    positive_score_c: NDArray[np.float64]  # the same as a cosine

    @property
    def query_c(self) -> NDArray[np.int64]:
        """The side that asks, see `sides`."""
        return sides(self.kind, self.row_c, self.column_c)[0]

    def __len__(self) -> int:
        return len(self.row_c)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Searcher:
    """A pool with what its phrases ask, its pictures in an index, and what stands around each."""

    pool: Pool
    queries: PhraseQueries
    index: Index
    context: Context


def near_image(searcher: Searcher, depth_v: NDArray[np.int64]) -> Iterator[Candidates]:
    """For each phrase the pictures that look most like it, `depth_v` of them at most; some phrases at a time."""
    pool, ranking = searcher.pool, searcher.queries.ranking
    depth_v = np.minimum(depth_v, min(MAX_DEPTH, pool.num_pictures))
    start = 0
    while start < pool.num_phrases:
        stop = _reach(depth_v, start)
        depth = int(depth_v[start:stop].max(initial=0))
        found = searcher.index.search(ranking.rows_vd[start:stop], depth)
        inside = (found.rows_qk >= 0) & (np.arange(depth)[None, :] < depth_v[start:stop, None])
        column_c, row_c = np.repeat(np.arange(start, stop), inside.sum(axis=1)), found.rows_qk[inside]
        positive_c = searcher.queries.positive_v[column_c]
        positives = positive_c, ranking.cosine(positive_c, column_c)
        evidence_qk = exact_scores(
            searcher.queries.evidence.rows_vd[start:stop],
            pool.images_nd,
            found.rows_qk,
            num_threads=searcher.index.num_threads,
        )
        scores = found.scores_qk[inside], evidence_qk[inside]
        yield _hardest_first(NegativeKind.NEAR_IMAGE, searcher, row_c, column_c, scores, positives)
        start = stop


def _reach(depth_v: NDArray[np.int64], start: int) -> int:
    """How far from `start` phrases can be taken together within a block's cells; at least one."""
    widest = np.maximum.accumulate(depth_v[start:])
    cells = widest * np.arange(1, len(widest) + 1)
    return start + max(1, int(np.searchsorted(cells, _BLOCK_CELLS, side="right")))


def _hardest_first(
    kind: NearKind,
    searcher: Searcher,
    row_c: NDArray[np.int64],
    column_c: NDArray[np.int64],
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    positives: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Candidates:
    """The pairs by query, and within it by standard score and context; ties by the other side.

    `scores` are the cosines with the vectors that rank and that weigh the evidence, `positives` the standard score and
    the cosine that each is compared with.
    """
    queries = searcher.queries
    score_c, evidence_c = scores
    standard_c = queries.ranking.standard(score_c, column_c)
    hardness_c = standard_c + CONTEXT_WEIGHT * searcher.context.bonus(row_c, column_c)
    query_c, other_c = sides(kind, row_c, column_c)
    order = _order(query_c, hardness_c, other_c)
    row_c, column_c = row_c[order], column_c[order]
    return Candidates(
        kind=kind,
        row_c=row_c,
        column_c=column_c,
        score_c=score_c[order],
        standard_c=standard_c[order],
        evidence_c=queries.evidence.standard(evidence_c[order], column_c) + queries.prior_v[column_c],
        positive_c=positives[0][order],
        positive_score_c=positives[1][order],
    )


def _order(
    query_c: NDArray[np.int64], hardness_c: NDArray[np.float64], other_c: NDArray[np.int64]
) -> NDArray[np.int64] | slice:
    """By query, hardest first, ties by other; all as they stand where an index without votes has sorted them so."""
    equal_c = query_c[1:] == query_c[:-1]
    tied_c = hardness_c[1:] == hardness_c[:-1]
    later_c = np.where(tied_c, other_c[1:] > other_c[:-1], hardness_c[1:] < hardness_c[:-1])
    if bool(np.all(np.where(equal_c, later_c, query_c[1:] > query_c[:-1]))):
        return slice(None)
    return np.lexsort((other_c, -hardness_c, query_c))


def near_text(searcher: Searcher, depth: int) -> Iterator[Candidates]:
    """For each picture the `depth` phrases that look most like it, ties by column; some pictures at a time."""
    pool, ranking = searcher.pool, searcher.queries.ranking
    depth = min(depth, pool.num_phrases)
    rows_vd, mean_v = ranking.rows_vd.astype(np.float32), ranking.mean_v.astype(np.float32)
    error_v = _hardness_error(ranking)
    lowest_n, lowest_cosine_n = _lowest_present(searcher)
    step = max(1, _BLOCK_CELLS // max(1, pool.num_phrases))
    for start in range(0, pool.num_pictures, step):
        stop = min(start + step, pool.num_pictures)
        hardness_bv = (pool.images_nd[start:stop].astype(np.float32) @ rows_vd.T - mean_v) / ranking.deviation_v
        hardness_bv += CONTEXT_WEIGHT * searcher.context.bonuses(start, stop)
        row_c, column_c = _likely(hardness_bv, error_v, depth)
        row_c += start
        score_c = pair_scores(pool.images_nd, row_c, ranking.rows_vd, column_c)
        evidence_c = pair_scores(pool.images_nd, row_c, searcher.queries.evidence.rows_vd, column_c)
        own_c, empty_c = searcher.queries.positive_v[column_c], np.isnan(lowest_n[row_c])
        positives = (
            np.where(empty_c, own_c, lowest_n[row_c]),
            np.where(empty_c, ranking.cosine(own_c, column_c), lowest_cosine_n[row_c]),
        )
        found = _hardest_first(NegativeKind.NEAR_TEXT, searcher, row_c, column_c, (score_c, evidence_c), positives)
        place_c = np.arange(len(found)) - np.searchsorted(found.row_c, found.row_c, side="left")
        yield taken(found, place_c < depth)


def _hardness_error(ranking: Scores) -> NDArray[np.float64]:
    """A bound on the error of a hardness that was taken from float32 scores, for each phrase [V]."""
    rounding = 4 * float(np.finfo(np.float32).eps)  # of a score less its mean, and of what follows in float64
    error_v: NDArray[np.float64] = (float32_error(ranking.rows_vd.shape[1]) + rounding) / ranking.deviation_v
    return error_v


def _likely(
    hardness_bv: NDArray[np.float64], error_v: NDArray[np.float64], depth: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of all cells that may be among the `depth` hardest of their row, by row.

    At least `depth` cells of a row lie above the `depth`-th of the lower bounds; what cannot reach it is out. So every
    cell that ties with the last is in, however many there are.
    """
    edge_b1 = -np.partition(error_v - hardness_bv, depth - 1, axis=1)[:, depth - 1, None]
    row_c, column_c = np.nonzero(hardness_bv + error_v >= edge_b1)
    return row_c, column_c


def _lowest_present(searcher: Searcher) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest standard score and lowest cosine of every picture's present phrases [N]; NaN where it has none."""
    pool, ranking = searcher.pool, searcher.queries.ranking
    row_p, column_p = pool.present()
    score_p = pair_scores(pool.images_nd, row_p, ranking.rows_vd, column_p)
    found = []
    for value_p in (ranking.standard(score_p, column_p), score_p):
        lowest_n = np.full(pool.num_pictures, np.inf)
        np.minimum.at(lowest_n, row_p, value_p)
        found.append(np.where(np.isinf(lowest_n), np.nan, lowest_n))
    return found[0], found[1]


def taken(candidates: Candidates, chosen_c: NDArray[np.bool_]) -> Candidates:
    """Some of the candidates."""
    columns = {
        field.name: getattr(candidates, field.name)[chosen_c] for field in fields(candidates) if field.name != "kind"
    }
    return Candidates(kind=candidates.kind, **columns)


def false_alarms(pool: Pool, said: Said) -> Candidates:
    """For each picture the phrases whose presence a student predicts, highest first; scores are presences."""
    row_of_picture = np.full(pool.inventory.num_images, -1, np.int64)
    row_of_picture[pool.picture_n] = np.arange(pool.num_pictures)
    row_p, column_p = row_of_picture[said.image_p], pool.column_of_phrase[said.phrase_p]
    here = np.flatnonzero((row_p >= 0) & (column_p != NO_COLUMN))
    score_p = said.presence_p[here]
    alarms = here[score_p >= CALLED_PRESENT]
    mean, deviation = (float(score_p.mean()), float(score_p.std())) if len(here) else (0.0, 0.0)
    order = alarms[np.lexsort((column_p[alarms], -said.presence_p[alarms], row_p[alarms]))]
    score_c = said.presence_p[order]
    nothing_c = np.full(len(order), np.nan)
    return Candidates(
        kind=NegativeKind.FALSE_ALARM,
        row_c=row_p[order],
        column_c=column_p[order],
        score_c=score_c,
        standard_c=(score_c - mean) / max(deviation, float(np.finfo(np.float32).eps)),
        evidence_c=nothing_c,
        positive_c=nothing_c,
        positive_score_c=nothing_c,
    )
