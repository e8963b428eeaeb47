"""Readings of judged prompts: every metric over all of them, and over each source, kind of negative and phrase.

What lacks its data is undefined and says why. Presence is judged in the pictures alone whose labels tell what is absent
(`Judged.closed_n`), and so is what presence gates: gIoU, cIoU, N-acc and T-acc. A phrase that was asked for several
reasons counts once in what is pooled, and once for each reason in what is told by kind.
"""

# N prompts, I pictures

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from manifests.sample import CALLED_PRESENT, KINDS
from student.blind import blind
from student.bootstrap import NUM_DRAWS
from student.calibration import calibration, scaled
from student.estimates import NO_ABSENT, Estimate, Estimated, Estimates, Undefined, Value
from student.fitted import Fitted
from student.judged import Judged
from student.mask_metrics import mask_metrics
from student.metric_kinds import AT_VAL
from student.pope import pope
from student.presence_metrics import hallucination, presence_auc, presence_metrics, says_present
from student.readings import Reading, Readings
from student.saco_metrics import saco_metrics

_SCALED = "_scaled"
_MASK_METRICS = ("miou", "giou", "ciou")
_UNGATED = ("miou", "miou_everything")  # mask metrics whatever presence says, so of all pictures
_NO_MASKS = Undefined("the predictions hold no masks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """How to measure, besides what."""

    fitted: Fitted
    has_masks: bool  # whether the model gives masks at all
    seed: int = 0
    num_draws: int = NUM_DRAWS

    def rng(self) -> np.random.Generator:
        """The same draws for every metric over the same pictures."""
        return np.random.default_rng(self.seed)


def pooled(judged: Judged, how: Measuring, sensitivity: Estimated) -> Readings:
    """Every reading over all prompts."""
    found = _common(judged, how)
    row_n, kind_n = judged.by_kind()
    asked = judged.take(row_n)
    found |= pope(
        says_present(asked.presence_n, CALLED_PRESENT),
        asked.present_n,
        kind_n,
        asked.image_n,
        rng=how.rng(),
        num_draws=how.num_draws,
    )
    told = judged.for_presence()
    priors: tuple[tuple[Literal["phrase", "source"], NDArray[np.int64]], ...]
    priors = (("phrase", told.phrase_n), ("source", told.source_n))
    for name, group_n in priors:
        guessed = blind(group_n, told.present_n, told.image_n, name=name, rng=how.rng(), num_draws=how.num_draws)
        found |= _with_reason(guessed, judged, told)
    found["prompt_sensitivity"] = sensitivity
    return as_readings(found | _saco(judged, how))


def by_source(judged: Judged, sources: tuple[str, ...], how: Measuring) -> dict[str, Readings]:
    """Masks, presence, calibration and hallucination of each source."""
    return {
        sources[source]: as_readings(_common(judged.take(judged.source_n == source), how))
        for source in np.unique(judged.source_n).tolist()
    }


def by_kind(judged: Judged, how: Measuring) -> dict[str, Readings]:
    """For each kind of negative that was asked: its hallucination, and it alone against everything that is present."""
    found = {}
    for code, kind in enumerate(KINDS):
        asked_n = judged.kinds_nk[:, code]
        if not asked_n.any():
            continue
        rates = _hallucination(judged.take(asked_n), how)
        against = judged.take(asked_n | judged.present_n)
        estimates = {name: one for name, one in rates.items() if name.removesuffix(AT_VAL) == f"hallucination_{kind}"}
        found[str(kind)] = as_readings(estimates | _presence(against, how))
    return found


def by_phrase(judged: Judged, phrases: tuple[str, ...], how: Measuring) -> dict[str, Readings]:
    """Masks and presence of each phrase."""
    order = np.argsort(judged.phrase_n, kind="stable")
    asked, starts = np.unique(judged.phrase_n[order], return_index=True)
    rows_of = np.split(order, starts[1:])
    return {
        phrases[phrase]: as_readings(_masks(judged.take(rows), how) | _presence(judged.take(rows), how))
        for phrase, rows in sorted(zip(asked.tolist(), rows_of, strict=True), key=lambda one: phrases[one[0]])
    }


def _common(judged: Judged, how: Measuring) -> Estimates:
    return _masks(judged, how) | _presence(judged, how) | _calibration(judged, how) | _hallucination(judged, how)


def _masks(judged: Judged, how: Measuring) -> Estimates:
    """Masks of all pictures; where presence gates them, of those in which it can be judged."""
    told, whole = judged.for_presence(), _of_masks(judged, how)
    found = whole
    if len(told) < len(judged):
        found = _with_reason(_of_masks(told, how), judged, told) | {name: whole[name] for name in _UNGATED}
    return found if how.has_masks else found | dict.fromkeys(_MASK_METRICS, _NO_MASKS)


def _of_masks(judged: Judged, how: Measuring) -> Estimates:
    return mask_metrics(
        judged.overlaps,
        present_n=judged.present_n,
        complete_n=judged.complete_n,
        said_n=says_present(judged.presence_n, CALLED_PRESENT),
        image_n=judged.image_n,
        rng=how.rng(),
        num_draws=how.num_draws,
    )


def _with_reason(found: Estimates, judged: Judged, told: Judged) -> Estimates:
    """The same; where presence can be judged in no picture, undefined, since then no absence is known."""
    if len(judged) and not len(told):
        return dict.fromkeys(found, NO_ABSENT)
    return found


def _presence(judged: Judged, how: Measuring) -> Estimates:
    """Presence at 0.5 and at val's threshold, and the AUC."""
    told = judged.for_presence()
    present_n, image_n = told.present_n, told.image_n
    found = _at_thresholds(
        told.presence_n,
        how.fitted.threshold,
        lambda said_n: presence_metrics(said_n, present_n, image_n, rng=how.rng(), num_draws=how.num_draws),
    )
    area = presence_auc(told.presence_n, present_n, image_n, rng=how.rng(), num_draws=how.num_draws)
    return _with_reason(found | {"presence_auc": area}, judged, told)


def _hallucination(judged: Judged, how: Measuring) -> Estimates:
    """The rate of each kind, at 0.5 and at val's threshold."""
    row_n, kind_n = judged.by_kind()
    asked = judged.take(row_n)
    return _at_thresholds(
        asked.presence_n,
        how.fitted.threshold,
        lambda said_n: hallucination(
            said_n, asked.present_n, kind_n, asked.image_n, rng=how.rng(), num_draws=how.num_draws
        ),
    )


def _at_thresholds(
    presence_n: NDArray[np.float64], threshold: Value, metric: Callable[[NDArray[np.bool_]], Estimates]
) -> Estimates:
    """A metric of what is answered present at 0.5 and, under keys that say so, at val's threshold."""
    found = metric(says_present(presence_n, CALLED_PRESENT))
    if isinstance(threshold, Undefined):
        return found | {name + AT_VAL: threshold for name in found}
    return found | {name + AT_VAL: one for name, one in metric(says_present(presence_n, threshold)).items()}


def _calibration(judged: Judged, how: Measuring) -> Estimates:
    """Calibration as it is, and with val's temperature."""
    told, temperature = judged.for_presence(), how.fitted.temperature
    found = calibration(told.presence_n, told.present_n, told.image_n, rng=how.rng(), num_draws=how.num_draws)
    found = _with_reason(found, judged, told)
    if isinstance(temperature, Undefined):
        return found | {name + _SCALED: temperature for name in found}
    cooled_n = scaled(told.presence_n, temperature)
    after = calibration(cooled_n, told.present_n, told.image_n, rng=how.rng(), num_draws=how.num_draws)
    after = _with_reason(after, judged, told)
    return found | {name + _SCALED: one for name, one in after.items()}


def _saco(judged: Judged, how: Measuring) -> Estimates:
    """SA-Co's own figures over the prompts of its sources that are absent or masked whole."""
    chosen = judged.take(judged.is_saco_n & (judged.complete_n | ~judged.present_n))
    found = saco_metrics(
        chosen.best_iou_n,
        chosen.num_instances_n,
        says_present(chosen.presence_n, CALLED_PRESENT),
        chosen.image_n,
        rng=how.rng(),
        num_draws=how.num_draws,
    )
    if not len(chosen):
        return dict.fromkeys(found, Undefined("no prompt is of an SA-Co source"))
    if not how.has_masks:
        return found | dict.fromkeys(("saco_cgf1", "saco_pmf1"), _NO_MASKS)
    return found


def as_readings(estimates: Mapping[str, Estimated]) -> Readings:
    """The same, as files hold them."""
    return {name: _reading(one) for name, one in estimates.items()}


def _reading(one: Estimated) -> Reading:
    if isinstance(one, Estimate):
        return Reading(value=one.value, low=one.low, high=one.high, num=one.num)
    return Reading(undefined=one.why)
