"""The gallery: one self-contained page on which a person looks at mined pairs, or at rejected ones, and decides.

Rows, pictures and thumbnails are three tables of the page's index, by column; a thumbnail stands once in a data block
of its own, however many rows show it, and the browser decodes it when one of them comes near the window.
"""

import base64
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from shards.build_pictures import Thumbnail
from shards.html_file import data_block, write_html
from shards.mining_facts import MiningFacts

GALLERY_SCHEMA = 1
PairKind = Literal["negatives", "rejects"]  # mined pairs, or candidates that a guard took


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryRow:
    """A phrase that a table asks of a picture, and what is known of the pair."""

    asked: int  # the picture's thumbnail
    positive: int  # the positive's thumbnail; -1 for none
    phrase: str
    kind: str = ""
    evidence: str = ""
    score: float | None = None
    standard_score: float | None = None
    rank: int = -1
    positive_score: float | None = None
    miner: str = ""
    guard: str = ""  # that took it
    stage: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryPicture:
    """A picture of the build with the thumbnails that rows show of it."""

    key: str
    source: str
    split: str
    width: int
    height: int
    present: tuple[str, ...]
    thumbnails: tuple[Thumbnail, ...]


class GalleryAbout(msgspec.Struct, frozen=True, kw_only=True):
    """What the gallery's head says."""

    title: str
    what: str  # one sentence: which rows are shown
    pairs: PairKind
    digest: str  # of the table: decisions are kept under it
    mining: MiningFacts
    notes: list[str]


class _Pictures(msgspec.Struct):
    key: list[str] = []
    source: list[int] = []
    split: list[int] = []
    width: list[int] = []
    height: list[int] = []
    present: list[list[int]] = []  # phrases


class _Thumbnails(msgspec.Struct):
    picture: list[int] = []
    width: list[int] = []
    height: list[int] = []


class _Rows(msgspec.Struct):
    asked: list[int] = []
    positive: list[int] = []
    phrase: list[int] = []
    kind: list[int] = []
    evidence: list[int] = []
    miner: list[int] = []
    guard: list[int] = []
    stage: list[int] = []
    detail: list[int] = []
    score: list[float | None] = []
    standard_score: list[float | None] = []
    rank: list[int] = []
    positive_score: list[float | None] = []


class _Index(msgspec.Struct):
    """Everything but the thumbnails' bytes; texts are numbers into `texts`."""

    about: GalleryAbout
    rows: _Rows
    pictures: _Pictures
    thumbnails: _Thumbnails
    texts: dict[str, list[str]]
    schema: int = GALLERY_SCHEMA


class _Columns:
    """The index while pictures come in."""

    def __init__(self) -> None:
        self._texts: dict[str, dict[str, int]] = {}
        self.pictures = _Pictures()
        self.thumbnails = _Thumbnails()

    def _number(self, column: str, text: str) -> int:
        numbers = self._texts.setdefault(column, {})
        return numbers.setdefault(text, len(numbers))

    def add_picture(self, picture: GalleryPicture) -> Iterator[bytes]:
        """Add a picture; its thumbnails' data blocks."""
        columns = self.pictures
        columns.key.append(picture.key)
        columns.source.append(self._number("source", picture.source))
        columns.split.append(self._number("split", picture.split))
        columns.width.append(picture.width)
        columns.height.append(picture.height)
        columns.present.append([self._number("phrase", phrase) for phrase in picture.present])
        for thumbnail in picture.thumbnails:
            name = f"thumbnail-{len(self.thumbnails.picture)}"
            self.thumbnails.picture.append(len(columns.key) - 1)
            self.thumbnails.width.append(thumbnail.width)
            self.thumbnails.height.append(thumbnail.height)
            yield data_block(name, base64.b64encode(thumbnail.data).decode("ascii"))

    def finished(self, rows: Sequence[GalleryRow], about: GalleryAbout) -> _Index:
        """The index of `rows` over the pictures that were added."""
        columns = _Rows()
        for row in rows:
            columns.asked.append(row.asked)
            columns.positive.append(row.positive)
            columns.rank.append(row.rank)
            for name in ("phrase", "kind", "evidence", "miner", "guard", "stage", "detail"):
                getattr(columns, name).append(self._number(name, getattr(row, name)))
            columns.score.append(_rounded(row.score, 4))
            columns.standard_score.append(_rounded(row.standard_score, 3))
            columns.positive_score.append(_rounded(row.positive_score, 4))
        texts = {name: list(numbers) for name, numbers in self._texts.items()}
        return _Index(about=about, rows=columns, pictures=self.pictures, thumbnails=self.thumbnails, texts=texts)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


def write_gallery(uri: str, rows: Sequence[GalleryRow], pictures: Iterable[GalleryPicture], about: GalleryAbout) -> int:
    """How many bytes the gallery has that now stands at `uri`, whole or not at all.

    Rows name thumbnails by their number, counted over all `pictures` in order; equal arguments give equal bytes.

    Raises:
        StorageError: it cannot be written.
    """
    columns = _Columns()
    blocks = (block for picture in pictures for block in columns.add_picture(picture))
    return write_html(uri, "gallery", title=about.title, blocks=blocks, index=lambda: columns.finished(rows, about))
