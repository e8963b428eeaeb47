"""The rows of a phrase sidecar, from Parquet or JSON lines, brought to one set of columns batch by batch.

Columns: `image_id`, `phrase`, `annotation_id` and / or `segmentation` (an RLE as a struct or as JSON text), `score`.
Ids may be integers, whole floats (as pandas writes a column with gaps) or text (`123`, `sa_123`).
"""

from collections.abc import Iterator, Sequence
from typing import IO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests import files
from manifests.errors import Reason, SourceError
from manifests.sample import Mask

NO_ANNOTATION = -1
MAX_ID = (1 << 63) - 2  # the largest image id: one more is still an int64
ROWS = pa.schema(
    [
        ("image_id", pa.int64()),
        ("row", pa.int64()),  # number in the sidecar, from 1
        ("annotation_id", pa.int64()),  # NO_ANNOTATION where there is none
        ("phrase", pa.large_binary()),  # not yet known to be UTF-8
        ("score", pa.float64()),
        ("segmentation", pa.large_binary()),  # JSON, empty where there is none
    ]
)

_BATCH_ROWS = 65_536
_BATCH_LINES_BYTES = 16 << 20
_MAX_LINE_BYTES = 16 << 20
_ROW_BYTES = 48  # of a spilled row with a short phrase
_EXPECTED = "expected columns image_id, annotation_id or segmentation, phrase, and perhaps score"


class Rle(Mask, frozen=True, kw_only=True, forbid_unknown_fields=False, gc=False):
    """A mask as SA-1B and sidecars write it, perhaps with more fields than a mask has."""


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that could not be read, or that names no image."""

    where: str
    reason: Reason
    detail: str


class _Line(msgspec.Struct):
    image_id: int | str
    phrase: str | None  # None only where the line is bad but for its image id
    annotation_id: int | str | None = None
    segmentation: Rle | str | None = None
    score: float | None = None


class _ImageOnly(msgspec.Struct):
    image_id: int | str


_decoder = msgspec.json.Decoder(_Line)
_image_decoder = msgspec.json.Decoder(_ImageOnly)


def read_rows(uris: Sequence[str]) -> Iterator[pa.RecordBatch | BadRow]:
    """All rows of the files `uris` with the columns `ROWS`, in order and numbered through.

    Raises:
        SourceError: a file is missing, or is no sidecar.
    """
    start = 0
    for uri in uris:
        last = start
        for found in _read_lines(uri) if _is_lines(uri) else _read_parquet(uri):
            if isinstance(found, BadRow):
                yield found
                continue
            last = start + found.column("row")[-1].as_py()
            image_ids = found.column("image_id")
            if image_ids.null_count:
                yield from _nameless(found.column("row").filter(pc.is_null(image_ids)).to_pylist(), uri)
            rows = pc.add(found.column("row"), start)
            columns = [rows if name == "row" else found.column(name) for name in ROWS.names]
            yield pa.RecordBatch.from_arrays(columns, schema=ROWS).filter(pc.is_valid(image_ids))
        start = last


def _nameless(rows: Sequence[int], uri: str) -> Iterator[BadRow]:
    for row in rows:
        detail = "the image id is missing or no number; expected an SA-1B image id"
        yield BadRow(where=f"{_name(uri)}: row {row}", reason=Reason.UNKNOWN_IMAGE, detail=detail)


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def estimate_bytes(uri: str) -> int:
    """About how many bytes the rows of `uri` take once spilled."""
    if _is_lines(uri):
        return files.num_bytes(uri)
    metadata = _open_parquet(uri).metadata
    sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    return max(int(sum(sizes)), int(metadata.num_rows) * _ROW_BYTES)


def _is_lines(uri: str) -> bool:
    return uri.endswith((".jsonl", ".ndjson"))


def _open_parquet(uri: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(uri if files.is_local(uri) else files.open_input(uri))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{uri}: cannot be read as Parquet: {error}; expected a sidecar as .parquet or .jsonl"
        ) from error


def _read_parquet(uri: str) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file; image ids that are none are null."""
    file = _open_parquet(uri)
    found = file.schema_arrow.names
    if "image_id" not in found or "phrase" not in found or not {"annotation_id", "segmentation"} & set(found):
        raise SourceError(f"{uri}: {_EXPECTED}; found {', '.join(found)}")
    columns = [name for name in ROWS.names if name in found]
    first = 1
    try:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            if batch.num_rows:
                yield _to_rows(batch, uri, np.arange(first, first + batch.num_rows))
            first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{uri}: cannot be read: {error}; write the sidecar again") from error


def _to_rows(batch: pa.RecordBatch, uri: str, rows: NDArray[np.int64]) -> pa.RecordBatch:
    """`batch` with the types of `ROWS`, its rows numbered `rows`."""
    num_rows = batch.num_rows
    names = batch.schema.names
    columns = {
        "row": pa.array(rows),
        "image_id": _ids(batch.column("image_id"), f"{uri}: image_id"),
        "annotation_id": pa.array(np.full(num_rows, NO_ANNOTATION, np.int64)),
        "phrase": _texts(batch.column("phrase"), f"{uri}: phrase"),
        "score": pa.array(np.ones(num_rows)),
        "segmentation": pa.array([b""] * num_rows, pa.large_binary()),
    }
    if "annotation_id" in names:
        columns["annotation_id"] = pc.fill_null(
            _ids(batch.column("annotation_id"), f"{uri}: annotation_id"), NO_ANNOTATION
        )
    if "score" in names:
        columns["score"] = _numbers(batch.column("score"), f"{uri}: score")
    if "segmentation" in names:
        columns["segmentation"] = _segmentations(batch.column("segmentation"), f"{uri}: segmentation")
    return pa.RecordBatch.from_pydict(columns)


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _ids(array: pa.Array, where: str) -> pa.Array:
    """Ids as int64, null where the value is none."""
    array = _plain(array)
    kind = array.type
    if pa.types.is_integer(kind):
        in_range = pc.and_(pc.greater_equal(array, 0), pc.less_equal(array, pa.scalar(MAX_ID).cast(kind, safe=False)))
        kept = array if kind.bit_width < 64 else pc.if_else(in_range, array, pa.scalar(None, kind))
        ids = kept.cast(pa.int64(), safe=False)
    elif pa.types.is_floating(kind):
        wide = array.cast(pa.float64())
        whole = pc.and_(pc.equal(pc.floor(wide), wide), pc.less(pc.abs(wide), 2.0**53))
        ids = pc.if_else(whole, wide, pa.scalar(None, pa.float64())).cast(pa.int64())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        digits = pc.replace_substring_regex(array, r"^\s*(sa_)?", "")
        good = pc.match_substring_regex(digits, r"^[0-9]{1,18}$")
        ids = pc.if_else(good, digits, pa.scalar(None, kind)).cast(pa.int64())
    elif pa.types.is_null(kind):
        ids = array.cast(pa.int64())
    else:
        raise SourceError(f"{where}: column of type {kind}; expected integers or text")
    return pc.if_else(pc.greater_equal(ids, 0), ids, pa.scalar(None, pa.int64()))


def _texts(array: pa.Array, where: str) -> pa.Array:
    array = _plain(array)
    kind = array.type
    if not (pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)) and not (
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    ):
        raise SourceError(f"{where}: column of type {kind}; expected text")
    return pc.fill_null(array.cast(pa.large_binary()), b"")


def _numbers(array: pa.Array, where: str) -> pa.Array:
    array = _plain(array)
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_null(array.type)):
        raise SourceError(f"{where}: column of type {array.type}; expected numbers")
    return pc.fill_null(array.cast(pa.float64(), safe=False), 1.0)


def _segmentations(array: pa.Array, where: str) -> pa.Array:
    """Each RLE as JSON."""
    array = _plain(array)
    if not pa.types.is_struct(array.type):
        return _texts(array, where)
    texts = [b"" if value is None else _rle_json(value) for value in array.to_pylist()]
    return pa.array(texts, pa.large_binary())


def _rle_json(value: dict[str, object]) -> bytes:
    counts = value.get("counts")
    text = counts.decode("latin-1") if isinstance(counts, bytes) else counts
    return msgspec.json.encode({"size": value.get("size"), "counts": text})


def _read_lines(uri: str) -> Iterator[pa.RecordBatch | BadRow]:
    """The rows of a JSON lines file, numbered by line; a line that is no row is a bad one."""
    try:
        with files.open_input(uri) as file:
            yield from _read_batches(file, uri)
    except OSError as error:
        raise SourceError(f"{uri}: cannot be read: {error}; expected a sidecar as .parquet or .jsonl") from error


def _read_batches(file: IO[bytes], uri: str) -> Iterator[pa.RecordBatch | BadRow]:
    lines: list[_Line] = []
    numbers: list[int] = []
    number = num_bytes = 0
    while line := file.readline(_MAX_LINE_BYTES):
        number += 1
        num_bytes += len(line)
        if len(line) == _MAX_LINE_BYTES:
            raise SourceError(
                f"{uri}: line {number} is longer than {_MAX_LINE_BYTES} bytes; expected one JSON object a line"
            )
        if line.isspace():
            continue
        found: _Line | BadRow | None = _read_line(line, f"{_name(uri)}: row {number}")
        if isinstance(found, BadRow):
            yield found
            found = _image_of(line)
        if found is None:
            continue
        lines.append(found)
        numbers.append(number)
        if len(lines) == _BATCH_ROWS or num_bytes > _BATCH_LINES_BYTES:
            yield _from_lines(lines, numbers)
            lines, numbers, num_bytes = [], [], 0
    if lines:
        yield _from_lines(lines, numbers)


def _read_line(line: bytes, where: str) -> _Line | BadRow:
    try:
        found = _decoder.decode(line)
    except msgspec.ValidationError as error:
        return BadRow(where=where, reason=Reason.WRONG_FIELD, detail=f"{error}; {_EXPECTED}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if _is_utf8(line):
            return BadRow(where=where, reason=Reason.BROKEN_JSON, detail=f"{error}; expected one JSON object a line")
        return BadRow(where=where, reason=Reason.PHRASE_NOT_UTF8, detail="the line is not UTF-8; expected UTF-8 text")
    if found.phrase is None:
        return BadRow(where=where, reason=Reason.WRONG_FIELD, detail=f"the phrase is null; {_EXPECTED}")
    return found


def _image_of(line: bytes) -> _Line | None:
    """What is left of a bad line: that something was said of its image; None where even that cannot be told."""
    try:
        image_id = _image_decoder.decode(line.decode("utf-8", "replace")).image_id
    except (msgspec.MsgspecError, RecursionError):
        return None
    return None if _id(image_id) is None else _Line(image_id=image_id, phrase=None)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _from_lines(lines: Sequence[_Line], numbers: Sequence[int]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "row": pa.array(numbers, pa.int64()),
            "image_id": pa.array([_id(line.image_id) for line in lines], pa.int64()),
            "annotation_id": pa.array([_annotation_id(line) for line in lines], pa.int64()),
            "phrase": pa.array([_phrase(line) for line in lines], pa.large_binary()),
            "score": pa.array([1.0 if line.score is None else line.score for line in lines], pa.float64()),
            "segmentation": pa.array([_segmentation(line) for line in lines], pa.large_binary()),
        }
    )


def _id(value: int | str) -> int | None:
    """An id as a number, as `_ids` reads it; None where it is none."""
    if isinstance(value, str):
        digits = value.strip().removeprefix("sa_")
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None
    return value if 0 <= value <= MAX_ID else None


def _phrase(line: _Line) -> bytes | None:
    return None if line.phrase is None else line.phrase.encode("utf-8", "surrogatepass")


def _annotation_id(line: _Line) -> int:
    found = None if line.annotation_id is None else _id(line.annotation_id)
    return NO_ANNOTATION if found is None else found


def _segmentation(line: _Line) -> bytes:
    if isinstance(line.segmentation, Rle):
        return msgspec.json.encode(line.segmentation)
    return (line.segmentation or "").encode("utf-8", "surrogatepass")
