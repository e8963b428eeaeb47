"""The rows of a pool that score highest with a query, exactly: FAISS proposes, the stored float16 rows decide.

A float32 dot product, as FAISS ranks by, is off by at most D * 2^-24 for unit rows (Higham, 2002, section 3.1). Where
the last row that was proposed might hide better ones by that error (near-copies do that), the query is scanned again.
"""

# N rows of the pool, Q queries, K neighbours, P proposals per query, S queries scanned again, D width

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.errors import TableError
from miners.dots import named_dots

logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells which faster builds of it are not there
A = TypeVar("A")
R = TypeVar("R")
Rows = NDArray[np.float16]
NO_ROW = -1
SLACK = 8  # rows proposed beyond those asked for
_LENGTH_TOLERANCE = 0.01  # of a unit row in float16
_SCAN_QUERIES = 256
_CAST_BYTES = 1 << 20  # of float64 rows that are made at once
_TURNS = 16  # calls that each thread takes on, so that none waits long for the last


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neighbours:
    """What was found for each query: highest score first, ties by key."""

    scores_qk: NDArray[np.float64]  # exact cosines; -inf where there are fewer rows
    rows_qk: NDArray[np.int64]  # rows of the pool; NO_ROW where there are fewer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Unit rows that are searched, and the order of their keys."""

    rows_nd: Rows
    place_n: NDArray[np.int64] | None  # where each row stands when sorted by key; None where they are sorted

    @property
    def width(self) -> int:
        """D."""
        return int(self.rows_nd.shape[1])

    def __len__(self) -> int:
        return len(self.rows_nd)


def make_pool(rows_nd: Rows, keys: pa.Array, *, num_threads: int) -> Pool:
    """The pool of unit rows and their keys.

    Raises:
        TableError: a row is no unit row (it says which and why), or rows and keys are not as many.
    """
    if len(keys) != len(rows_nd):
        raise TableError(f"embeddings: {len(rows_nd)} rows for {len(keys)} keys; expected one key for each row")
    check_unit_rows(rows_nd, "embeddings", lambda row: f"row {row} ({keys[row].as_py()})", num_threads=num_threads)
    if pc.all(pc.less_equal(keys[:-1], keys[1:])).as_py() is not False:
        return Pool(rows_nd=rows_nd, place_n=None)
    place_n = np.empty(len(keys), np.int64)
    place_n[pc.array_sort_indices(keys).to_numpy()] = np.arange(len(keys))
    return Pool(rows_nd=rows_nd, place_n=place_n)


def check_unit_rows(rows_nd: Rows, what: str, name: Callable[[int], str], *, num_threads: int) -> None:
    """Nothing, where all is well.

    Raises:
        TableError: the rows are not float16 of shape [N, D], or one is not finite, is zero, or is not of length 1.
    """
    if rows_nd.dtype != np.float16 or rows_nd.ndim != 2:
        found = f"{rows_nd.dtype} of shape {list(rows_nd.shape)}"
        raise TableError(f"{what}: expected float16 rows [rows, width], found {found}; embed them again")

    step = _cast_rows(rows_nd)

    def first_bad(start: int) -> int:
        block_bd = rows_nd[start : start + step].astype(np.float64)
        squares_b = np.vecdot(block_bd, block_bd)
        bad = np.flatnonzero(~(np.abs(squares_b - 1) <= 2 * _LENGTH_TOLERANCE))
        return start + int(bad[0]) if len(bad) else NO_ROW

    found_rows = in_threads(first_bad, range(0, len(rows_nd), step), num_threads)
    row = next((row for row in found_rows if row != NO_ROW), NO_ROW)
    if row != NO_ROW:
        raise TableError(
            f"{what}: {name(row)} {_what_is_wrong(rows_nd[row])}; expected a finite row of length 1. "
            "The file is damaged or of another tool: embed it again"
        )


def _what_is_wrong(row_d: Rows) -> str:
    if not np.isfinite(row_d).all():
        return "holds NaN or infinity"
    length = float(np.linalg.norm(row_d.astype(np.float64)))
    return f"has length {length:.3g}" if length else "is all zeros"


def exact_scores(
    queries_qd: Rows, rows_nd: Rows, rows_qk: NDArray[np.int64], *, num_threads: int = 1
) -> NDArray[np.float64]:
    """Exact cosines [Q, K] of each query with the rows named for it; -inf for NO_ROW."""
    scores_qk = np.full(rows_qk.shape, -np.inf)
    if not scores_qk.size or not len(rows_nd):
        return scores_qk
    fill = named_dots.form_for(rows_qk.size * rows_nd.shape[1])
    bits_nd = np.asarray(rows_nd).view(np.uint16)
    step = -(-len(rows_qk) // (_TURNS * num_threads))

    def fill_some(top: int) -> None:
        here = slice(top, top + step)
        fill(queries_qd[here].astype(np.float64), bits_nd, rows_qk[here], scores_qk[here])

    in_threads(fill_some, range(0, len(rows_qk), step), num_threads)
    return scores_qk


def search_exactly(
    pool: Pool, queries_qd: Rows, num: int, *, block_rows: int, num_threads: int, slack: int = SLACK
) -> Neighbours:
    """The `num` rows of the pool that score highest with each query, by a pass over all rows in blocks."""
    blocks = _float32_blocks(pool.rows_nd, block_rows, num_threads)
    proposed = _propose(blocks, queries_qd.astype(np.float32), num + slack, num_threads)
    return settle(pool, queries_qd, proposed, num, complete=False, block_rows=block_rows, num_threads=num_threads)


def _propose(
    blocks: Iterable[tuple[int, NDArray[np.float32]]], queries_qd: NDArray[np.float32], num: int, num_threads: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The best rows by float32 score [Q, P], kept over blocks of the pool, each with its first row."""
    import faiss

    scores_qp = np.empty((len(queries_qd), 0), np.float32)
    rows_qp = np.empty((len(queries_qd), 0), np.int64)
    for start, block_bd in blocks:
        with omp_threads(num_threads):
            found, rows = faiss.knn(queries_qd, block_bd, min(num, len(block_bd)), faiss.METRIC_INNER_PRODUCT)
        scores_qp = np.concatenate([scores_qp, found], axis=1)
        rows_qp = np.concatenate([rows_qp, rows + start], axis=1)
        if start:
            best = np.argpartition(-scores_qp, min(num, scores_qp.shape[1]) - 1, axis=1)[:, :num]
            scores_qp = np.take_along_axis(scores_qp, best, axis=1)
            rows_qp = np.take_along_axis(rows_qp, best, axis=1)
    return scores_qp, rows_qp


def settle(
    pool: Pool,
    queries_qd: Rows,
    proposed: tuple[NDArray[np.float32], NDArray[np.int64]],
    num: int,
    *,
    complete: bool,
    block_rows: int,
    num_threads: int,
) -> Neighbours:
    """The best `num` of the rows proposed, by exact score and key.

    Args:
        pool: All rows.
        queries_qd: The queries.
        proposed: Float32 scores and rows [Q, P]; no row twice for a query.
        num: Neighbours wanted.
        complete: Whether proposals are all that may be had. Else they are the best by float32 score of the whole pool,
            and queries for which that error could hide a better row are scanned again.
        block_rows: Rows in float32 at once.
        num_threads: Threads.
    """
    scores_qp, rows_qp = proposed
    exact_qp = exact_scores(queries_qd, pool.rows_nd, rows_qp, num_threads=num_threads)
    found = ranked(pool, exact_qp, rows_qp, num)
    if complete or not num or rows_qp.shape[1] >= len(pool):
        return found
    error = float32_error(pool.width)
    again = np.flatnonzero(scores_qp.min(axis=1) + error >= found.scores_qk[:, -1])
    for start in range(0, len(again), _SCAN_QUERIES):
        some = again[start : start + _SCAN_QUERIES]
        kept = Neighbours(scores_qk=found.scores_qk[some], rows_qk=found.rows_qk[some])
        scanned = _scan(pool, queries_qd[some], kept, block_rows, num_threads)
        found.scores_qk[some], found.rows_qk[some] = scanned.scores_qk, scanned.rows_qk
    return found


def float32_error(width: int) -> float:
    """A bound on the error of a float32 dot product of unit rows, in any order of summation."""
    return 1.05 * width * 2.0**-24


def _scan(pool: Pool, queries_sd: Rows, kept: Neighbours, block_rows: int, num_threads: int) -> Neighbours:
    """What all rows that may reach each query's lowest kept score come to; `kept` are rows of the pool."""
    scores_sk, rows_sk = kept.scores_qk.copy(), kept.rows_qk.copy()
    lowest_s = scores_sk[:, -1] - float32_error(pool.width)
    asked_sd = queries_sd.astype(np.float32)
    for start, block_bd in _float32_blocks(pool.rows_nd, block_rows, num_threads):
        likely_sb = asked_sd @ block_bd.T >= lowest_s[:, None]
        for query in np.flatnonzero(likely_sb.any(axis=1)):
            fresh = np.setdiff1d(start + np.flatnonzero(likely_sb[query]), rows_sk[query])[None]
            scores = exact_scores(queries_sd[query, None], pool.rows_nd, fresh, num_threads=num_threads)
            merged = ranked(
                pool,
                np.concatenate([scores_sk[query, None], scores], axis=1),
                np.concatenate([rows_sk[query, None], fresh], axis=1),
                scores_sk.shape[1],
            )
            scores_sk[query], rows_sk[query] = merged.scores_qk[0], merged.rows_qk[0]
    return Neighbours(scores_qk=scores_sk, rows_qk=rows_sk)


def ranked(pool: Pool, scores_qp: NDArray[np.float64], rows_qp: NDArray[np.int64], num: int) -> Neighbours:
    """The best `num` by score, ties by key; filled up with -inf and NO_ROW."""
    missing = max(0, num - rows_qp.shape[1])
    if missing:
        scores_qp = np.pad(scores_qp, ((0, 0), (0, missing)), constant_values=-np.inf)
        rows_qp = np.pad(rows_qp, ((0, 0), (0, missing)), constant_values=NO_ROW)
    place_qp = rows_qp if pool.place_n is None or not len(pool) else pool.place_n[rows_qp]
    order = np.lexsort((place_qp, -scores_qp), axis=-1)[:, :num]
    return Neighbours(
        scores_qk=np.take_along_axis(scores_qp, order, axis=1), rows_qk=np.take_along_axis(rows_qp, order, axis=1)
    )


def _float32_blocks(rows_nd: Rows, block_rows: int, num_threads: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First row and float32 rows of each block; the memory of a block is used again for the next."""
    buffer = np.empty((min(block_rows, len(rows_nd)), rows_nd.shape[1]), np.float32)
    step = _cast_rows(rows_nd)
    for start in range(0, len(rows_nd), block_rows):
        block_bd = buffer[: len(rows_nd) - start]

        def convert(first: int, start: int = start, block_bd: NDArray[np.float32] = block_bd) -> None:
            last = min(first + step, len(block_bd))
            block_bd[first:last] = rows_nd[start + first : start + last].astype(np.float64)

        in_threads(convert, range(0, len(block_bd), step), num_threads)
        yield start, block_bd


def _cast_rows(rows_nd: Rows) -> int:
    """Float16 rows that are cast at once: numpy's way over float64 is the fast one, while it stays in the cache."""
    width: int = rows_nd.shape[1]
    return max(1, _CAST_BYTES // (8 * max(1, width)))


def in_threads(run: Callable[[A], R], arguments: Iterable[A], num_threads: int) -> list[R]:
    """What `run` gives for each argument, in their order; numpy leaves the interpreter's lock alone meanwhile."""
    if num_threads == 1:
        return [run(one) for one in arguments]
    waiting = list(arguments)
    step = max(1, len(waiting) // (_TURNS * num_threads))
    with ThreadPoolExecutor(num_threads) as executor:
        turns = [waiting[start : start + step] for start in range(0, len(waiting), step)]
        return [found for turn in executor.map(lambda turn: [run(one) for one in turn], turns) for found in turn]


@contextmanager
def omp_threads(num_threads: int) -> Iterator[None]:
    """FAISS at `num_threads` threads within the block."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def available_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
