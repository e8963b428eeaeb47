"""The rows of a pool nearest to a query, within a memory budget: exact where it can be, in inverted lists beyond.

Which kind is built is one pure function of rows, width and budget (`choose_kind`). Whatever proposes, scores are exact
and ties go by key (`miners.exact_search`), so the answer does not depend on threads, chunks or blocks; inverted lists
of float16 rows that are all looked into give the same as the pass over all rows. No HNSW: its graph depends on the
threads that built it.
"""

# N rows of the pool, Q queries, K neighbours, P proposals per query, S sampled rows, D width

import time
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from manifests import files
from manifests.errors import BuildError, StorageError, TableError
from miners.exact_search import (
    SLACK,
    Neighbours,
    Pool,
    Rows,
    available_threads,
    check_unit_rows,
    exact_scores,
    make_pool,
    search_exactly,
    settle,
)
from miners.index_files import IndexKind, IndexRecord, Lists, digest, read_lists, read_record, record_path, write_index
from miners.inverted_lists import (
    CODES,
    ROWS_A_LIST,
    make_lists,
    num_codes,
    num_lists,
    propose_from_lists,
    recall_by_score,
)
from miners.key_sample import sample_rows

__all__ = ["Index", "IndexKind", "IndexRecord", "Neighbours", "choose_kind", "exact_scores", "open_index"]

FEWEST_ROWS_IN_LISTS = 1 << 14  # below, a pass over all rows takes milliseconds a query
RECALL_WANTED = 0.96
_RECALL_QUERIES = 256
_RECALL_NEIGHBOURS = 100
_PQ_PROPOSALS = 6  # proposals for each neighbour wanted, where codes are coarse
_MOST_BLOCK_ROWS, _LEAST_BLOCK_ROWS = 1 << 17, 1 << 10
_ID_BYTES = 8


def choose_kind(num_rows: int, width: int, memory_bytes: int) -> IndexKind:
    """How to search so many rows: flat while they fit in float32, lists while they fit in float16, codes beyond."""
    if num_rows < FEWEST_ROWS_IN_LISTS or 4 * num_rows * width <= memory_bytes:
        return IndexKind.FLAT
    if num_rows * (2 * width + _ID_BYTES) <= memory_bytes:
        return IndexKind.IVF_SQ
    return IndexKind.IVF_PQ


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Index:
    """A pool that can be searched."""

    pool: Pool
    record: IndexRecord
    memory_bytes: int
    num_threads: int
    lists: Lists | None  # None for flat

    def search(self, queries_qd: Rows, num: int, *, chunk: int | None = None, probes: int | None = None) -> Neighbours:
        """The `num` nearest rows of each query by exact score, ties by key; -inf and -1 where there are fewer.

        Args:
            queries_qd: Unit rows of the pool's width.
            num: Neighbours of each query; may be larger than the pool.
            chunk: Queries at once; by default as many as the memory budget holds.
            probes: Lists that a query looks into, at most all; by default as many as recall needed on the pool's rows.

        Raises:
            TableError: a query is no unit row, or of another width.
            BuildError: `num` or `chunk` cannot be.
        """
        self._check(queries_qd, num, chunk)
        step = chunk or self._chunk(num)
        scores_qk = np.empty((len(queries_qd), num))
        rows_qk = np.empty((len(queries_qd), num), np.int64)
        for start in range(0, len(queries_qd), step):
            here = slice(start, start + step)
            found = self._search(queries_qd[here], num, probes)
            scores_qk[here], rows_qk[here] = found.scores_qk, found.rows_qk
        return Neighbours(scores_qk=scores_qk, rows_qk=rows_qk)

    def _search(self, queries_qd: Rows, num: int, probes: int | None) -> Neighbours:
        block_rows = _block_rows(self.pool.width, self.memory_bytes)
        if self.lists is None:
            return search_exactly(self.pool, queries_qd, num, block_rows=block_rows, num_threads=self.num_threads)
        lists, kind = self.record.lists, self.record.kind
        probes = min(probes or self.record.probes, lists)
        proposals = num + SLACK if kind is IndexKind.IVF_SQ else _PQ_PROPOSALS * num + SLACK
        proposed = propose_from_lists(
            self.lists.index,
            self.lists.centroids_ld,
            queries_qd,
            min(proposals, len(self.pool)),
            probes,
            self.num_threads,
        )
        return settle(
            self.pool,
            queries_qd,
            proposed,
            num,
            complete=kind is IndexKind.IVF_PQ or probes < lists,
            block_rows=block_rows,
            num_threads=self.num_threads,
        )

    def _check(self, queries_qd: Rows, num: int, chunk: int | None) -> None:
        if num < 0 or (chunk is not None and chunk < 1):
            raise BuildError(f"search of the {num} nearest in chunks of {chunk}: expected at least 0, and chunks of 1")
        check_unit_rows(queries_qd, "queries", lambda row: f"row {row}", num_threads=self.num_threads)
        if queries_qd.shape[1] != self.pool.width:
            raise TableError(
                f"queries: rows of width {queries_qd.shape[1]}, but the pool's have {self.pool.width}; "
                "expected the rows of one encoder: embed both with the same"
            )

    def _chunk(self, num: int) -> int:
        """Queries whose rows, proposals and scores fit in a quarter of the memory."""
        proposals = num + SLACK if self.record.kind is not IndexKind.IVF_PQ else _PQ_PROPOSALS * num + SLACK
        return max(64, self.memory_bytes // 4 // (8 * self.pool.width + 80 * proposals))


def open_index(
    rows_nd: Rows,
    keys: pa.Array,
    *,
    folder: str,
    memory_bytes: int,
    num_threads: int | None = None,
    kind: IndexKind | None = None,
) -> Index:
    """An index of the pool: built if `folder` does not hold it, else opened where it lies, memory-mapped.

    Args:
        rows_nd: Unit float16 rows [N, D]; may be memory-mapped.
        keys: A key for each row, which decides ties.
        folder: Where inverted lists are kept, under a digest of rows, keys and settings. A flat index keeps nothing.
        memory_bytes: What a search may hold besides the stored rows and its answer.
        num_threads: Threads; all cores by default.
        kind: By default what `choose_kind` says.

    Raises:
        TableError: a row is not finite, is zero or not of length 1, or keys are not as many as rows.
        BuildError: product codes were asked for over too few rows, or the files in `folder` are damaged.
        StorageError: the folder is no local folder, or cannot be written.
    """
    num_threads = num_threads or available_threads()
    pool = make_pool(rows_nd, keys, num_threads=num_threads)
    kind = kind or choose_kind(len(pool), pool.width, memory_bytes)
    if kind is IndexKind.FLAT or not len(pool):
        record, lists = _flat_record(pool), None
        return Index(pool=pool, record=record, memory_bytes=memory_bytes, num_threads=num_threads, lists=lists)
    if kind is IndexKind.IVF_PQ and len(pool) < CODES:
        raise BuildError(f"product codes are learnt from at least {CODES} rows, found {len(pool)}; leave the kind open")
    if not files.is_local(folder):
        raise StorageError(
            f"{folder}: an index is memory-mapped; expected a local folder: mine into one, or raise memory_gb"
        )
    path = files.join(folder, f"{digest(rows_nd, keys, kind)}.faiss")
    if not files.exists(record_path(path)):
        _build(pool, keys, path, kind, memory_bytes, num_threads)
    record = read_record(path)
    return Index(pool=pool, record=record, memory_bytes=memory_bytes, num_threads=num_threads, lists=read_lists(path))


def _flat_record(pool: Pool) -> IndexRecord:
    return IndexRecord(
        kind=IndexKind.FLAT,
        rows=len(pool),
        width=pool.width,
        lists=0,
        probes=0,
        neighbours=_RECALL_NEIGHBOURS,
        recall=1.0,
        seconds=0.0,
        num_bytes=0,
    )


def _build(pool: Pool, keys: pa.Array, path: str, kind: IndexKind, memory_bytes: int, num_threads: int) -> None:
    """Write the index, then its record: a record says that the index is finished."""
    start = time.perf_counter()
    sample_s = sample_rows(keys, num_lists(len(pool)) * ROWS_A_LIST, "index")
    built = make_lists(pool.rows_nd, sample_s, products=kind is IndexKind.IVF_PQ, num_threads=num_threads)
    write_index(built, path)
    seconds = time.perf_counter() - start
    del built
    lists = read_lists(path)
    record = IndexRecord(
        kind=kind,
        rows=len(pool),
        width=pool.width,
        lists=int(lists.index.nlist),
        probes=1,
        neighbours=min(_RECALL_NEIGHBOURS, len(pool)),
        recall=0.0,
        seconds=round(seconds, 1),
        num_bytes=files.num_bytes(path),
    )
    index = Index(pool=pool, record=record, memory_bytes=memory_bytes, num_threads=num_threads, lists=lists)
    record = _with_probes(index, pool.rows_nd[sample_rows(keys, _RECALL_QUERIES, "recall")])
    files.write_bytes(record_path(path), msgspec.json.format(msgspec.json.encode(record), indent=2))


def _with_probes(index: Index, queries_qd: Rows) -> IndexRecord:
    """The record with the fewest lists (a power of two) that reach the recall wanted, or all."""
    record = index.record
    block_rows = _block_rows(record.width, index.memory_bytes)
    exact = search_exactly(
        index.pool, queries_qd, record.neighbours, block_rows=block_rows, num_threads=index.num_threads
    )
    probes, recall = 1, 0.0
    while True:
        found = index.search(queries_qd, record.neighbours, probes=probes)
        recall = recall_by_score(found.scores_qk, exact.scores_qk)
        if recall >= RECALL_WANTED or probes == record.lists:
            return msgspec.structs.replace(record, probes=probes, recall=round(recall, 4))
        probes = min(2 * probes, record.lists)


def _block_rows(width: int, memory_bytes: int) -> int:
    """Rows in float32 at once: a quarter of the memory."""
    return int(np.clip(memory_bytes // (16 * max(1, width)), _LEAST_BLOCK_ROWS, _MOST_BLOCK_ROWS))


def index_bytes(kind: IndexKind, num_rows: int, width: int) -> int:
    """Bytes of an index's file, but for a few hundred: codes and row numbers of all rows, and the centroids."""
    if kind is IndexKind.FLAT:
        return 0
    code = 2 * width if kind is IndexKind.IVF_SQ else num_codes(width)
    return num_rows * (code + _ID_BYTES) + 4 * num_lists(num_rows) * width
