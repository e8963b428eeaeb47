"""Changes to a batch that keep presence true: mirror images, crops that cut no present thing away, brightness.

What is drawn depends on (seed, epoch, key) alone, so a sample changes alike however its batch was read. A crop never
makes an absent phrase present; it could make a present one absent, so it is taken only where every present phrase is
masked whole and keeps most of its mask. A sample with "left" or "right" in a phrase is never mirrored.
"""

# B samples, P prompts, S side of pictures, M side of masks (S is a multiple of it)

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from manifests.sample import MaskState
from shards.batch import MASK_STATE_CODES, Batch
from shards.reader import augmentation_rng
from student.config import AugmentConfig

LEAST_KEPT = 0.7  # of a present thing's mask in a crop
_SIDED = re.compile(r"\b(left|right)(most)?\b", re.IGNORECASE)  # what a mirror image would make untrue
_COMPLETE = MASK_STATE_CODES[MaskState.COMPLETE]


class Change(NamedTuple):
    """What is done to one sample; the window is counted in cells of the masks."""

    flip: bool
    top: int
    left: int
    side: int
    brightness: float  # factor


def draw_changes(batch: Batch, config: AugmentConfig, *, seed: int) -> list[Change]:
    """A change for each sample of `batch`."""
    side = batch.masks.shape[-1]
    drawn = [
        _draw(key, epoch, batch.masks[row], _present(batch, row), side, config, seed)
        for row, (key, epoch) in enumerate(zip(batch.keys, batch.epochs.tolist(), strict=True))
    ]
    return [
        change._replace(flip=change.flip and not any(map(_SIDED.search, phrases)))
        for change, phrases in zip(drawn, batch.phrases, strict=True)
    ]


def _present(batch: Batch, row: int) -> tuple[Tensor, bool]:
    """The present prompts of a sample [P], and whether all of them are masked whole."""
    present_p = batch.present[row] & batch.valid[row]
    return present_p, bool((batch.mask_state[row][present_p] == _COMPLETE).all())


def _draw(
    key: str, epoch: int, masks_pmm: Tensor, present: tuple[Tensor, bool], side: int, config: AugmentConfig, seed: int
) -> Change:
    rng = augmentation_rng(seed, epoch, key)
    flips, crops = rng.random(2) < (config.flip, config.crop)
    cropped = max(1, round(side * rng.uniform(config.least_scale, 1)))
    top, left = rng.integers(0, side - cropped + 1, 2).tolist()
    brightness = float(rng.uniform(1 - config.brightness, 1 + config.brightness))
    present_p, masked = present
    if not (crops and masked and keeps(masks_pmm[present_p], top, left, cropped)):
        top, left, cropped = 0, 0, side
    return Change(flip=bool(flips), top=top, left=left, side=cropped, brightness=brightness)


def keeps(masks_pmm: Tensor, top: int, left: int, side: int) -> bool:
    """Whether a window holds enough of every mask; one that is empty at this size counts as lost."""
    within_p = masks_pmm[:, top : top + side, left : left + side].sum((1, 2))
    whole_p = masks_pmm.sum((1, 2))
    return bool(((whole_p > 0) & (within_p >= LEAST_KEPT * whole_p)).all())


def change_images(images_b3ss: Tensor, changes: Sequence[Change], *, mask_side: int) -> Tensor:
    """The uint8 pictures after `changes`; windows are scaled from masks of `mask_side`."""
    changed_b3ss = images_b3ss.clone(memory_format=torch.channels_last)
    size = images_b3ss.shape[-1]
    for row, change in enumerate(changes):
        image_3ss = images_b3ss[row]
        if change.side < mask_side:
            window_3ww = _window(image_3ss, change, size // mask_side)
            image_3ss = functional.interpolate(window_3ww[None].float(), size=(size, size), mode="bilinear")[0]
        if change.brightness != 1:
            image_3ss = (image_3ss * change.brightness).clamp_(0, 255)
        if image_3ss.is_floating_point():
            image_3ss = image_3ss.round()
        changed_b3ss[row] = (image_3ss.flip(-1) if change.flip else image_3ss).to(torch.uint8)
    return changed_b3ss


def change_masks(masks_bpmm: Tensor, changes: Sequence[Change]) -> Tensor:
    """The masks after `changes`, of whatever dtype they are: each cell takes the one under its centre."""
    changed_bpmm = masks_bpmm.clone()
    side = masks_bpmm.shape[-1]
    for row, change in enumerate(changes):
        mask_pmm = masks_bpmm[row]
        if change.side < side:
            at_m = (2 * torch.arange(side, device=mask_pmm.device) + 1) * change.side // (2 * side)
            mask_pmm = _window(mask_pmm, change, 1)[:, at_m][:, :, at_m]
        changed_bpmm[row] = mask_pmm.flip(-1) if change.flip else mask_pmm
    return changed_bpmm


def _window(planes_chw: Tensor, change: Change, cell: int) -> Tensor:
    top, left, side = (cell * found for found in (change.top, change.left, change.side))
    return planes_chw[:, top : top + side, left : left + side]
