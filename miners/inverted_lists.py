"""An index in inverted lists, for pools that are too large for a pass over all rows: built once, kept in a file.

FAISS holds the lists and scans them. Which list a row stands in, and which lists a query looks into, is decided here,
by exact scores with centroids that are themselves float16 rows: so neither threads nor chunks can move a row or a
probe, and the same pool gives the same lists on any machine. (FAISS's own k-means and coarse search sum in float32, in
an order that depends on both.) Codes are the float16 rows themselves, or products of 8-bit codes where those are too
large.
"""

# N rows of the pool, S rows of a sample, L lists, Q queries, P proposals, D width, B rows of a block

from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from miners.exact_search import Pool, Rows, omp_threads, search_exactly

MAX_LISTS = 1 << 15
ROWS_A_LIST = 32  # of the sample that centroids are learnt from
CODES = 256  # values of a product code
_ROUNDS = 8
_PQ_ROWS = 1 << 16
_PQ_ROUNDS = 10
_DIMS_A_CODE = 8  # dimensions that one byte stands for
_BLOCK_ROWS = 1 << 14
_FEW_MORE = 3  # centroids proposed beyond the nearest


class Coarse(Protocol):
    """The centroids that FAISS keeps in an index."""

    def reconstruct_n(self, first: int, num: int) -> NDArray[np.float32]:
        """Centroids [num, D]."""


class InvertedLists(Protocol):
    """What is used of `faiss.IndexIVF`, as its Python wrapper takes it (the stubs tell of the C++ signatures)."""

    nlist: int
    nprobe: int
    quantizer: Coarse

    def train(self, rows_sd: NDArray[np.float32], /) -> None:
        """Learn the codes."""

    def add_core(self, num: int, rows: object, ids: object, lists: object, /) -> None:
        """Add rows to lists that are named."""

    def search_preassigned(
        self, queries_qd: NDArray[np.float32], num: int, lists: NDArray[np.int64], scores: NDArray[np.float32], /
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best `k` in lists that are named."""


def num_lists(num_rows: int) -> int:
    """Lists for a pool: the power of two above 8 times the square root of its rows, and at least 32 rows a list."""
    wanted = 1 << int(np.ceil(np.log2(max(1.0, 8 * np.sqrt(num_rows)))))
    return max(1, min(wanted, MAX_LISTS, num_rows // ROWS_A_LIST))


def learn_centroids(sample_sd: Rows, num: int, num_threads: int) -> Rows:
    """`num` unit rows [L, D] around which the sample lies: spherical k-means that starts from its first rows.

    Sums of float16 numbers are exact in float64, so each step is the same in any order.
    """
    centroids_ld = sample_sd[:num].copy()
    for _ in range(_ROUNDS):
        nearest_s = nearest(centroids_ld, sample_sd, num_threads)
        order = np.argsort(nearest_s, kind="stable")
        edges = np.searchsorted(nearest_s[order], np.arange(num + 1))
        for place in np.flatnonzero(np.diff(edges)):
            total_d = sample_sd[order[edges[place] : edges[place + 1]]].sum(axis=0, dtype=np.float64)
            if total_d.any():
                centroids_ld[place] = _unit(total_d)
    return centroids_ld


def _unit(total_d: NDArray[np.float64]) -> Rows:
    """The direction of a sum as a float16 row of length 1; every step is exact, or one rounding of its own."""
    rough_d = (total_d / np.abs(total_d).max()).astype(np.float16)
    square = rough_d.astype(np.float64) @ rough_d.astype(np.float64)
    unit_d: Rows = (rough_d / np.sqrt(square)).astype(np.float16)
    return unit_d


def nearest(centroids_ld: Rows, rows_bd: Rows, num_threads: int) -> NDArray[np.int64]:
    """The list [B] of each row, by exact score."""
    found = probes(centroids_ld, rows_bd, 1, num_threads)[1]
    return found[:, 0]


def probes(
    centroids_ld: Rows, rows_bd: Rows, num: int, num_threads: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores and numbers [B, num] of the nearest lists, nearest first."""
    pool = Pool(rows_nd=centroids_ld, place_n=None)
    scores, lists = [np.empty((0, num))], [np.empty((0, num), np.int64)]
    for start in range(0, len(rows_bd), _BLOCK_ROWS):
        here = rows_bd[start : start + _BLOCK_ROWS]
        found = search_exactly(pool, here, num, block_rows=len(pool), num_threads=num_threads, slack=_FEW_MORE)
        scores.append(found.scores_qk)
        lists.append(found.rows_qk)
    return np.concatenate(scores), np.concatenate(lists)


def make_lists(rows_nd: Rows, sample_s: NDArray[np.int64], *, products: bool, num_threads: int) -> InvertedLists:
    """The filled index.

    Args:
        rows_nd: The pool.
        sample_s: Rows that centroids and codes are learnt from, in an order that depends on keys alone.
        products: Codes are products of 8-bit codes; else the float16 rows themselves.
        num_threads: Threads.
    """
    sample_sd = rows_nd[sample_s]
    centroids_ld = learn_centroids(sample_sd, num_lists(len(rows_nd)), num_threads)
    index = _empty_lists(centroids_ld, products=products)
    with omp_threads(1):  # sums of its k-means then have one order
        index.train(sample_sd[:_PQ_ROWS].astype(np.float32))
    for start in range(0, len(rows_nd), _BLOCK_ROWS):
        block_bd = rows_nd[start : start + _BLOCK_ROWS]
        list_b = nearest(centroids_ld, block_bd, num_threads)
        row_b = np.arange(start, start + len(block_bd))
        with omp_threads(num_threads):
            _add(index, block_bd.astype(np.float32), row_b, list_b)
    return index


def _empty_lists(centroids_ld: Rows, *, products: bool) -> InvertedLists:
    import faiss

    num, width = centroids_ld.shape
    coarse, metric = faiss.IndexFlatIP(width), faiss.METRIC_INNER_PRODUCT
    coarse.add(centroids_ld.astype(np.float32))
    if not products:
        same = faiss.ScalarQuantizer.QT_fp16
        return cast(InvertedLists, faiss.IndexIVFScalarQuantizer(coarse, width, num, same, metric, False))
    index = faiss.IndexIVFPQ(coarse, width, num, num_codes(width), 8, metric)
    index.pq.cp.niter = _PQ_ROUNDS
    return cast(InvertedLists, index)


def num_codes(width: int) -> int:
    """Bytes of a row in product codes: one for 8 dimensions, or the most below that which divide the width."""
    return max(part for part in range(1, max(1, width // _DIMS_A_CODE) + 1) if width % part == 0)


def _add(
    index: InvertedLists, block_bd: NDArray[np.float32], row_b: NDArray[np.int64], list_b: NDArray[np.int64]
) -> None:
    import faiss

    pointers = [faiss.swig_ptr(array) for array in (block_bd, row_b, np.ascontiguousarray(list_b))]
    index.add_core(len(block_bd), *pointers)


def centroids_of(index: InvertedLists) -> Rows:
    """The centroids [L, D] of an index, as they were learnt."""
    found: Rows = index.quantizer.reconstruct_n(0, index.nlist).astype(np.float16)
    return found


def propose_from_lists(
    index: InvertedLists, centroids_ld: Rows, queries_qd: Rows, num: int, num_probes: int, num_threads: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Float32 scores and rows [Q, num] of the best in each query's nearest lists; -1 where there are fewer."""
    scores_ql, lists_ql = probes(centroids_ld, queries_qd, num_probes, num_threads)
    index.nprobe = num_probes
    with omp_threads(num_threads):
        scores_qp, rows_qp = index.search_preassigned(
            queries_qd.astype(np.float32), num, lists_ql, scores_ql.astype(np.float32)
        )
    return scores_qp, rows_qp


def recall_by_score(found_qk: NDArray[np.float64], exact_qk: NDArray[np.float64]) -> float:
    """Share of the neighbours found that score at least as high as the lowest true neighbour."""
    if not exact_qk.size:
        return 1.0
    return float(np.mean(found_qk >= exact_qk[:, -1:]))
