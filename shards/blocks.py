"""The bytes of any sample of a build, by its place in the written order: one small read on disk, blocks from a bucket.

A sample is one byte range, from its JPEG's first byte to the end of its JSON. From a bucket a whole block of
consecutive samples is fetched at once and kept in a folder that the workers and ranks of a machine share, since the
order of training comes back to a block for as long as its window lasts.
"""

# N samples of a split

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import files, tables
from manifests.errors import ManifestError, StorageError
from manifests.manifest import MANIFEST_NAME, Shard, read_manifest
from shards.order import BLOCK_SAMPLES
from shards.tar import BLOCK, END

_NUM_LOCKS = 64


class Extent(NamedTuple):
    """A byte range of one shard."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleIndex:
    """Where the samples of one split lie, in written order."""

    folder: str
    split: str
    shards: tuple[Shard, ...]
    shard_n: NDArray[np.int32]
    offset_n: NDArray[np.int64]  # of the JPEG's first byte in its shard
    jpeg_bytes_n: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shard_n)

    @property
    def digest(self) -> str:
        """Names the bytes of all samples: 16 hex digits of their shards' digests."""
        return hashlib.sha256("\n".join(shard.sha256 for shard in self.shards).encode()).hexdigest()[:16]

    def uri(self, shard: int) -> str:
        """Where a shard lies."""
        return files.join(self.folder, self.shards[shard].url)

    def extent(self, first: int, last: int | None = None) -> Extent:
        """The range from sample `first` to sample `last` (itself if left out), which lie in the same shard."""
        last = first if last is None else last
        shard = int(self.shard_n[last])
        after = last + 1
        if after < len(self) and self.shard_n[after] == shard:
            stop = int(self.offset_n[after]) - BLOCK  # the next sample's first header
        else:
            stop = self.shards[shard].filesize - len(END)
        return Extent(shard, int(self.offset_n[first]), stop)

    def block_extents(self, block: int) -> list[Extent]:
        """The ranges that hold the samples of a block: one per shard that it touches."""
        first, stop = block * BLOCK_SAMPLES, min((block + 1) * BLOCK_SAMPLES, len(self))
        cuts = (first + 1 + np.flatnonzero(np.diff(self.shard_n[first:stop]))).tolist()
        return [self.extent(a, b - 1) for a, b in zip([first, *cuts], [*cuts, stop], strict=True)]


class SampleBytes(Protocol):
    """What reads samples by their place in the written order."""

    def read(self, sample: int) -> bytes:
        """The bytes from the sample's JPEG to the end of its JSON, padding included.

        Raises:
            ManifestError: the shard is missing or has not the size that the manifest gives.
            StorageError: it cannot be read.
        """
        ...


def read_index(folder: str, split: str) -> SampleIndex:
    """Where the samples of `split` of the build in `folder` lie.

    Raises:
        ManifestError: the build has no such split, or its samples are not those of the manifest.
        TableError: `samples.parquet` cannot be read.
    """
    where = files.join(folder, MANIFEST_NAME)
    splits = {name: shards for name, shards in read_manifest(folder).splits.items() if shards}
    if split not in splits:
        raise ManifestError(f"{where}: has no samples of split {split!r}; it has {', '.join(splits) or 'none'}")
    shards = splits[split]
    groups = list(iterate_samples(folder, split, shards))
    shard_n, offset_n, jpeg_bytes_n = (
        np.concatenate([np.zeros(0, np.int64), *(group[name].to_numpy() for group in groups)])
        for name in ("shard_number", "offset", "num_bytes")
    )
    _require_counts(files.join(folder, "samples.parquet"), shards, shard_n, offset_n)
    return SampleIndex(
        folder=folder,
        split=split,
        shards=tuple(shards),
        shard_n=shard_n.astype(np.int32),
        offset_n=offset_n,
        jpeg_bytes_n=jpeg_bytes_n,
    )


def read_image_keys(index: SampleIndex) -> pa.Array:
    """The image key of every sample [N]: its key, without the ending of a repeat."""
    groups = iterate_samples(index.folder, index.split, list(index.shards), ["image_key"])
    return pa.concat_arrays([chunk for group in groups for chunk in group["image_key"].chunks])


def iterate_samples(
    folder: str, split: str, shards: Sequence[Shard], columns: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """`shard_number`, `offset`, `num_bytes` and `columns`, one row per sample of `split`, in written order."""
    uri = files.join(folder, "samples.parquet")
    urls = pa.array([shard.url for shard in shards], pa.string())
    places = ("offset", "num_bytes")
    before = (-1, -1)  # the last row of the group before: a sample's prompts may go on into the next
    for group in tables.iterate_table(uri, tables.SAMPLES, ["split", "shard", *places, *columns]):
        rows = group.filter(pc.equal(group["split"], split)).drop_columns("split").combine_chunks()
        if not rows.num_rows:
            continue
        numbers = pc.fill_null(pc.index_in(rows["shard"], value_set=urls), len(urls)).to_numpy()
        if numbers.max() == len(urls):
            name = rows["shard"][int(numbers.argmax())]
            raise ManifestError(f"{uri}: names the shard {name}, which the manifest has not in {split}; build it again")
        offsets = rows["offset"].to_numpy()
        is_first = (np.diff(numbers, prepend=before[0]) != 0) | (np.diff(offsets, prepend=before[1]) != 0)
        before = (int(numbers[-1]), int(offsets[-1]))
        samples = rows.append_column("shard_number", pa.array(numbers, pa.int64())).drop_columns("shard")
        yield samples.filter(pa.array(is_first))


def _require_counts(uri: str, shards: list[Shard], shard_n: NDArray[np.int64], offset_n: NDArray[np.int64]) -> None:
    """Every shard has as many samples as the manifest says, one after another."""
    counts = np.bincount(shard_n, minlength=len(shards))
    for shard, count in zip(shards, counts.tolist(), strict=True):
        if count != shard.nsamples:
            raise ManifestError(f"{uri}: {count} samples in {shard.url}, expected {shard.nsamples}; build it again")
    steps = np.diff(shard_n)
    if ((steps < 0) | ((steps == 0) & (np.diff(offset_n) <= 0))).any():
        raise ManifestError(f"{uri}: rows are not in written order; build it again")


def _require_size(index: SampleIndex, shard: int, found: int) -> None:
    expected = index.shards[shard].filesize
    if found != expected:
        raise ManifestError(
            f"{index.uri(shard)}: {found} bytes, expected {expected} by the manifest; "
            "copy the shard again or build it again"
        )


@contextlib.contextmanager
def _shard_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ManifestError(f"{uri}: not found, though the manifest names it; copy it again") from error
    except OSError as error:
        raise StorageError(f"{uri}: cannot be read: {error}") from error


class LocalShards:
    """Samples of shards on this machine's disks."""

    def __init__(self, index: SampleIndex) -> None:
        self._index = index

    def read(self, sample: int) -> bytes:
        """See `SampleBytes`."""
        shard, start, stop = self._index.extent(sample)
        uri = self._index.uri(shard)
        with _shard_errors(uri), _descriptor(uri) as descriptor:
            _require_size(self._index, shard, os.fstat(descriptor).st_size)
            return os.pread(descriptor, stop - start, start)


class CachedBlocks:
    """Samples of shards in a bucket, through a folder of blocks that all processes of a machine may share.

    A block's file appears whole under its name, after the one process that holds its lock has fetched it; the blocks
    that were not read for the longest time make room.
    """

    def __init__(self, index: SampleIndex, folder: str, max_bytes: int) -> None:
        self._index = index
        self._digest = index.digest
        self._folder = folder
        self._max_bytes = max_bytes
        self._checked: set[int] = set()  # shards whose size was found right

    def read(self, sample: int) -> bytes:
        """See `SampleBytes`."""
        block = sample // BLOCK_SAMPLES
        extents = self._index.block_extents(block)
        shard, start, stop = self._index.extent(sample)
        before = sum(e.stop - e.start for e in extents if e.shard < shard)
        place = before + start - next(e.start for e in extents if e.shard == shard)
        path = os.path.join(self._folder, f"{self._digest}-{block}.block")
        while True:
            with contextlib.suppress(FileNotFoundError), _descriptor(path) as descriptor:
                if os.fstat(descriptor).st_size == sum(e.stop - e.start for e in extents):
                    now_ns = time.time_ns()  # finer than the kernel's own idea of it
                    os.utime(descriptor, ns=(now_ns, now_ns))
                    return os.pread(descriptor, stop - start, place)
            self._fetch(path, extents)

    def _fetch(self, path: str, extents: list[Extent]) -> None:
        """Put the block at `path`, unless another process did so while this one waited."""
        stripe = int(hashlib.sha256(path.encode()).hexdigest(), 16) % _NUM_LOCKS
        with open(os.path.join(self._folder, f"lock-{stripe}"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            num_bytes = sum(e.stop - e.start for e in extents)
            if os.path.exists(path) and os.path.getsize(path) == num_bytes:
                return
            self._make_room(num_bytes)
            files.write_bytes(path, b"".join(self._download(extent) for extent in extents))

    def _download(self, extent: Extent) -> bytes:
        uri = self._index.uri(extent.shard)
        with _shard_errors(uri):
            if extent.shard not in self._checked:
                _require_size(self._index, extent.shard, files.num_bytes(uri))
                self._checked.add(extent.shard)
            data = files.read_range(uri, extent.start, extent.stop - extent.start)
        if len(data) != extent.stop - extent.start:
            raise StorageError(
                f"{uri}: {len(data)} bytes came from offset {extent.start}, "
                f"expected {extent.stop - extent.start}; run again"
            )
        return data

    def _make_room(self, num_bytes: int) -> None:
        """Delete the blocks that were not read for the longest time until `num_bytes` more fit."""
        found = []
        for path in Path(self._folder).iterdir():
            if path.name.endswith(".block"):  # the folder may hold what is not the cache's
                with contextlib.suppress(FileNotFoundError):  # another process makes room too
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_size, path))
        total = num_bytes + sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


@contextlib.contextmanager
def _descriptor(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
