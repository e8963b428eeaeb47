"""What each phrase asks the pictures with: one vector that ranks them, one that weighs whether the phrase is there.

A phrase is known by three things: its text, the crops of its known positives, and the whole pictures that show it. Each
gives an inner product with a picture; divided by the deviation of its own scores over the pool, none drowns another,
and their weighted sum is again one inner product, which an index can rank.

The ranking vector says *it looks alike*: text + ½ crops + ½ pictures. The evidence vector says *it is there*: text, and
the linear discriminant that tells the known positives from the pool (Fisher, 1936; covariance shrunk as in Ledoit and
Wolf, 2004, towards its mean variance, positives towards the text). Decision 9 has what was measured.
"""

# V phrases, C crops, D width, P present pairs

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miners.pool import Pool
from miners.standard import PoolStatistics

CROP_WEIGHT = PICTURE_WEIGHT = 0.5  # in the ranking vector, beside 1 for the text
TEXT_EVIDENCE, DISCRIMINANT_EVIDENCE = 0.36, 0.64
PRIOR = 1.3  # evidence for each factor e in the number of known positives
_SHRINKAGE = 1.5  # of the covariance, in mean variances
_TEXT_POSITIVES = 2.0  # positives that the text counts for in the discriminant
_FLAT = 1e-6  # distance of a text from the mean text below which it is that
_TEXT_LENGTH = 0.5  # of a picture's mean distance from the pool's mean
_BLOCK_CELLS = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """One vector per phrase, and how its scores lie over the pool."""

    rows_vd: NDArray[np.float16]  # unit rows
    mean_v: NDArray[np.float64]
    deviation_v: NDArray[np.float64]

    def standard(self, score_c: NDArray[np.float64], column_c: NDArray[np.int64]) -> NDArray[np.float64]:
        """Standard scores of cosines with the phrases of some columns."""
        found: NDArray[np.float64] = (score_c - self.mean_v[column_c]) / self.deviation_v[column_c]
        return found

    def cosine(self, standard_c: NDArray[np.float64], column_c: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cosines of standard scores, the reverse of `standard`."""
        found: NDArray[np.float64] = standard_c * self.deviation_v[column_c] + self.mean_v[column_c]
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhraseQueries:
    """What each phrase asks with."""

    ranking: Scores
    evidence: Scores
    prior_v: NDArray[np.float64]  # added to the standard evidence of each phrase
    positive_v: NDArray[np.float64]  # standard ranking score of the phrase's lowest positive; NaN where it has none


def phrase_queries(pool: Pool, statistics: PoolStatistics) -> PhraseQueries:
    """The queries of all phrases of the pool, from what its labels say is present."""
    row, column = pool.present()
    text_vd = _in_deviations(statistics, pool.texts_vd)
    ranking = _scores(statistics, _asked(pool, statistics, row, column, text_vd))
    discriminant_vd = _discriminants(pool, statistics, row, column)
    weighed_vd = TEXT_EVIDENCE * text_vd + DISCRIMINANT_EVIDENCE * _scaled(statistics, discriminant_vd)
    standard_p = ranking.standard(pair_scores(pool.images_nd, row, ranking.rows_vd, column), column)
    positive_v = np.full(pool.num_phrases, np.inf)
    np.minimum.at(positive_v, column, standard_p)
    positive_v[np.isinf(positive_v)] = np.nan
    return PhraseQueries(
        ranking=ranking,
        evidence=_scores(statistics, weighed_vd),
        prior_v=_prior(np.bincount(column, minlength=pool.num_phrases)),
        positive_v=positive_v,
    )


def _asked(
    pool: Pool,
    statistics: PoolStatistics,
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    text_vd: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Each phrase's text, its crops and the pictures that show it, together."""
    crop_vd = _mean_rows(_in_deviations(statistics, pool.crops.crops_cd), pool.crops.column_c, text_vd)
    asked_vd = text_vd + CROP_WEIGHT * _scaled(statistics, crop_vd)
    del crop_vd
    asked_vd += PICTURE_WEIGHT * _scaled(statistics, _mean_pictures(pool, statistics, row, column, text_vd))
    return asked_vd


def pair_scores(
    left_nd: NDArray[np.float16], left_p: NDArray[np.int64], right_vd: NDArray[np.float16], right_p: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Exact dot products [P] of the named rows: products of float16 fit a float64's mantissa, so no order rounds."""
    found = np.empty(len(left_p), np.float64)
    step = max(1, _BLOCK_CELLS // max(1, left_nd.shape[1]))
    for start in range(0, len(left_p), step):
        here = slice(start, start + step)
        left_pd, right_pd = left_nd[left_p[here]].astype(np.float64), right_vd[right_p[here]].astype(np.float64)
        found[here] = np.einsum("pd,pd->p", left_pd, right_pd)
    return found


def _in_deviations(statistics: PoolStatistics, rows_nd: NDArray[np.float16]) -> NDArray[np.float64]:
    """The rows, each divided by the deviation of its scores over the pool."""
    _, deviation_n = statistics.standardise(rows_nd)
    found: NDArray[np.float64] = rows_nd.astype(np.float64) / deviation_n[:, None]
    return found


def _mean_rows(
    rows_cd: NDArray[np.float64], column_c: NDArray[np.int64], otherwise_vd: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The mean row of each column (sorted); the phrase's own where it has none."""
    means_vd = otherwise_vd.copy()
    if len(column_c):
        columns, first, counts = np.unique(column_c, return_index=True, return_counts=True)
        means_vd[columns] = np.add.reduceat(rows_cd, first, axis=0) / counts[:, None]
    return means_vd


def _mean_pictures(
    pool: Pool,
    statistics: PoolStatistics,
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    otherwise_vd: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The mean of the pictures that show each phrase, each in its own deviations; the phrase's own where none does."""
    num_v = np.bincount(column, minlength=pool.num_phrases)
    sum_vd = np.zeros_like(otherwise_vd)
    step = max(1, _BLOCK_CELLS // max(1, sum_vd.shape[1]))
    for start in range(0, len(row), step):
        here = slice(start, start + step)
        np.add.at(sum_vd, column[here], _in_deviations(statistics, pool.images_nd[row[here]]))
    means_vd: NDArray[np.float64] = np.where(num_v[:, None] > 0, sum_vd / np.maximum(num_v, 1)[:, None], otherwise_vd)
    return means_vd


def _scaled(statistics: PoolStatistics, rows_vd: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows, scaled so that their scores have a deviation of 1 over the pool."""
    return _in_deviations(statistics, _unit(rows_vd))


def _scores(statistics: PoolStatistics, rows_vd: NDArray[np.float64]) -> Scores:
    unit_vd = _unit(rows_vd)
    mean_v, deviation_v = statistics.standardise(unit_vd)
    return Scores(rows_vd=unit_vd, mean_v=mean_v, deviation_v=deviation_v)


def _discriminants(
    pool: Pool, statistics: PoolStatistics, row: NDArray[np.int64], column: NDArray[np.int64]
) -> NDArray[np.float64]:
    """For each phrase the direction that best tells its known positives from the pool."""
    covariance_dd, mean_d = statistics.covariance_dd, statistics.mean_d
    width = len(mean_d)
    ridge = _SHRINKAGE * np.trace(covariance_dd) / width
    length = np.sqrt(np.trace(covariance_dd))  # root mean square distance of a picture from the mean
    texts_vd = pool.texts_vd.astype(np.float64)
    text_vd = texts_vd - texts_vd.mean(axis=0)
    distance_v = np.linalg.norm(text_vd, axis=1, keepdims=True)
    text_vd = np.where(distance_v > _FLAT, text_vd, texts_vd)  # a single phrase, or equal ones, have no middle to leave
    text_vd *= _TEXT_LENGTH * length / np.linalg.norm(text_vd, axis=1, keepdims=True)
    sum_vd, num_v = _TEXT_POSITIVES * text_vd, np.bincount(column, minlength=pool.num_phrases)
    step = max(1, _BLOCK_CELLS // width)
    for start in range(0, len(row), step):
        here = slice(start, start + step)
        np.add.at(sum_vd, column[here], pool.images_nd[row[here]].astype(np.float64) - mean_d)
    mean_vd = sum_vd / (num_v + _TEXT_POSITIVES)[:, None]
    found: NDArray[np.float64] = np.linalg.solve(covariance_dd + ridge * np.eye(width), mean_vd.T).T
    return found


def _prior(num_v: NDArray[np.int64]) -> NDArray[np.float64]:
    """Evidence for frequent phrases, relative to the mean: neither the pool's size nor hidden labels shift it."""
    found: NDArray[np.float64] = PRIOR * np.log((num_v + 1) / (num_v.mean() + 1))
    return found


def _unit(rows_vd: NDArray[np.float64]) -> NDArray[np.float16]:
    """The rows at length 1."""
    length = np.sqrt(np.einsum("vd,vd->v", rows_vd, rows_vd))
    found: NDArray[np.float16] = (rows_vd / np.maximum(length, 1e-12)[:, None]).astype(np.float16)
    return found
