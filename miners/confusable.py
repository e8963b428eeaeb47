"""Categories that annotators confuse, found where masks of two phrases cover the same thing in the data itself.

One annotator calls a van a car, another a truck: in such pictures the other word is absent by name only. Where both
annotated one picture, two masks of different phrases overlap almost wholly. Those pairs of phrases are taken for
confusable everywhere.
"""

# N pictures, M masks of one picture

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from manifests.sample import Mask
from miners.held_masks import PictureMasks, masks_of
from miners.relation import Relation
from shards.inventory import Inventory
from shards.masks import to_coco

LEAST_IOU = 0.7
LEAST_SHARE = 0.01
LEAST_PICTURES = 1
MAX_PICTURES = 50_000

Pair = tuple[int, int]  # of phrases, the smaller number first


def find_confusable(
    inventory: Inventory,
    pictures: NDArray[np.int64],
    *,
    least_iou: float = LEAST_IOU,
    least_share: float = LEAST_SHARE,
    least_pictures: int = LEAST_PICTURES,
    max_pictures: int = MAX_PICTURES,
) -> list[Pair]:
    """Pairs of phrases that annotators confuse, sorted by phrase.

    Args:
        inventory: Of all pictures.
        pictures: Rows to look at, without repeats.
        least_iou: Two masks of different phrases above it cover the same thing.
        least_share: Of the pictures in which both phrases have masks, the share that must hold two such masks.
        least_pictures: The number that must.
        max_pictures: Of more pictures, those with the smallest content hash are read.
    """
    if len(pictures) > max_pictures:
        pictures = np.sort(pictures[np.argsort(inventory.content_n[pictures], kind="stable")[:max_pictures]])
    together: Counter[Pair] = Counter()
    overlapping: Counter[Pair] = Counter()
    for shown in masks_of(inventory, pictures):
        together.update(combinations(np.unique(shown.phrase_m).tolist(), 2))
        overlapping.update(_overlaps(shown, least_iou))
    return [
        pair
        for pair, num in sorted(overlapping.items())
        if num >= least_pictures and num >= least_share * together[pair]
    ]


def confusable_relation(found: Sequence[Pair], num_phrases: int) -> Relation:
    """The relation in which each phrase of a pair makes the other doubtful."""
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return Relation.of_pairs(num_phrases, pairs.reshape(-1), pairs[:, ::-1].reshape(-1))


def _overlaps(shown: PictureMasks, least_iou: float) -> set[Pair]:
    """Pairs of phrases with two masks above `least_iou`."""
    phrase_m = shown.phrase_m
    one_k, other_k = np.nonzero((_iou(shown.masks) > least_iou) & (phrase_m[:, None] < phrase_m))
    return set(zip(phrase_m[one_k].tolist(), phrase_m[other_k].tolist(), strict=True))


def _iou(masks: Sequence[Mask]) -> NDArray[np.float64]:
    """IoU of each pair of masks of one picture; they were checked when they were scanned."""
    encoded = [to_coco(mask) for mask in masks]
    iou_mm: NDArray[np.float64] = np.asarray(coco.iou(encoded, encoded, [0] * len(encoded)), np.float64)
    return iou_mm
