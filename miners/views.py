"""The pixels that an encoder looks at: whole pictures, tiles of them, and crops of masks, from one decode.

An encoder says what it wants as a `Geometry`; `fit` then does with Pillow what open_clip's own transform does, up to
the point where bytes become floats. A JPEG is decoded at the smallest scale that the largest view allows.
"""

# S views of one picture, H W side of the encoder's input, K crops

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from manifests.sample import Mask
from shards.images import decode_at_least, read_size
from shards.masks import area, to_coco

Box = tuple[float, float, float, float]  # x, y, width, height

CONTEXT_MARGIN = 0.15  # of a mask's longer side, added on every side of its crop
_SPARE = 2.0  # a picture is decoded no smaller than this many times the size that is asked for

_Pixels = NDArray[np.uint8]


class Geometry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What pixels an encoder wants; part of its digest."""

    height: int
    width: int
    resize: Literal["shortest", "longest", "squash"]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill: int = 0  # of what `longest` leaves free
    tiles: tuple[Box, ...] = ((0.0, 0.0, 1.0, 1.0),)  # views of a whole picture, in shares of its width and height


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Views:
    """All that an encoder sees of one picture."""

    whole_shw3: _Pixels  # no view where the whole picture was not asked for
    crops_khw3: _Pixels


def crop_box(mask: Mask, *, margin: float = CONTEXT_MARGIN) -> Box:
    """The box around `mask` with its context, as near to a square as the picture has room for."""
    height, width = mask.size
    x, y, box_width, box_height = mask_box(mask)
    side = max(box_width, box_height) * (1 + 2 * margin)
    left, wide = _centred(x + box_width / 2, side, width)
    top, high = _centred(y + box_height / 2, side, height)
    return left, top, wide, high


def mask_box(mask: Mask) -> Box:
    """The smallest box around `mask`, in whole pixels."""
    from pycocotools import mask as coco

    x, y, width, height = coco.toBbox(to_coco(mask)).tolist()
    return x, y, width, height


def largest(masks: Sequence[Mask]) -> Mask:
    """The mask with the most pixels; the first of equals."""
    return max(masks, key=area)


def _centred(middle: float, side: float, limit: int) -> tuple[float, float]:
    """Start and length of a span of `side` pixels around `middle`, moved and cut to lie within `limit`."""
    length = min(side, float(limit))
    return round(min(max(middle - length / 2, 0.0), limit - length)), round(length)


def make_views(data: bytes, geometry: Geometry, *, whole: bool = True, boxes: Sequence[Box] = ()) -> Views:
    """The views of the picture in `data`, decoded once, as large as the smallest box among them needs it.

    Args:
        data: The picture's bytes.
        geometry: What the encoder wants.
        whole: Whether the picture's own tiles are asked for.
        boxes: Crops that are asked for, in pixels of the picture.

    Raises:
        Rejected: the picture does not decode; see `shards.images`.
    """
    width, height = read_size(data)
    tiles = [(x * width, y * height, w * width, h * height) for x, y, w, h in geometry.tiles] if whole else []
    image = decode_at_least(data, _wanted_size(width, height, [*tiles, *boxes], geometry))
    scales = image.width / width, image.height / height
    empty = np.empty((0, geometry.height, geometry.width, 3), np.uint8)
    tiles_shw3 = [fit(_cut(image, tile, scales), geometry) for tile in tiles]
    crops_khw3 = [fit(_cut(image, box, scales), geometry) for box in boxes]
    return Views(
        whole_shw3=np.stack(tiles_shw3) if tiles_shw3 else empty,
        crops_khw3=np.stack(crops_khw3) if crops_khw3 else empty,
    )


def _wanted_size(width: int, height: int, boxes: Sequence[Box], geometry: Geometry) -> tuple[int, int]:
    """The smallest size of the whole picture at which no box is smaller than what becomes of it, with some to spare."""
    need = max((max(geometry.width / max(w, 1.0), geometry.height / max(h, 1.0)) for _, _, w, h in boxes), default=0.0)
    scale = min(1.0, _SPARE * need)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _cut(image: Image.Image, box: Box, scales: tuple[float, float]) -> Image.Image:
    """The part of the decoded picture that `box` names in pixels of the original; at least one pixel."""
    x, y, width, height = box
    left, right = _edges(x, width, scales[0], image.width)
    top, bottom = _edges(y, height, scales[1], image.height)
    if (left, top, right, bottom) == (0, 0, image.width, image.height):
        return image
    return image.crop((left, top, right, bottom))


def _edges(start: float, length: float, scale: float, limit: int) -> tuple[int, int]:
    first = min(max(round(start * scale), 0), limit - 1)
    return first, min(max(round((start + length) * scale), first + 1), limit)


def fit(image: Image.Image, geometry: Geometry) -> _Pixels:
    """`image` as the encoder's input [H, W, 3], placed as open_clip's `image_transform` places it."""
    resampling = Image.Resampling[geometry.interpolation.upper()]
    size = _fitted_size(image.width, image.height, geometry)
    if size != image.size:
        image = image.resize(size, resampling, reducing_gap=3.0)
    if size == (geometry.width, geometry.height):
        return np.asarray(image)
    return _centre(image, geometry)


def _fitted_size(width: int, height: int, geometry: Geometry) -> tuple[int, int]:
    """Width and height after the resize, rounded as torchvision and open_clip round them."""
    match geometry.resize:
        case "squash":
            return geometry.width, geometry.height
        case "longest":
            ratio = max(height / geometry.height, width / geometry.width)
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        case "shortest" if geometry.width == geometry.height:
            side = geometry.width
            if width <= height:
                return side, side * height // width
            return side * width // height, side
        case "shortest":
            ratio = min(height / geometry.height, width / geometry.width)
            return round(width / ratio), round(height / ratio)


def _centre(image: Image.Image, geometry: Geometry) -> _Pixels:
    """The middle of `image`, what is missing at its edges filled."""
    canvas = np.full((geometry.height, geometry.width, 3), geometry.fill, np.uint8)
    pixels = np.asarray(image)
    from_top, to_top, rows = _overlap(image.height, geometry.height)
    from_left, to_left, columns = _overlap(image.width, geometry.width)
    canvas[to_top : to_top + rows, to_left : to_left + columns] = pixels[
        from_top : from_top + rows, from_left : from_left + columns
    ]
    return canvas


def _overlap(found: int, wanted: int) -> tuple[int, int, int]:
    """Where a span of `found` pixels begins to be read and written, centred in `wanted`, and how many pixels."""
    if found >= wanted:
        return round((found - wanted) / 2), 0, wanted
    return 0, (wanted - found) // 2, found
