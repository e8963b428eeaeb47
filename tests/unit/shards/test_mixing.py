"""What shares mean, how large splits may be, what a short source does, and how counts are spread."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest

from manifests.errors import BuildError, RecipeError
from shards.mixing import (
    Mix,
    Share,
    SplitPlan,
    SplitRequest,
    WhenShort,
    apportion,
    decimal,
    exact,
    largest_size,
    plan_splits,
    resolve_mix,
    spread,
)

GENERATED = ("blank", "noise")
DEFAULT: Mapping[str, Share] = {"sa1b": "rest", "coco": 0.2, "blank": 0.025, "noise": 0.025}


def default_mix() -> Mix:
    return resolve_mix(DEFAULT, GENERATED)


def request(sa1b: int | None = 10_000, coco: int | None = 10_000, fraction: float = 1.0) -> SplitRequest:
    capacities = {"sa1b": sa1b, "coco": coco, "blank": None, "noise": None}
    return SplitRequest(mix=default_mix(), fraction=fraction, capacities=capacities)


def plan(
    samples: int | None, when_short: WhenShort = "stop", shard_samples: int = 100, **requests: SplitRequest
) -> dict[str, SplitPlan]:
    return plan_splits(requests, samples=samples, shard_samples=shard_samples, when_short=when_short)


# Shares


def test_rest_takes_exactly_what_the_decimals_leave() -> None:
    mix = default_mix()
    assert mix.names == ("sa1b", "coco", "blank", "noise")
    assert mix.rates == (Fraction(3, 4), Fraction(1, 5), Fraction(1, 40), Fraction(1, 40))
    assert mix.group == {"blank", "noise"}


def test_shares_may_add_up_to_one_without_a_rest() -> None:
    assert resolve_mix({"a": 0.1, "b": 0.2, "c": 0.7}, ()).rates == (Fraction(1, 10), Fraction(1, 5), Fraction(7, 10))


def test_generated_sources_that_stand_elsewhere_are_no_part_of_the_group() -> None:
    assert resolve_mix({"a": "rest", "blank": 0.1}, GENERATED).group == {"blank"}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a": 0.5, "b": 0.4}, r"\[mix\]: a 0.5 \+ b 0.4 = 0.9, not 1; .* \"rest\""),
        ({"a": 0.5, "b": 0.6}, r"a 0.5 \+ b 0.6 = 1.1, not 1"),
        (
            {"a": "rest", "b": 0.7, "c": 0.4},
            r"b 0.7 \+ c 0.4 = 1.1, which leaves nothing for a = \"rest\"; lower",
        ),
        ({"a": "rest", "b": 1}, r"leaves nothing for a"),
        ({"a": "rest", "b": "rest"}, r"a and b all say \"rest\"; exactly one may"),
        ({"a": "most", "b": 0.5}, r"a = \"most\": expected a number or \"rest\""),
        ({"a": -0.1, "b": "rest"}, r"a = -0.1: expected a share from 0 to 1"),
        ({"a": 1.5, "b": "rest"}, r"a = 1.5: expected a share from 0 to 1"),
        ({"a": float("nan"), "b": "rest"}, r"expected a finite number, got nan"),
        ({}, r"no share = 0, not 1"),
    ],
)
def test_shares_that_do_not_add_up_are_refused_with_the_arithmetic(shares: Mapping[str, Share], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve_mix(shares, ())


def test_the_message_begins_with_the_place_that_the_caller_names() -> None:
    with pytest.raises(RecipeError, match=r"^mix.toml, split val: coco 0.2 = 0.2, not 1"):
        resolve_mix({"coco": 0.2}, (), where="mix.toml, split val")


def test_a_float_is_read_as_the_decimal_that_was_written() -> None:
    assert exact(0.1) == Fraction(1, 10)
    assert exact(1e-7) == Fraction(1, 10**7)
    assert exact(2) == 2
    assert decimal(Fraction(1, 40)) == "0.025"
    assert decimal(Fraction(12_345_678)) == "12345678"


# Counts


def test_largest_remainder_takes_the_first_of_equals() -> None:
    assert apportion(10, [0.8, 0.1, 0.1]) == [8, 1, 1]
    assert apportion(5, [0.8, 0.1, 0.1]) == [4, 1, 0]
    assert apportion(2, [Fraction(1, 3)] * 3) == [1, 1, 0]
    assert apportion(7, [1, 2, 4]) == [1, 2, 4]
    assert apportion(0, [0.0, 0.0]) == [0, 0]


@pytest.mark.parametrize("weights", [[0.5, -0.5, 1.0], [0.0, 0.0], []])
def test_weights_that_share_out_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(RecipeError, match=r"expected weights of 0 and more, one of them positive, to share out 3, got"):
        apportion(3, weights)


def test_counts_are_spread_evenly_and_shifted_by_the_phase() -> None:
    assert spread(5, 4).tolist() == [1, 1, 1, 2]
    assert spread(5, 4, phase=3).tolist() == [2, 1, 1, 1]
    assert spread(5, 4, phase=7).tolist() == [2, 1, 1, 1]
    assert spread(0, 0).tolist() == []


def test_counts_cannot_be_spread_over_nothing() -> None:
    with pytest.raises(ValueError, match="at least one place for a total of 3"):
        spread(3, 0)


# Sizes of splits


def test_the_largest_size_is_where_rate_times_samples_meets_the_scarcest_source() -> None:
    capacities = {"sa1b": 3000, "coco": 101, "blank": None, "noise": None}
    assert largest_size(default_mix(), capacities) == 505
    assert largest_size(default_mix(), dict.fromkeys(capacities)) is None


def test_samples_are_apportioned_to_the_splits_and_mixed_exactly_in_each() -> None:
    plans = plan(2000, train=request(fraction=0.8), val=request(fraction=0.1), test=request(fraction=0.1))
    assert {split: each.num_samples for split, each in plans.items()} == {"train": 1600, "val": 200, "test": 200}
    assert plans["train"].achieved == {"sa1b": 1200, "coco": 320, "blank": 40, "noise": 40}
    assert plans["val"].achieved == plans["val"].requested == {"sa1b": 150, "coco": 40, "blank": 5, "noise": 5}
    assert set(plans["val"].repeats.values()) == {1}
    assert np.bincount(plans["val"].order).tolist() == [150, 40, 5, 5]


def test_a_split_of_fraction_zero_stays_empty_even_without_images() -> None:
    plans = plan(40, train=request(), test=request(sa1b=0, coco=0, fraction=0))
    assert plans["test"].num_samples == 0
    assert plans["test"].achieved == dict.fromkeys(plans["test"].names, 0)


def test_without_samples_each_split_holds_as_many_as_its_own_sources_allow() -> None:
    plans = plan(None, train=request(coco=200, fraction=0.9), val=request(sa1b=31, coco=20, fraction=0.1))
    assert plans["train"].num_samples == 1000
    assert plans["val"].num_samples == 41  # 0.75 × 41 = 30.75; 42 would need 31.5
    assert plans["val"].achieved["sa1b"] <= 31


def test_a_short_source_stops_the_build_with_the_arithmetic_and_the_cures() -> None:
    expected = (
        "split val: source coco is short: 0.2 × 200 samples = 40 images, it has 30; "
        'use samples = 1505, or when_short = "shrink" or "repeat"'
    )
    with pytest.raises(BuildError) as caught:
        plan(2000, train=request(fraction=0.9), val=request(coco=30, fraction=0.1))
    assert str(caught.value) == expected
    assert plan(1505, train=request(fraction=0.9), val=request(coco=30, fraction=0.1))["val"].achieved["coco"] == 30


def test_of_several_short_sources_the_shortest_is_named_and_the_others_counted() -> None:
    with pytest.raises(BuildError, match=r"split train: source coco is short: .* it has 10 \(and 1 more such\); use"):
        plan(1000, train=request(sa1b=700, coco=10))


def test_shrinking_takes_the_largest_build_whose_every_split_fits() -> None:
    splits = {"train": request(fraction=0.9), "val": request(coco=30, fraction=0.1)}
    plans = plan_splits(splits, samples=2000, shard_samples=100, when_short="shrink")
    assert sum(each.num_samples for each in plans.values()) == 1505
    assert plans["val"].num_samples == 150
    assert plans["val"].requested["coco"] == 40
    with pytest.raises(BuildError, match="is short"):
        plan_splits(splits, samples=1506, shard_samples=100, when_short="stop")


def test_shrinking_leaves_a_build_alone_that_has_enough() -> None:
    assert plan(400, "shrink", train=request(coco=80))["train"].num_samples == 400


def test_repeating_goes_through_the_images_as_often_as_it_takes() -> None:
    plans = plan(1000, "repeat", train=request(coco=90))
    assert plans["train"].num_samples == 1000
    assert plans["train"].achieved["coco"] == 200
    assert plans["train"].repeats == {"sa1b": 1, "coco": 3, "blank": 1, "noise": 1}
    assert plan(1000, "repeat", train=request(coco=100))["train"].repeats["coco"] == 2


@pytest.mark.parametrize("when_short", ["stop", "shrink", "repeat"])
@pytest.mark.parametrize("samples", [100, None])
def test_a_source_without_an_image_in_a_split_is_named_whatever_is_done_about_short_ones(
    samples: int | None, when_short: WhenShort
) -> None:
    with pytest.raises(BuildError, match=r"split val: expected 0.2 of the samples from coco, which has no image there"):
        plan(samples, when_short, train=request(fraction=0.9), val=request(coco=0, fraction=0.1))


def test_a_source_of_rate_zero_needs_no_image() -> None:
    mix = resolve_mix({"a": "rest", "off": 0}, ())
    plans = plan(10, train=SplitRequest(mix=mix, fraction=1, capacities={"a": 10, "off": 0}))
    assert plans["train"].achieved == {"a": 10, "off": 0}


def test_generated_sources_alone_do_not_say_how_many_samples() -> None:
    mix = resolve_mix({"blank": "rest", "noise": 0.5}, GENERATED)
    train = SplitRequest(mix=mix, fraction=1, capacities={"blank": None, "noise": None})
    with pytest.raises(BuildError, match=r"split train: all its sources are generated.* set samples"):
        plan(None, train=train)
    assert plan(10, train=train)["train"].achieved == {"blank": 5, "noise": 5}
