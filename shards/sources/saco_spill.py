"""SA-Co annotation files of any size, dealt out into small files that each hold everything about some pictures.

Annotations name a pair, pairs name a picture, and both stand in no order. So rows are dealt out twice: by pair, which
brings a pair's annotations to it, then by picture, which brings a picture's pairs together. What is wrong with a row
travels along, so that the part that reads it can tell, and a broken annotation is not mistaken for none.
"""

import os
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from manifests import files
from manifests.errors import Reason, SourceError
from shards.sources.json_stream import Element, stream_elements
from shards.sources.source import Reject

BUCKET_BYTES = 8 << 20
MAX_BUCKETS = 1024
MAX_SIDE = 1 << 24  # pixels

_FLUSH_BYTES = 32 << 20
_DONE = "done.json"


class Segmentation(msgspec.Struct, frozen=True):
    """An RLE, compressed or as plain run lengths."""

    size: tuple[int, int]  # height, width
    counts: str | list[int]


class Fault(msgspec.Struct, frozen=True):
    """Why a row cannot be used."""

    reason: Reason
    detail: str


class AnnotationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One annotation of a pair; a mask, a box alone, or a fault."""

    where: str
    segmentation: Segmentation | None = None
    fault: Fault | None = None


class PairRow(msgspec.Struct, frozen=True, kw_only=True):
    """One picture with one phrase, and all annotations of that pair."""

    where: str
    file_name: str
    phrase: bytes  # as it stands in the file; not yet known to be UTF-8
    width: int
    height: int
    is_instance_exhaustive: bool
    is_pixel_exhaustive: bool
    annotations: list[AnnotationRow] = []
    fault: Fault | None = None  # its id is taken: its annotations cannot be told from another pair's


class Spilled(msgspec.Struct, frozen=True, kw_only=True):
    """What was dealt out; written last, so it says that all buckets are there."""

    pairs_of_bucket: list[int]  # 0 for a bucket without rows


class _Dealt(msgspec.Struct, frozen=True, kw_only=True):
    """A line between the two rounds: of one pair id of one file."""

    pair: str
    row: PairRow | None = None
    annotation: AnnotationRow | None = None


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a finished bucket."""

    pair: PairRow | None = None
    reject: Reject | None = None


class _PairIn(msgspec.Struct):
    id: int | str
    file_name: str
    text_input: str
    width: Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]
    height: Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]
    is_instance_exhaustive: int | bool | None = None
    is_pixel_exhaustive: int | bool | None = None


class _AnnotationIn(msgspec.Struct):
    image_id: int | str
    segmentation: Segmentation | None = None
    bbox: list[float] | None = None
    category_id: int = 1


_dealt = msgspec.json.Decoder(_Dealt)
_line = msgspec.json.Decoder(_Line)


def spill(uris: Sequence[str], folder: str, *, bucket_bytes: int = BUCKET_BYTES) -> Spilled:
    """The record of the files `uris`, dealt out into `folder`; a finished spill is taken as it is.

    Raises:
        SourceError: a file is missing, is not JSON, or holds no pairs.
    """
    done = files.join(folder, _DONE)
    if files.exists(done):
        return msgspec.json.decode(files.read_bytes(done), type=Spilled)
    num_bytes = sum(files.num_bytes(uri) for uri in uris)
    num_buckets = min(max(1, -(-num_bytes // bucket_bytes)), MAX_BUCKETS)
    files.make_folder(folder)
    local = folder if files.is_local(folder) else None
    with tempfile.TemporaryDirectory(prefix=files.TEMPORARY, dir=local) as temporary, files.storage_errors(folder):
        by_pair = _Buckets(os.path.join(temporary, "pairs"), num_buckets)
        by_picture = _Buckets(os.path.join(temporary, "pictures"), num_buckets)
        for number, uri in enumerate(uris):
            _deal_by_pair(uri, number, by_pair, by_picture)
        by_pair.flush()
        for bucket in range(num_buckets):
            _deal_by_picture(by_pair.lines_of(bucket), by_picture)
        by_picture.flush()
        for bucket in range(num_buckets):
            files.write_bytes(bucket_uri(folder, bucket), b"\n".join(by_picture.lines_of(bucket)))
    record = Spilled(pairs_of_bucket=by_picture.counts)
    files.write_bytes(done, msgspec.json.encode(record))
    return record


def bucket_uri(folder: str, bucket: int) -> str:
    """The file of a bucket of the spill in `folder`."""
    return files.join(folder, f"{bucket:05d}.rows")


def read_bucket(uri: str) -> tuple[list[Reject], dict[str, list[PairRow]]]:
    """What was lost, and the pairs of each picture of a bucket: pictures by name, pairs in the files' order."""
    rejects: list[Reject] = []
    pairs: dict[str, list[PairRow]] = defaultdict(list)
    for data in files.read_bytes(uri).split(b"\n"):
        line = _line.decode(data) if data else _Line()
        if line.reject is not None:
            rejects.append(line.reject)
        if line.pair is not None:
            pairs[line.pair.file_name].append(line.pair)
    return rejects, dict(sorted(pairs.items()))


class _Buckets:
    """Lines for many files, kept in memory until there is enough to append."""

    def __init__(self, folder: str, num_buckets: int) -> None:
        Path(folder).mkdir()
        self._folder = folder
        self._waiting: dict[int, list[bytes]] = defaultdict(list)
        self._num_bytes = 0
        self.counts = [0] * num_buckets

    def add(self, key: str, line: _Dealt | _Line) -> None:
        """Append `line` to the bucket that `key` names."""
        data = msgspec.json.encode(line)
        bucket = zlib.crc32(key.encode("utf-8")) % len(self.counts)
        self._waiting[bucket].append(data)
        self.counts[bucket] += 1
        self._num_bytes += len(data)
        if self._num_bytes > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        for bucket, lines in self._waiting.items():
            with open(bucket_uri(self._folder, bucket), "ab") as file:
                file.writelines(line + b"\n" for line in lines)
        self._waiting.clear()
        self._num_bytes = 0

    def lines_of(self, bucket: int) -> list[bytes]:
        """All lines of a bucket."""
        path = Path(bucket_uri(self._folder, bucket))
        return path.read_bytes().splitlines() if path.exists() else []


def _deal_by_pair(uri: str, number: int, by_pair: _Buckets, by_picture: _Buckets) -> None:
    """Bring every row of the file `uri` to its pair; rows that name no pair are rejects."""
    name = uri.rpartition("/")[2]
    num_pairs = 0
    for element in stream_elements(uri, ("images", "annotations")):
        if element.index < 0:
            raise SourceError(f"{uri}: {element.section} is a {type(element.value).__name__}; expected an array")
        where = f"{name}: {element.section}[{element.index}]"
        try:
            dealt = _read_pair(element, where) if element.section == "images" else _read_annotation(element, where)
            num_pairs += dealt.row is not None
            _add(by_pair, f"{number}:{dealt.pair}", dealt)
        except (msgspec.ValidationError, UnicodeEncodeError, OverflowError) as error:
            detail = f"{str(error).encode('ascii', 'backslashreplace').decode('ascii')}; expected the fields of SA-Co"
            reject = Reject(where=where, reason=Reason.WRONG_FIELD, detail=detail, image=element.section == "images")
            by_picture.add(where, _Line(reject=reject))
    if not num_pairs:
        raise SourceError(
            f"{uri}: no image-phrase pair; expected SA-Co's `images` with file_name and text_input. Name another file"
        )


def _add(by_pair: _Buckets, key: str, dealt: _Dealt) -> None:
    """Bring a row to its pair; an annotation that cannot be spilled (lone surrogates, endless integers) as a fault."""
    try:
        by_pair.add(key, msgspec.structs.replace(dealt, pair=key))
    except (UnicodeEncodeError, OverflowError) as error:
        if dealt.annotation is None:
            raise
        fault = Fault(Reason.MASK_CORRUPT, f"{type(error).__name__} in the segmentation; expected an RLE")
        by_pair.add(key, _Dealt(pair=key, annotation=AnnotationRow(where=dealt.annotation.where, fault=fault)))


def _read_pair(element: Element, where: str) -> _Dealt:
    found = msgspec.convert(element.value, _PairIn)
    row = PairRow(
        where=where,
        file_name=found.file_name,
        phrase=found.text_input.encode("utf-8", "surrogatepass"),
        width=found.width,
        height=found.height,
        is_instance_exhaustive=bool(found.is_instance_exhaustive),
        is_pixel_exhaustive=bool(found.is_pixel_exhaustive),
    )
    return _Dealt(pair=str(found.id), row=row)


def _read_annotation(element: Element, where: str) -> _Dealt:
    """The annotation with its pair; one that is wrong but names its pair carries its fault there."""
    try:
        found = msgspec.convert(element.value, _AnnotationIn)
    except (msgspec.ValidationError, OverflowError) as error:
        pair = element.value.get("image_id") if isinstance(element.value, dict) else None
        if not isinstance(pair, int | str):
            raise
        wrong = Fault(Reason.WRONG_FIELD, f"{error}; expected the fields of SA-Co")
        return _Dealt(pair=str(pair), annotation=AnnotationRow(where=where, fault=wrong))
    fault = None
    if found.category_id != 1:
        fault = Fault(Reason.UNKNOWN_CATEGORY, f"category_id {found.category_id}; expected 1, SA-Co's only one")
    elif found.segmentation is None and found.bbox is None:
        fault = Fault(Reason.WRONG_FIELD, "neither segmentation nor bbox; expected a mask")
    annotation = AnnotationRow(where=where, segmentation=found.segmentation, fault=fault)
    return _Dealt(pair=str(found.image_id), annotation=annotation)


def _deal_by_picture(lines: Sequence[bytes], by_picture: _Buckets) -> None:
    """Bring every pair with its annotations to its picture; annotations of no pair are rejects."""
    rows: dict[str, list[PairRow]] = defaultdict(list)
    annotations: dict[str, list[AnnotationRow]] = defaultdict(list)
    for data in lines:
        dealt = _dealt.decode(data)
        if dealt.row is not None:
            rows[dealt.pair].append(dealt.row)
        if dealt.annotation is not None:
            annotations[dealt.pair].append(dealt.annotation)
    for pair, found in rows.items():
        for row in _with_annotations(pair, found, annotations.pop(pair, [])):
            by_picture.add(row.file_name, _Line(pair=row))
    for pair, strays in annotations.items():
        for stray in strays:
            shown = pair.partition(":")[2]
            detail = f"image_id {shown} is no pair of the file; expected the id of one of its `images`"
            reject = Reject(where=stray.where, reason=Reason.UNKNOWN_IMAGE, detail=detail)
            by_picture.add(stray.where, _Line(reject=reject))


def _with_annotations(pair: str, rows: Sequence[PairRow], annotations: Sequence[AnnotationRow]) -> Iterator[PairRow]:
    """The pair with its annotations; where several rows have its id, nobody knows whose they are."""
    if len(rows) == 1:
        yield msgspec.structs.replace(rows[0], annotations=list(annotations))
        return
    detail = f"id {pair.partition(':')[2]} stands {len(rows)} times among `images`; expected each id once"
    for row in rows:
        yield msgspec.structs.replace(row, fault=Fault(Reason.DUPLICATE_ID, detail))
