"""The masks of an inventory's labels, picture by picture, read part by part in a few large reads."""

# L labels, M masks of one picture

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests import files
from manifests.sample import Mask, MaskState, decode_masks
from shards.inventory import MASK_STATES, Inventory

_WINDOW_BYTES = 4 << 20  # read at once; a picture with more is read alone
_NO_MASK = MASK_STATES.index(MaskState.NONE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureMasks:
    """All masks of one picture, each with the phrase that it shows."""

    picture: int
    phrase_m: NDArray[np.int32]
    masks: tuple[Mask, ...]


def masks_of(inventory: Inventory, pictures: NDArray[np.int64]) -> Iterator[PictureMasks]:
    """The masks of the present phrases of distinct `pictures`; pictures without any are left out.

    They come in the order in which they lie on disk.
    """
    labels = inventory.labels
    rows, owner = inventory.present(pictures)
    held = (labels.mask_state_l[rows] != _NO_MASK) & (labels.num_bytes_l[rows] > 0)
    rows, owner = rows[held], owner[held]
    order = np.lexsort((labels.offset_l[rows], owner, labels.part_l[rows]))
    rows, owner = rows[order], owner[order]
    for window in _windows(inventory, rows, owner):
        part = inventory.parts[int(labels.part_l[rows[window[0]]])]
        starts = labels.offset_l[rows[window]]
        stops = starts + labels.num_bytes_l[rows[window]]
        first = int(starts.min())
        data = files.read_range(part.masks, first, int(stops.max()) - first)
        edges = np.flatnonzero(np.diff(owner[window])) + 1
        for own in np.split(np.arange(len(window)), edges):
            lists = [decode_masks(data[starts[at] - first : stops[at] - first]) for at in own.tolist()]
            yield PictureMasks(
                picture=int(pictures[owner[window[own[0]]]]),
                phrase_m=np.repeat(labels.phrase_l[rows[window[own]]], [len(masks) for masks in lists]),
                masks=tuple(mask for masks in lists for mask in masks),
            )


def _windows(inventory: Inventory, rows: NDArray[np.int64], owner: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Positions in `rows` to be read together: whole pictures of one part, within some bytes of each other."""
    labels = inventory.labels
    firsts = np.flatnonzero(np.diff(owner, prepend=-1))
    begin = 0
    for place, at in enumerate(firsts.tolist()):
        stop = int(firsts[place + 1]) if place + 1 < len(firsts) else len(rows)
        span = labels.offset_l[rows[begin:stop]]
        other_part = labels.part_l[rows[at]] != labels.part_l[rows[begin]]
        if at > begin and (other_part or int(span.max() - span.min()) > _WINDOW_BYTES):
            yield np.arange(begin, at)
            begin = at
    if begin < len(rows):
        yield np.arange(begin, len(rows))
