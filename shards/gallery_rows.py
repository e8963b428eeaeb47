"""The rows that a gallery shows: a table of mined or rejected pairs, joined to the pictures of a build.

A picture is read once and a thumbnail made once, whatever the number of rows that show it: whole where the picture is
asked, cut out at the box where it is a positive.
"""

# M rows of the table

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import files, tables
from manifests.errors import TableError
from manifests.manifest import MANIFEST_NAME, Manifest
from manifests.sample import Sample
from shards.blocks import SampleIndex
from shards.build_pictures import (
    Drawn,
    Thumbnail,
    as_thumbnail,
    decode_at,
    find_pictures,
    open_sample,
    open_splits,
    read_ahead,
)
from shards.gallery import GalleryPicture, GalleryRow, PairKind
from shards.mining_facts import MiningFacts, facts_of_text

_SCHEMAS: dict[PairKind, pa.Schema] = {"negatives": tables.NEGATIVES, "rejects": tables.REJECTS}
_CROP_MARGIN = 0.08  # of the box, on each side: what touches a thing helps to know it
_Box = tuple[float, ...]  # x, y, width, height in pixels; empty for the whole picture
_Found = Mapping[str, tuple[int, int]]  # by key: which split, and the place in its written order


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A table of pairs, its key in the column `key` whatever the table calls it."""

    uri: str
    kind: PairKind
    table: pa.Table
    digest: str
    mining: MiningFacts


class _Shot(NamedTuple):
    """A picture, or the part of it at a box; sorts in written order."""

    split: int
    number: int
    box: _Box


class _Shown(NamedTuple):
    """A picture by the key that the table knows it by (its sample may be a repeat), and what to show of it."""

    key: str
    boxes: list[_Box]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The rows of a gallery, and which pictures they need."""

    rows: tuple[GalleryRow, ...]
    splits: tuple[Drawn, ...]  # the pictures to read
    shown: Mapping[tuple[str, int], _Shown]  # by split and number
    num_found: int  # rows of pictures that the build holds, shown or not
    notes: tuple[str, ...]  # what of the table is not shown


def kind_of_table(uri: str) -> PairKind | None:
    """Which gallery the table at `uri` is for, by its columns; None for any other table.

    Raises:
        TableError: it is missing or no Parquet.
    """
    names = set(_open(uri).schema_arrow.names)
    return next((kind for kind, schema in _SCHEMAS.items() if names >= set(schema.names)), None)


def build_of_table(uri: str) -> str | None:
    """The finished build that the table at `uri` belongs to: one whose folder it lies in, or that its metadata names.

    Raises:
        TableError: it is missing or no Parquet.
    """
    named = (_open(uri).schema_arrow.metadata or {}).get(b"absentia.build", b"").decode(errors="replace")
    path = files.absolute(uri)
    above = list(_folders_above(path))
    beside = path.rpartition("/")[0] or "/"
    candidates = [*((files.resolve(beside, named), named) if named else ()), *above]
    return next((folder for folder in candidates if files.exists(files.join(folder, MANIFEST_NAME))), None)


def _folders_above(path: str) -> Iterator[str]:
    while (path := path.rpartition("/")[0]) and not path.endswith("/"):
        yield path


def _open(uri: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(uri if files.is_local(uri) else files.open_input(uri))
    except FileNotFoundError as error:
        raise TableError(f"{uri}: not found; expected a Parquet table with the columns key and phrase") from error
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{uri}: expected a Parquet table of keys and phrases, found: {error}") from error


def read_pairs(uri: str, kind: PairKind) -> Pairs:
    """The pairs of the table at `uri`.

    Raises:
        TableError: it is damaged, or of rejects none is a pair.
    """
    schema = _SCHEMAS[kind]
    found = tables.read_table(uri, schema)
    names = ["key" if name == "where" else name for name in schema.names]
    table = found.rename_columns(names)
    asked = pc.fill_null(pc.and_(pc.not_equal(table["key"], ""), pc.not_equal(table["phrase"], "")), fill_value=False)
    pairs = table.filter(asked)
    if not len(pairs):
        raise TableError(f"{uri}: expected rows that ask a phrase of a picture, found none among its {len(found)} rows")
    metadata = tables.read_metadata(uri, schema)
    mining = facts_of_text(metadata.get("mining", ""))
    if not mining.encoder:
        mining = msgspec.structs.replace(mining, encoder=metadata.get("encoder", ""))
    return Pairs(uri=uri, kind=kind, table=pairs, digest=files.sha256_file(uri), mining=mining)


def choose_rows(pairs: Pairs, folder: str, manifest: Manifest, *, split: str | None, limit: int, seed: int) -> Chosen:
    """Up to `limit` rows (0 for all) of pictures that the build holds, drawn by `seed`, in the table's order.

    Raises:
        TableError: the build (or its `split`) holds none of the table's pictures.
        ManifestError: the build is damaged.
    """
    splits = open_splits(folder, manifest, None)
    found = _find(pairs, splits)
    wanted = [key for key, (at, _) in found.items() if split in (None, splits[at].index.split)]
    held_m = pc.is_in(pairs.table["key"], pa.array(wanted, pa.string()))
    held = pairs.table.filter(held_m)
    if not len(held):
        where, num_keys = f"{folder}, split {split}" if split else folder, pc.count_distinct(pairs.table["key"])
        raise TableError(f"{pairs.uri}: expected pictures of {where}, found none of its {num_keys} keys there")
    rows = _drawn_rows(held, limit, seed).to_pylist()
    shots = [(_asked(row, found), _positive(row, found)) for row in rows]
    number_of = {shot: at for at, shot in enumerate(sorted({one for pair in shots for one in pair if one}))}
    key_of = {place: key for key, place in found.items()}
    shown: dict[tuple[int, int], _Shown] = {}
    for at, number, box in number_of:
        shown.setdefault((at, number), _Shown(key_of[at, number], [])).boxes.append(box)
    return Chosen(
        rows=tuple(
            _gallery_row(row, number_of[asked], number_of[positive] if positive else -1)
            for row, (asked, positive) in zip(rows, shots, strict=True)
        ),
        splits=tuple(
            replace(drawn, numbers=tuple(number for place, number in shown if place == at))
            for at, drawn in enumerate(splits)
        ),
        shown={(splits[at].index.split, number): one for (at, number), one in shown.items()},
        num_found=len(held),
        notes=tuple(_notes(pairs.table.filter(pc.invert(held_m)), rows, found, split)),
    )


def _find(pairs: Pairs, splits: list[Drawn]) -> _Found:
    """Where the build holds the pictures that the table names, asked or as a positive."""
    columns = [pairs.table["key"], *([pairs.table["positive_key"]] if pairs.kind == "negatives" else [])]
    keys = pc.unique(pa.chunked_array([chunk for column in columns for chunk in column.chunks]))
    places = enumerate(find_pictures(keys, splits))
    return {key: (at, number) for at, numbers in places for key, number in numbers.items()}


def _drawn_rows(table: pa.Table, limit: int, seed: int) -> pa.Table:
    if not 0 < limit < len(table):
        return table
    rng = np.random.default_rng(seed)
    return table.take(pa.array(np.sort(rng.choice(len(table), limit, replace=False))))


def _asked(row: Mapping[str, object], found: _Found) -> _Shot:
    return _Shot(*found[str(row["key"])], ())


def _positive(row: Mapping[str, object], found: _Found) -> _Shot | None:
    """What the row names as its positive; None where that is nothing, not in the build, or the picture as it is."""
    key, box = row.get("positive_key"), row.get("positive_box")
    has_box = isinstance(box, list) and len(box) == 4 and all(math.isfinite(side or 0) for side in box)
    shown = tuple(float(side or 0) for side in box) if isinstance(box, list) and has_box else ()
    if not isinstance(key, str) or key not in found or (key == row["key"] and not shown):
        return None
    return _Shot(*found[key], shown)


def _gallery_row(row: Mapping[str, object], asked: int, positive: int) -> GalleryRow:
    rank = row.get("rank")
    return GalleryRow(
        asked=asked,
        positive=positive,
        phrase=_text(row.get("phrase")),
        kind=_text(row.get("kind")),
        evidence=_text(row.get("evidence")),
        score=_number(row.get("score")),
        standard_score=_number(row.get("standard_score")),
        rank=rank if isinstance(rank, int) else -1,
        positive_score=_number(row.get("positive_score")),
        miner=_text(row.get("miner")),
        guard=_text(row.get("reason")),
        stage=_text(row.get("stage")),
        detail=_text(row.get("detail")),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _notes(left_out: pa.Table, rows: list[dict[str, object]], found: _Found, split: str | None) -> Iterator[str]:
    """What of the table is not shown, one sentence each."""
    elsewhere = pc.is_in(left_out["key"], pa.array(list(found), pa.string()))
    missing = left_out.filter(pc.invert(elsewhere))
    if len(missing):
        pictures = pc.count_distinct(missing["key"]).as_py()
        yield (
            f"{len(missing):,} rows are left out: they ask {pictures:,} pictures that are not among the build's "
            "samples (a miner also asks pictures that were not planned)"
        )
    if split and len(left_out) > len(missing):
        yield f"{len(left_out) - len(missing):,} rows of other splits than {split} are left out"
    alone = sum(bool(row.get("positive_key")) and row["positive_key"] not in found for row in rows)
    if alone:
        yield f"{alone:,} rows stand without the positive that they name: it is not among the build's samples"


def read_pictures(chosen: Chosen, pixels: int) -> Iterator[GalleryPicture]:
    """The pictures of the rows, in the order that the rows' numbers of thumbnails count.

    Whole pictures have a longer side of at most `pixels`, positives one of about half as many.

    Raises:
        ManifestError: a shard is missing or damaged.
    """
    for drawn in chosen.splits:
        yield from read_ahead(drawn, partial(_read_picture, chosen, pixels))


def _read_picture(chosen: Chosen, pixels: int, index: SampleIndex, number: int) -> GalleryPicture:
    with open_sample(index, number) as (sample, jpeg):
        key, boxes = chosen.shown[index.split, number]
        return GalleryPicture(
            key=key,
            source=sample.source,
            split=index.split,
            width=sample.width,
            height=sample.height,
            present=tuple(prompt.phrase for prompt in sample.prompts if prompt.present),
            thumbnails=tuple(_thumbnail(jpeg, sample, box, pixels) for box in boxes),
        )


def _thumbnail(jpeg: memoryview, sample: Sample, box: _Box, pixels: int) -> Thumbnail:
    if not box:
        return as_thumbnail(decode_at(jpeg, sample, pixels))
    left, top, right, bottom = _with_margin(box, sample.width, sample.height)
    wanted = math.ceil(max(sample.width, sample.height) * (pixels / 2) / max(right - left, bottom - top))
    picture = decode_at(jpeg, sample, wanted)
    across, down = picture.width / sample.width, picture.height / sample.height
    first = (math.floor(left * across), math.floor(top * down))
    last = (max(first[0] + 1, math.ceil(right * across)), max(first[1] + 1, math.ceil(bottom * down)))
    return as_thumbnail(picture.crop((*first, min(last[0], picture.width), min(last[1], picture.height))))


def _with_margin(box: _Box, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the box and a little more, inside the picture; at least a pixel."""
    x, y, box_width, box_height = box
    margin = _CROP_MARGIN * max(box_width, box_height)
    left, top = (min(max(side - margin, 0.0), full - 1.0) for side, full in ((x, width), (y, height)))
    right = min(max(x + box_width + margin, left + 1), float(width))
    bottom = min(max(y + box_height + margin, top + 1), float(height))
    return left, top, right, bottom
