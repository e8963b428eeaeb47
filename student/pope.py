"""POPE: as many absent prompts as present ones, drawn at random, by popularity, or from what stands beside.

In every image the first presences stand beside equally many absences of a setting's kind; further ones are left out, so
that "always present" is right half of the time.

Source: Li et al., "Evaluating Object Hallucination in Large Vision-Language Models" (arXiv 2305.10355), section 4.
"""

# N prompts

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from manifests.sample import KINDS, NegativeKind
from student import confusion
from student.bootstrap import NUM_DRAWS, measure
from student.estimates import Estimates, Undefined
from student.presence_metrics import kind_codes

SETTINGS = {
    "random": NegativeKind.RANDOM,
    "popular": NegativeKind.POPULAR,
    "adversarial": NegativeKind.CO_OCCURRING,
}

_Bool = NDArray[np.bool_]
_Float = NDArray[np.float64]

_FIGURES = {
    "accuracy": confusion.accuracy,
    "precision": confusion.precision,
    "recall": confusion.recall,
    "f1": confusion.f1,
    "mcc": confusion.mcc,
    "yes_ratio": confusion.yes_ratio,
}


def pope(
    said_n: _Bool,
    present_n: _Bool,
    kind_n: Sequence[str] | NDArray[np.str_],
    image_n: NDArray[np.integer],
    *,
    rng: np.random.Generator,
    num_draws: int = NUM_DRAWS,
) -> Estimates:
    """pope_<setting>_<figure> for random, popular and adversarial; accuracy, precision, recall, f1, mcc, yes_ratio."""
    kind_of_n = kind_codes(kind_n)
    found: Estimates = {}
    for setting, kind in SETTINGS.items():
        row = paired(present_n, ~present_n & (kind_of_n == KINDS.index(kind)), image_n)
        num = len(row) or Undefined(f"no image has both a present prompt and an absent one of kind {kind}")
        asked = dict.fromkeys([f"pope_{setting}_{figure}" for figure in _FIGURES], num)
        counts_ic = confusion.count(said_n[row], present_n[row], image_n[row])
        found |= measure(counts_ic, _figures, asked, rng=rng, num_draws=num_draws)
    return found


def paired(present_n: _Bool, absent_n: _Bool, image_n: NDArray[np.integer]) -> NDArray[np.intp]:
    """Rows, of each image as many of the first presences as of the first absences."""
    images, place_n = np.unique(image_n, return_inverse=True)
    present, absent = np.flatnonzero(present_n), np.flatnonzero(absent_n)
    num_i = np.minimum(
        np.bincount(place_n[present], minlength=len(images)), np.bincount(place_n[absent], minlength=len(images))
    )
    kept = [rows[_turn(place_n[rows]) < num_i[place_n[rows]]] for rows in (present, absent)]
    return np.concatenate(kept)


def _turn(image_q: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many rows of the same image come before each row."""
    order = np.argsort(image_q, kind="stable")
    ordered = image_q[order]
    turn = np.empty(len(order), np.intp)
    turn[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
    return turn


def _figures(sums: _Float) -> _Float:
    counts = confusion.confusion_of(sums)
    return np.stack([figure(counts) for figure in _FIGURES.values()], axis=-1)
