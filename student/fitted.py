"""The temperature and the presence threshold that val chose; nothing of the split that is judged is seen here."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.manifest import read_manifest
from student.answers import read_answers
from student.calibration import choose_threshold, fit_temperature
from student.estimates import NO_ABSENT, Undefined, Value
from student.run_record import ValChoice
from student.truth import read_truth

FITTED_SPLIT = "val"

_Bool = NDArray[np.bool_]
_Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What was chosen on val."""

    temperature: Value
    threshold: Value
    num_prompts: int = 0  # that were judged
    why_not: str = ""  # why nothing was fitted

    @property
    def fitted_on(self) -> str:
        """The split, or why nothing was fitted."""
        return self.why_not or FITTED_SPLIT


def nothing_fitted(why: str) -> Fitted:
    """Neither temperature nor threshold, because of `why`."""
    return Fitted(temperature=Undefined(why), threshold=Undefined(why), why_not=why)


def as_chosen(choice: ValChoice) -> Fitted:
    """What a run keeps of its val's choice."""
    temperature, threshold = (
        Undefined(choice.why_not) if value is None else value for value in (choice.temperature, choice.threshold)
    )
    return Fitted(temperature=temperature, threshold=threshold, num_prompts=choice.num_prompts, why_not=choice.why_not)


def fit_on_val(predictions: Mapping[str, str], *, max_missing_share: float) -> Fitted:
    """Temperature and threshold from the rows of val that the table of each build has, taken together.

    Pictures whose labels do not tell what is absent are left out, as in every metric of presence.

    Args:
        predictions: The table of each build's folder.
        max_missing_share: Of the prompts of a val; where more have no row, nothing is fitted.

    Raises:
        ManifestError, TableError: a build or a table is damaged.
    """
    parts = []
    for build, table in predictions.items():
        found = _told(build, table, max_missing_share=max_missing_share)
        if isinstance(found, Undefined):
            return nothing_fitted(found.why)
        parts.append(found)
    presence_n, present_n = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(present_n):
        return nothing_fitted(NO_ABSENT.why)
    temperature, threshold = fit_temperature(presence_n, present_n), choose_threshold(presence_n, present_n)
    why = next((value.why for value in (temperature, threshold) if isinstance(value, Undefined)), "")
    return Fitted(temperature=temperature, threshold=threshold, num_prompts=len(present_n), why_not=why)


def _told(build: str, predictions: str, *, max_missing_share: float) -> tuple[_Float, _Bool] | Undefined:
    """The answers to val's prompts whose presence can be judged, and the truth; or why they say nothing."""
    if not read_manifest(build).splits.get(FITTED_SPLIT):
        return Undefined(f"the build has no samples of {FITTED_SPLIT}")
    truth = read_truth(build, FITTED_SPLIT)
    answers = read_answers(truth, predictions, max_missing_share=1)
    num = int(answers.answered_n.sum())
    if len(truth) - num > max_missing_share * len(truth):
        rows = f"{num} of {len(truth)} prompts of {FITTED_SPLIT}" if num else f"none of the prompts of {FITTED_SPLIT}"
        return Undefined(f"the predictions answer {rows}")
    judged_n = answers.answered_n & truth.closed_i[truth.image_n]
    return answers.presence_n[judged_n], truth.present_n[judged_n]
