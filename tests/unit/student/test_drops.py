import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from manifests.sample import KINDS
from student.drops import Counts, counts_of, drop_of, num_flipped, verdict_of
from student.judged import Judged
from student.overlaps import Overlaps


def make_judged(
    *,
    presence: list[float],
    present: list[bool],
    image: list[int],
    iou: list[float] | None = None,
    closed: list[bool] | None = None,
) -> Judged:
    """Prompts whose masks have 1000 pixels, and overlap by `iou`."""
    num = len(presence)
    zeros, shares = np.zeros(num, np.int64), np.array([0.0] * num if iou is None else iou)
    present_n = np.array(present, np.bool_)
    hit_n = np.round(1000 * shares).astype(np.int64)
    return Judged(
        prompt_n=np.arange(num),
        presence_n=np.array(presence),
        present_n=present_n,
        complete_n=present_n,
        image_n=np.array(image, np.int64),
        source_n=zeros,
        phrase_n=zeros,
        kinds_nk=np.zeros((num, len(KINDS)), np.bool_),
        is_saco_n=np.zeros(num, np.bool_),
        closed_n=np.ones(num, np.bool_) if closed is None else np.array(closed, np.bool_),
        overlaps=Overlaps(
            intersection_n=hit_n,
            predicted_n=hit_n,
            truth_n=np.full(num, 1000),
            pixels_n=np.full(num, 4000),
        ),
        best_iou_n=np.zeros(num),
        num_instances_n=zeros,
    )


@pytest.mark.parametrize(
    ("base", "value", "bound", "verdict"),
    [
        (0.5, 0.49, 0.02, "within"),  # 2 % exactly; in floats it is 0.020000000000000018
        (0.0945, 0.09261, 0.02, "within"),
        (0.1, 0.098, 0.02, "within"),
        (1.0, 0.979, 0.02, "over"),  # 2.1 %
        (0.5, 0.4899999999999999, 0.02, "over"),
        (0.3, 0.31, 0.0, "within"),
        (0.3, 0.3, 0.0, "within"),
    ],
)
def test_a_drop_that_equals_the_bound_is_within_and_the_least_more_is_over(
    base: float, value: float, bound: float, verdict: str
) -> None:
    assert verdict_of(base, value, bound) == verdict


@given(base=st.integers(1, 10_000), lost=st.integers(0, 10_000), bound=st.integers(0, 10_000))
def test_verdicts_are_those_of_exact_fractions(base: int, lost: int, bound: int) -> None:
    exact = Fraction(lost, 10_000) <= Fraction(bound, 10_000)
    value = float(Fraction(base * (10_000 - lost), 10**8))
    assert (verdict_of(base / 10_000, value, bound / 10_000) == "within") == exact


def test_the_metrics_of_counts_are_those_of_the_formulas() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        num = int(rng.integers(1, 12))
        judged = make_judged(
            presence=rng.random(num).tolist(),
            present=(rng.random(num) < 0.5).tolist(),
            image=rng.integers(0, 4, num).tolist(),
            iou=(rng.integers(0, 11, num) / 10).tolist(),
        )
        counts = counts_of(judged, 4)
        assert counts.value("miou") == pytest.approx(_naive_miou(judged), nan_ok=True)
        assert counts.value("il_mcc") == pytest.approx(_naive_mcc(judged), nan_ok=True)


def _naive_miou(judged: Judged) -> float:
    ious = [one for one, present in zip(judged.overlaps.iou_n, judged.present_n, strict=True) if present]
    return sum(ious) / len(ious) if ious else math.nan


def _naive_mcc(judged: Judged) -> float:
    said, true = judged.presence_n >= 0.5, judged.present_n
    if true.all() or not true.any():
        return math.nan
    if said.all() or not said.any():
        return 0.0
    return float(np.corrcoef(said, true)[0, 1])


def test_a_drop_is_drawn_over_pictures_with_both_variants_in_the_same_draw() -> None:
    rng = np.random.default_rng(1)
    num = 400
    image = np.repeat(np.arange(100), 4).tolist()
    present = [True, True, False, False] * 100
    iou = rng.random(num).round(3)
    base = counts_of(make_judged(presence=[0.9] * num, present=present, image=image, iou=iou.tolist()), 100)
    less = counts_of(make_judged(presence=[0.9] * num, present=present, image=image, iou=(iou * 0.97).tolist()), 100)
    drop = drop_of("miou", "fp16", base, less, 0.02)
    assert drop is not None
    assert drop.drop == pytest.approx(0.03, abs=2e-3)
    assert drop.verdict == "over"
    assert drop.low <= drop.drop <= drop.high
    assert drop.high - drop.low < 0.01  # every picture loses 3 %: drawn apart, it would be wider than 0.1


def test_the_interval_holds_the_quantiles_of_a_naive_bootstrap() -> None:
    rng = np.random.default_rng(2)
    present = (rng.random(240) < 0.5).tolist()
    image = np.repeat(np.arange(60), 4).tolist()
    presence = np.where(present, rng.random(240) * 0.7 + 0.3, rng.random(240) * 0.7)
    worse = np.clip(presence + rng.normal(0, 0.1, 240), 0, 1)
    base, found = (make_judged(presence=one.tolist(), present=present, image=image) for one in (presence, worse))
    drop = drop_of("il_mcc", "fp32", counts_of(base, 60), counts_of(found, 60), 0.02)
    assert drop is not None
    low, high = np.quantile(_naive_drops(base, found, rng), [0.025, 0.975])
    assert drop.low == pytest.approx(low, abs=0.03)
    assert drop.high == pytest.approx(high, abs=0.03)


def _naive_drops(base: Judged, found: Judged, rng: np.random.Generator) -> NDArray[np.float64]:
    drops = []
    for _ in range(1500):
        rows = np.concatenate([np.flatnonzero(base.image_n == one) for one in rng.integers(0, 60, 60)])
        before, after = _naive_mcc(base.take(rows)), _naive_mcc(found.take(rows))
        drops.append((before - after) / before)
    return np.array(drops)


def test_presence_is_counted_where_labels_tell_what_is_absent_and_masks_everywhere() -> None:
    judged = make_judged(
        presence=[0.9, 0.1, 0.1],
        present=[True, False, True],
        image=[0, 0, 1],
        iou=[1, 0, 0.5],
        closed=[True, True, False],
    )
    counts = counts_of(judged, 2)
    assert (counts.value("il_mcc"), counts.value("miou")) == (1.0, 0.75)


def test_draws_over_many_pictures_need_bounded_memory() -> None:
    counts_ic = np.random.default_rng(3).random((20_000, 6))
    tracemalloc.start()
    try:
        assert drop_of("miou", "fp32", Counts(counts_ic=counts_ic), Counts(counts_ic=counts_ic), 0.02) is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20  # the weights of all draws at once are 160 MB


def test_there_is_no_relative_drop_from_nothing_or_without_data() -> None:
    nothing = counts_of(make_judged(presence=[0.9, 0.1], present=[True, False], image=[0, 0]), 1)
    assert drop_of("miou", "fp16", nothing, nothing, 0.02) is None
    one_sided = counts_of(make_judged(presence=[0.9], present=[True], image=[0], iou=[1.0]), 1)
    assert drop_of("il_mcc", "fp16", one_sided, one_sided, 0.02) is None


def test_presences_that_change_sides_are_flipped() -> None:
    base, found = (
        make_judged(presence=presence, present=[True, False, True], image=[0, 0, 0])
        for presence in ([0.5, 0.49, 0.9], [0.49, 0.5, 0.6])
    )
    assert num_flipped(base, found) == 2
