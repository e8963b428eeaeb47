"""The samples that a contact sheet shows: drawn evenly from a build, or named by a table, and shrunk to thumbnails.

The shards are read by byte range, in order, and only where a sample was drawn, so that a sheet of a large build in a
bucket costs no more than one of a small build.
"""

# N masks of a prompt, H W pixels of a thumbnail

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests import files
from manifests.errors import ManifestError, Rejected, TableError
from manifests.manifest import Manifest
from manifests.recipe import SPLITS
from manifests.sample import MaskState, Prompt, Sample, decode_sample
from shards.blocks import SampleIndex, read_image_keys, read_index
from shards.images import Letterbox, decode_rgb, scaled_size
from shards.masks import mask_from_array, resize_mask_groups
from shards.page import PagePrompt, PageSample
from shards.tar import json_after

WEBP_QUALITY = 45
_READERS = 4  # samples in flight; hides some of a bucket's latency
# What is shown of a table; all but the first two may lack.
_COLUMNS = {
    "key": pa.string(),
    "phrase": pa.string(),
    "kind": pa.string(),
    "evidence": pa.string(),
    "score": pa.float64(),
    "standard_score": pa.float64(),
    "rank": pa.int64(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Samples of one split, by their places in its written order."""

    index: SampleIndex
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a table asks of the pictures of a build."""

    table: pa.Table
    num_pictures: int
    found: tuple[Drawn, ...]  # all of its pictures that the build holds; a repeated one once


def share_out(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """At most `limit` samples over the splits, as evenly as their sizes allow; all of them where `limit` is 0."""
    if limit == 0:
        return dict(sizes)
    shares, left = dict.fromkeys(sizes, 0), limit
    for done, name in enumerate(sorted(sizes, key=lambda name: sizes[name])):
        shares[name] = min(sizes[name], -(-left // (len(sizes) - done)))
        left -= shares[name]
    return shares


def open_splits(folder: str, manifest: Manifest, split: str | None) -> list[Drawn]:
    """All samples of the build, or of one of its splits.

    Raises:
        ManifestError: it has no samples of `split`, or is damaged.
        TableError: `samples.parquet` cannot be read.
    """
    names = [split] if split else [name for name in SPLITS if manifest.splits.get(name)]
    indices = [read_index(folder, name) for name in names]
    return [Drawn(index=index, numbers=tuple(range(len(index)))) for index in indices]


def draw(splits: Sequence[Drawn], limit: int, seed: int) -> list[Drawn]:
    """Up to `limit` of these samples, drawn by `seed`, in the order in which they were given."""
    shares = share_out({drawn.index.split: len(drawn.numbers) for drawn in splits}, limit)
    rng = np.random.default_rng(seed)
    picked = [np.sort(rng.permutation(len(drawn.numbers))[: shares[drawn.index.split]]) for drawn in splits]
    return [
        replace(drawn, numbers=tuple(drawn.numbers[place] for place in places.tolist()))
        for drawn, places in zip(splits, picked, strict=True)
    ]


def read_samples(splits: Sequence[Drawn], pixels: int) -> Iterator[PageSample]:
    """The samples, their longer sides shrunk to at most `pixels`; read ahead by a few.

    Raises:
        ManifestError: a shard is missing or damaged.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        for drawn in splits:
            read = partial(_read_sample, drawn.index, pixels)
            for first in range(0, len(drawn.numbers), 16 * _READERS):
                yield from pool.map(read, drawn.numbers[first : first + 16 * _READERS])


def _read_sample(index: SampleIndex, pixels: int, number: int) -> PageSample:
    shard, start, stop = index.extent(number)
    jpeg_bytes = int(index.jpeg_bytes_n[number])
    where = f"{index.uri(shard)}: sample at byte {start}"
    try:
        data = files.read_range(index.uri(shard), start, stop - start)
        sample = decode_sample(json_after(data, jpeg_bytes), where=where)
        side = min(pixels, max(sample.width, sample.height))
        picture = decode_rgb(memoryview(data)[:jpeg_bytes], longest=side)
        _require_shapes(sample, picture.size, side)
        prompts = _page_prompts(sample, picture.size)
    except (OSError, ValueError, Rejected) as error:
        cure = f"run python -m shards.verify {index.folder}"
        raise ManifestError(f"{where}: expected a sound sample, found: {error}; {cure}") from error
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=WEBP_QUALITY, method=2)
    return PageSample(
        key=sample.key,
        source=sample.source,
        split=index.split,
        width=sample.width,
        height=sample.height,
        thumbnail=encoded.getvalue(),
        thumbnail_width=picture.width,
        thumbnail_height=picture.height,
        prompts=prompts,
    )


def _require_shapes(sample: Sample, size: tuple[int, int], side: int) -> None:
    """The picture, now of `size`, and all masks are of the size that the sample says."""
    if size != scaled_size(sample.width, sample.height, side):
        raise ValueError(f"the picture has another shape than its {sample.width} x {sample.height}")
    for prompt in sample.prompts:
        if any(mask.size != (sample.height, sample.width) for mask in prompt.masks):
            raise ValueError(f"a mask of {prompt.phrase!r} has another shape than the picture")


def _page_prompts(sample: Sample, size: tuple[int, int]) -> tuple[PagePrompt, ...]:
    """The prompts with their masks at `size` (width, height), all resized in one go."""
    width, height = size
    groups = [[mask] for prompt in sample.prompts for mask in prompt.masks]
    resized = resize_mask_groups(groups, Letterbox(width, height, 0, 0), max(size))[:, :height, :width]
    prompts, first = [], 0
    for prompt in sample.prompts:
        of_prompt = resized[first : first + len(prompt.masks)]
        prompts.append(_page_prompt(prompt, of_prompt))
        first += len(of_prompt)
    return tuple(prompts)


def _page_prompt(prompt: Prompt, masks_nhw: NDArray[np.bool_]) -> PagePrompt:
    return PagePrompt(
        phrase=prompt.phrase,
        present=prompt.present,
        kind=prompt.kind or "",
        evidence=prompt.evidence,
        mask_state=prompt.mask_state,
        score=prompt.score,
        standard_score=prompt.standard_score,
        rank=prompt.rank,
        area=float(masks_nhw.any(axis=0).mean()),
        masks=tuple(mask_from_array(mask_hw) for mask_hw in masks_nhw),
    )


def read_asked(table_uri: str, folder: str, manifest: Manifest, split: str | None) -> Asked:
    """What any table with `key` and `phrase` asks of the pictures of a build (or of one split).

    Raises:
        TableError: it is missing, no Parquet, lacks one of the two columns, or names no picture of the build.
        ManifestError: the build is damaged.
    """
    table = _read_table(table_uri)
    keys = pc.unique(table["key"])
    found = []
    for drawn in open_splits(folder, manifest, split):
        image_keys = read_image_keys(drawn.index)
        numbers = np.flatnonzero(pc.is_in(image_keys, keys).to_numpy(zero_copy_only=False)).tolist()
        first = {image_keys[number].as_py(): number for number in reversed(numbers)}
        found.append(replace(drawn, numbers=tuple(sorted(first.values()))))
    if not any(drawn.numbers for drawn in found):
        where = f"{folder}, split {split}" if split else folder
        raise TableError(f"{table_uri}: expected pictures of {where}, found none of its {len(keys)} keys there")
    return Asked(table=table, num_pictures=len(keys), found=tuple(found))


def _read_table(uri: str) -> pa.Table:
    """The rows that have a key and a phrase, in those of `_COLUMNS` that are there."""
    try:
        with files.open_input(uri) as file:
            found = pq.ParquetFile(file)
            names = found.schema_arrow.names
            wanted = [name for name in _COLUMNS if name in names]
            table = found.read(columns=wanted).select(wanted).cast(pa.schema([(n, _COLUMNS[n]) for n in wanted]))
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{uri}: expected a Parquet table of keys and phrases, found: {error}") from error
    if not {"key", "phrase"} <= set(names) or not len(table):
        there = f"{len(table)} rows of the columns {', '.join(names)}"
        raise TableError(f"{uri}: expected at least one row with the columns key and phrase, found {there}")
    return table.filter(pc.and_(pc.is_valid(table["key"]), pc.is_valid(table["phrase"])))


def read_asked_samples(asked: Asked, splits: Sequence[Drawn], pixels: int) -> Iterator[PageSample]:
    """The samples with what is present in them and, instead of the build's absences, what the table asks of them.

    Raises:
        ManifestError: a shard is missing or damaged.
    """
    image_keys = [key for drawn in splits for key in _image_keys(drawn)]
    rows: dict[str, list[PagePrompt]] = {key: [] for key in image_keys}
    for row in asked.table.filter(pc.is_in(asked.table["key"], pa.array(image_keys, pa.string()))).to_pylist():
        known = {name: value for name, value in row.items() if value is not None}
        rows[known.pop("key")].append(PagePrompt(present=False, mask_state=MaskState.COMPLETE, **known))
    for key, sample in zip(image_keys, read_samples(splits, pixels), strict=True):
        present = (prompt for prompt in sample.prompts if prompt.present)
        yield replace(sample, prompts=(*present, *rows[key]))


def _image_keys(drawn: Drawn) -> list[str]:
    keys: list[str] = read_image_keys(drawn.index).take(pa.array(drawn.numbers, pa.int64())).to_pylist()
    return keys
