"""What training pulls on: presence on every prompt, masks on present ones that are masked whole, rows in phase 1.

Masks that get no gradient on absent prompts do better (SAM 3, arXiv 2511.16719, table 10): absence is presence's
matter. Every loss is a sum and the count that it is to be divided by, so that ranks divide by what all of them hold.
"""

# B pictures, P phrases a picture, H, W of masks, D width of the teacher's rows

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from manifests.sample import MaskState
from shards.batch import MASK_STATE_CODES, Batch
from student.config import LossConfig
from student.model import Answer

_COMPLETE = MASK_STATE_CODES[MaskState.COMPLETE]


class Summed(NamedTuple):
    """A loss as the sum over what it was measured on, and how much that is."""

    total: Tensor
    num: Tensor


def masked(batch: Batch) -> Tensor:
    """Prompts that teach masks [B, P]: present, and masked whole."""
    return batch.valid & batch.present & (batch.mask_state == _COMPLETE)


def presence_loss(answer: Answer, batch: Batch, config: LossConfig, soft_bp: Tensor | None = None) -> Summed:
    """Focal binary cross entropy over all prompts; `soft_bp` is the teacher's presence, NaN where it said nothing.

    Source: Lin et al., 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002, eq. 4, without alpha.
    """
    target_bp = batch.present.float()
    if soft_bp is not None and config.soft_presence:
        blended_bp = config.soft_presence * soft_bp + (1 - config.soft_presence) * target_bp
        target_bp = torch.where(soft_bp.isnan(), target_bp, blended_bp)
    logits_bp = answer.presence_bp.float()
    cross_bp = functional.binary_cross_entropy_with_logits(logits_bp, target_bp, reduction="none")
    missed_bp = (target_bp - logits_bp.sigmoid()).abs()
    losses_bp = cross_bp * missed_bp**config.focal_gamma if config.focal_gamma else cross_bp
    return Summed((losses_bp * batch.valid).sum(), batch.valid.sum())


def mask_losses(answer: Answer, batch: Batch, soft_bphw: Tensor | None = None) -> tuple[Summed, Summed]:
    """Binary cross entropy per pixel, and Dice; each summed over the prompts that teach masks.

    `soft_bphw` are the teacher's mask probabilities, NaN where it gave none.

    Source: Milletari et al., 2016, "V-Net", arXiv 1606.04797, section 3, smoothed by one.
    """
    teaches_bp = masked(batch)
    logits_mhw = answer.masks_bphw[teaches_bp].float()
    target_mhw = batch.masks[teaches_bp].float()
    if soft_bphw is not None:
        soft_mhw = soft_bphw[teaches_bp]
        target_mhw = torch.where(soft_mhw.isnan(), target_mhw, soft_mhw)
    num = teaches_bp.sum()
    cross_m = functional.binary_cross_entropy_with_logits(logits_mhw, target_mhw, reduction="none").mean((1, 2))
    chance_mhw = logits_mhw.sigmoid()
    both_m = (chance_mhw * target_mhw).sum((1, 2))
    dice_m = 1 - (2 * both_m + 1) / (chance_mhw.sum((1, 2)) + target_mhw.sum((1, 2)) + 1)
    return Summed(cross_m.sum(), num), Summed(dice_m.sum(), num)


def alignment_loss(rows_nd: Tensor, teacher_nd: Tensor) -> Summed:
    """One minus the cosine between the student's rows and the teacher's, summed over rows."""
    cosine_n = functional.cosine_similarity(rows_nd.float(), teacher_nd.float(), dim=-1)
    return Summed((1 - cosine_n).sum(), torch.tensor(len(rows_nd), device=rows_nd.device))


def match_loss(logits_bk: Tensor, target_bk: Tensor) -> Summed:
    """The squared difference of presence logits from the teacher's, summed over pictures and phrases.

    Source: Ba and Caruana, 2014, "Do Deep Nets Really Need to be Deep?", arXiv 1312.6184, eq. 2.
    """
    squared_bk = (logits_bk.float() - target_bk) ** 2
    return Summed(squared_bk.sum(), torch.tensor(squared_bk.numel(), device=squared_bk.device))
