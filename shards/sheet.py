"""The samples that a contact sheet shows: drawn evenly from a build, or named by a table, and shrunk to thumbnails.

The shards are read by byte range, in order, and only where a sample was drawn, so that a sheet of a large build in a
bucket costs no more than one of a small build.
"""

# N masks of a prompt, H W pixels of a thumbnail

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests import files
from manifests.errors import TableError
from manifests.manifest import Manifest
from manifests.sample import MaskState, Prompt, Sample
from shards.blocks import SampleIndex, read_image_keys
from shards.build_pictures import (
    Drawn,
    as_thumbnail,
    decode_at,
    find_pictures,
    open_sample,
    open_splits,
    read_ahead,
    those,
)
from shards.images import Letterbox
from shards.masks import mask_from_array, resize_mask_groups
from shards.page import PagePrompt, PageSample

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
    for drawn in splits:
        yield from read_ahead(drawn, partial(_read_sample, pixels))


def _read_sample(pixels: int, index: SampleIndex, number: int) -> PageSample:
    with open_sample(index, number) as (sample, jpeg):
        picture = decode_at(jpeg, sample, pixels)
        _require_shapes(sample)
        thumbnail = as_thumbnail(picture)
        return PageSample(
            key=sample.key,
            source=sample.source,
            split=index.split,
            width=sample.width,
            height=sample.height,
            thumbnail=thumbnail.data,
            thumbnail_width=thumbnail.width,
            thumbnail_height=thumbnail.height,
            prompts=_page_prompts(sample, picture.size),
        )


def _require_shapes(sample: Sample) -> None:
    """All masks are of the size that the sample says."""
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
    splits = open_splits(folder, manifest, split)
    found = [those(drawn, numbers) for drawn, numbers in zip(splits, find_pictures(keys, splits), strict=True)]
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
