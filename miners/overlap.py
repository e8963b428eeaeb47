"""How much of a false alarm lies on known objects of other phrases: what the overlap guard judges."""

# C candidates

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from manifests.sample import Mask
from miners.held_masks import masks_of
from miners.outside import NO_MASK, Said
from shards.inventory import Inventory
from shards.masks import to_coco


def covered_share(
    inventory: Inventory, said: Said, image_c: NDArray[np.int64], phrase_c: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Share of each alarm's area under the masks of the picture's other phrases; NaN where the model gave no mask."""
    row_c = said.rows_of(image_c, phrase_c)
    mask_c = np.where(row_c >= 0, np.append(said.mask_p, NO_MASK)[row_c], NO_MASK)
    covered_c = np.full(len(image_c), np.nan)
    alarms = np.flatnonzero(mask_c != NO_MASK)
    covered_c[alarms] = 0.0
    alarms = alarms[np.argsort(image_c[alarms], kind="stable")]
    pictures = np.unique(image_c[alarms])
    for shown in masks_of(inventory, pictures):
        first, last = np.searchsorted(image_c[alarms], [shown.picture, shown.picture + 1])
        for candidate in alarms[first:last].tolist():
            others = [shown.masks[at] for at in np.flatnonzero(shown.phrase_m != phrase_c[candidate]).tolist()]
            covered_c[candidate] = _covered(said.masks[int(mask_c[candidate])], others)
    return covered_c


def _covered(alarm: Mask, others: list[Mask]) -> float:
    """Share of the alarm's pixels under the union of `others`."""
    if not others:
        return 0.0
    encoded = [to_coco(mask) for mask in (alarm, *others)]
    both = coco.merge([encoded[0], coco.merge(encoded[1:])], intersect=True)
    return float(coco.area(both)) / float(coco.area(encoded[0]))
