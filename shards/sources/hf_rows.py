"""One row of a Hugging Face data set read: its picture's bytes, its id, and what it says of each phrase."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from manifests import files
from manifests.errors import Reason, Rejected
from manifests.recipe import HfColumns
from manifests.sample import Mask
from shards import images, jpeg
from shards.labels import Finding, Outcome, category_phrase, normalise_phrase
from shards.masks import check_masks_of, mask_from_array, mask_from_polygons, mask_from_uncompressed, reason_of
from shards.rle import MaskFault

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowReader:
    """How the rows of one data set are read."""

    columns: HfColumns
    phrase_names: tuple[str, ...] = ()  # of the ClassLabel in `phrases`; () where it holds text
    absent_names: tuple[str, ...] = ()
    category_names: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()  # folders that a row's path may lie in


@dataclass(slots=True, kw_only=True)
class RowLabels:
    """What a row says, and what of it was dropped."""

    findings: list[Finding] = field(default_factory=list)
    drops: list[tuple[str, Rejected]] = field(default_factory=list)  # phrase, why

    def drop(self, phrase: str, rejected: Rejected) -> None:
        """Drop an annotation; its phrase, if it has one, is left open."""
        self.drops.append((phrase, rejected))
        if phrase:
            self.findings.append(Finding(phrase=phrase, outcome=Outcome.REJECTED))


def value_at(row: Row, column: str) -> object:
    """The value in `column`; `json.phrases` is the field `phrases` of the column `json`."""
    if column in row:
        return row[column]
    value: object = row
    for step in column.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def read_id(row: Row, number: int, columns: HfColumns) -> str:
    """The picture's id: the row's number, or what the id column says.

    Raises:
        Rejected: WRONG_FIELD.
    """
    if not columns.id:
        return str(number)
    value = value_at(row, columns.id)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise _wrong(columns.id, "a whole number or a text", value)
    return str(value)


def read_picture(row: Row, reader: RowReader) -> bytes:
    """The picture's bytes, untouched.

    Raises:
        Rejected: WRONG_FIELD, MISSING_FILE, UNSAFE_NAME (a path outside the data set's folders).
    """
    return _picture_bytes(value_at(row, reader.columns.image), reader.columns.image, reader.roots)


def picture_size(data: bytes) -> tuple[int, int]:
    """Height and width.

    Raises:
        Rejected: as `images.inspect_image`.
    """
    if jpeg.is_jpeg(data):
        frame = jpeg.read_frame(data)
        return frame.height, frame.width
    facts = images.inspect_image(data)
    return facts.height, facts.width


def read_labels(row: Row, reader: RowReader, size: tuple[int, int]) -> RowLabels:
    """Everything that the row says of phrases; `size` is the picture's height and width."""
    labels = RowLabels()
    columns = reader.columns
    if columns.phrases:
        _read_phrases(row, reader, size, labels)
    if columns.absent:
        for phrase in _phrases(value_at(row, columns.absent), columns.absent, reader.absent_names, labels):
            if phrase:
                labels.findings.append(Finding(phrase=phrase, outcome=Outcome.ABSENT))
    if columns.objects:
        _read_objects(row, reader, size, labels)
    return labels


def _wrong(column: str, expected: str, found: object) -> Rejected:
    shown = "null" if found is None else f"{type(found).__name__} {repr(found)[:60]}"
    return Rejected(Reason.WRONG_FIELD, f"column {column!r}: expected {expected}, found {shown}")


def _picture_bytes(value: object, column: str, roots: tuple[str, ...]) -> bytes:
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise _wrong(column, "a picture: bytes, or the path of a file", value)
    return _read_path(value, roots)


def _read_path(path: str, roots: tuple[str, ...]) -> bytes:
    """The file that a row names, which must lie below one of the data set's own folders."""
    plain = os.path.realpath(path) if files.is_local(path) else path
    inside = any(plain.startswith(root.rstrip("/") + "/") for root in roots) and ".." not in plain.split("/")
    if not inside:
        raise Rejected(Reason.UNSAFE_NAME, f"path {path!r} lies outside the data set's folders {', '.join(roots)}")
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise Rejected(Reason.MISSING_FILE, f"{path}: {error.strerror or error}") from error


def _phrases(value: object, column: str, names: tuple[str, ...], labels: RowLabels) -> list[str]:
    """The phrases in `value`, one or a list; "" where one was dropped, so that masks still stand beside theirs."""
    if value is None:
        return []
    listed = value if isinstance(value, list) else [value]
    found = []
    for entry in listed:
        try:
            found.append(_phrase(entry, column, names))
        except Rejected as rejected:
            labels.drop("", rejected)
            found.append("")
    return found


def _phrase(value: object, column: str, names: tuple[str, ...]) -> str:
    if isinstance(value, str):
        return category_phrase(value) if names else normalise_phrase(value)
    if names and isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(names):
            raise Rejected(Reason.UNKNOWN_CATEGORY, f"column {column!r}: class {value}, expected 0 to {len(names) - 1}")
        return category_phrase(names[value])
    raise _wrong(column, "a phrase or a class label, or a list of them", value)


def _read_phrases(row: Row, reader: RowReader, size: tuple[int, int], labels: RowLabels) -> None:
    columns = reader.columns
    value = value_at(row, columns.phrases)
    phrases = _phrases(value, columns.phrases, reader.phrase_names, labels)
    if not columns.masks:
        labels.findings += [Finding(phrase=phrase, outcome=Outcome.PRESENT) for phrase in phrases if phrase]
        return
    masks = value_at(row, columns.masks)
    if not isinstance(value, list) and value is not None:
        masks = [masks]
    if not isinstance(masks, list) or len(masks) != len(phrases):
        found = f"{len(masks)} masks" if isinstance(masks, list) else type(masks).__name__
        wrong = Rejected(
            Reason.WRONG_FIELD, f"column {columns.masks!r}: expected {len(phrases)} masks, as phrases, found {found}"
        )
        for phrase in filter(None, phrases):
            labels.drop(phrase, wrong)
        return
    for phrase, mask in zip(phrases, masks, strict=True):
        if phrase:
            _add_present(phrase, mask, columns.masks, reader, size, labels)


def _read_objects(row: Row, reader: RowReader, size: tuple[int, int], labels: RowLabels) -> None:
    columns = reader.columns
    value = value_at(row, columns.objects)
    try:
        objects = list(_objects(value, columns.objects))
    except Rejected as rejected:
        labels.drop("", rejected)
        return
    for found in objects:
        column = f"{columns.objects}.{columns.category}"
        for phrase in _phrases([found.get(columns.category)], column, reader.category_names, labels):
            if phrase:
                segmentation = found.get(columns.segmentation) if columns.segmentation else None
                _add_object(phrase, segmentation, found.get("bbox"), reader, size, labels)


def _objects(value: object, column: str) -> Iterator[Row]:
    """The objects in a list of dicts, or in a dict of lists that are equally long."""
    if value is None:
        return
    if isinstance(value, Mapping):
        lists = {name: entries for name, entries in value.items() if isinstance(entries, list)}
        if len({len(entries) for entries in lists.values()}) > 1:
            lengths = ", ".join(f"{name} {len(entries)}" for name, entries in lists.items())
            raise Rejected(Reason.WRONG_FIELD, f"column {column!r}: expected lists of one length, found {lengths}")
        for values in zip(*lists.values(), strict=True):
            yield dict(zip(lists, values, strict=True))
        return
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise _wrong(column, "a dict of lists or a list of dicts", value)
    yield from value


def _add_object(
    phrase: str, segmentation: object, bbox: object, reader: RowReader, size: tuple[int, int], labels: RowLabels
) -> None:
    columns = reader.columns
    if segmentation is None and bbox is not None and not _is_box(bbox):
        labels.drop(phrase, Rejected(Reason.BAD_BOX, f"bbox {repr(bbox)[:60]}; expected four finite numbers"))
        return
    _add_present(phrase, segmentation, f"{columns.objects}.{columns.segmentation}", reader, size, labels)


def _is_box(bbox: object) -> bool:
    return (
        isinstance(bbox, list)
        and len(bbox) == 4
        and all(isinstance(number, int | float) and math.isfinite(number) for number in bbox)
    )


def _add_present(
    phrase: str, value: object, column: str, reader: RowReader, size: tuple[int, int], labels: RowLabels
) -> None:
    try:
        masks = _masks(value, column, reader.roots, size)
    except Rejected as rejected:
        labels.drop(phrase, rejected)
        return
    labels.findings.append(Finding(phrase=phrase, outcome=Outcome.PRESENT, masks=masks))


def _masks(value: object, column: str, roots: tuple[str, ...], size: tuple[int, int]) -> tuple[Mask, ...]:
    """The instances in `value`: nothing, a mask image, RLE, a list of RLE, or polygons."""
    if value is None or value == []:
        return ()
    if isinstance(value, Mapping) and "counts" in value:
        return (_from_rle(value, column, size),)
    if isinstance(value, list) and all(isinstance(entry, Mapping) and "counts" in entry for entry in value):
        return tuple(_from_rle(entry, column, size) for entry in value)
    if isinstance(value, list) and all(isinstance(entry, list) for entry in value):
        return (_from_polygons(value, column, size),)
    return (_from_image(_picture_bytes(value, column, roots), size),)


def _from_image(data: bytes, size: tuple[int, int]) -> Mask:
    """The mask that is set where a picture is brighter than half its brightest: 0 and 1, or 0 and 255 alike."""
    bright_hw = np.asarray(images.decode_rgb(data)).max(axis=2)
    if bright_hw.shape != size:
        raise Rejected(Reason.MASK_SIZE, f"mask image of {bright_hw.shape} (height, width), the picture has {size}")
    if not bright_hw.any():
        raise Rejected(Reason.MASK_EMPTY, "no pixel of the mask image is set")
    return mask_from_array(bright_hw > bright_hw.max() // 2)


def _from_rle(value: Mapping[str, object], column: str, size: tuple[int, int]) -> Mask:
    counts, claimed = value.get("counts"), value.get("size")
    if not isinstance(claimed, list | tuple) or not all(isinstance(side, int) for side in claimed):
        raise _wrong(f"{column}.size", "height and width", claimed)
    if tuple(claimed) != size:
        raise Rejected(Reason.MASK_SIZE, f"mask of {tuple(claimed)} (height, width), the picture has {size}")
    if isinstance(counts, list):
        if not all(isinstance(run, int) for run in counts):
            raise _wrong(f"{column}.counts", "run lengths", counts)
        return mask_from_uncompressed(counts, size)
    if not isinstance(counts, str | bytes):
        raise _wrong(f"{column}.counts", "compressed RLE or run lengths", counts)
    reason = reason_of(MaskFault(check_masks_of(size, [counts]).faults[0]))
    if reason is not None:
        raise Rejected(reason, f"column {column!r}: mask of size {size} with counts {counts[:32]!r}")
    return Mask(size=size, counts=counts if isinstance(counts, str) else counts.decode("ascii"))


def _from_polygons(polygons: Sequence[list[object]], column: str, size: tuple[int, int]) -> Mask:
    numbers = [[n for n in polygon if isinstance(n, int | float)] for polygon in polygons]
    if [len(polygon) for polygon in numbers] != [len(polygon) for polygon in polygons]:
        raise _wrong(column, "polygons of numbers", polygons)
    return mask_from_polygons(numbers, *size)
