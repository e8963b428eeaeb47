"""The public formats of SA-1B and COCO, field by field, written from masks.

SA-1B has a json beside each picture, with compressed RLE and no words; COCO one json for all pictures, with polygons
and, for crowds, uncompressed RLE. Nothing here knows how the masks came about.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from skimage import measure

Mask = NDArray[np.bool_]
Bbox = tuple[float, float, float, float]

MIN_PIECE_PIXELS = 12
POLYGON_TOLERANCE = 0.5

# scikit-image has no types of its own
_find_contours = cast(Callable[[NDArray[np.float32], float], list[NDArray[np.float64]]], measure.find_contours)
_approximate_polygon = cast(Callable[[NDArray[np.float64], float], NDArray[np.float64]], measure.approximate_polygon)


class CompressedRle(msgspec.Struct, frozen=True):
    """COCO's compressed RLE of a mask: size is (height, width)."""

    size: tuple[int, int]
    counts: str


class UncompressedRle(msgspec.Struct, frozen=True):
    """COCO's RLE as plain run lengths, column by column, the background first."""

    size: tuple[int, int]
    counts: list[int]


class Sa1bImage(msgspec.Struct, frozen=True):
    """The `image` object of an SA-1B json."""

    image_id: int
    width: int
    height: int
    file_name: str


class Sa1bAnnotation(msgspec.Struct, frozen=True, kw_only=True):
    """One of the `annotations` of an SA-1B json."""

    bbox: Bbox  # x, y, width, height
    area: int
    segmentation: CompressedRle
    predicted_iou: float
    point_coords: list[tuple[float, float]]
    crop_box: Bbox
    id: int
    stability_score: float


class Sa1bFile(msgspec.Struct, frozen=True):
    """A whole SA-1B json."""

    image: Sa1bImage
    annotations: list[Sa1bAnnotation]


class CocoImage(msgspec.Struct, frozen=True, kw_only=True):
    """One of the `images` of a COCO json."""

    id: int
    width: int
    height: int
    file_name: str
    license: int = 1


class CocoAnnotation(msgspec.Struct, frozen=True, kw_only=True):
    """One of the `annotations` of a COCO json."""

    segmentation: list[list[float]] | UncompressedRle
    area: float
    iscrowd: int
    image_id: int
    bbox: Bbox
    category_id: int
    id: int


class CocoCategory(msgspec.Struct, frozen=True):
    """One of the `categories` of a COCO json."""

    supercategory: str
    id: int
    name: str


class CocoLicence(msgspec.Struct, frozen=True):
    """One of the `licenses` of a COCO json."""

    url: str
    id: int
    name: str


class CocoInfo(msgspec.Struct, frozen=True):
    """The `info` object of a COCO json."""

    description: str
    version: str
    year: int


class CocoFile(msgspec.Struct, frozen=True):
    """A whole COCO instances json."""

    info: CocoInfo
    licenses: list[CocoLicence]
    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


class Random(Protocol):
    """What of `np.random.Generator` is needed here."""

    def uniform(self, low: float, high: float) -> float:
        """A float between low and high."""
        ...

    def integers(self, low: int) -> np.int64:
        """An integer from 0 up to low, without it."""
        ...


@dataclass(frozen=True, slots=True)
class _Piece:
    """A connected piece of a mask, cropped, and where it stood."""

    mask_hw: Mask
    top: int
    left: int


class _Region(Protocol):
    """What of scikit-image's region is needed here; images are cropped to the bounding box."""

    bbox: tuple[int, int, int, int]  # top, left, bottom, right
    image: Mask
    image_filled: Mask


def sa1b_annotation(mask_hw: Mask, annotation_id: int, rng: Random) -> Sa1bAnnotation:
    """The mask as SA-1B writes it; the model's own scores and its point are drawn from rng."""
    height, width = mask_hw.shape
    rle = _encode(mask_hw)
    ys, xs = np.nonzero(mask_hw)
    point = int(rng.integers(len(xs)))
    return Sa1bAnnotation(
        bbox=_bbox(mask_hw),
        area=len(xs),
        segmentation=rle,
        predicted_iou=round(rng.uniform(0.88, 1.02), 6),
        point_coords=[(float(xs[point]), float(ys[point]))],
        crop_box=(0.0, 0.0, float(width), float(height)),
        id=annotation_id,
        stability_score=round(rng.uniform(0.95, 1.0), 6),
    )


def coco_annotation(
    mask_hw: Mask, annotation_id: int, image_id: int, category_id: int, *, crowd: bool
) -> CocoAnnotation:
    """The mask as COCO writes it: polygons, or uncompressed RLE for a crowd."""
    height, width = mask_hw.shape
    if crowd:
        segmentation: list[list[float]] | UncompressedRle = _run_lengths(mask_hw)
        area, bbox = float(mask_hw.sum()), _bbox(mask_hw)
    else:
        segmentation = polygons(mask_hw)
        drawn = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        x, y, box_width, box_height = coco_mask.toBbox(drawn).tolist()
        area, bbox = float(coco_mask.area(drawn)), (x, y, box_width, box_height)
    return CocoAnnotation(
        segmentation=segmentation,
        area=area,
        iscrowd=int(crowd),
        image_id=image_id,
        bbox=bbox,
        category_id=category_id,
        id=annotation_id,
    )


def polygons(mask_hw: Mask) -> list[list[float]]:
    """Polygons, flat x, y lists, whose union is the mask up to a fraction of a pixel at its edge.

    A COCO polygon has no holes, so a piece with a hole is first cut in two through the hole. Specks are left out,
    unless there is nothing else.
    """
    pieces = _pieces_without_holes(mask_hw)
    large = [piece for piece in pieces if piece.mask_hw.sum() >= MIN_PIECE_PIXELS]
    return [_outline(piece) for piece in large or pieces]


def _encode(mask_hw: Mask) -> CompressedRle:
    """The mask as compressed RLE."""
    rle = coco_mask.encode(np.asfortranarray(mask_hw.astype(np.uint8)))
    return CompressedRle(size=mask_hw.shape, counts=rle["counts"].decode("ascii"))


def _run_lengths(mask_hw: Mask) -> UncompressedRle:
    """The mask as uncompressed RLE."""
    flat = mask_hw.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    counts = [int(run) for run in runs]
    return UncompressedRle(size=mask_hw.shape, counts=[0, *counts] if flat[0] else counts)


def _bbox(mask_hw: Mask) -> Bbox:
    """The smallest box of whole pixels around the mask: x, y, width, height."""
    xs, ys = np.flatnonzero(mask_hw.any(axis=0)), np.flatnonzero(mask_hw.any(axis=1))
    return float(xs[0]), float(ys[0]), float(xs[-1] - xs[0] + 1), float(ys[-1] - ys[0] + 1)


def _pieces_without_holes(mask_hw: Mask) -> list[_Piece]:
    """Connected pieces of the mask; those with holes are cut along columns until none has any."""
    waiting, done = [_Piece(mask_hw, 0, 0)], []
    while waiting:
        whole = waiting.pop()
        for region in _regions(whole.mask_hw):
            piece_hw: Mask = region.image
            top, left = whole.top + region.bbox[0], whole.left + region.bbox[1]
            holes_hw = region.image_filled & ~piece_hw
            if not holes_hw.any():
                done.append(_Piece(piece_hw, top, left))
                continue
            columns_with_holes = np.flatnonzero(holes_hw.any(axis=0))
            cut = int(columns_with_holes[len(columns_with_holes) // 2])
            waiting += [_Piece(piece_hw[:, cut:], top, left + cut), _Piece(piece_hw[:, :cut], top, left)]
    return done


def _regions(mask_hw: Mask) -> list[_Region]:
    """The pieces of the mask that hang together by their pixels' sides."""
    labels_hw = cast(Callable[..., NDArray[np.int64]], measure.label)(mask_hw, connectivity=1)
    return cast(Callable[..., list[_Region]], measure.regionprops)(labels_hw)


def _outline(piece: _Piece) -> list[float]:
    """The outer outline of a piece without holes, with few points, as x, y, x, y."""
    height, width = piece.mask_hw.shape
    contours = _find_contours(np.pad(piece.mask_hw, 1).astype(np.float32), 0.5)
    ring_n2 = _approximate_polygon(_without_straight(max(contours, key=len)), POLYGON_TOLERANCE)[:-1]
    ys = np.clip(ring_n2[:, 0] - 0.5, 0, height) + piece.top  # less the padding, plus half a pixel: edges, not centres
    xs = np.clip(ring_n2[:, 1] - 0.5, 0, width) + piece.left
    return [round(float(value), 2) for point in zip(xs, ys, strict=True) for value in point]


def _without_straight(ring_n2: NDArray[np.float64]) -> NDArray[np.float64]:
    """The closed ring without the points between which it does not turn: most of them, and cheap to find."""
    steps_n2 = np.diff(ring_n2, axis=0)
    turns: Mask = np.any(steps_n2[1:] != steps_n2[:-1], axis=1)
    kept: Mask = np.concatenate([[True], turns, [True]])
    return ring_n2[kept]
