"""Ways to spoil a finished build and seal it again, so that one thing is wrong with it and nothing else tells."""

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from manifests import files, tables
from manifests.croissant import CROISSANT_NAME
from manifests.manifest import (
    MANIFEST_NAME,
    Achieved,
    Manifest,
    Pairs,
    Shard,
    SplitMix,
    encode_index,
    encode_manifest,
    index_name,
    read_manifest,
)
from manifests.recipe import SPLITS
from manifests.sample import Sample, decode_sample, encode_sample
from shards.draw import generated_sources
from shards.publish import describe_build
from shards.shortcuts import audit
from shards.summary import summarise
from shards.tar import ShardWriter

Row = dict[str, object]


@dataclass(slots=True, kw_only=True)
class Held:
    """One sample of a build, as a test may change it."""

    split: str
    image_key: str
    sample: Sample
    jpeg: bytes


def members(shard: Path) -> list[tuple[str, bytes]]:
    """Name and bytes of every member."""
    with tarfile.open(shard) as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def write_members(shard: Path, held: Sequence[tuple[str, bytes]]) -> None:
    """A sound tar of `held`."""
    with shard.open("wb") as file:
        writer = ShardWriter(file)
        for name, data in held:
            writer._member(name, data)
        writer.close()


def rows_of(folder: Path, name: str) -> list[Row]:
    """Rows of a table."""
    found: list[Row] = pq.read_table(folder / f"{name}.parquet").to_pylist()
    return found


def write_rows(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Make `rows` the table of that name."""
    schema = getattr(tables, name.upper())
    tables.write_table(str(folder / f"{name}.parquet"), pa.Table.from_pylist(list(rows), schema), schema)


def load(folder: Path) -> list[Held]:
    """Every sample of a sound build in written order."""
    image_keys = {str(row["key"]): str(row["image_key"]) for row in rows_of(folder, "samples")}
    held = []
    for split, shards in read_manifest(str(folder)).splits.items():
        for shard in shards:
            data = dict(members(folder / shard.url))
            for name, text in data.items():
                if name.endswith(".json"):
                    sample = decode_sample(text)
                    jpeg = data[name.replace(".json", ".jpg")]
                    held.append(Held(split=split, image_key=image_keys[sample.key], sample=sample, jpeg=jpeg))
    return held


def forge(folder: Path, held: Sequence[Held]) -> None:
    """Write shards and samples.parquet of `held` over those in `folder`, and seal the build."""
    manifest = read_manifest(str(folder))
    splits, rows = {}, []
    for split in SPLITS:
        here = [one for one in held if one.split == split]
        shards = []
        for number, first in enumerate(range(0, len(here), manifest.recipe.shard_samples)):
            shard, added = _write_shard(folder, split, number, here[first : first + manifest.recipe.shard_samples])
            shards.append(shard)
            rows += added
        splits[split] = shards
    named = {shard.url for shards in splits.values() for shard in shards}
    for path in (folder / "shards").iterdir():
        if f"shards/{path.name}" not in named:
            path.unlink()
    write_rows(folder, "samples", rows)
    seal(folder, lambda found: msgspec.structs.replace(found, splits=splits))


def _write_shard(folder: Path, split: str, number: int, held: Sequence[Held]) -> tuple[Shard, list[Row]]:
    url = f"shards/{split}-{number:06d}.tar"
    rows: list[Row] = []
    with (folder / url).open("wb") as file:
        writer = ShardWriter(file)
        for one in held:
            place = writer.add(one.sample.key, one.jpeg, encode_sample(one.sample))
            rows += _rows(one, url, place.offset)
        sha256 = writer.close()
    counts = dict(sorted(Counter(one.sample.source for one in held).items()))
    return Shard(url=url, nsamples=len(held), filesize=writer.num_bytes, sha256=sha256, counts=counts), rows


def _rows(one: Held, url: str, offset: int) -> list[Row]:
    sample = one.sample
    of_sample = {
        "key": sample.key,
        "image_key": one.image_key,
        "split": one.split,
        "source": sample.source,
        "shard": url,
        "offset": offset,
        "num_bytes": len(one.jpeg),
        "sha256": hashlib.sha256(one.jpeg).hexdigest(),
        "width": sample.width,
        "height": sample.height,
    }
    return [
        {**of_sample, **msgspec.structs.asdict(prompt), "kind": str(prompt.kind or "")} for prompt in sample.prompts
    ]


def seal(folder: Path, change: Callable[[Manifest], Manifest] = lambda manifest: manifest) -> None:
    """Make manifest, indexes, summary and Croissant agree with what lies in `folder`; then `change` the manifest."""
    root = str(folder)
    manifest = read_manifest(root)
    splits = {split: [_sized(folder, shard) for shard in shards] for split, shards in manifest.splits.items()}
    digests = {name: files.sha256_file(str(folder / name)) for name in manifest.tables if (folder / name).exists()}
    rows = pq.read_table(folder / "samples.parquet")
    sealed = msgspec.structs.replace(
        manifest,
        splits=splits,
        tables=manifest.tables | digests,
        mix={split: _mix(mix, split, rows) for split, mix in manifest.mix.items()},
        shortcuts=audit(rows, list(generated_sources(manifest.recipe))),
    )
    changed = change(sealed)
    for split, shards in changed.splits.items():
        (folder / index_name(split)).write_bytes(encode_index(shards))
    (folder / "summary.md").write_text(summarise(changed), encoding="utf-8")
    (folder / CROISSANT_NAME).write_bytes(describe_build(changed, root))
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(changed))


def _sized(folder: Path, shard: Shard) -> Shard:
    path = folder / shard.url
    if not path.exists():
        return shard
    digest = files.sha256_file(str(path))
    return msgspec.structs.replace(shard, filesize=path.stat().st_size, sha256=digest)


def _mix(mix: SplitMix, split: str, rows: pa.Table) -> SplitMix:
    here = [row for row in rows.to_pylist() if row["split"] == split]
    sources = Counter({(row["shard"], row["key"]): row["source"] for row in here}.values())
    pairs = Counter((row["source"], row["present"]) for row in here)
    kinds = Counter(row["kind"] for row in here)

    def achieved(told: Achieved, num: int) -> Achieved:
        return Achieved(requested=told.requested, achieved=num)

    return SplitMix(
        samples={name: achieved(told, sources[name]) for name, told in mix.samples.items()},
        prompts={kind: achieved(told, kinds[kind]) for kind, told in mix.prompts.items()},
        pairs={
            name: Pairs(present=pairs[name, True], absent=achieved(told.absent, pairs[name, False]))
            for name, told in mix.pairs.items()
        },
    )


def png_of(jpeg: bytes) -> bytes:
    """The same picture as PNG."""
    encoded = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).save(encoded, "PNG")
    return encoded.getvalue()


def half(jpeg: bytes) -> bytes:
    """The same picture at half its size."""
    encoded = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).reduce(2).save(encoded, "JPEG")
    return encoded.getvalue()
