"""Phrases for masks from a sidecar table, spilled once into small sorted files and looked up by image.

A sidecar may be far larger than memory, in any order, and nobody knows which tar holds which image before reading it.
So its rows go into buckets by blocks of neighbouring image ids; each bucket is sorted by image id in memory (about
32 MiB of rows; a bucket holds whole blocks of 512 ids) and written as an uncompressed Arrow file that is mapped, not
read: a lookup is a binary search. A tar of SA-1B holds neighbouring ids, so a part opens few buckets.
"""

import contextlib
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import files
from manifests.errors import SourceError, TableError
from manifests.tables import PHRASES, read_metadata
from shards.sources.sidecar_rows import ROWS, BadRow, estimate_bytes, read_rows
from shards.sources.source import KnownBy, Reject

SPILL_VERSION = 3
MAX_BUCKETS = 256  # files open at once while spilling
MAX_BAD_ROWS = 10_000

_BUCKET_BYTES = 32 << 20
_BUFFER_BYTES = 64 << 20
_BLOCK_BITS = 9  # 512 neighbouring image ids share a bucket
_OPEN_BUCKETS = 32
_MIX = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing
_DONE = "done.json"

_Int64 = NDArray[np.int64]


class SpillRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was spilled; written last, so it says that all buckets are there."""

    buckets: int
    rows: int
    bad_rows: list[BadRow]  # rows that name no image, or no text
    known_by: KnownBy  # retrieved: an encoder named the masks of one of the files


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseRows:
    """The sidecar's rows on one image, in the sidecar's order, a list per column."""

    rows: list[int]  # numbers in the sidecar, from 1
    annotation_ids: list[int]  # NO_ANNOTATION where the row has none
    phrases: list[bytes | None]  # as they stand there; None of a row that was counted as bad already
    scores: list[float]
    segmentations: list[bytes]  # JSON of an RLE; empty where the row has none


NO_ROWS = PhraseRows(rows=[], annotation_ids=[], phrases=[], scores=[], segmentations=[])


def sidecar_digest(uris: Sequence[str]) -> str:
    """16 hex digits that change when a file of the sidecar does."""
    prints = [files.fingerprint(uri) for uri in uris]
    known = [SPILL_VERSION, _BLOCK_BITS, [(found.num_bytes, found.version) for found in prints]]
    return hashlib.sha256(msgspec.json.encode(known)).hexdigest()[:16]


def spill(uris: Sequence[str], folder: str) -> SpillRecord:
    """The record of the sidecar `uris`, spilled into `folder`; a finished spill is taken as it is.

    Raises:
        SourceError: a file is no sidecar, or has more than `MAX_BAD_ROWS` bad rows.
    """
    done = files.join(folder, _DONE)
    if files.exists(done):
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(files.read_bytes(done), type=SpillRecord)
    num_buckets = max(1, min(MAX_BUCKETS, sum(estimate_bytes(uri) for uri in uris) // _BUCKET_BYTES))
    bad: list[BadRow] = []
    num_rows = 0
    files.make_folder(folder)
    local = folder if files.is_local(folder) else None
    with tempfile.TemporaryDirectory(prefix=files.TEMPORARY, dir=local) as unsorted, files.storage_errors(folder):
        with contextlib.closing(_Buckets(unsorted, num_buckets)) as buckets:
            for found in read_rows(uris):
                if isinstance(found, BadRow):
                    bad.append(found)
                    _require_few(bad)
                else:
                    num_rows += found.num_rows
                    buckets.add(found)
        for bucket in range(num_buckets):
            _sort_bucket(_unsorted(unsorted, bucket), _bucket_uri(folder, bucket))
    known_by: KnownBy = "retrieved" if any(map(_is_retrieved, uris)) else "sidecar"
    record = SpillRecord(buckets=num_buckets, rows=num_rows, bad_rows=bad, known_by=known_by)
    files.write_bytes(done, msgspec.json.encode(record))
    return record


def _is_retrieved(uri: str) -> bool:
    """Whether `miners.phrases` wrote the file, which says so in its metadata."""
    try:
        return "encoder" in read_metadata(uri, PHRASES)
    except TableError:  # JSON lines, or somebody's own table
        return False


def _require_few(bad: Sequence[BadRow]) -> None:
    if len(bad) > MAX_BAD_ROWS:
        first = bad[0]
        raise SourceError(
            f"{first.where}: {first.detail}; and {MAX_BAD_ROWS} more rows are bad. "
            "Expected rows of image_id, annotation_id or segmentation, phrase, score: mend the sidecar"
        )


def bucket_of(image_ids: _Int64, num_buckets: int) -> _Int64:
    """The bucket of each image id: by a hash of its block, so that neighbours stay together."""
    blocks = (image_ids >> _BLOCK_BITS).astype(np.uint64)
    return ((blocks * _MIX) >> np.uint64(40)).astype(np.int64) % num_buckets


def _unsorted(folder: str, bucket: int) -> str:
    return os.path.join(folder, f"{bucket:04d}.arrows")


def _bucket_uri(folder: str, bucket: int) -> str:
    return files.join(folder, f"{bucket:04d}.arrow")


class _Buckets:
    """Unsorted rows on their way to the disk, buffered up to a bound."""

    def __init__(self, folder: str, num_buckets: int) -> None:
        self._waiting: list[list[pa.RecordBatch]] = [[] for _ in range(num_buckets)]
        self._writers = [pa.ipc.new_stream(_unsorted(folder, bucket), ROWS) for bucket in range(num_buckets)]
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the rows of `batch`, each to its bucket."""
        bucket_r = bucket_of(batch.column("image_id").to_numpy(), len(self._writers))
        order = np.argsort(bucket_r, kind="stable")
        rows = batch.take(pa.array(order))
        edges = np.searchsorted(bucket_r[order], np.arange(len(self._writers) + 1)).tolist()
        for bucket, (first, last) in enumerate(itertools.pairwise(edges)):
            if last > first:
                self._waiting[bucket].append(rows.slice(first, last - first))
        self._bytes += rows.nbytes
        if self._bytes > _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        for waiting, writer in zip(self._waiting, self._writers, strict=True):
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting, ROWS).combine_chunks())
                waiting.clear()
        self._bytes = 0

    def close(self) -> None:
        """Write what waits, and close the files."""
        self._flush()
        for writer in self._writers:
            writer.close()


def _sort_bucket(path: str, uri: str) -> None:
    """Write the rows at `path` to `uri`, by image and then in the sidecar's order, as one batch."""
    with pa.memory_map(path) as file:
        table = pa.ipc.open_stream(file).read_all()
        table = table.sort_by([("image_id", "ascending"), ("row", "ascending")]).combine_chunks()
    os.unlink(path)
    with files.commit(uri) as out, pa.ipc.new_file(out, ROWS) as writer:
        writer.write_table(table)


class SidecarReader:
    """Lookups in a spilled sidecar; a few buckets are mapped at a time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        record = msgspec.json.decode(files.read_bytes(files.join(folder, _DONE)), type=SpillRecord)
        self.known_by = record.known_by
        self._num_buckets = record.buckets
        self._open: dict[int, tuple[_Int64, pa.RecordBatch | None]] = {}

    def rows_of(self, image_id: int) -> PhraseRows:
        """All rows on the image `image_id`."""
        bucket = int(bucket_of(np.array([image_id], np.int64), self._num_buckets)[0])
        image_ids, batch = self.bucket(bucket)
        first, last = np.searchsorted(image_ids, [image_id, image_id + 1]).tolist()
        if batch is None or first == last:
            return NO_ROWS
        found = batch.slice(first, last - first)
        columns = [found.column(name).to_numpy(zero_copy_only=False).tolist() for name in ROWS.names[1:]]
        rows, annotation_ids, phrases, scores, segmentations = columns
        return PhraseRows(
            rows=rows,
            annotation_ids=annotation_ids,
            phrases=phrases,
            scores=scores,
            segmentations=segmentations,
        )

    def bucket(self, bucket: int) -> tuple[_Int64, pa.RecordBatch | None]:
        """The sorted image ids of a bucket, and its rows."""
        found = self._open.pop(bucket, None)
        if found is None:
            found = _open_bucket(_bucket_uri(self._folder, bucket))
            if len(self._open) >= _OPEN_BUCKETS:
                del self._open[next(iter(self._open))]
        self._open[bucket] = found
        return found

    def unmatched(self, seen: _Int64) -> Iterator[tuple[int, int]]:
        """Image ids of the sidecar that are not among the sorted `seen`, each with its number of rows."""
        for bucket in range(self._num_buckets):
            image_ids, counts = np.unique(self.bucket(bucket)[0], return_counts=True)
            missing = ~np.isin(image_ids, seen, assume_unique=True)
            yield from zip(image_ids[missing].tolist(), counts[missing].tolist(), strict=True)
            del self._open[bucket]


def _open_bucket(uri: str) -> tuple[_Int64, pa.RecordBatch | None]:
    source = pa.memory_map(uri) if files.is_local(uri) else pa.BufferReader(files.read_bytes(uri))
    batches = pa.ipc.open_file(source).read_all().to_batches()
    if not batches:
        return np.zeros(0, np.int64), None
    return batches[0].column("image_id").to_numpy(), batches[0]


def rejects_of(record: SpillRecord) -> tuple[Reject, ...]:
    """The sidecar's rows that could not be read at all."""
    return tuple(Reject(where=bad.where, reason=bad.reason, detail=bad.detail) for bad in record.bad_rows)
