"""Thousands of random mixes: exact in every prefix and shard, in splits of every size, and counts that sum exactly."""

from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shards.interleave import interleave
from shards.mixing import Mix, SplitRequest, apportion, largest_size, plan_splits, spread

THOROUGH = settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomMix:
    weights: list[int]  # per source
    group: frozenset[int]

    @property
    def scale(self) -> int:
        return sum(self.weights)

    @property
    def rates(self) -> list[Fraction]:
        return [Fraction(weight, self.scale) for weight in self.weights]

    def as_mix(self) -> Mix:
        names = tuple(f"s{index}" for index in range(len(self.weights)))
        return Mix(names=names, rates=tuple(self.rates), group=frozenset(names[index] for index in self.group))


@st.composite
def mixes(draw: st.DrawFn) -> RandomMix:
    """Two to eight sources: like sizes, unlike sizes, four odd decimals, or a large one among tiny ones."""
    num = draw(st.integers(2, 8))
    largest = draw(st.sampled_from([1, 3, 12, 60, 997]))
    weights = draw(st.lists(st.integers(1, largest), min_size=num, max_size=num))
    total = draw(st.sampled_from([0, 10, 40, 1000, 10_000]))
    if total > sum(weights):  # the first takes the rest of a round denominator
        weights[0] += total - sum(weights)
    group = draw(st.sets(st.integers(0, num - 1), min_size=1, max_size=3))
    return RandomMix(weights=draw(st.permutations(weights)), group=frozenset(group))


def errors_in_scale(order: NDArray[np.int16], mix: RandomMix, members: frozenset[int]) -> NDArray[np.int64]:
    """Return (held − prefix × rate) × scale for the prefixes of 0, 1, … samples, by counting alone."""
    held = np.concatenate([[0], np.cumsum(np.isin(order, sorted(members)))])
    weight = sum(mix.weights[index] for index in members)
    return held * mix.scale - np.arange(len(held)) * weight


@THOROUGH
@given(mix=mixes(), num_samples=st.integers(1, 1200), shard_samples=st.integers(1, 60) | st.integers(1, 2000))
def test_every_prefix_and_every_shard_is_within_one_of_every_rate(
    mix: RandomMix, num_samples: int, shard_samples: int
) -> None:
    order = interleave(mix.rates, mix.group, num_samples, shard_samples=shard_samples)
    assert len(order) == num_samples
    borders = [*range(0, num_samples, shard_samples), num_samples]
    for members in [*(frozenset([index]) for index in range(len(mix.weights))), mix.group]:
        errors = errors_in_scale(order, mix, members)
        assert np.abs(errors).max() < mix.scale
        assert np.abs(np.diff(errors[borders])).max() <= mix.scale


@st.composite
def builds(draw: st.DrawFn) -> dict[str, SplitRequest]:
    """Up to three splits, each with a mix of its own and some images of every real source."""
    requests = {}
    for split in draw(st.sampled_from([["train"], ["train", "val"], ["train", "val", "test"]])):
        mix = draw(mixes()).as_mix()
        real = [name for name in mix.names if name not in mix.group]
        capacities: dict[str, int | None] = dict.fromkeys(mix.group)
        capacities |= {name: draw(st.integers(1, 60)) for name in real}
        fraction = Fraction(draw(st.integers(1, 20)), 20)
        requests[split] = SplitRequest(mix=mix, fraction=fraction, capacities=capacities)
    return requests


def has_enough(requests: dict[str, SplitRequest], samples: int) -> bool:
    """Say, from the definition, whether no split needs more of a source than it has."""
    sizes = apportion(samples, [request.fraction for request in requests.values()])
    return all(
        (capacity := request.capacities[name]) is None or size * rate <= capacity
        for request, size in zip(requests.values(), sizes, strict=True)
        for name, rate in zip(request.mix.names, request.mix.rates, strict=True)
    )


@settings(THOROUGH, max_examples=300)
@given(requests=builds(), samples=st.integers(1, 300), shard_samples=st.integers(1, 100))
def test_shrinking_finds_the_largest_build_that_has_enough(
    requests: dict[str, SplitRequest], samples: int, shard_samples: int
) -> None:
    plans = plan_splits(requests, samples=samples, shard_samples=shard_samples, when_short="shrink")
    total = sum(plan.num_samples for plan in plans.values())
    assert total == max(size for size in range(samples + 1) if has_enough(requests, size))
    for split, plan in plans.items():
        for name, capacity in requests[split].capacities.items():
            assert capacity is None or plan.achieved[name] <= capacity


@settings(THOROUGH, max_examples=300)
@given(requests=builds(), samples=st.integers(1, 300), shard_samples=st.integers(1, 100))
def test_repeating_holds_every_request_and_counts_the_rounds(
    requests: dict[str, SplitRequest], samples: int, shard_samples: int
) -> None:
    plans = plan_splits(requests, samples=samples, shard_samples=shard_samples, when_short="repeat")
    assert sum(plan.num_samples for plan in plans.values()) == samples
    for split, plan in plans.items():
        assert all(abs(plan.achieved[name] - plan.requested[name]) < 1 for name in plan.names)
        for name, capacity in requests[split].capacities.items():
            assert capacity is None or (plan.repeats[name] - 1) * capacity < max(plan.achieved[name], 1)
            assert capacity is None or plan.achieved[name] <= plan.repeats[name] * capacity


@settings(THOROUGH, max_examples=500)
@given(mix=mixes(), capacity=st.integers(1, 200))
def test_one_sample_more_than_the_largest_size_would_need_an_image_too_many(mix: RandomMix, capacity: int) -> None:
    names = mix.as_mix().names
    size = largest_size(mix.as_mix(), dict.fromkeys(names, capacity))
    assert size is not None
    assert max(mix.rates) * size <= capacity < max(mix.rates) * (size + 1)


@settings(THOROUGH, max_examples=500)
@given(total=st.integers(0, 5000), weights=st.lists(st.integers(0, 50) | st.floats(0, 1), min_size=1, max_size=9))
def test_apportioned_counts_sum_exactly_and_stay_within_one_of_their_quota(total: int, weights: list[float]) -> None:
    weights = [*weights, 1]
    whole = sum(Fraction(str(weight)) for weight in weights)
    counts = apportion(total, weights)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert 0 <= count - floor(total * Fraction(str(weight)) / whole) <= 1


@settings(THOROUGH, max_examples=500)
@given(total=st.integers(0, 10**9), num=st.integers(1, 300), phase=st.integers(-1000, 1000))
def test_spread_counts_sum_exactly_and_every_prefix_is_within_one(total: int, num: int, phase: int) -> None:
    counts = spread(total, num, phase=phase)
    assert counts.sum() == total
    assert counts.max() - counts.min() <= 1
    assert all(abs(held * num - (index + 1) * total) < num for index, held in enumerate(np.cumsum(counts).tolist()))
