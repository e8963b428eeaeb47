"""The pictures of a shard as batches of pixels, decoded by two threads while the model is busy with the last."""

# B pictures, S side

import contextlib
import tempfile
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from manifests import files
from manifests.errors import ManifestError, Rejected
from shards.blocks import CachedBlocks, LocalShards, SampleBytes, SampleIndex
from shards.images import Letterbox, decode_at_least, decode_letterboxed, letterbox_geometry
from student.asking import Picture

_THREADS = 2
_CACHE_BYTES = 2 << 30  # of a bucket's blocks


class Seen(NamedTuple):
    """A batch that is ready for the model."""

    pictures: Sequence[Picture]
    images_b3ss: NDArray[np.uint8]


def letterbox_of(picture: Picture, size: int, *, stretch: bool) -> Letterbox:
    """Where a picture lies in the square that the model sees."""
    return Letterbox(size, size, 0, 0) if stretch else letterbox_geometry(picture.width, picture.height, size)


@contextlib.contextmanager
def open_samples(index: SampleIndex) -> Iterator[SampleBytes]:
    """What reads a split's samples; blocks of a bucket are kept in a temporary folder meanwhile."""
    if files.is_local(index.folder):
        yield LocalShards(index)
        return
    with tempfile.TemporaryDirectory(prefix="absentia-blocks-") as folder:
        yield CachedBlocks(index, folder, _CACHE_BYTES)


def read_batches(
    pictures: Sequence[Picture],
    samples: SampleBytes,
    index: SampleIndex,
    *,
    size: int,
    stretch: bool,
    batch_size: int,
) -> Generator[Seen]:
    """`pictures` in their order, `batch_size` at a time; the next batch is decoded while one is used.

    Close it where it is not read to its end, as two threads wait for that.

    Raises:
        ManifestError: a picture is gone or does not decode.
    """
    batches = [pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size)]

    def decode(picture: Picture) -> NDArray[np.uint8]:
        return _decode(picture, samples, index, size=size, stretch=stretch)

    with ThreadPoolExecutor(_THREADS) as threads:
        ahead: list[Future[NDArray[np.uint8]]] = [threads.submit(decode, one) for one in (batches or [[]])[0]]
        for number, batch in enumerate(batches):
            current = ahead
            ahead = [threads.submit(decode, one) for one in (batches[number + 1] if number + 1 < len(batches) else [])]
            images_bss3 = np.stack([future.result() for future in current])
            yield Seen(pictures=batch, images_b3ss=images_bss3.transpose(0, 3, 1, 2))


def _decode(
    picture: Picture, samples: SampleBytes, index: SampleIndex, *, size: int, stretch: bool
) -> NDArray[np.uint8]:
    """The pixels [S, S, 3]."""
    data = memoryview(samples.read(picture.sample))[: int(index.jpeg_bytes_n[picture.sample])]
    try:
        if not stretch:
            return decode_letterboxed(data, size)
        return np.asarray(decode_at_least(data, (size, size)).resize((size, size), Image.Resampling.BILINEAR))
    except Rejected as error:
        where = f"{index.uri(int(index.shard_n[picture.sample]))} at byte {index.offset_n[picture.sample]}"
        raise ManifestError(f"{where} ({picture.key}): {error}; copy the shard again or build it again") from error
