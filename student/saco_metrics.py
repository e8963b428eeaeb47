"""SA-Co's cgF1, pmF1 and IL_MCC, for a student whose mask counts as one instance.

The student's mask is one detection. It is matched with the best of a prompt's instances; the others are misses. So a
semantic mask over five instances has at most one hit and four misses: the figures compare students with each other, and
with a detector only where there is one instance.

Source: `CGF1Eval` in https://github.com/facebookresearch/sam3/blob/main/sam3/eval/cgf1_eval.py, with its constants;
SAM 3 (arXiv 2511.16719), "classification-gated F1": cgF1 = 100 x pmF1 x IL_MCC. Its "image" is a prompt here.
"""

# N prompts, T thresholds of IoU

import numpy as np
from numpy.typing import NDArray

from student.bootstrap import NUM_DRAWS, measure, per_image
from student.estimates import NO_PRESENT, NO_PROMPT, Estimates, one_sided

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_F1_GUARD, _MCC_GUARD = 1e-4, 1e-6  # what the evaluator adds to its denominators

_Bool = NDArray[np.bool_]
_Float = NDArray[np.float64]


def saco_metrics(
    best_iou_n: _Float,
    num_instances_n: NDArray[np.integer],
    said_n: _Bool,
    image_n: NDArray[np.integer],
    *,
    rng: np.random.Generator,
    num_draws: int = NUM_DRAWS,
) -> Estimates:
    """saco_cgf1 (-100 to 100), saco_pmf1 (0 to 1) and saco_il_mcc (-1 to 1).

    Args:
        best_iou_n: IoU of the predicted mask with the best of the prompt's instances (`best_instance_ious`).
        num_instances_n: How many instances there are; 0 is an absent prompt. All of them are annotated.
        said_n: The answers.
        image_n: The image of each prompt.
        rng: Draws the images.
        num_draws: How many times.
    """
    present_n = num_instances_n > 0
    detected_n = present_n & said_n
    hits = [detected_n & (best_iou_n >= threshold) for threshold in IOU_THRESHOLDS]
    cells = (detected_n, ~present_n & said_n, present_n & ~said_n, ~present_n & ~said_n)
    undefined = one_sided(present_n)
    positive = int(present_n.sum()) or (NO_PRESENT if len(present_n) else NO_PROMPT)
    asked = {
        "saco_cgf1": undefined or len(present_n),
        "saco_pmf1": positive,
        "saco_il_mcc": undefined or len(present_n),
    }
    counts_ic = per_image([*hits, num_instances_n, *cells], image_n)
    return measure(counts_ic, _figures, asked, rng=rng, num_draws=num_draws)


def _figures(sums: _Float) -> _Float:
    hits_t, instances = sums[..., :-5], sums[..., -5]
    tp, fp, fn, tn = np.moveaxis(sums[..., -4:], -1, 0)
    pmf1 = np.where(tp + fn > 0, positive_micro_f1(hits_t, tp[..., None], instances[..., None]), np.nan)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    mcc = (tp * tn - fp * fn) / (np.sqrt(product) + _MCC_GUARD)
    il_mcc = np.where((tp + fn > 0) & (fp + tn > 0), mcc, np.nan)
    return np.stack([100 * pmf1 * il_mcc, pmf1, il_mcc], axis=-1)


def positive_micro_f1(hits_t: _Float, detections: _Float, instances: _Float) -> _Float:
    """F1 over all present prompts together, mean over the thresholds of IoU (the last axis)."""
    precision_t = hits_t / (detections + _F1_GUARD)
    recall_t = hits_t / (instances + _F1_GUARD)
    f1: _Float = (2 * precision_t * recall_t / (precision_t + recall_t + _F1_GUARD)).mean(axis=-1)
    return f1
