"""How far predicted masks cover the truth: areas, intersections and IoUs of many pairs, off their run lengths.

pycocotools compares every mask of one list with every mask of another, at half a dozen microseconds of Python a call.
Here the pairs of a batch are set side by side in one wide picture, as if each were photographed left of the next: masks
of different pairs then lie in different columns, pycocotools leaves those out by their boxes, and one call compares a
batch. Moving a mask to the right only makes its first run of background longer, that is, changes a few characters.
"""

# N prompts, K pairs of a batch

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from manifests.errors import Reason, Rejected
from manifests.sample import Mask
from shards.masks import MaskFault, check_masks, reason_of, union
from shards.rle import MAX_MASK_PIXELS

_BATCH = 16  # pairs; boxes are compared all with all, and a batch is small enough for the cache

_Int64 = NDArray[np.int64]
_Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """Pixels of predicted and true masks, prompt by prompt."""

    intersection_n: _Int64
    predicted_n: _Int64
    truth_n: _Int64
    pixels_n: _Int64  # of the picture

    @property
    def union_n(self) -> _Int64:
        """Pixels that are in either mask."""
        return self.predicted_n + self.truth_n - self.intersection_n

    @property
    def iou_n(self) -> _Float:
        """Intersection over union; 0 where both masks are empty."""
        return self.intersection_n / np.maximum(self.union_n, 1)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> "Overlaps":
        """The overlaps of some prompts."""
        return Overlaps(
            intersection_n=self.intersection_n[rows],
            predicted_n=self.predicted_n[rows],
            truth_n=self.truth_n[rows],
            pixels_n=self.pixels_n[rows],
        )


def overlaps(
    predicted: Sequence[Mask | None],
    truth: Sequence[Sequence[Mask]],
    heights: Sequence[int] | _Int64,
    widths: Sequence[int] | _Int64,
) -> Overlaps:
    """Predicted masks beside the union of each prompt's instances, in pictures of `heights` x `widths`.

    None, or a mask whose counts are "", is an empty mask; so is a prompt without instances.

    Raises:
        Rejected: MASK_CORRUPT, MASK_SIZE; a mask may be empty.
    """
    pixels_n = np.asarray(heights, np.int64) * np.asarray(widths, np.int64)
    row = np.flatnonzero(np.fromiter(map(bool, truth), np.bool_, len(truth)))
    whole = [_union(truth[n]) for n in row.tolist()]
    predicted_n, truth_n, intersection_n = (np.zeros(len(predicted), np.int64) for _ in range(3))
    truth_n[row] = _sound_areas(whole, "truth", row, heights, widths)
    given = np.flatnonzero(np.fromiter(map(_is_given, predicted), np.bool_, len(predicted)))
    masks = [mask for mask in predicted if mask is not None and mask.counts]
    predicted_n[given] = _sound_areas(masks, "prediction", given, heights, widths)
    both, in_given, in_row = np.intersect1d(given, row, assume_unique=True, return_indices=True)
    iou = paired_ious([masks[g] for g in in_given.tolist()], [whole[r] for r in in_row.tolist()])
    # a double holds i/u to 16 digits, and i = iou (a + b) / (1 + iou): whole numbers below 2^30 come back exactly
    intersection_n[both] = np.rint(iou / (1 + iou) * (predicted_n[both] + truth_n[both]))
    return Overlaps(intersection_n=intersection_n, predicted_n=predicted_n, truth_n=truth_n, pixels_n=pixels_n)


def best_instance_ious(predicted: Sequence[Mask | None], truth: Sequence[Sequence[Mask]]) -> _Float:
    """The IoU of each predicted mask with the best of the prompt's instances [N]; 0 without a mask or an instance.

    Raises:
        Rejected: MASK_CORRUPT, MASK_SIZE.
    """
    pairs = [
        (n, mask, instance)
        for n, (mask, instances) in enumerate(zip(predicted, truth, strict=True))
        if mask is not None and mask.counts
        for instance in instances
    ]
    row = np.array([n for n, _, _ in pairs], np.int64)
    found = overlaps(
        [mask for _, mask, _ in pairs],
        [(instance,) for _, _, instance in pairs],
        [mask.size[0] for _, mask, _ in pairs],
        [mask.size[1] for _, mask, _ in pairs],
    )
    best_n = np.zeros(len(predicted))
    np.maximum.at(best_n, row, found.iou_n)
    return best_n


def paired_ious(masks: Sequence[Mask], others: Sequence[Mask]) -> _Float:
    """The IoU of each mask with the other at its place [N]; 0 where both are empty.

    Both are known to be sound (`shards.masks.check_masks`) and of one size pair by pair: pycocotools reads beyond the
    end of a broken string.
    """
    iou_n = np.zeros(len(masks))
    for rows in _batches(masks):
        width = sum(masks[n].size[1] for n in rows)
        left, moved, beside = 0, [], []
        for n in rows:
            moved.append(_moved(masks[n], left, width))
            beside.append(_moved(others[n], left, width))
            left += masks[n].size[1]
        iou_n[rows] = np.diagonal(coco.iou(moved, beside, [0] * len(rows)))
    return iou_n


def _batches(masks: Sequence[Mask]) -> Iterator[range]:
    """Places of up to 16 masks that, side by side, are no larger than a mask may be; a larger one stands alone."""
    start = width = tallest = 0
    for n, mask in enumerate(masks):
        height, width, tallest = mask.size[0], width + mask.size[1], max(tallest, mask.size[0])
        if n > start and (n - start == _BATCH or width * tallest > MAX_MASK_PIXELS):
            yield range(start, n)
            start, width, tallest = n, mask.size[1], height
    if masks:
        yield range(start, len(masks))


def _moved(mask: Mask, left: int, width: int) -> dict[str, object]:
    """The mask as pycocotools takes it, `left` columns to the right in a picture of `width` columns."""
    height = mask.size[0]
    if not left:
        return {"size": [height, width], "counts": mask.counts}
    first, rest = _first_run(mask.counts)
    return {"size": [height, width], "counts": _digits(first + left * height) + rest}


def _first_run(counts: str) -> tuple[int, str]:
    """The first run of a sound mask, which is no difference to another, and the characters after it."""
    run = 0
    for place, character in enumerate(counts):
        digit = ord(character) - 48
        run |= (digit & 31) << (5 * place)
        if digit < 32:
            return run, counts[place + 1 :]
    return run, ""


def _digits(run: int) -> str:
    """A run length as the format writes it: base 32, least digit first, the top bit of the last one clear."""
    characters = []
    while run > 15:
        characters.append(chr((run & 31) + 80))
        run >>= 5
    return "".join(characters) + chr(run + 48)


def _is_given(mask: Mask | None) -> bool:
    return mask is not None and bool(mask.counts)


def _union(instances: Sequence[Mask]) -> Mask:
    return union(instances) if len(instances) > 1 else instances[0]


def _sound_areas(
    masks: Sequence[Mask], what: str, row: _Int64, heights: Sequence[int] | _Int64, widths: Sequence[int] | _Int64
) -> _Int64:
    """The areas of `masks` of prompts `row`, none of which is corrupt or of another size than its picture."""
    height, width = np.asarray(heights, np.int64)[row], np.asarray(widths, np.int64)[row]
    sizes = np.fromiter(chain.from_iterable(mask.size for mask in masks), np.int64, 2 * len(masks)).reshape(-1, 2)
    check = check_masks([mask.counts for mask in masks], height, width)
    sized = (sizes[:, 0] == height) & (sizes[:, 1] == width)
    bad = np.flatnonzero(~sized | ((check.faults != MaskFault.NONE) & (check.faults != MaskFault.EMPTY)))
    if bad.size:
        first = int(bad[0])
        reason = (reason_of(MaskFault(check.faults[first])) if sized[first] else None) or Reason.MASK_SIZE
        raise Rejected(
            reason,
            f"{what} {row[first]}: mask of size {masks[first].size}, counts {masks[first].counts[:32]!r}; expected a "
            f"sound mask of {height[first]} x {width[first]}",
        )
    return check.areas
