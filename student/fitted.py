"""The temperature and the presence threshold that val chose; nothing of the split that is judged is seen here."""

from dataclasses import dataclass

from manifests.manifest import read_manifest
from student.answers import read_answers
from student.calibration import choose_threshold, fit_temperature
from student.estimates import NO_ABSENT, Undefined, Value
from student.truth import read_truth

FITTED_SPLIT = "val"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What was chosen on val."""

    temperature: Value
    threshold: Value
    why_not: str = ""  # why nothing was fitted

    @property
    def fitted_on(self) -> str:
        """The split, or why nothing was fitted."""
        return self.why_not or FITTED_SPLIT


def nothing_fitted(why: str) -> Fitted:
    """Neither temperature nor threshold, because of `why`."""
    return Fitted(temperature=Undefined(why), threshold=Undefined(why), why_not=why)


def fit_on_val(build: str, predictions: str, *, max_missing_share: float) -> Fitted:
    """Temperature and threshold from the rows of val that the table at `predictions` has.

    Pictures whose labels do not tell what is absent are left out, as in every metric of presence.

    Raises:
        ManifestError, TableError: the build or the table is damaged.
    """
    if not read_manifest(build).splits.get(FITTED_SPLIT):
        return nothing_fitted(f"the build has no samples of {FITTED_SPLIT}")
    truth = read_truth(build, FITTED_SPLIT)
    answers = read_answers(truth, predictions, max_missing_share=1)
    answered_n = answers.answered_n
    num = int(answered_n.sum())
    if len(truth) - num > max_missing_share * len(truth):
        rows = f"{num} of {len(truth)} prompts of {FITTED_SPLIT}" if num else f"none of the prompts of {FITTED_SPLIT}"
        return nothing_fitted(f"the predictions answer {rows}")
    judged_n = answered_n & truth.closed_i[truth.image_n]
    if num and not judged_n.any():
        return nothing_fitted(NO_ABSENT.why)
    presence_n, present_n = answers.presence_n[judged_n], truth.present_n[judged_n]
    temperature, threshold = fit_temperature(presence_n, present_n), choose_threshold(presence_n, present_n)
    why = next((value.why for value in (temperature, threshold) if isinstance(value, Undefined)), "")
    return Fitted(temperature=temperature, threshold=threshold, why_not=why)
