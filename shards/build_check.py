"""What the files of a build say of each other: the manifest, the wids indexes, the tables and what lies beside them."""

from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest

import msgspec
import pyarrow as pa

from manifests import files
from manifests.croissant import CROISSANT_NAME
from manifests.errors import TableError
from manifests.manifest import MANIFEST_NAME, Manifest, SplitIndex, index_name
from manifests.recipe import SPLITS, recipe_sha256
from manifests.tables import IMAGES, LABELS, NEGATIVES, REJECTS, SAMPLES, VOCABULARIES, open_table, read_table
from shards.draw import generated_sources
from shards.faults import Check, Fault
from shards.publish import describe_build
from shards.shortcuts import AUDITED, audit
from shards.summary import summarise

SCHEMAS = {
    "samples.parquet": SAMPLES,
    "images.parquet": IMAGES,
    "labels.parquet": LABELS,
    "vocabularies.parquet": VOCABULARIES,
    "negatives.parquet": NEGATIVES,
    "rejects.parquet": REJECTS,
}


def manifest_faults(manifest: Manifest) -> Iterator[Fault]:
    """Where the manifest contradicts itself."""
    if recipe_sha256(manifest.recipe) != manifest.recipe_sha256:
        yield _fault(Check.MANIFEST, "recipe_sha256 is not the digest of its recipe")
    if (manifest.name, manifest.seed) != (manifest.recipe.name, manifest.recipe.seed):
        yield _fault(Check.MANIFEST, f"name {manifest.name!r} or seed {manifest.seed} is not its recipe's")
    for name in manifest.splits:
        if name not in SPLITS:
            yield _fault(Check.MANIFEST, f"splits names {name!r}; expected {', '.join(SPLITS)}")
    missing = sorted(SCHEMAS.keys() - manifest.tables.keys())
    if missing:
        yield _fault(Check.MANIFEST, f"tables lacks {', '.join(missing)}")
    size = manifest.recipe.shard_samples
    for split, shards in manifest.splits.items():
        for number, shard in enumerate(shards):
            if shard.url != f"shards/{split}-{number:06d}.tar":
                yield _fault(Check.MANIFEST, f"shard {number} of {split} is called {shard.url!r}")
            last = number == len(shards) - 1
            if shard.nsamples > size or shard.nsamples < (1 if last else size):
                yield Fault(check=Check.COUNT, where=shard.url, message=f"{shard.nsamples} samples; expected {size}")


def index_faults(folder: str, manifest: Manifest) -> Iterator[Fault]:
    """Where the wids index of a split differs from the manifest."""
    for split in SPLITS:
        name = index_name(split)
        try:
            index = msgspec.json.decode(files.read_bytes(files.join(folder, name)), type=SplitIndex)
        except FileNotFoundError:
            if split in manifest.splits:
                yield _fault(Check.INDEX, "not found; expected the wids index of the split", name)
            continue
        except msgspec.MsgspecError as error:
            yield _fault(Check.INDEX, f"no wids index: {error}", name)
            continue
        if index.wids_version != 1:
            yield _fault(Check.INDEX, f"wids_version {index.wids_version}; wids reads 1 alone", name)
        listed = manifest.splits.get(split, [])
        for number, (shard, told) in enumerate(zip_longest(index.shardlist, listed)):
            if shard != told:
                yield _fault(Check.INDEX, f"shard {number} is {_short(shard)}; the manifest says {_short(told)}", name)


def _short(shard: msgspec.Struct | None) -> str:
    return "missing" if shard is None else msgspec.json.encode(shard).decode()


def file_faults(folder: str, manifest: Manifest) -> Iterator[Fault]:
    """Tables with another digest or with nulls, and files that nothing names or whose text is another."""
    named = {shard.url for shards in manifest.splits.values() for shard in shards}
    for uri in files.list_files(files.join(folder, "shards")):
        name = f"shards/{uri.rpartition('/')[2]}"
        if name not in named:
            yield _fault(Check.FILE, "the manifest does not name this file; readers that take shards/*.tar would", name)
    for name, sha256 in manifest.tables.items():
        yield from _table_faults(folder, name, sha256)
    yield from _text_faults(folder, "summary.md", summarise(manifest).encode())
    try:
        yield from _text_faults(folder, CROISSANT_NAME, describe_build(manifest, folder))
    except (TableError, FileNotFoundError):
        return  # said above


def _table_faults(folder: str, name: str, sha256: str) -> Iterator[Fault]:
    uri = files.join(folder, name)
    try:
        found = files.sha256_file(uri)
    except FileNotFoundError:
        yield _fault(Check.FILE, "not found; the manifest names it", name)
        return
    if found != sha256:
        yield _fault(Check.FILE, f"has sha256 {found[:16]}…; the manifest says {sha256[:16]}…", name)
    if name not in SCHEMAS:
        return
    try:
        columns = null_columns(uri, SCHEMAS[name])
    except TableError as error:
        yield _fault(Check.TABLE, f"cannot be read: {error}", name)
        return
    for column in columns:
        yield _fault(Check.TABLE, f"column {column} holds nulls; loaders would infer another type", name)


def null_columns(uri: str, schema: pa.Schema) -> list[str]:
    """The plain columns of a table that hold a null, by the file's own statistics.

    Raises:
        TableError: it cannot be read.
    """
    meta = open_table(uri, schema).metadata
    plain = {field.name for field in schema if not pa.types.is_nested(field.type)}
    found: dict[str, None] = {}
    for group in range(meta.num_row_groups):
        for index in range(meta.num_columns):
            column = meta.row_group(group).column(index)
            if column.path_in_schema in plain and column.statistics is not None and column.statistics.null_count:
                found[column.path_in_schema] = None
    return list(found)


def _text_faults(folder: str, name: str, expected: bytes) -> Iterator[Fault]:
    try:
        if files.read_bytes(files.join(folder, name)) != expected:
            yield _fault(Check.FILE, "is not what the manifest gives; it was changed afterwards", name)
    except FileNotFoundError:
        yield _fault(Check.FILE, "not found; expected it beside the manifest", name)


def audit_faults(folder: str, manifest: Manifest) -> Iterator[Fault]:
    """Whether the shortcut audit is what the samples give.

    Raises:
        TableError: samples.parquet cannot be read.
    """
    rows = read_table(files.join(folder, "samples.parquet"), SAMPLES, AUDITED)
    found = audit(rows, list(generated_sources(manifest.recipe)))
    for name in found.__struct_fields__:
        told, is_so = getattr(manifest.shortcuts, name), getattr(found, name)
        if told != is_so:
            yield _fault(Check.AUDIT, f"shortcuts.{name} is {told}; the samples give {is_so}")


def reject_faults(folder: str, manifest: Manifest) -> Iterator[Fault]:
    """Whether every counted reject is in the table of rejects.

    Raises:
        TableError: rejects.parquet cannot be read.
    """
    reasons = read_table(files.join(folder, "rejects.parquet"), REJECTS, ["reason"])["reason"].to_pylist()
    counted = dict(sorted(Counter(reasons).items()))
    if counted != dict(sorted(manifest.rejects.by_reason.items())):
        yield _fault(Check.COUNT, f"rejects.by_reason is {manifest.rejects.by_reason}; rejects.parquet has {counted}")


def _fault(check: Check, message: str, where: str = MANIFEST_NAME) -> Fault:
    return Fault(check=check, where=where, message=message)
