"""Calibration, and what is fitted on val."""

import numpy as np
import pytest
from numpy.typing import NDArray

from student.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    calibration,
    choose_threshold,
    fit_temperature,
    reliability,
    scaled,
)
from student.estimates import NO_ABSENT, NO_PRESENT, NO_PROMPT, Estimate
from student.presence_metrics import says_present


def sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logit))


def drawn(num: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Logits, and labels that are present as often as they say."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0.5, 2, num)
    return logit, rng.random(num) < sigmoid(logit)


def temperature(presence: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    found = fit_temperature(presence, present)
    assert isinstance(found, float)
    return found


@pytest.mark.parametrize("known", [0.25, 1.0, 3.0])
def test_a_known_temperature_is_found_again(known: float) -> None:
    logit, present = drawn(40_000)
    assert temperature(sigmoid(logit * known), present) == pytest.approx(known, rel=0.05)


def test_no_other_temperature_makes_the_labels_likelier() -> None:
    logit, present = drawn(60)
    presence = sigmoid(2 * logit)

    def loss(at: float) -> float:
        return float(np.logaddexp(0, np.where(present, -2, 2) * logit / at).mean())

    found = temperature(presence, present)
    assert all(loss(found) <= loss(at) + 1e-9 for at in np.geomspace(0.1, 10, 400))


def test_scaling_by_the_fitted_temperature_calibrates() -> None:
    logit, present = drawn(20_000)
    presence, image = sigmoid(3 * logit), np.arange(20_000)
    tempered = scaled(presence, temperature(presence, present))
    before, after = (
        calibration(p, present, image, rng=np.random.default_rng(0), num_draws=5) for p in (presence, tempered)
    )
    assert isinstance(before["ece"], Estimate)
    assert isinstance(after["ece"], Estimate)
    assert before["ece"].value > 0.08
    assert after["ece"].value < 0.02


def test_a_temperature_of_one_changes_nothing() -> None:
    presence = np.array([0.001, 0.5, 0.97])
    assert scaled(presence, 1.0).tolist() == pytest.approx(presence.tolist())


def test_presences_of_0_and_1_can_be_scaled() -> None:
    assert scaled(np.array([0.0, 1.0], np.float32), 2.0).tolist() == pytest.approx([0.001, 0.999], abs=1e-4)


def test_perfect_order_wants_the_coldest_temperature_and_a_reversed_one_the_hottest() -> None:
    present = np.array([True, True, False, False])
    presence = np.array([0.8, 0.7, 0.3, 0.1])
    assert temperature(presence, present) == pytest.approx(MIN_TEMPERATURE)
    assert temperature(presence, ~present) == pytest.approx(MAX_TEMPERATURE)


def test_where_every_presence_is_a_half_the_temperature_is_one() -> None:
    assert temperature(np.full(4, 0.5), np.array([True, False, False, False])) == 1.0


def test_four_prompts_by_hand() -> None:
    presence, present = np.array([0.9, 0.92, 0.1, 1.0]), np.array([True, False, False, True])
    found = calibration(presence, present, np.arange(4), rng=np.random.default_rng(0), num_draws=50)
    assert isinstance(found["ece"], Estimate)
    assert isinstance(found["brier"], Estimate)
    # 0.9 and 0.92 lie in [13/15, 14/15): mean 0.91 beside 1/2; 0.1 in [1/15, 2/15) beside 0; 1.0 in the last beside 1
    assert found["ece"].value == pytest.approx(2 / 4 * abs(0.91 - 0.5) + 1 / 4 * 0.1)
    assert found["brier"].value == pytest.approx((0.1**2 + 0.92**2 + 0.1**2 + 0) / 4)
    curve = reliability(presence, present)
    assert [(round(b.mean_presence, 9), b.share_present, b.num) for b in curve] == [
        (0.1, 0, 1),
        (0.91, 0.5, 2),
        (1, 1, 1),
    ]


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_chosen() -> None:
    present = np.array([True, True, False, False])
    assert choose_threshold(np.array([0.9, 0.6, 0.4, 0.1]), present) == 0.5  # any above 0.4, up to 0.6
    assert choose_threshold(np.array([0.99, 0.9, 0.8, 0.7]), present) == pytest.approx(0.85)
    assert choose_threshold(np.full(4, 0.3), present) == 0.5  # no threshold helps


def test_a_chosen_threshold_parts_neighbouring_float32_presences() -> None:
    below = np.float32(0.9)
    presence = np.array([np.nextafter(below, np.float32(1)), below], np.float32)
    present = np.array([True, False])
    found = choose_threshold(presence, present)
    assert isinstance(found, float)
    assert says_present(presence, found).tolist() == [True, False]
    assert (presence >= found).tolist() == [True, False]  # compared in float32, too


@pytest.mark.parametrize("fit", [fit_temperature, choose_threshold])
def test_nothing_is_fitted_to_labels_of_one_side(fit: object) -> None:
    assert callable(fit)
    assert fit(np.array([0.5, 0.7]), np.array([True, True])) == NO_ABSENT
    assert fit(np.array([0.5, 0.7]), np.array([False, False])) == NO_PRESENT
    assert fit(np.zeros(0), np.zeros(0, np.bool_)) == NO_PROMPT


def test_calibration_on_labels_of_one_side_is_undefined() -> None:
    found = calibration(np.ones(3), np.ones(3, np.bool_), np.arange(3), rng=np.random.default_rng(0))
    assert found == {"ece": NO_ABSENT, "brier": NO_ABSENT}
