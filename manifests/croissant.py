"""The Croissant face of a build: `croissant.json`, which data set search engines and `mlcroissant` read.

It follows ML Croissant 1.1 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html). Every shard and table
is a file with its size and sha256, every table a set of records. Like the manifest it holds no clock and no host, so
`datePublished` is left to whoever publishes the build.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import pyarrow as pa

from manifests.manifest import Manifest
from manifests.tables import IMAGES, LABELS, NEGATIVES, REJECTS, SAMPLES, VOCABULARIES

CROISSANT_NAME = "croissant.json"
_RECORDS: dict[str, tuple[pa.Schema, str]] = {
    "samples": (SAMPLES, "One row per prompt; key, phrase and kind together are unique."),
    "images": (IMAGES, "One row per image, with the vocabularies over which its labels are exhaustive."),
    "labels": (LABELS, "What is known of each phrase in each image: present, absent or open."),
    "vocabularies": (VOCABULARIES, "The phrases of each vocabulary."),
    "negatives": (NEGATIVES, "The absent prompts that were mined."),
    "rejects": (REJECTS, "Inputs that were dropped, with the reason."),
}
_LITERALS = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
}
# fmt: off
_TERMS = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject",
    "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
    "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "sdVersion",
    "separator", "source", "subField", "transform",
)
# fmt: on
_CONTEXT: dict[str, str | dict[str, str]] = {
    **_LITERALS,
    **{name: f"cr:{name}" for name in _TERMS},
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}


class _Node(msgspec.Struct, frozen=True, kw_only=True, rename={"id": "@id", "type": "@type"}):
    """Anything that has a name of its own in JSON-LD."""

    id: str


class _Reference(msgspec.Struct, frozen=True, kw_only=True, rename={"id": "@id"}):
    """The name of another node."""

    id: str


class _Extract(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a file holds a field."""

    column: str


class _Source(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where a field's values lie."""

    file_object: _Reference
    extract: _Extract


class _File(_Node, frozen=True, kw_only=True, rename={"id": "@id", "type": "@type"}):
    """One shard or table."""

    type: str = "cr:FileObject"
    name: str
    contentUrl: str  # noqa: N815 - JSON-LD's own spelling, here and below
    contentSize: str  # noqa: N815
    encodingFormat: str  # noqa: N815
    sha256: str


class _Field(_Node, frozen=True, kw_only=True, omit_defaults=True, rename={"id": "@id", "type": "@type"}):
    """One column of a table."""

    type: str
    name: str
    dataType: str  # noqa: N815
    isArray: bool = False  # noqa: N815
    arrayShape: str = ""  # noqa: N815
    source: _Source


class _RecordSet(_Node, frozen=True, kw_only=True, rename={"id": "@id", "type": "@type"}):
    """One table."""

    type: str = "cr:RecordSet"
    name: str
    description: str
    field: list[_Field]


class _Dataset(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"context": "@context", "type": "@type"}
):
    """The whole file."""

    context: dict[str, str | dict[str, str]]
    type: str
    name: str
    description: str
    conformsTo: str  # noqa: N815
    citeAs: str  # noqa: N815
    license: list[str] = []
    version: str
    distribution: list[_File]
    recordSet: list[_RecordSet]  # noqa: N815


def croissant(manifest: Manifest, table_bytes: Mapping[str, int], licences: Iterable[str]) -> bytes:
    """`croissant.json` of a build; the same manifest gives the same bytes.

    Args:
        manifest: The build.
        table_bytes: Size of each table that the manifest names, by file name.
        licences: Those of the images; "" stands for unknown and is left out.
    """
    dataset = _Dataset(
        context=_CONTEXT,
        type="sc:Dataset",
        name=manifest.name,
        description=_describe(manifest),
        conformsTo="http://mlcommons.org/croissant/1.1",
        citeAs=f"{manifest.name}, a data set built with Absentia from the inputs {manifest.inputs_sha256}",
        license=sorted({licence for licence in licences if licence}),
        version=f"{manifest.schema}.0.0+{manifest.inputs_sha256[:16]}",
        distribution=[*_shards(manifest), *_tables(manifest, table_bytes)],
        recordSet=[_record_set(name, *_RECORDS[name]) for name in _RECORDS if f"{name}.parquet" in manifest.tables],
    )
    return msgspec.json.format(msgspec.json.encode(dataset), indent=2) + b"\n"


def _describe(manifest: Manifest) -> str:
    held = {split: sum(shard.nsamples for shard in shards) for split, shards in manifest.splits.items()}
    sizes = ", ".join(f"{split} {num}" for split, num in held.items())
    return (
        f"{sum(held.values())} images ({sizes}) with phrases that are present, with masks, and phrases that are "
        "absent, with how that is known. Shards are WebDataset tars of <key>.jpg and <key>.json."
    )


def _shards(manifest: Manifest) -> list[_File]:
    return [
        _file(shard.url, shard.filesize, "application/x-tar", shard.sha256)
        for shards in manifest.splits.values()
        for shard in shards
    ]


def _tables(manifest: Manifest, table_bytes: Mapping[str, int]) -> list[_File]:
    return [
        _file(name, table_bytes[name], "application/x-parquet", sha256)
        for name, sha256 in sorted(manifest.tables.items())
    ]


def _file(url: str, num_bytes: int, encoding: str, sha256: str) -> _File:
    name = url.rpartition("/")[2]
    return _File(
        id=name, name=name, contentUrl=url, contentSize=f"{num_bytes} B", encodingFormat=encoding, sha256=sha256
    )


def _record_set(name: str, schema: pa.Schema, description: str) -> _RecordSet:
    return _RecordSet(id=name, name=name, description=description, field=_fields(name, schema))


def _fields(table: str, schema: Sequence[pa.Field]) -> list[_Field]:
    """All columns but nested ones: mlcroissant reads no list of structs."""
    return [_field(table, column) for column in schema if not _is_nested(column.type)]


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_nested(kind.value_type))


def _field(table: str, column: pa.Field) -> _Field:
    is_list = pa.types.is_list(column.type)
    return _Field(
        id=f"{table}/{column.name}",
        type="cr:Field",
        name=column.name,
        dataType=_data_type(column.type.value_type if is_list else column.type),
        isArray=is_list,
        arrayShape="-1" if is_list else "",
        source=_Source(file_object=_Reference(id=f"{table}.parquet"), extract=_Extract(column=column.name)),
    )


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
