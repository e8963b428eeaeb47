"""The audit's figures on trials whose truth is known, and the bound that the chosen margin keeps."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from manifests.statistics import bootstrap_ratio
from miners.false_negatives import Trial, audit_kind, choose_margin, hide_presences, margins_of, read_curve, taken_at
from miners.guards import annotation
from shards.inventory import PRESENT
from tests.inventories import make_inventory


def trial(
    gap_c: NDArray[np.float64], false_c: NDArray[np.bool_], picture_c: NDArray[np.int64], num_pictures: int
) -> Trial:
    return Trial(
        kind="near_image",
        picture_c=picture_c,
        num_pictures=num_pictures,
        false_c=false_c,
        standard_c=-gap_c,
        gap_c=gap_c,
        distance_c=gap_c,
        rank_c=np.zeros(len(gap_c), np.int32),
        passed_c=np.ones(len(gap_c), np.bool_),
        take=lambda kept_c: kept_c,
    )


def drawn(rng: np.random.Generator, num_pictures: int = 200) -> Trial:
    """Eight candidates a picture; the nearer to its positive, the likelier in truth present."""
    num = 8 * num_pictures
    gap_c = rng.normal(1.0, 1.0, num)
    false_c = rng.random(num) < 1 / (1 + np.exp(2.0 + 2.0 * gap_c))
    return trial(gap_c, false_c, np.repeat(np.arange(num_pictures), 8), num_pictures)


def test_the_curve_counts_what_is_false_at_every_margin() -> None:
    found = trial(np.array([0.1, 0.2, 0.3]), np.array([True, False, False]), np.array([0, 0, 1]), 2)
    curve = read_curve(found, margins_of(found).tolist(), np.random.default_rng(0))
    assert [(point.num_rows, point.num_false) for point in curve] == [(1, 0), (2, 0), (3, 1)]
    assert curve[-1].false_share == pytest.approx(1 / 3)
    assert curve[-1].hardness == pytest.approx(-0.2)
    assert curve[-1].distance == pytest.approx(0.2)


def test_leak_is_the_share_of_hidden_candidates_that_were_mined() -> None:
    found = trial(np.array([-1.0, 0.5, 2.0, 3.0]), np.array([True, True, False, False]), np.array([0, 1, 2, 3]), 4)
    audit = audit_kind(found, 0.0, np.random.default_rng(0))
    assert (audit.leak, audit.num_hidden_candidates) == (0.5, 2)
    assert (audit.at_margin.num_rows, audit.at_margin.num_false) == (3, 1)


def test_a_candidate_without_a_positive_passes_every_margin() -> None:
    found = trial(np.array([np.nan, 1.0]), np.array([False, False]), np.array([0, 1]), 2)
    assert taken_at(found, 2.0).tolist() == [True, False]


def test_the_chosen_margin_is_the_softest_that_keeps_the_rate() -> None:
    gaps = np.concatenate([np.full(100, 2.0), np.full(50, 1.0)])
    false_c = np.concatenate([np.zeros(100, np.bool_), np.ones(50, np.bool_)])
    found = trial(gaps, false_c, np.arange(150), 150)
    assert choose_margin(found, [3.0, 2.0, 1.0], 0.05) == 2.0
    assert choose_margin(found, [3.0, 2.0, 1.0], 0.5) == 1.0


def test_too_few_pictures_choose_nothing() -> None:
    found = trial(np.full(5, 1.0), np.zeros(5, np.bool_), np.arange(5), 5)
    assert choose_margin(found, [1.0], 0.05) is None


def test_over_many_splits_the_mean_share_keeps_the_rate() -> None:
    shares, per_picture = [], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        calibration, test = drawn(rng), drawn(rng)
        margin = choose_margin(calibration, margins_of(calibration).tolist(), 0.05)
        if margin is None:
            continue
        taken_c = taken_at(test, margin)
        shares.append(float(test.false_c[taken_c].mean()))
        num_a = np.bincount(test.picture_c[taken_c], minlength=200)
        false_a = np.bincount(test.picture_c[taken_c & test.false_c], minlength=200)
        per_picture.append(float((false_a / np.maximum(num_a, 1)).mean()))
    assert len(shares) >= 100
    for found in (shares, per_picture):
        assert np.mean(found) <= 0.05 + 2 * np.std(found) / np.sqrt(len(found))
    assert float(np.mean(shares)) > 0.02  # and it is not kept by mining next to nothing


def test_hiding_takes_presences_away_and_makes_pictures_open_to_mining() -> None:
    inventory = make_inventory(np.full((200, 2), PRESENT, np.int8))
    hidden = hide_presences(inventory, np.arange(100), 0.5, np.random.default_rng(0))
    num_left = np.diff(hidden.inventory.labels.starts)
    assert num_left[100:].tolist() == [2] * 100
    assert hidden.num_hidden == 200 - num_left[:100].sum()
    assert 70 < hidden.num_hidden < 130
    assert not hidden.inventory.exhaustive_n()[:100].any()
    assert hidden.inventory.exhaustive_n()[100:].all()


def test_the_interval_of_a_ratio_holds_its_value_and_narrows_with_units() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for num in (50, 5000):
        part_n = rng.binomial(5, 0.2, num)
        low, high = bootstrap_ratio(part_n, np.full(num, 5), rng)
        assert low < 0.2 < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5
    assert bootstrap_ratio(np.zeros(3, np.int64), np.zeros(3, np.int64), rng) == (0.0, 0.0)


def test_what_was_exhaustive_does_not_turn_open_where_another_vocabulary_was_left_open() -> None:
    inventory = make_inventory(np.full((30, 3), PRESENT, np.int8))
    place = inventory.images.schema.get_field_index("open_over")
    images = inventory.images.set_column(place, "open_over", pa.array([["all"]] * 30, pa.list_(pa.string())))
    inventory = replace(inventory, images=images, vocabularies={"all": inventory.phrases})
    hidden = hide_presences(inventory, np.arange(20), 0.5, np.random.default_rng(0))
    image, phrase = np.repeat(np.arange(30), 3), np.tile(np.arange(3, dtype=np.int32), 30)
    left = np.repeat(np.diff(hidden.inventory.labels.starts), 3)
    rejected = annotation(hidden.inventory, image, phrase)
    assert rejected[:60].sum() == left[:60].sum() / 3
    assert 0 < hidden.num_hidden < 60
