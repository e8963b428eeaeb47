"""What a student loses when its numbers get coarser: relative drops, judged exactly, drawn together over pictures."""

# N prompts, I pictures, D bootstrap draws, C what is counted of a picture

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from manifests.sample import CALLED_PRESENT
from student.bootstrap import NUM_DRAWS, draw_weights
from student.confusion import Confusion, mcc, only_two_sided
from student.judged import Judged
from student.readings import Drop

METRICS = ("miou", "il_mcc")

_Floats = NDArray[np.float64]
Verdict = Literal["within", "over"]


def verdict_of(base: float, value: float, bound: float) -> Verdict:
    """Whether the relative drop from `base` to `value` is within `bound`; one that equals the bound is.

    The numbers are taken as they are written: from 0.5 to 0.49 is 2 % exactly, though no float says so.
    """
    lost = Fraction(str(base)) - Fraction(str(value))
    return "within" if lost <= Fraction(str(bound)) * Fraction(str(base)) else "over"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """What a variant got right, picture by picture; the same pictures in the same order for every variant."""

    counts_ic: _Floats  # ious, prompts of them; presences true and false, absences false and true

    def value(self, metric: str) -> float:
        """The metric over all pictures; NaN where it has no data."""
        return float(_value(metric, self.counts_ic.sum(axis=0)))


def counts_of(judged: Judged, num_images: int) -> Counts:
    """The counts of a variant's answers; presence is said from 0.5 on, and judged where labels tell what is absent."""
    said_n, masked_n = judged.presence_n >= CALLED_PRESENT, judged.complete_n & judged.present_n
    present_n, absent_n = judged.present_n & judged.closed_n, ~judged.present_n & judged.closed_n
    columns = (
        np.where(masked_n, judged.overlaps.iou_n, 0.0),
        masked_n,
        said_n & present_n,
        said_n & absent_n,
        ~said_n & present_n,
        ~said_n & absent_n,
    )
    counts_ci = [np.bincount(judged.image_n, weights=column, minlength=num_images) for column in columns]
    return Counts(counts_ic=np.stack(counts_ci, axis=1))


def drop_of(metric: str, base_name: str, base: Counts, found: Counts, bound: float, *, seed: int = 0) -> Drop | None:
    """The drop of one metric with its interval; None where the base has no data or is not above 0.

    Source: Efron (1979), percentile interval of a paired statistic; the units are pictures.
    """
    base_value, value = base.value(metric), found.value(metric)
    if not base_value > 0 or np.isnan(value):
        return None
    drop = (base_value - value) / base_value
    low, high = _interval(metric, base, found, np.random.default_rng(seed))
    return Drop(
        metric=metric,
        base=base_name,
        base_value=base_value,
        value=value,
        drop=drop,
        low=min(low, drop),
        high=max(high, drop),
        bound=bound,
        verdict=verdict_of(base_value, value, bound),
    )


def _interval(metric: str, base: Counts, found: Counts, rng: np.random.Generator) -> tuple[float, float]:
    both_ic = np.concatenate([base.counts_ic, found.counts_ic], axis=1)
    drawn_dc = np.concatenate([weights_di @ both_ic for weights_di in draw_weights(len(both_ic), rng, NUM_DRAWS)])
    base_d, found_d = (_value(metric, sums_dc) for sums_dc in np.split(drawn_dc, 2, axis=1))
    usable_d = (base_d > 0) & ~np.isnan(found_d)
    if not usable_d.any():
        return np.inf, -np.inf
    low, high = np.quantile((base_d[usable_d] - found_d[usable_d]) / base_d[usable_d], [0.025, 0.975])
    return float(low), float(high)


def _value(metric: str, sums_xc: _Floats) -> _Floats:
    """The metric of summed counts [..., C]; NaN where it has no data. One-sided answers have MCC 0."""
    iou, num, hit, alarm, miss, refused = np.moveaxis(sums_xc, -1, 0)
    if metric == "miou":
        miou: _Floats = np.divide(iou, num, out=np.full_like(iou, np.nan), where=num > 0)
        return miou
    counts = Confusion(tp=hit, fp=alarm, fn=miss, tn=refused)
    return only_two_sided(mcc(counts), counts)


def num_flipped(base: Judged, found: Judged) -> int:
    """Prompts whose presence is said by one and denied by the other."""
    return int(((base.presence_n >= CALLED_PRESENT) != (found.presence_n >= CALLED_PRESENT)).sum())
