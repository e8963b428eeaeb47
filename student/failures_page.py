"""The page of failures: one self-contained file; pictures once each, masks as run lengths that the browser draws."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from shards.build_pictures import Thumbnail
from shards.html_file import data_block, write_html

FAILURES_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """One answer that is wrong."""

    group: int
    picture: int  # in the order of the pictures
    phrase: str
    kinds: tuple[str, ...]  # why it was asked; none where it is present
    presence: float
    iou: float | None  # None where no mask is to be judged
    predicted: str  # run lengths at the thumbnail's size; "" for no mask
    true: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePicture:
    """A picture that rows show."""

    key: str
    source: str
    thumbnail: Thumbnail


class FailureGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A sort of failure."""

    name: str
    title: str
    num_found: int
    num_asked: int


class FailuresAbout(msgspec.Struct, frozen=True, kw_only=True):
    """What the page's head says."""

    title: str
    what: str
    threshold: float
    groups: list[FailureGroup]
    tiles: list[tuple[str, str]]
    notes: list[str]


class _Pictures(msgspec.Struct):
    key: list[str] = []
    source: list[str] = []
    width: list[int] = []
    height: list[int] = []


class _Rows(msgspec.Struct):
    group: list[int] = []
    picture: list[int] = []
    phrase: list[str] = []
    kinds: list[tuple[str, ...]] = []
    presence: list[float] = []
    iou: list[float | None] = []
    predicted: list[str] = []
    true: list[str] = []


class _Index(msgspec.Struct):
    """Everything but the thumbnails' bytes, by column."""

    about: FailuresAbout
    rows: _Rows
    pictures: _Pictures
    schema: int = FAILURES_SCHEMA


def write_failures_page(
    uri: str, rows: Sequence[FailureRow], pictures: Iterable[FailurePicture], about: FailuresAbout
) -> int:
    """How many bytes the page has that now stands at `uri`, whole or not at all; equal arguments give equal bytes.

    Raises:
        StorageError: it cannot be written.
    """
    index = _Index(about=about, rows=_columns(rows), pictures=_Pictures())
    blocks = _blocks(pictures, index.pictures)
    return write_html(uri, "failures", title=about.title, blocks=blocks, index=lambda: index, package="student")


def _blocks(pictures: Iterable[FailurePicture], columns: _Pictures) -> Iterator[bytes]:
    for number, picture in enumerate(pictures):
        columns.key.append(picture.key)
        columns.source.append(picture.source)
        columns.width.append(picture.thumbnail.width)
        columns.height.append(picture.thumbnail.height)
        yield data_block(f"thumbnail-{number}", base64.b64encode(picture.thumbnail.data).decode("ascii"))


def _columns(rows: Sequence[FailureRow]) -> _Rows:
    columns = _Rows()
    for row in rows:
        columns.group.append(row.group)
        columns.picture.append(row.picture)
        columns.phrase.append(row.phrase)
        columns.kinds.append(row.kinds)
        columns.presence.append(round(row.presence, 4))
        columns.iou.append(None if row.iou is None else round(row.iou, 4))
        columns.predicted.append(row.predicted)
        columns.true.append(row.true)
    return columns
