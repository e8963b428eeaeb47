"""SA-Co's figures against cases that were computed by hand."""

import numpy as np
import pytest

from student.estimates import NO_ABSENT, NO_PRESENT, NO_PROMPT, Estimate, Estimates, Undefined
from student.saco_metrics import IOU_THRESHOLDS, saco_metrics

GUARD = 2e-4  # the evaluator's small constants pull F1 down by less than that


def figures(rows: list[tuple[float, int, bool]]) -> Estimates:
    """Of prompts as (best IoU, instances, answered "present"), each of its own image."""
    iou = np.array([iou for iou, _, _ in rows], np.float64)
    num = np.array([num for _, num, _ in rows], np.int64)
    said = np.array([said for _, _, said in rows], np.bool_)
    return saco_metrics(iou, num, said, np.arange(len(rows)), rng=np.random.default_rng(0), num_draws=50)


def value(found: Estimates, name: str) -> float:
    estimate = found[name]
    assert isinstance(estimate, Estimate), estimate
    return estimate.value


def test_the_thresholds_are_cocos() -> None:
    assert np.round(IOU_THRESHOLDS, 12).tolist() == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def test_six_prompts_by_hand() -> None:
    found = figures(
        [(0.82, 1, True), (0.62, 1, True), (0.0, 2, False), (0.0, 0, True), (0.0, 0, False), (0.0, 0, False)]
    )
    # On present prompts: 2 detections, 4 instances. Hits at 0.50 to 0.60: 2, at 0.65 to 0.80: 1, at 0.85 to 0.95: 0.
    # F1 = 2 hits / (2 + 4): three times 4/6, four times 2/6, three times 0; mean (2 + 4/3) / 10 = 1/3.
    # The false alarm costs no pmF1.
    assert value(found, "saco_pmf1") == pytest.approx(1 / 3, abs=GUARD)
    # tp 2, fn 1, fp 1, tn 2: (2·2 - 1·1) / sqrt(3·3·3·3) = 3/9
    assert value(found, "saco_il_mcc") == pytest.approx(1 / 3, abs=1e-6)
    # 100 · 1/3 · 1/3
    assert value(found, "saco_cgf1") == pytest.approx(100 / 9, abs=100 * GUARD)


def test_the_evaluators_constants_are_in_the_figure() -> None:
    found = figures([(1.0, 1, True), (0.0, 0, False)])
    # precision = recall = 1 / 1.0001 = 0.99990001, F1 = 2 p² / (2 p + 0.0001) = 0.99985002
    # IL_MCC = (1·1) / (sqrt(1·1·1·1) + 0.000001)
    p = 1 / 1.0001
    f1 = 2 * p * p / (2 * p + 0.0001)
    assert f1 == pytest.approx(0.99985002, abs=1e-8)
    assert value(found, "saco_pmf1") == pytest.approx(f1, abs=1e-15)
    assert value(found, "saco_cgf1") == pytest.approx(100 * f1 / 1.000001, abs=1e-12)


def test_one_mask_over_three_instances_is_one_hit_and_two_misses() -> None:
    found = figures([(1.0, 3, True), (0.0, 0, False)])
    # precision 1/1, recall 1/3: F1 = 2 · 1 · 1/3 / (4/3) = 1/2
    assert value(found, "saco_pmf1") == pytest.approx(0.5, abs=GUARD)


def test_a_mask_in_the_wrong_place_is_a_false_detection_and_a_miss() -> None:
    found = figures([(0.49, 1, True), (0.95, 1, True), (0.0, 0, False)])
    # one hit at all ten thresholds of two detections and two instances: F1 = 2 / 4
    assert value(found, "saco_pmf1") == pytest.approx(0.5, abs=GUARD)
    assert value(found, "saco_il_mcc") == pytest.approx(1.0, abs=1e-5)  # presence was right all the same


def test_always_present_scores_nothing_however_good_its_masks() -> None:
    found = figures([(1.0, 1, True), (1.0, 1, True), (0.0, 0, True)])
    assert value(found, "saco_pmf1") == pytest.approx(1.0, abs=GUARD)
    assert value(found, "saco_il_mcc") == value(found, "saco_cgf1") == 0.0


def test_presence_the_wrong_way_round_scores_below_nothing() -> None:
    found = figures([(0.9, 1, True), (0.9, 1, False), (0.0, 0, True), (0.0, 0, True)])
    # tp 1, fn 1, fp 2, tn 0: (0 - 2) / sqrt(3·2·2·1) = -2 / sqrt(12)
    assert value(found, "saco_il_mcc") == pytest.approx(-2 / 12**0.5, abs=1e-6)
    assert value(found, "saco_cgf1") < 0


def test_labels_of_one_side_leave_undefined_what_needs_both() -> None:
    present = figures([(0.9, 1, True), (0.9, 2, False)])
    assert isinstance(present["saco_pmf1"], Estimate)
    assert present["saco_cgf1"] == present["saco_il_mcc"] == NO_ABSENT
    absent = figures([(0.0, 0, True)])
    assert set(absent.values()) == {NO_PRESENT}
    nothing = figures([])
    assert set(nothing.values()) == {NO_PROMPT}
    assert isinstance(nothing["saco_cgf1"], Undefined)
