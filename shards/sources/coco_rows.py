"""The rows of COCO's json files, typed: images, annotations, panoptic segments and categories.

Ids may be integers or strings; both are kept as text, so that 17 and "17" are one id.
"""

import json
import math
from typing import Annotated, TypeVar

import msgspec

from manifests.errors import Reason, Rejected

MAX_ID_CHARACTERS = 200

Id = int | str
_Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 29)]
_Row = TypeVar("_Row", bound=msgspec.Struct)


class ImageRow(msgspec.Struct, frozen=True, kw_only=True):
    """An element of `images`; the last two fields are LVIS's."""

    id: Id
    width: _Side
    height: _Side
    file_name: str = ""
    coco_url: str = ""
    license: Id | None = None
    neg_category_ids: list[Id] = []
    not_exhaustive_category_ids: list[Id] = []


class RleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A mask as RLE: a compressed string, or the list of run lengths."""

    size: tuple[int, int]  # height, width
    counts: str | list[int]


class AnnotationRow(msgspec.Struct, frozen=True, kw_only=True):
    """An element of `annotations` in an instances file, or a segment of a panoptic one, which has no `segmentation`."""

    category_id: Id
    id: Id | None = None
    bbox: list[float] | None = None  # x, y, width, height in pixels
    area: float | None = None  # pixels
    iscrowd: int | bool = 0
    segmentation: list[list[float]] | RleRow | None = None


class PanopticRow(msgspec.Struct, frozen=True, kw_only=True):
    """An element of `annotations` in a panoptic file; its segments are read one by one."""

    file_name: str
    segments_info: list[object]


class CategoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """An element of `categories`; `synonyms` is LVIS's."""

    id: Id
    name: str
    synonyms: list[str] = []


class LicenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """An element of `licenses`."""

    id: Id
    name: str = ""
    url: str = ""


def read_row(value: object, row_type: type[_Row], where: str) -> _Row:
    """`value` as a row; `where` is its place, as `annotations[17]`.

    Raises:
        Rejected: WRONG_FIELD, with the path of the field.
    """
    try:
        return msgspec.convert(value, row_type)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise Rejected(Reason.WRONG_FIELD, f"{where}{path.removesuffix('`')}: {message}") from error
    except UnicodeEncodeError as error:
        raise Rejected(Reason.WRONG_FIELD, f"{where}: a text holds a lone surrogate; expected UTF-8") from error
    except OverflowError as error:
        raise Rejected(Reason.WRONG_FIELD, f"{where}: a number is larger than any float") from error
    except RecursionError as error:
        raise Rejected(Reason.WRONG_FIELD, f"{where}: brackets are nested too deep") from error


def parse_value(data: bytes) -> object:
    """What `json` reads in `data`; None where it is nested too deep for that."""
    try:
        return json.loads(data.decode("utf-8", "surrogateescape"))
    except RecursionError:
        return None


def id_of(value: object, name: str) -> str:
    """The id in the field `name` of the object `value` as text, or "" if there is no usable one."""
    found = value.get(name) if isinstance(value, dict) else None
    return id_text(found) if isinstance(found, int | str) and not isinstance(found, bool) else ""


def id_text(found: Id | None) -> str:
    """An id as text; "" for none, for one that is too long, or that is no UTF-8."""
    if isinstance(found, int) and found.bit_length() > 2 * MAX_ID_CHARACTERS:
        return ""
    text = "" if found is None else str(found)
    return text if len(text) <= MAX_ID_CHARACTERS and text.isprintable() else ""


def require_id(value: object, name: str, where: str) -> str:
    """The id in the field `name` of `value` as text.

    Raises:
        Rejected: WRONG_FIELD.
    """
    text = id_of(value, name)
    if not text:
        found = type(value.get(name)).__name__ if isinstance(value, dict) else type(value).__name__
        raise Rejected(
            Reason.WRONG_FIELD,
            f"{where}.{name}: expected a whole number or a text of 1 to {MAX_ID_CHARACTERS} printable characters, "
            f"found {found}",
        )
    return text


def check_box(bbox: list[float] | None, width: int, height: int, *, is_alone: bool, where: str) -> bool:
    """Whether the box leaves an image of `width` x `height` by more than a pixel and was clipped.

    `is_alone` says that no mask stands beside it, so that the box itself must enclose something.

    Raises:
        Rejected: BAD_BOX (not four finite numbers, a negative side, outside the image), ZERO_AREA, WRONG_FIELD (none).
    """
    if bbox is None:
        if is_alone:
            raise Rejected(Reason.WRONG_FIELD, f"{where}.bbox: missing; expected a bbox or a segmentation")
        return False
    if len(bbox) != 4 or not all(math.isfinite(number) for number in bbox):
        raise Rejected(Reason.BAD_BOX, f"{where}.bbox: {bbox[:4]}; expected four finite numbers x, y, width, height")
    left, top, box_width, box_height = bbox
    if box_width < 0 or box_height < 0:
        raise Rejected(Reason.BAD_BOX, f"{where}.bbox: {bbox}; expected a width and height of 0 or more")
    if is_alone:
        if box_width == 0 or box_height == 0:
            raise Rejected(Reason.ZERO_AREA, f"{where}.bbox: {bbox} encloses nothing")
        if left >= width or top >= height or left + box_width <= 0 or top + box_height <= 0:
            raise Rejected(Reason.BAD_BOX, f"{where}.bbox: {bbox} lies outside the image of {width} x {height}")
    return left < -1 or top < -1 or left + box_width > width + 1 or top + box_height > height + 1
