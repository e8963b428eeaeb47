"""Mean and deviation of a query's scores over a pool, in closed form: what turns a cosine into a standard score.

With the pool's mean m and covariance C, the scores of a query q have mean m.q and variance q'Cq, so that
z = (score - m.q) / sqrt(q'Cq) needs one matrix per pool and no pass over it per query. Both are taken from at most 2^12
rows, chosen by a hash of their keys.

No order of summation can show: sums over rows are taken exactly or in one fixed order, m and C are rounded to multiples
of 2^-28, and then every product with a float16 query is a multiple of 2^-52 in a sum below 2, which 53 bits hold.
"""

# N rows of the pool, S rows of the sample, Q queries, D width, B rows of a block

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.errors import TableError
from miners.exact_search import Rows, available_threads, check_unit_rows
from miners.key_sample import sample_rows

SAMPLE_ROWS = 1 << 12  # a deviation is then off by about one percent
DEVIATION_FLOOR = 2.0**-10  # scores of a real pool deviate by 0.02 and more; equal rows, by nothing
_GRID = 2.0**28
_COARSE = 2.0**12
_QUERIES = 512  # standardised at once: they stay in the cache


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolStatistics:
    """Mean and covariance of a pool's rows, on a grid of 2^-28."""

    mean_d: NDArray[np.float64]
    covariance_dd: NDArray[np.float64]

    def standardise(self, queries_qd: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation [Q] of each unit query's scores over the pool, rounded to float32.

        The deviation is at least DEVIATION_FLOOR, so that a pool of one row or of equal rows gives finite scores.

        Raises:
            TableError: the queries are of another width, or are no unit rows.
        """
        check_unit_rows(queries_qd, "queries", lambda row: f"row {row}", num_threads=1)
        if queries_qd.shape[1] != len(self.mean_d):
            raise TableError(
                f"queries: rows of width {queries_qd.shape[1]}, but the pool's have {len(self.mean_d)}; "
                "expected the rows of one encoder: embed both with the same"
            )
        mean_q, variance_q = np.empty(len(queries_qd)), np.empty(len(queries_qd))
        for start in range(0, len(queries_qd), _QUERIES):
            here = slice(start, start + _QUERIES)
            exact_bd = queries_qd[here].astype(np.float64)
            mean_q[here] = exact_bd @ self.mean_d
            variance_q[here] = np.vecdot(_on_grid(exact_bd @ self.covariance_dd), exact_bd)
        return _as_float32(mean_q), _as_float32(np.sqrt(np.maximum(variance_q, DEVIATION_FLOOR**2)))


def pool_statistics(rows_nd: Rows, keys: pa.Array) -> PoolStatistics:
    """Mean and covariance of the pool, from at most SAMPLE_ROWS of its rows.

    Raises:
        TableError: the pool is empty, or a row is no unit row.
    """
    if not len(rows_nd):
        raise TableError("embeddings: the pool has no row, so scores have no deviation; expected at least one picture")
    chosen = sample_rows(keys, SAMPLE_ROWS, "pool statistics")
    sample_sd = rows_nd[chosen]
    name = "row {} of the pool"
    check_unit_rows(sample_sd, "embeddings", lambda row: name.format(int(chosen[row])), num_threads=available_threads())
    mean_d = sample_sd.sum(axis=0, dtype=np.float64) / len(sample_sd)  # multiples of 2^-24: exact
    second_dd = _second_moment(sample_sd)
    covariance_dd = second_dd - np.outer(mean_d, mean_d)
    return PoolStatistics(mean_d=_on_grid(mean_d), covariance_dd=_on_grid(covariance_dd))


def _second_moment(sample_sd: Rows) -> NDArray[np.float64]:
    """The mean of x x' [D, D].

    Every number is split into a multiple of 2^-12 and a rest below it, a multiple of 2^-24. Of 2^12 rows of length 1,
    the products of such parts sum to less than 2^13, 2 and 2^-13 and are multiples of 2^-24, 2^-36 and 2^-48: 53 bits
    hold each sum, in any order. The three are then added in one order.
    """
    exact_sd = sample_sd.astype(np.float64)
    coarse_sd = np.rint(exact_sd * _COARSE) / _COARSE
    fine_sd = exact_sd - coarse_sd
    mixed_dd = coarse_sd.T @ fine_sd
    total_dd = coarse_sd.T @ coarse_sd + (mixed_dd + mixed_dd.T) + fine_sd.T @ fine_sd
    return total_dd / len(sample_sd)


def _on_grid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    rounded: NDArray[np.float64] = values * _GRID
    np.rint(rounded, out=rounded)
    rounded /= _GRID  # a power of two: exact
    return rounded


def _as_float32(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)
