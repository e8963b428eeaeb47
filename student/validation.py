"""What a student is worth after an epoch, over the val split: presence loss, IL_MCC, mIoU, and the figure to choose by.

A short look at mask resolution and at a threshold of one half; `student.evaluate` takes the long one.
"""

# B samples, P prompts, M side of masks

import math
from contextlib import AbstractContextManager

import msgspec
import torch
from torch import Tensor

from shards.batch import Batch
from shards.reader import Loader
from student.config import TrainConfig
from student.distributed import Ranks
from student.lesson import require_mask_size
from student.losses import masked, presence_loss
from student.model import Answer, Student
from student.predictor import MASK_THRESHOLD
from student.tokens import ask

_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # for pixels, one half among them


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; None where val's labels do not define it."""

    presence_loss: float | None
    il_mcc: float | None
    miou: float | None
    num_present: int
    num_absent: int
    num_masked: int
    mask_threshold: float = MASK_THRESHOLD  # of the largest mIoU
    miou_there: float | None = None


def validate(
    student: Student, loader: Loader, config: TrainConfig, ranks: Ranks, autocast: AbstractContextManager[object]
) -> Validation:
    """The figures of `student` over all ranks' batches."""
    student.eval()
    counts_n = torch.zeros(7 + len(_THRESHOLDS), dtype=torch.float64)
    with torch.inference_mode(), autocast:
        for batch in loader:
            counts_n += _count(student, batch, config, ranks.device)
    student.train()
    return summarise(ranks.sum(counts_n))


def _count(student: Student, batch: Batch, config: TrainConfig, device: torch.device) -> Tensor:
    """Loss and number of prompts; true and false presences and absences; number of masks, IoU at each threshold."""
    require_mask_size(batch)
    asked = ask(batch.phrases, context=config.model.context).to(device)
    batch = batch.to(device)
    answer = student(batch.images, asked.tokens_ul, asked.phrase_bp)
    loss = presence_loss(answer, batch, config.losses)
    said_bp, present_bp, valid_bp = answer.presence_bp > 0, batch.present, batch.valid
    confusion = [
        (said_bp & present_bp & valid_bp).sum(),
        (said_bp & ~present_bp & valid_bp).sum(),
        (~said_bp & present_bp & valid_bp).sum(),
        (~said_bp & ~present_bp & valid_bp).sum(),
    ]
    num, *ious = _overlap(answer, batch)
    return torch.stack([found.double().cpu() for found in (loss.total, loss.num, *confusion, num, *ious)])


def _overlap(answer: Answer, batch: Batch) -> list[Tensor]:
    """The number of whole masks that are not empty at this size, and the sum of their IoU at each threshold."""
    taught_bp = masked(batch)
    logits_nmm, true_nmm = answer.masks_bphw[taught_bp], batch.masks[taught_bp]
    visible_n = true_nmm.any(2).any(1)
    least = [math.log(threshold / (1 - threshold)) for threshold in _THRESHOLDS]
    return [visible_n.sum(), *(_iou(logits_nmm > logit, true_nmm)[visible_n].sum() for logit in least)]


def _iou(said_nmm: Tensor, true_nmm: Tensor) -> Tensor:
    both_n, either_n = (said_nmm & true_nmm).sum((1, 2)), (said_nmm | true_nmm).sum((1, 2))
    return both_n / either_n.clamp(min=1)


def summarise(counts_n: Tensor) -> Validation:
    """The figures of summed counts."""
    loss, num, tp, fp, fn, tn, num_masked, *ious = counts_n.tolist()
    iou_of = dict(zip(_THRESHOLDS, ious, strict=True))
    chosen = max(iou_of, key=lambda threshold: (iou_of[threshold], -abs(threshold - MASK_THRESHOLD)))
    return Validation(
        presence_loss=loss / num if num else None,
        il_mcc=matthews(tp, fp, fn, tn),
        miou=iou_of[MASK_THRESHOLD] / num_masked if num_masked else None,
        num_present=int(tp + fn),
        num_absent=int(fp + tn),
        num_masked=int(num_masked),
        mask_threshold=chosen,
        miou_there=iou_of[chosen] / num_masked if num_masked else None,
    )


def matthews(tp: float, fp: float, fn: float, tn: float) -> float | None:
    """Matthews' correlation; None for labels of one class, 0 for answers of one.

    Source: Matthews, 1975, "Comparison of the predicted and observed secondary structure", eq. 1.
    """
    if not (tp + fn and fp + tn):
        return None
    scale = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / scale if scale else 0.0


def judge(found: Validation, *, one_class: bool) -> tuple[float, str]:
    """By what the best weights are chosen, larger is better, and its name."""
    if found.miou is not None and found.il_mcc is not None and not one_class:
        return found.il_mcc + found.miou, "il_mcc + miou"
    if found.miou is not None:
        return found.miou, "miou"
    if found.il_mcc is not None:
        return found.il_mcc, "il_mcc"
    return -(found.presence_loss or 0.0), "-presence_loss"
