"""Intersection over union of two masks, as arrays say it."""

from manifests.sample import Mask
from shards.masks import mask_to_array


def iou(mask: Mask, other: Mask) -> float:
    """In 0 to 1, of two masks of one size of which one holds a pixel."""
    one, two = mask_to_array(mask), mask_to_array(other)
    return float((one & two).sum() / (one | two).sum())
