"""What a student is worth after an epoch, over the val split: presence loss, IL_MCC, mIoU, and the figure to choose by.

A short look at mask resolution and at a threshold of one half, and from where on a pixel were better set;
`student.evaluate` takes the long one.
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
NUM_COUNTS = 7 + 3 * len(_THRESHOLDS)


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; None where val's labels do not define it."""

    presence_loss: float | None
    il_mcc: float | None
    miou: float | None
    num_present: int
    num_absent: int
    num_masked: int
    mask_threshold: float = MASK_THRESHOLD  # of the largest mIoU and cIoU together
    miou_there: float | None = None
    ciou_there: float | None = None  # overlaps of all masks over their unions


def validate(
    student: Student, loader: Loader, config: TrainConfig, ranks: Ranks, autocast: AbstractContextManager[object]
) -> Validation:
    """The figures of `student` over all ranks' batches."""
    student.eval()
    counts_n = torch.zeros(NUM_COUNTS, dtype=torch.float64)
    with torch.inference_mode(), autocast:
        for batch in loader:
            counts_n += _count(student, batch, config, ranks.device)
    student.train()
    return summarise(ranks.sum(counts_n))


def _count(student: Student, batch: Batch, config: TrainConfig, device: torch.device) -> Tensor:
    """Loss and number of prompts; true and false presences and absences; what `_overlaps` counts."""
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
    counted = torch.stack([found.double() for found in (loss.total, loss.num, *confusion)]).cpu()
    return torch.cat([counted, _overlaps(answer, batch)])


def _overlaps(answer: Answer, batch: Batch) -> Tensor:
    """Of whole masks, not empty at this size: their number; at each threshold IoU, overlap and union, summed."""
    taught_bp = masked(batch)
    logits_nmm, true_nmm = answer.masks_bphw[taught_bp], batch.masks[taught_bp]
    visible_n = true_nmm.any(2).any(1)
    logits_nmm, true_nmm = logits_nmm[visible_n], true_nmm[visible_n]
    sums = [visible_n.sum()]
    for threshold in _THRESHOLDS:
        said_nmm = logits_nmm > math.log(threshold / (1 - threshold))
        both_n, either_n = (said_nmm & true_nmm).sum((1, 2)), (said_nmm | true_nmm).sum((1, 2))
        sums += [(both_n / either_n).sum(), both_n.sum(), either_n.sum()]
    return torch.stack([found.double() for found in sums]).cpu()  # one wait for the device, not one for each


def summarise(counts_n: Tensor) -> Validation:
    """The figures of summed counts."""
    loss, num, tp, fp, fn, tn, num_masked = counts_n[:7].tolist()
    iou_t, both_t, either_t = counts_n[7:].reshape(-1, 3).T
    miou_t, ciou_t = iou_t / max(num_masked, 1), both_t / either_t.clamp(min=1)
    order = sorted(range(len(_THRESHOLDS)), key=lambda at: abs(_THRESHOLDS[at] - MASK_THRESHOLD))
    chosen = max(order, key=(miou_t + ciou_t).tolist().__getitem__)  # of equal ones the first, nearest to one half
    return Validation(
        presence_loss=loss / num if num else None,
        il_mcc=matthews(tp, fp, fn, tn),
        miou=float(miou_t[_THRESHOLDS.index(MASK_THRESHOLD)]) if num_masked else None,
        num_present=int(tp + fn),
        num_absent=int(fp + tn),
        num_masked=int(num_masked),
        mask_threshold=_THRESHOLDS[chosen],
        miou_there=float(miou_t[chosen]) if num_masked else None,
        ciou_there=float(ciou_t[chosen]) if num_masked else None,
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
