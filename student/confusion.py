"""Answers beside labels, counted: true and false positives and negatives, and what is read from them.

Labels of one side alone leave a figure undefined (NaN, here); answers of one side alone make it 0.
"""

# N prompts, I images

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from student.bootstrap import per_image, ratio

_Bool = NDArray[np.bool_]
_Float = NDArray[np.float64]


class Confusion(NamedTuple):
    """Counts of any one shape; a prompt that is present and answered so is a true positive."""

    tp: _Float
    fp: _Float
    fn: _Float
    tn: _Float


def count(said_n: _Bool, present_n: _Bool, image_n: NDArray[np.integer]) -> _Float:
    """Columns tp, fp, fn, tn of each image [I, 4]."""
    cells = (said_n & present_n, said_n & ~present_n, ~said_n & present_n, ~said_n & ~present_n)
    return per_image(cells, image_n)


def confusion_of(sums: _Float) -> Confusion:
    """The counts in the last axis of `sums`."""
    return Confusion(sums[..., 0], sums[..., 1], sums[..., 2], sums[..., 3])


def only_two_sided(figure: _Float, counts: Confusion) -> _Float:
    """`figure`, and NaN where no prompt or every prompt is present."""
    return np.where((counts.tp + counts.fn > 0) & (counts.fp + counts.tn > 0), figure, np.nan)


def precision(counts: Confusion) -> _Float:
    """Share of "present" answers that are right; 0 where there are none."""
    return ratio(counts.tp, counts.tp + counts.fp, 0.0)


def recall(counts: Confusion) -> _Float:
    """Share of presences that are found; 0 where there are none."""
    return ratio(counts.tp, counts.tp + counts.fn, 0.0)


def f1(counts: Confusion) -> _Float:
    """Harmonic mean of precision and recall of presence: 2 tp by (2 tp + fp + fn)."""
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, 0.0)


def absence_f1(counts: Confusion) -> _Float:
    """The same of absence."""
    return ratio(2 * counts.tn, 2 * counts.tn + counts.fp + counts.fn, 0.0)


def false_positive_rate(counts: Confusion) -> _Float:
    """Share of absences that are answered "present"; 0 where there are none."""
    return ratio(counts.fp, counts.fp + counts.tn, 0.0)


def accuracy(counts: Confusion) -> _Float:
    """Share of right answers; 0 where there are none."""
    return ratio(counts.tp + counts.tn, counts.tp + counts.fp + counts.fn + counts.tn, 0.0)


def yes_ratio(counts: Confusion) -> _Float:
    """Share of prompts that are answered "present"; 0 where there are none."""
    return ratio(counts.tp + counts.fp, counts.tp + counts.fp + counts.fn + counts.tn, 0.0)


def mcc(counts: Confusion) -> _Float:
    """Correlation of answers and labels, -1 to 1; 0 where either is of one side alone.

    Source: Matthews (1975), the phi coefficient.
    """
    tp, fp, fn, tn = counts
    return ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)), 0.0)
