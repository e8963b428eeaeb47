"""Masks as COCO's compressed RLE: checked in bulk, made from polygons and arrays, brought to a target size.

Checking and resizing work on run lengths, many masks at once (`shards.rle`). pycocotools makes and merges single
masks, and only ever sees strings that were checked here: it reads past the end of an unterminated one. Its `decode`
is not used, since it warns under numpy 2.
"""

# N masks, G groups of masks, S side of a square

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from manifests.errors import Reason, Rejected
from manifests.sample import Mask
from shards import rle
from shards.images import Letterbox, scaled_size
from shards.rle import MAX_MASK_PIXELS
from shards.rle import MaskFault as MaskFault  # noqa: PLC0414  callers of check_masks find it here

MIN_POLYGON_NUMBERS = 6

_Int64 = NDArray[np.int64]
_Bool = NDArray[np.bool_]


def reason_of(fault: MaskFault) -> Reason | None:
    """The reason for which a mask with `fault` is dropped; None for a sound one."""
    match fault:
        case MaskFault.NONE:
            return None
        case MaskFault.CORRUPT:
            return Reason.MASK_CORRUPT
        case MaskFault.WRONG_SIZE:
            return Reason.MASK_SIZE
        case MaskFault.EMPTY:
            return Reason.MASK_EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskCheck:
    """What `check_masks` found, mask by mask."""

    areas: _Int64  # [N] pixels; 0 where the mask is faulty
    faults: NDArray[np.int8]  # [N] values of MaskFault


def check_masks(
    counts: Sequence[bytes | str], heights: Sequence[int] | _Int64, widths: Sequence[int] | _Int64
) -> MaskCheck:
    """Area and fault of every mask, about a microsecond each.

    Stricter than pycocotools: what passes here, `pycocotools.mask.decode` unpacks to the same area.
    """
    return _check(counts, rle.pixels_of(heights, widths))


def check_masks_of(size: tuple[int, int], counts: Sequence[bytes | str]) -> MaskCheck:
    """The same for masks of one `size` (height, width)."""
    return _check(counts, np.repeat(rle.pixels_of(size[:1], size[1:]), len(counts)))


def _check(counts: Sequence[bytes | str], pixels: _Int64) -> MaskCheck:
    runs = rle.read_runs(counts, pixels, keep_lengths=False)
    return MaskCheck(areas=runs.areas, faults=runs.faults)


def mask_from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Mask:
    """The union of `polygons` (x, y, x, y, ... in pixels), rasterised as pycocotools does.

    Raises:
        Rejected: POLYGON_TOO_SHORT, MASK_CORRUPT (odd count, not finite, far outside), MASK_SIZE, ZERO_AREA.
    """
    _require_size(height, width)
    if not polygons:
        raise Rejected(Reason.POLYGON_TOO_SHORT, "no polygon where at least one was expected")
    for number, polygon in enumerate(polygons):
        _require_polygon(polygon, f"polygon {number}", height, width)
    merged = coco.merge(coco.frPyObjects([list(polygon) for polygon in polygons], height, width))
    mask = _from_coco(merged)
    if not coco.area(merged):
        raise Rejected(Reason.ZERO_AREA, f"{len(polygons)} polygons cover no pixel of {width} x {height}")
    return mask


def mask_from_uncompressed(counts: Sequence[int], size: Sequence[int]) -> Mask:
    """The mask of run lengths (column by column, background first) in an image of `size` (height, width).

    Raises:
        Rejected: MASK_CORRUPT, MASK_SIZE, MASK_EMPTY.
    """
    if len(size) != 2:
        raise Rejected(Reason.MASK_SIZE, f"size holds {len(size)} numbers, expected height and width")
    height, width = size
    _require_size(height, width)
    if any(run < 0 for run in counts):
        raise Rejected(Reason.MASK_CORRUPT, f"run length {min(counts)} is negative")
    if sum(counts) != height * width:
        raise Rejected(Reason.MASK_SIZE, f"runs sum to {sum(counts)}, expected {height} x {width} = {height * width}")
    if not any(counts[1::2]):
        raise Rejected(Reason.MASK_EMPTY, f"no pixel of {width} x {height} is set")
    return _from_coco(coco.frPyObjects({"counts": list(counts), "size": [height, width]}, height, width))


def mask_from_runs(runs: Sequence[int], height: int, width: int) -> Mask:
    """The mask of `runs`, column by column and background first, which fill `height` x `width`; it may be empty."""
    return _from_coco(coco.frPyObjects({"counts": list(runs), "size": [height, width]}, height, width))


def mask_from_array(array_hw: _Bool) -> Mask:
    """The mask that is set where `array_hw` is True."""
    return _from_coco(coco.encode(np.asfortranarray(array_hw, dtype=np.uint8)))


def mask_to_array(mask: Mask) -> _Bool:
    """The pixels of `mask` [height, width], True where it is set.

    Raises:
        Rejected: MASK_CORRUPT, MASK_SIZE.
    """
    height, width = mask.size
    lengths = _read_sound([mask]).lengths
    pixels = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return pixels.reshape(width, height).T


def union(masks: Sequence[Mask]) -> Mask:
    """The mask that is set where any of `masks` is; they have one size, and there is at least one.

    Raises:
        Rejected: MASK_CORRUPT, MASK_SIZE.
    """
    _require_sound(masks)
    _common_size(masks)
    return _from_coco(coco.merge([to_coco(mask) for mask in masks])) if len(masks) > 1 else masks[0]


def area(mask: Mask) -> int:
    """Number of pixels that are set.

    Raises:
        Rejected: MASK_CORRUPT, MASK_SIZE.
    """
    return int(_require_sound([mask]).areas[0])


def resize_mask_groups(groups: Sequence[Sequence[Mask]], letterbox: Letterbox, side: int) -> _Bool:
    """The union of each group of masks [G, S, S], sampled into the letterbox; False in its padding.

    A target pixel takes the source pixel under its centre: row r of h takes row floor((r + 1/2) * height / h), and
    columns alike. Runs are moved to the target's grid by counting the sampled pixels before each of their ends, so the
    cost goes with the number of runs and of target pixels, not of source pixels.

    Raises:
        Rejected: MASK_CORRUPT, MASK_SIZE; also where the masks differ in size.
    """
    scaled_width, scaled_height, left, top = letterbox
    canvas = np.zeros((len(groups), side, side), np.bool_)
    masks = list(chain.from_iterable(groups))
    if masks:
        group_of_mask = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        sampled = _sample(masks, group_of_mask, len(groups), (scaled_width, scaled_height))
        canvas[:, top : top + scaled_height, left : left + scaled_width] = sampled.transpose(0, 2, 1)
    return canvas


def downscale_mask_for_page(mask: Mask, longest: int) -> Mask:
    """`mask` sampled so that its longer side is at most `longest` pixels; itself where it already is.

    Raises:
        Rejected: MASK_CORRUPT, MASK_SIZE.
    """
    height, width = mask.size
    if max(height, width) <= longest:
        return mask
    sampled = _sample([mask], np.zeros(1, np.int64), 1, scaled_size(width, height, longest))
    return mask_from_array(sampled[0].T)


def _sample(masks: Sequence[Mask], group_of_mask: _Int64, num_groups: int, scaled: tuple[int, int]) -> _Bool:
    """The union of each group [G, scaled width, scaled height], once all `masks` are found sound."""
    size = _common_size(masks)
    return rle.sample_groups(_read_sound(masks), group_of_mask, num_groups, size=size, scaled_size=scaled)


def to_coco(mask: Mask) -> dict[str, object]:
    """The mask as pycocotools takes it."""
    return {"size": list(mask.size), "counts": mask.counts.encode("ascii")}


def _from_coco(encoded: dict[str, Any]) -> Mask:
    height, width = encoded["size"]
    return Mask(size=(int(height), int(width)), counts=encoded["counts"].decode("ascii"))


def _common_size(masks: Sequence[Mask]) -> tuple[int, int]:
    """Height and width of all `masks`."""
    if not masks:
        raise ValueError("no mask where at least one was expected")
    sizes = {mask.size for mask in masks}
    if len(sizes) > 1:
        raise Rejected(Reason.MASK_SIZE, f"masks of one image have the sizes {sorted(sizes)}, expected one")
    return masks[0].size


def _read_sound(masks: Sequence[Mask]) -> rle.Runs:
    """The runs of `masks`, none of which is corrupt or of the wrong size."""
    pixels = rle.pixels_of([mask.size[0] for mask in masks], [mask.size[1] for mask in masks])
    runs = rle.read_runs([mask.counts for mask in masks], pixels)
    _require_no_fault(masks, runs.faults)
    return runs


def _require_sound(masks: Sequence[Mask]) -> MaskCheck:
    """The check of `masks`, none of which is corrupt or of the wrong size; a mask may be empty."""
    check = check_masks([m.counts for m in masks], [m.size[0] for m in masks], [m.size[1] for m in masks])
    _require_no_fault(masks, check.faults)
    return check


def _require_no_fault(masks: Sequence[Mask], faults: NDArray[np.int8]) -> None:
    bad = np.flatnonzero((faults != MaskFault.NONE) & (faults != MaskFault.EMPTY))
    if bad.size:
        mask = masks[bad[0]]
        reason = reason_of(MaskFault(faults[bad[0]])) or Reason.MASK_CORRUPT
        raise Rejected(reason, f"mask {bad[0]} of size {mask.size}, counts {mask.counts[:32]!r}")


def _require_size(height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_MASK_PIXELS:
        raise Rejected(Reason.MASK_SIZE, f"size {height} x {width}, expected 1 to {MAX_MASK_PIXELS} pixels")


def _require_polygon(polygon: Sequence[float], where: str, height: int, width: int) -> None:
    if len(polygon) < MIN_POLYGON_NUMBERS:
        raise Rejected(Reason.POLYGON_TOO_SHORT, f"{where} has {len(polygon)} numbers, expected 6 (three points)")
    if len(polygon) % 2:
        raise Rejected(Reason.MASK_CORRUPT, f"{where} has {len(polygon)} numbers, expected pairs of x and y")
    for numbers, side in ((polygon[0::2], width), (polygon[1::2], height)):
        # The rasteriser walks along each edge pixel by pixel, also outside the image, hence a bound.
        outside = [number for number in numbers if not -side <= number <= 2 * side]
        if outside:
            raise Rejected(Reason.MASK_CORRUPT, f"{where} has the coordinate {outside[0]}, expected 0 to {side}")
