"""Categories that annotators confuse, found where masks of two phrases cover the same thing in the data itself.

One annotator calls a van a car, another a truck: in such pictures the other word is absent by name only. Where both
annotated one picture, two masks of different phrases overlap almost wholly. Those pairs of phrases are taken for
confusable everywhere.
"""

# N pictures, M masks of one picture

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

_Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusable:
    """Two phrases whose masks cover the same thing, the smaller number first."""

    phrase: int
    other: int
    num_overlapping: int  # pictures with two such masks
    num_together: int  # pictures in which both phrases have masks
    largest_iou: float


def find_confusable(
    inventory: Inventory,
    pictures: NDArray[np.int64],
    *,
    least_iou: float = LEAST_IOU,
    least_share: float = LEAST_SHARE,
    least_pictures: int = LEAST_PICTURES,
    max_pictures: int = MAX_PICTURES,
) -> list[Confusable]:
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
    together: Counter[_Pair] = Counter()
    overlapping: Counter[_Pair] = Counter()
    largest: dict[_Pair, float] = {}
    for shown in masks_of(inventory, pictures):
        together.update(combinations(np.unique(shown.phrase_m).tolist(), 2))
        for pair, iou in _overlaps(shown, least_iou).items():
            overlapping[pair] += 1
            largest[pair] = max(iou, largest.get(pair, 0.0))
    return [
        Confusable(
            phrase=pair[0],
            other=pair[1],
            num_overlapping=num,
            num_together=together[pair],
            largest_iou=largest[pair],
        )
        for pair, num in sorted(overlapping.items())
        if num >= least_pictures and num >= least_share * together[pair]
    ]


def confusable_relation(found: Sequence[Confusable], num_phrases: int) -> Relation:
    """The relation in which each phrase of a pair makes the other doubtful."""
    pairs = np.array([(pair.phrase, pair.other) for pair in found], np.int64).reshape(-1, 2)
    return Relation.of_pairs(num_phrases, pairs.reshape(-1), pairs[:, ::-1].reshape(-1))


def _overlaps(shown: PictureMasks, least_iou: float) -> dict[_Pair, float]:
    """The largest IoU of each pair of phrases with two masks above `least_iou`."""
    iou_mm = _iou(shown.masks)
    found: dict[_Pair, float] = {}
    for one, other in _above(iou_mm, shown.phrase_m, least_iou):
        first, second = sorted((int(shown.phrase_m[one]), int(shown.phrase_m[other])))
        found[first, second] = max(float(iou_mm[one, other]), found.get((first, second), 0.0))
    return found


def _above(iou_mm: NDArray[np.float64], phrase_m: NDArray[np.int32], least_iou: float) -> Iterator[_Pair]:
    differ = phrase_m[:, None] != phrase_m[None, :]
    one, other = np.nonzero(np.triu(differ & (iou_mm > least_iou), 1))
    return zip(one.tolist(), other.tolist(), strict=True)


def _iou(masks: Sequence[Mask]) -> NDArray[np.float64]:
    """IoU of each pair of masks of one picture; they were checked when they were scanned."""
    encoded = [to_coco(mask) for mask in masks]
    iou_mm: NDArray[np.float64] = np.asarray(coco.iou(encoded, encoded, [0] * len(encoded)), np.float64)
    return iou_mm
