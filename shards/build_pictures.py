"""The pictures of a build for pages: found by key, read by byte range a few ahead, and shrunk to thumbnails."""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from manifests import files
from manifests.errors import ManifestError, Rejected
from manifests.manifest import Manifest
from manifests.recipe import SPLITS
from manifests.sample import Sample, decode_sample
from shards.blocks import SampleIndex, read_image_keys, read_index
from shards.images import decode_rgb, scaled_size
from shards.tar import json_after

WEBP_QUALITY = 45
_READERS = 4  # samples in flight; hides some of a bucket's latency
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Samples of one split, by their places in its written order."""

    index: SampleIndex
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A small picture as WebP."""

    data: bytes
    width: int
    height: int


def open_splits(folder: str, manifest: Manifest, split: str | None) -> list[Drawn]:
    """All samples of the build, or of one of its splits.

    Raises:
        ManifestError: it has no samples of `split`, or is damaged.
        TableError: `samples.parquet` cannot be read.
    """
    names = [split] if split else [name for name in SPLITS if manifest.splits.get(name)]
    indices = [read_index(folder, name) for name in names]
    return [Drawn(index=index, numbers=tuple(range(len(index)))) for index in indices]


def find_pictures(keys: pa.Array, splits: Sequence[Drawn]) -> list[dict[str, int]]:
    """For each split, where the pictures among `keys` stand in its written order; of a repeated one the first."""
    found = []
    for drawn in splits:
        image_keys = read_image_keys(drawn.index)
        numbers = np.flatnonzero(pc.is_in(image_keys, keys).to_numpy(zero_copy_only=False)).tolist()
        found.append({image_keys[number].as_py(): number for number in reversed(numbers)})
    return found


def those(drawn: Drawn, numbers: dict[str, int]) -> Drawn:
    """The samples of `drawn` that `find_pictures` found, in written order."""
    return replace(drawn, numbers=tuple(sorted(numbers.values())))


def read_ahead(drawn: Drawn, read: Callable[[SampleIndex, int], _T]) -> Iterator[_T]:
    """What `read` makes of each sample, in order, with a few samples in flight."""
    with ThreadPoolExecutor(_READERS) as pool:
        for first in range(0, len(drawn.numbers), 16 * _READERS):
            yield from pool.map(partial(read, drawn.index), drawn.numbers[first : first + 16 * _READERS])


@contextmanager
def open_sample(index: SampleIndex, number: int) -> Iterator[tuple[Sample, memoryview]]:
    """A sample and its JPEG; what they cannot do inside the block is damage of their shard.

    Raises:
        ManifestError: the shard is missing, or the sample is not sound.
    """
    shard, start, stop = index.extent(number)
    jpeg_bytes = int(index.jpeg_bytes_n[number])
    where = f"{index.uri(shard)}: sample at byte {start}"
    try:
        data = files.read_range(index.uri(shard), start, stop - start)
        yield decode_sample(json_after(data, jpeg_bytes), where=where), memoryview(data)[:jpeg_bytes]
    except (OSError, ValueError, Rejected) as error:
        cure = f"run python -m shards.verify {index.folder}"
        raise ManifestError(f"{where}: expected a sound sample, found: {error}; {cure}") from error


def decode_at(jpeg: memoryview, sample: Sample, longest: int) -> Image.Image:
    """The sample's picture with its longer side shrunk to at most `longest` pixels.

    Raises:
        Rejected: it does not decode.
        ValueError: it has another shape than the sample says.
    """
    side = min(longest, max(sample.width, sample.height))
    picture = decode_rgb(jpeg, longest=side)
    if picture.size != scaled_size(sample.width, sample.height, side):
        raise ValueError(f"the picture has another shape than its {sample.width} x {sample.height}")
    return picture


def as_thumbnail(picture: Image.Image) -> Thumbnail:
    """`picture` as WebP; equal pixels give equal bytes."""
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=WEBP_QUALITY, method=2)
    return Thumbnail(data=encoded.getvalue(), width=picture.width, height=picture.height)
