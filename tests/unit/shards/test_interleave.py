"""The written order of a mix: known hard mixes, what simpler ways miss, and the one way to fail."""

from collections.abc import Collection, Sequence
from fractions import Fraction

import numpy as np
import pytest

from manifests.errors import BuildError
from shards.interleave import interleave


def rates(*weights: int) -> list[Fraction]:
    return [Fraction(weight, sum(weights)) for weight in weights]


DEFAULT = rates(30, 8, 1, 1)  # 0.75, 0.2, 0.025, 0.025; the last two are generated


def greedy(shares: Sequence[Fraction], num_samples: int) -> list[int]:
    """Take the source that lags most, ties to the first: the obvious way."""
    counts = [0] * len(shares)
    order = []
    for position in range(1, num_samples + 1):
        lags = [position * share - count for share, count in zip(shares, counts, strict=True)]
        order.append(lags.index(max(lags)))
        counts[order[-1]] += 1
    return order


def prefix_error(order: Sequence[int], shares: Sequence[Fraction], members: Collection[int]) -> Fraction:
    """Return how far a source (or a group) strays from its rate in any prefix, in samples."""
    rate = sum((shares[index] for index in members), Fraction(0))
    held, worst = 0, Fraction(0)
    for position, index in enumerate(order, start=1):
        held += index in members
        worst = max(worst, abs(held - position * rate))
    return worst


def shard_error(order: Sequence[int], shares: Sequence[Fraction], members: Collection[int], size: int) -> Fraction:
    """Return how far it strays from its rate within any shard, in samples."""
    rate = sum((shares[index] for index in members), Fraction(0))
    shards = [order[start : start + size] for start in range(0, len(order), size)]
    return max(abs(sum(index in members for index in shard) - len(shard) * rate) for shard in shards)


def test_taking_the_source_that_lags_most_leaves_a_source_more_than_one_behind() -> None:
    shares = rates(1, 1, 1, 11, 11)
    lagging = greedy(shares, 50)
    ours = interleave(shares, [0], 50, shard_samples=50).tolist()
    assert max(prefix_error(lagging, shares, [index]) for index in range(5)) > 1
    assert max(prefix_error(ours, shares, [index]) for index in range(5)) < 1


@pytest.mark.parametrize("first", range(4))
def test_a_source_that_should_stand_first_does_and_all_rates_still_hold(first: int) -> None:
    shares = [Fraction(n, 40) for n in (31, 7, 1, 1)]
    order = interleave(shares, [2, 3], 333, shard_samples=50, first=[first]).tolist()
    assert order[0] == first
    assert max(prefix_error(order, shares, [index]) for index in range(4)) < 1
    assert prefix_error(order, shares, [2, 3]) < 1
    assert max(shard_error(order, shares, [index], 50) for index in range(4)) <= 1


def test_taking_the_source_that_lags_most_misses_the_sum_of_the_generated_ones() -> None:
    shares = rates(1, 1, 1, 1, 6)
    assert prefix_error(greedy(shares, 20), shares, [3, 4]) > 1
    assert prefix_error(interleave(shares, [3, 4], 20, shard_samples=20).tolist(), shares, [3, 4]) < 1


def test_taking_the_source_that_lags_most_misses_the_default_rates_within_shards_of_thirteen() -> None:
    assert shard_error(greedy(DEFAULT, 400), DEFAULT, [2, 3], 13) > 1
    assert shard_error(interleave(DEFAULT, [2, 3], 400, shard_samples=13).tolist(), DEFAULT, [2, 3], 13) <= 1


def test_a_million_samples_of_the_default_mix_hold_their_exact_counts_in_every_shard() -> None:
    order = interleave(DEFAULT, [2, 3], 1_000_000, shard_samples=1000)
    counts = [np.bincount(shard, minlength=4).tolist() for shard in order.reshape(1000, 1000)]
    assert order.dtype == np.int16
    assert counts == [[750, 200, 25, 25]] * 1000


def test_the_last_shard_is_held_to_the_rates_though_it_is_shorter() -> None:
    order = interleave(DEFAULT, [2, 3], 2_033, shard_samples=1000)
    assert len(order) == 2_033
    assert shard_error(order.tolist(), DEFAULT, [2, 3], 1000) <= 1
    assert max(prefix_error(order.tolist(), DEFAULT, [index]) for index in range(4)) < 1


def test_the_same_arguments_give_the_same_order() -> None:
    shares = rates(7066, 1234, 850, 850)
    first = interleave(shares, [2, 3], 3000, shard_samples=77)
    assert first.tobytes() == interleave(shares, [3, 2], 3000, shard_samples=77).tobytes()


def test_a_source_of_rate_zero_never_stands() -> None:
    assert set(interleave(rates(3, 0, 1), [1, 2], 40, shard_samples=7).tolist()) == {0, 2}


def test_no_samples_make_an_empty_order() -> None:
    assert interleave(DEFAULT, [2, 3], 0, shard_samples=10).tolist() == []


def test_one_source_alone_fills_every_position() -> None:
    assert interleave(rates(1), [], 5, shard_samples=2).tolist() == [0] * 5


def test_some_mixes_need_choices_taken_back_and_without_them_the_message_names_another_shard_size() -> None:
    shares = rates(1, 1, 1, 7)
    assert shard_error(interleave(shares, [2, 3], 20, shard_samples=3).tolist(), shares, [2, 3], 3) <= 1
    with pytest.raises(BuildError, match=r"no order of 20 samples in shards of 3 .* use shard_samples = 10"):
        interleave(shares, [2, 3], 20, shard_samples=3, max_dead_states=0)


def test_the_shard_size_that_the_message_names_needs_no_choice_taken_back() -> None:
    assert len(interleave(rates(1, 1, 1, 7), [2, 3], 20, shard_samples=10, max_dead_states=0)) == 20
