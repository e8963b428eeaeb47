"""Write a plan as shards and tables, and the manifest last.

Bytes are copied from where they lie, never decoded; a byte that changed since the scan stops the build. Every shard is
one task whose record says that it is finished, so a killed build goes on where it was.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

import msgspec
import pyarrow as pa
from rich.progress import Progress

from manifests import files
from manifests.manifest import Shard
from manifests.sample import Evidence, MaskState, Origin, WirePrompt, WireSample, encode_wire
from manifests.stage import read_record, run_stage
from manifests.tables import CATALOG, PLAN, read_table
from shards.images import decode_rgb, encode_jpeg, settings_of_quality
from shards.originals import Original
from shards.plan import ShardPart
from shards.tar import ShardWriter

ENCODED_QUALITY = 95  # of pictures that were no JPEG
SHARD_URL = re.compile(r"shards/(train|val|test)-[0-9]{6,}\.tar")  # what `shard_url` gives
_NO_MASKS = msgspec.Raw(b"[]")


class _PictureRow(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a CATALOG row that a sample needs."""

    key: str
    source: str
    uri: str
    offset: int
    num_bytes: int
    sha256: str
    width: int
    height: int
    encoded: bool
    licence: str
    origin: str


class _PromptRow(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a PLAN row that a prompt needs."""

    key: str
    phrase: str
    present: bool
    mask_state: MaskState
    kind: str
    evidence: Evidence
    score: float
    standard_score: float
    rank: int
    positive_key: str
    positive_score: float
    miner: str
    masks_part: str
    masks_offset: int
    masks_num_bytes: int


class ShardRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A finished shard; the lists have one entry per sample, in written order."""

    shard: Shard
    offsets: list[int]  # of each JPEG in the shard
    num_bytes: list[int]
    sha256: list[str]


def write_shards(
    parts: Sequence[ShardPart],
    roots: Mapping[str, str],
    *,
    out: str,
    executor: Executor,
    progress: Progress,
) -> list[ShardRecord]:
    """The record of every shard; a shard that was written before is not written again.

    Args:
        parts: The plan.
        roots: The folder that each source's uris are relative to.
        out: The build's folder.
        executor: Where shards are written.
        progress: Shows how many samples are written.
    """
    folder = files.join(out, "work", "shards")
    _forget_lost_shards(parts, folder, out)
    run = partial(write_shard, roots=dict(roots), out=out)
    return run_stage("write", parts, run, ShardRecord, folder=folder, executor=executor, progress=progress)


def shard_url(part: ShardPart) -> str:
    """Where a shard stands, relative to the build's folder."""
    return f"shards/{part.split}-{part.number:06d}.tar"


def _forget_lost_shards(parts: Sequence[ShardPart], folder: str, out: str) -> None:
    """Remove the records of shards that are no longer there or will be overwritten, so that they are written again.

    Records of other plans go first: a shard of theirs may have the very size of the one that takes its place.
    """
    planned = {f"{part.name}.json" for part in parts}
    for uri in files.list_files(folder):
        if files.relative(uri, folder) not in planned:
            files.remove(uri)
    for part in parts:
        record = read_record(folder, part.name, ShardRecord)
        place = files.join(out, shard_url(part))
        if record is None or not files.exists(place) or files.num_bytes(place) != record.shard.filesize:
            files.remove(files.join(folder, f"{part.name}.json"))


def write_shard(part: ShardPart, *, roots: Mapping[str, str], out: str) -> ShardRecord:
    """Write one shard from its plan."""
    images = read_table(part.images, CATALOG)
    offsets, sizes, digests = [], [], []
    url = shard_url(part)
    with files.commit(files.join(out, url)) as file:
        writer = ShardWriter(file)
        rows = msgspec.convert(images.to_pylist(), list[_PictureRow])
        for row, prompts in zip(rows, _prompts_by_sample(part, images, out), strict=True):
            jpeg, digest = _picture(row, roots[row.source])
            placed = writer.add(row.key, jpeg, encode_wire(_sample(row, prompts)))
            offsets.append(placed.offset)
            sizes.append(placed.num_bytes)
            digests.append(digest)
        sha256 = writer.close()
    counts = {entry["values"]: entry["counts"] for entry in images["source"].value_counts().to_pylist()}
    shard = Shard(
        url=url, nsamples=images.num_rows, filesize=writer.num_bytes, sha256=sha256, counts=dict(sorted(counts.items()))
    )
    return ShardRecord(shard=shard, offsets=offsets, num_bytes=sizes, sha256=digests)


def _prompts_by_sample(part: ShardPart, images: pa.Table, out: str) -> Iterator[list[WirePrompt]]:
    """The prompts of each sample in written order, their masks copied as they lie."""
    rows = iter(msgspec.convert(read_table(part.plan, PLAN).to_pylist(), list[_PromptRow]))
    row = next(rows, None)
    for key in images["key"].to_pylist():
        of_sample = []
        while row is not None and row.key == key:
            of_sample.append(row)
            row = next(rows, None)
        masks = _masks(of_sample, out)
        yield [_prompt(found, shown) for found, shown in zip(of_sample, masks, strict=True)]


def _masks(rows: Sequence[_PromptRow], out: str) -> list[msgspec.Raw]:
    """The masks of each prompt of one sample; the masks of a picture lie together, so that one read fetches them."""
    shown = [row for row in rows if row.masks_num_bytes]
    fetched: dict[str, tuple[int, bytes]] = {}
    for part in {row.masks_part for row in shown}:
        spans = [(row.masks_offset, row.masks_num_bytes) for row in shown if row.masks_part == part]
        first, last = min(start for start, _ in spans), max(start + size for start, size in spans)
        uri = files.join(out, "work", "catalog", f"{part}.masks")
        fetched[part] = first, files.read_range(uri, first, last - first)
    masks = []
    for row in rows:
        first, data = fetched.get(row.masks_part, (0, b""))
        start = row.masks_offset - first
        masks.append(msgspec.Raw(data[start : start + row.masks_num_bytes]) if row.masks_num_bytes else _NO_MASKS)
    return masks


def _prompt(row: _PromptRow, masks: msgspec.Raw) -> WirePrompt:
    return WirePrompt(
        phrase=row.phrase,
        present=row.present,
        mask_state=row.mask_state,
        masks=masks,
        kind=row.kind,
        evidence=row.evidence,
        score=row.score,
        standard_score=row.standard_score,
        rank=row.rank,
        positive_key=row.positive_key,
        positive_score=row.positive_score,
        miner=row.miner,
    )


def _picture(row: _PictureRow, root: str) -> tuple[bytes, str]:
    """The JPEG of one sample and its sha256.

    Raises:
        BuildError: the bytes are gone or are not those that were scanned.
    """
    uri = files.join(root, row.uri)
    data = Original(key=row.key, uri=uri, offset=row.offset, num_bytes=row.num_bytes, sha256=row.sha256).read()
    if not row.encoded:
        return data, row.sha256
    jpeg = encode_jpeg(decode_rgb(data), settings=settings_of_quality(ENCODED_QUALITY))
    return jpeg, hashlib.sha256(jpeg).hexdigest()


def _sample(row: _PictureRow, prompts: list[WirePrompt]) -> WireSample:
    origin = Origin(
        uri=row.origin,
        offset=row.offset,
        num_bytes=row.num_bytes,
        sha256=row.sha256,
        licence=row.licence,
        encoded=row.encoded,
    )
    return WireSample(
        key=row.key,
        source=row.source,
        width=row.width,
        height=row.height,
        origin=origin,
        prompts=prompts,
    )
