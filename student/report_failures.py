"""A handful of the worst answers out of an evaluation's page of failures, with the masks drawn into the pictures."""

# H, W a thumbnail's height and width

import base64
import io
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from manifests import files
from manifests.errors import TableError
from manifests.sample import Mask
from student.failures_page import FAILURES_SCHEMA

NUM_SHOWN = 8
_SAID, _TRUE = (213, 94, 0), (0, 190, 140)  # as the page of failures paints them
_SAID_SHARE = 0.5
_QUALITY = 82
_BLOCK = re.compile(r'<script type="application/json" id="(index|thumbnail-\d+)">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A wrong answer."""

    sort: str  # alarm_<kind>, unseen, elsewhere
    phrase: str
    presence: float
    iou: float | None
    key: str
    picture: bytes  # WebP, the predicted mask painted and the true one outlined
    width: int
    height: int


class _Group(msgspec.Struct):
    name: str


class _About(msgspec.Struct):
    groups: list[_Group]


class _Rows(msgspec.Struct):
    group: list[int]
    picture: list[int]
    phrase: list[str]
    presence: list[float]
    iou: list[float | None]
    predicted: list[str]
    true: list[str]


class _Pictures(msgspec.Struct):
    key: list[str]
    width: list[int]
    height: list[int]


class _Index(msgspec.Struct):
    about: _About
    rows: _Rows
    pictures: _Pictures
    schema: int


def read_failures(uri: str, *, most: int = NUM_SHOWN) -> list[Failure]:
    """The worst answers of each sort in turn, at most `most`, from the page of failures at `uri`.

    Raises:
        TableError: it is no such page, or one of another version.
    """
    from PIL.Image import DecompressionBombError

    data = files.read_bytes(uri)
    try:
        blocks: dict[str, str] = dict(_BLOCK.findall(data.decode()))
        index = msgspec.json.decode(blocks["index"], type=_Index)
        if index.schema != FAILURES_SCHEMA:
            raise TableError(f"{uri}: schema {index.schema}; expected {FAILURES_SCHEMA}. Evaluate again")
        return [_failure(index, blocks, row) for row in _in_turn(index.rows)[:most]]
    except (KeyError, IndexError, ValueError, OSError, DecompressionBombError, msgspec.MsgspecError) as error:
        raise TableError(f"{uri}: expected a page of failures, found {error!r}; evaluate again") from error


def _in_turn(rows: _Rows) -> list[int]:
    """Rows, the first of each group before the second of any; a phrase of a picture stands there once."""
    first = {asked: row for row, asked in reversed([*enumerate(zip(rows.picture, rows.phrase, strict=True))])}
    of_group: defaultdict[int, list[int]] = defaultdict(list)
    for row in sorted(first.values()):
        of_group[rows.group[row]].append(row)
    ranked = [(rank, group, row) for group, found in of_group.items() for rank, row in enumerate(found)]
    return [row for _, _, row in sorted(ranked)]


def _failure(index: _Index, blocks: Mapping[str, str], row: int) -> Failure:
    rows, at = index.rows, index.rows.picture[row]
    size = index.pictures.height[at], index.pictures.width[at]
    thumbnail = base64.b64decode(msgspec.json.decode(blocks[f"thumbnail-{at}"], type=str))
    return Failure(
        sort=index.about.groups[rows.group[row]].name,
        phrase=rows.phrase[row],
        presence=rows.presence[row],
        iou=rows.iou[row],
        key=index.pictures.key[at],
        picture=_painted(thumbnail, _inside(rows.predicted[row], size), _inside(rows.true[row], size)),
        width=size[1],
        height=size[0],
    )


def _inside(counts: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    from shards.masks import mask_to_array

    return mask_to_array(Mask(size=size, counts=counts)) if counts else np.zeros(size, np.bool_)


def _painted(thumbnail: bytes, said_hw: NDArray[np.bool_], true_hw: NDArray[np.bool_]) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(thumbnail)) as opened:
        pixels_hw3 = np.asarray(opened.convert("RGB"), np.float64)
    pixels_hw3 = np.where(
        said_hw[..., None], (1 - _SAID_SHARE) * pixels_hw3 + _SAID_SHARE * np.array(_SAID), pixels_hw3
    )
    pixels_hw3[_outline(true_hw)] = _TRUE
    encoded = io.BytesIO()
    Image.fromarray(pixels_hw3.round().astype(np.uint8)).save(encoded, "WEBP", quality=_QUALITY)
    return encoded.getvalue()


def _outline(inside_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The two outermost pixels of what is inside."""
    padded = np.pad(inside_hw, 2)
    deep = padded[:-4, 2:-2] & padded[4:, 2:-2] & padded[2:-2, :-4] & padded[2:-2, 4:]
    return inside_hw & ~deep
