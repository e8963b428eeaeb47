"""Typed Parquet tables: what each column is, and reading and writing them without surprises.

A table's columns are fixed here once; a file with other columns is refused by name. Tables are written batch by batch
with fixed row groups, so that the same rows give the same bytes whoever wrote them and however much memory there was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import files
from manifests.errors import TableError

TABLE_SCHEMA = 1
_VERSION_KEY = b"absentia.schema"
_TABLE_KEY = b"absentia.table"
ROW_GROUP = 16_384  # rows buffered by a writer; a constant, because it shapes the bytes
_OBJECT_ROWS = 1024  # rows held as Python objects, which take several times an Arrow table's memory

_MASKS = pa.list_(pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())]))
_PROMPT = [
    ("phrase", pa.string()),
    ("present", pa.bool_()),
    ("mask_state", pa.string()),
    ("kind", pa.string()),  # "" where present
    ("evidence", pa.string()),
    ("score", pa.float32()),
    ("standard_score", pa.float32()),
    ("rank", pa.int32()),
    ("positive_key", pa.string()),
    ("positive_score", pa.float32()),
]
_NAMES = pa.list_(pa.string())

# one row per image; `uri` is where the bytes lie below the source's root, `origin` what a sample says of it
CATALOG = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("num_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("encoded", pa.bool_()),
        ("licence", pa.string()),
        ("exhaustive_over", _NAMES),
        ("open_over", _NAMES),
        ("perceptual_hash", pa.uint64()),  # null where the picture has no structure to hash
        ("origin", pa.string()),
    ]
)
# one row per phrase of an image; masks as a byte range of the part's `.masks` file (JSON, copied as it is)
LABEL_RANGES = pa.schema(
    [
        ("key", pa.string()),
        ("phrase", pa.string()),
        ("state", pa.string()),  # present | absent | open
        ("mask_state", pa.string()),
        ("masks_offset", pa.int64()),
        ("masks_num_bytes", pa.int32()),
        ("known_by", pa.string()),  # source | sidecar | retrieved | model | reviewer
    ]
)
LABELS = pa.schema(
    [
        ("key", pa.string()),
        ("phrase", pa.string()),
        ("state", pa.string()),
        ("mask_state", pa.string()),
        ("masks", _MASKS),
        ("known_by", pa.string()),
    ]
)
PLAN = pa.schema(
    [
        ("split", pa.string()),
        ("position", pa.int64()),
        ("key", pa.string()),
        ("image_key", pa.string()),
        *_PROMPT,
        ("miner", pa.string()),
        ("masks_part", pa.string()),
        ("masks_offset", pa.int64()),
        ("masks_num_bytes", pa.int32()),
    ]
)
# one row per prompt; (key, phrase, kind) is its primary key
SAMPLES = pa.schema(
    [
        ("key", pa.string()),
        ("image_key", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),  # of the JPEG's first byte in the shard
        ("num_bytes", pa.int64()),
        ("sha256", pa.string()),  # of the JPEG in the shard
        ("width", pa.int32()),
        ("height", pa.int32()),
        *_PROMPT,
    ]
)
IMAGES = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("exhaustive_over", _NAMES),
        ("open_over", _NAMES),
        ("licence", pa.string()),
        ("group", pa.string()),
    ]
)
VOCABULARIES = pa.schema([("vocabulary", pa.string()), ("phrase", pa.string())])
NEGATIVES = pa.schema(
    [
        ("key", pa.string()),
        ("phrase", pa.string()),
        ("kind", pa.string()),
        ("evidence", pa.string()),
        ("score", pa.float32()),
        ("standard_score", pa.float32()),
        ("rank", pa.int32()),
        ("positive_key", pa.string()),
        ("positive_box", pa.list_(pa.float32())),  # x, y, width, height in pixels
        ("positive_score", pa.float32()),
        ("miner", pa.string()),
    ]
)
# one row per embedded picture, crop or phrase; `row` is a unit vector of the encoder that the metadata names
EMBEDDINGS = pa.schema(
    [
        ("key", pa.string()),  # of the picture; "" for a phrase
        ("phrase", pa.string()),  # "" for a whole picture
        ("box", pa.list_(pa.float32())),  # of a crop: x, y, width, height in pixels of the picture; empty otherwise
        ("row", pa.list_(pa.float16())),
    ]
)
# what any model says: the presence of a phrase in a picture, and where
PREDICTIONS = pa.schema(
    [
        ("key", pa.string()),
        ("phrase", pa.string()),
        ("presence", pa.float32()),  # 0 to 1
        ("mask", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),  # union; "" counts for none
    ]
)
# one row per picture that was predicted; stands beside the predictions as `<stem>.images.parquet`
PREDICTED_IMAGES = pa.schema(
    [
        ("key", pa.string()),
        ("prompt_sensitivity", pa.float32()),  # NaN under two prompts
        ("num_prompts", pa.int32()),
    ]
)
# what a picture adds to a metric of an evaluation, which is the sum of parts over the sum of wholes
IMAGE_SUMS = pa.schema([("key", pa.string()), ("metric", pa.string()), ("part", pa.float64()), ("whole", pa.float64())])
# one row per mask whose phrase was retrieved; as a file it is a sidecar of SA-1B
PHRASES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("annotation_id", pa.int64()),
        ("phrase", pa.string()),
        ("score", pa.float32()),  # standard score of the phrase, see miners.lookup
        ("margin", pa.float32()),  # to the best phrase that says something else; infinite where there is none
    ]
)
REJECTS = pa.schema(
    [
        ("stage", pa.string()),
        ("source", pa.string()),
        ("where", pa.string()),  # a key, or a uri where there is none yet
        ("phrase", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)

_NAMED = {
    "catalog": CATALOG,
    "label_ranges": LABEL_RANGES,
    "labels": LABELS,
    "plan": PLAN,
    "samples": SAMPLES,
    "images": IMAGES,
    "vocabularies": VOCABULARIES,
    "negatives": NEGATIVES,
    "embeddings": EMBEDDINGS,
    "predictions": PREDICTIONS,
    "image_sums": IMAGE_SUMS,
    "predicted_images": PREDICTED_IMAGES,
    "phrases": PHRASES,
    "rejects": REJECTS,
}


def _name_of(schema: pa.Schema) -> str:
    return next(name for name, known in _NAMED.items() if known is schema)


class TableWriter:
    """Rows in, row groups of exactly `ROW_GROUP` rows out; use `table_writer`."""

    def __init__(self, file: IO[bytes], schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        stamped = {_VERSION_KEY: str(TABLE_SCHEMA), _TABLE_KEY: _name_of(schema)}
        stamped |= {f"absentia.{name}".encode(): value for name, value in sorted(metadata.items())}
        self.schema = schema
        self.num_rows = 0
        self._writer = pq.ParquetWriter(
            file, schema.with_metadata(stamped), compression="zstd", use_dictionary=_repeating(schema)
        )
        self._columns: list[list[object]] = [[] for _ in schema]
        self._pending: list[pa.Table] = []
        self._pending_rows = 0

    def add(self, *values: object) -> None:
        """Add one row, its values in the schema's order."""
        self.add_columns(*([value] for value in values))

    def add_columns(self, *columns: Sequence[object]) -> None:
        """Add several rows, column by column in the schema's order."""
        for column, values in zip(self._columns, columns, strict=True):
            column.extend(values)
        if len(self._columns[0]) >= min(_OBJECT_ROWS, ROW_GROUP):
            self._turn_rows()

    def add_table(self, table: pa.Table) -> None:
        """Add the rows of `table`, which has the schema's columns."""
        self._turn_rows()
        self._pending.append(table.select(self.schema.names).cast(self.schema))
        self._pending_rows += table.num_rows
        self._write_full_groups()

    def _turn_rows(self) -> None:
        if self._columns[0]:
            arrays = [pa.array(c, f.type) for c, f in zip(self._columns, self.schema, strict=True)]
            self._pending.append(pa.Table.from_arrays(arrays, schema=self.schema))
            self._pending_rows += len(self._columns[0])
            self._columns = [[] for _ in self.schema]
            self._write_full_groups()

    def _write_full_groups(self) -> None:
        while self._pending_rows >= ROW_GROUP:
            rows = pa.concat_tables(self._pending)
            self._write(rows.slice(0, ROW_GROUP))
            rest = rows.slice(ROW_GROUP)
            self._pending, self._pending_rows = [rest], rest.num_rows

    def _write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows.combine_chunks(), row_group_size=ROW_GROUP)
        self.num_rows += rows.num_rows

    def close(self) -> None:
        """Write what is left and the footer."""
        self._turn_rows()
        if self._pending_rows:
            self._write(pa.concat_tables(self._pending))
        self._writer.close()

    def abandon(self) -> None:
        """Let go of a file that will be thrown away, so that nothing is written to it later."""
        with suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()
        self._writer.is_open = False


def _repeating(schema: pa.Schema) -> bool | list[str]:
    """The columns for which a dictionary pays: not embeddings, which are read five times as fast without one."""
    rows = {field.name for field in schema if field.type == pa.list_(pa.float16())}
    return [field.name for field in schema if field.name not in rows] if rows else True


@contextmanager
def table_writer(uri: str, schema: pa.Schema, metadata: Mapping[str, str] | None = None) -> Iterator[TableWriter]:
    """A writer whose table appears at `uri` whole when the block ends; `metadata` goes into the file's own."""
    with files.commit(uri) as file:
        writer = TableWriter(file, schema, metadata or {})
        try:
            yield writer
            writer.close()
        except BaseException:
            writer.abandon()
            raise


def write_table(uri: str, table: pa.Table, schema: pa.Schema, metadata: Mapping[str, str] | None = None) -> None:
    """Write all rows of `table` to `uri`."""
    with table_writer(uri, schema, metadata) as writer:
        writer.add_table(table)


def list_tables(uri: str) -> list[str]:
    """The Parquet files at `uri`: the one that it names, or those of a folder, however deep."""
    return [name for name in files.list_files(uri) if name.endswith(".parquet")]


def open_table(uri: str, schema: pa.Schema) -> pq.ParquetFile:
    """The Parquet file at `uri`, checked to be the table that `schema` describes.

    Raises:
        TableError: it is missing, no Parquet, of a newer version or of none, or lacks columns.
    """
    name = _name_of(schema)
    try:
        found = pq.ParquetFile(uri if files.is_local(uri) else files.open_input(uri))
    except FileNotFoundError as error:
        raise TableError(f"{uri}: not found; expected the {name} table") from error
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{uri}: cannot be read as Parquet: {_one_line(error)}") from error
    _require_version(uri, (found.schema_arrow.metadata or {}).get(_VERSION_KEY, b"1"))
    missing = [field.name for field in schema if field.name not in found.schema_arrow.names]
    if missing:
        columns = ", ".join(found.schema_arrow.names)
        raise TableError(f"{uri}: is no {name} table: columns {', '.join(missing)} are missing; found {columns}")
    return found


def _require_version(uri: str, stamp: bytes) -> None:
    """Stop if the table's stamp is no version that is read here."""
    try:
        version = int(stamp)
    except ValueError:
        version = 0
    if version < 1:
        raise TableError(
            f"{uri}: table schema {stamp[:20].decode(errors='replace')!r} is none; expected a whole number up to "
            f"{TABLE_SCHEMA}. Another program wrote it: leave absentia.schema out of the table's metadata"
        )
    if version > TABLE_SCHEMA:
        raise TableError(
            f"{uri}: table schema {version} is newer than {TABLE_SCHEMA}, which this version reads; upgrade absentia"
        )


def read_table(uri: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows at `uri`, in the schema's columns (or some of them).

    Raises:
        TableError: see `open_table`.
    """
    found = open_table(uri, schema)
    wanted = list(columns) if columns is not None else schema.names
    try:
        return found.read(columns=wanted).select(wanted).cast(pa.schema([schema.field(name) for name in wanted]))
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{uri}: {_name_of(schema)} table is damaged: {_one_line(error)}") from error


def iterate_table(uri: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows at `uri`, one row group at a time, in the schema's columns (or some of them).

    Raises:
        TableError: see `open_table`; or a column holds what cannot be turned into the schema's type.
    """
    wanted = list(columns) if columns is not None else schema.names
    for read in iterate_groups(uri, schema):
        yield read(wanted)


def iterate_groups(uri: str, schema: pa.Schema) -> Iterator[Callable[[Sequence[str]], pa.Table]]:
    """What reads some columns of a row group, for each group at `uri`: wide columns can wait until rows are chosen.

    Raises:
        TableError: see `iterate_table`.
    """
    found = open_table(uri, schema)
    for index in range(found.num_row_groups):
        yield partial(_read_group, found, index, uri, schema)


def _read_group(found: pq.ParquetFile, index: int, uri: str, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    try:
        rows = found.read_row_group(index, columns=list(columns)).select(list(columns))
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{uri}: {_name_of(schema)} table is damaged: {_one_line(error)}") from error
    fields = [schema.field(name) for name in columns]
    arrays = [_cast(rows[field.name], field, uri, _name_of(schema)) for field in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _cast(column: pa.ChunkedArray, field: pa.Field, uri: str, table: str) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise TableError(
            f"{uri}: column {field.name} of the {table} table: expected {field.type}, found {column.type}: "
            f"{_one_line(error)}. Write it with that type"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def read_metadata(uri: str, schema: pa.Schema) -> dict[str, str]:
    """What `table_writer` was given as metadata."""
    stored = open_table(uri, schema).schema_arrow.metadata or {}
    names = {key.decode().removeprefix("absentia."): value.decode() for key, value in stored.items()}
    return {key: value for key, value in names.items() if key not in ("schema", "table", "ARROW:schema")}
