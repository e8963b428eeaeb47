"""The global order: whole epochs, random access, weights, and digests that must never change."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from manifests.errors import RecipeError
from shards import order
from shards.order import BLOCK_SAMPLES, WINDOW_SAMPLES, Chain, Order, whole_weights

SIZES = (1, 2, 63, 64, 65, 1000, 1023, 1024, 1025, 1087, 2048, 5000)


def chain(num_samples: int, *, weight: float = 1.0, digest: str = "d") -> Chain:
    return Chain(num_samples=num_samples, digest=digest, weight=weight)


def triples(order: Order, start: int, stop: int) -> list[tuple[int, int, int]]:
    places = order.at(start, stop)
    columns = (places.manifest_n.tolist(), places.epoch_n.tolist(), places.sample_n.tolist())
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("num_samples", SIZES)
def test_every_epoch_visits_each_sample_exactly_once(num_samples: int) -> None:
    found = Order([chain(num_samples)], seed=3).at(0, 3 * num_samples)
    for epoch in range(3):
        visited = found.sample_n[epoch * num_samples : (epoch + 1) * num_samples]
        assert sorted(visited.tolist()) == list(range(num_samples))
        assert set(found.epoch_n[epoch * num_samples : (epoch + 1) * num_samples].tolist()) == {epoch}


@pytest.mark.parametrize("num_samples", SIZES)
def test_a_slice_anywhere_is_what_the_whole_has_there(num_samples: int) -> None:
    mixture = Order([chain(num_samples), chain(700, weight=0.3, digest="e")], seed=1)
    whole = triples(mixture, 0, 4000)
    rng = np.random.default_rng(0)
    for _ in range(40):
        start = int(rng.integers(0, 4000))
        stop = int(rng.integers(start, 4001))
        assert triples(mixture, start, stop) == whole[start:stop]


def test_a_mixture_goes_through_each_manifest_as_if_it_were_alone() -> None:
    chains = [chain(1500, weight=0.5, digest="a"), chain(70, weight=0.3, digest="b"), chain(9, weight=0.2, digest="c")]
    found = Order(chains, seed=5).at(0, 6000)
    for number, alone in enumerate(chains):
        rows = found.manifest_n == number
        expected = Order([alone], seed=5).at(0, int(rows.sum()))
        assert found.sample_n[rows].tolist() == expected.sample_n.tolist()
        assert found.epoch_n[rows].tolist() == expected.epoch_n.tolist()


def test_weights_hold_in_every_prefix() -> None:
    weights = [0.62, 0.2, 0.1, 0.05, 0.03]
    chains = [chain(50, weight=weight, digest=str(weight)) for weight in weights]
    manifests = Order(chains, seed=0).at(0, 3000).manifest_n
    taken = np.cumsum(manifests[:, None] == np.arange(5), axis=0)
    wanted = np.arange(1, 3001)[:, None] * np.array(weights)
    assert np.abs(taken - wanted).max() < 1.5
    assert taken[99].tolist() == [62, 20, 10, 5, 3]


def test_samples_of_a_window_come_from_at_most_sixteen_blocks() -> None:
    samples = Order([chain(20 * WINDOW_SAMPLES)], seed=2).at(0, 20 * WINDOW_SAMPLES).sample_n.reshape(20, -1)
    blocks_of_window = [set((window // BLOCK_SAMPLES).tolist()) for window in samples]
    assert all(len(blocks) == 16 for blocks in blocks_of_window)
    assert set.union(*blocks_of_window) == set(range(20 * 16))


def test_neighbours_are_torn_apart_and_epochs_differ() -> None:
    found = Order([chain(20_000)], seed=2).at(0, 40_000).sample_n
    steps = np.diff(found[:20_000])
    assert (np.abs(steps) == 1).mean() < 0.01
    assert (found[:20_000] == found[20_000:]).mean() < 0.01
    assert abs(np.corrcoef(np.arange(20_000), found[:20_000])[0, 1]) < 0.2


def test_seed_and_digest_each_change_the_order() -> None:
    base = triples(Order([chain(500)], seed=0), 0, 500)
    assert triples(Order([chain(500)], seed=1), 0, 500) != base
    assert triples(Order([chain(500, digest="other")], seed=0), 0, 500) != base
    assert triples(Order([chain(500)], seed=0), 0, 500) == base


def test_a_permutation_is_uniform_enough() -> None:
    counts = Counter(
        tuple(Order([chain(4, digest=str(number))], seed=0).at(0, 4).sample_n.tolist()) for number in range(4800)
    )
    assert len(counts) == 24
    chi_squared = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi_squared < 49.7  # 23 degrees of freedom, p = 0.001


def test_without_shuffle_the_order_is_the_written_one() -> None:
    assert Order([chain(5)], seed=9, shuffle=False).at(3, 12).sample_n.tolist() == [3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_an_order_is_the_same_in_every_release() -> None:
    chains = [chain(3000, weight=0.8, digest="sa1b"), chain(170, weight=0.2, digest="coco")]
    found = Order(chains, seed=7).at(10_000, 12_000)
    table = np.stack([found.manifest_n, found.epoch_n, found.sample_n]).astype("<i8")
    assert hashlib.sha256(table.tobytes()).hexdigest()[:16] == "2394dea9f05bc95d"


def test_the_digest_names_all_that_the_order_depends_on() -> None:
    digests = {
        Order([chain(10)], seed=0).digest,
        Order([chain(10)], seed=1).digest,
        Order([chain(10)], seed=0, shuffle=False).digest,
        Order([chain(11)], seed=0).digest,
        Order([chain(10, digest="e")], seed=0).digest,
        Order([chain(10), chain(10, digest="e")], seed=0).digest,
        Order([chain(10), chain(10, digest="e", weight=2)], seed=0).digest,
    }
    assert len(digests) == 7
    assert Order([chain(10, weight=3)], seed=0).digest == Order([chain(10)], seed=0).digest  # alone, weight is nothing


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        ([0.8, 0.2], [4, 1]),
        ([1, 1, 1], [1, 1, 1]),
        ([0.1, 0.2, 0.7], [1, 2, 7]),
        ([343, 227], [343, 227]),
        ([11_000_003, 5_000], [65_506, 30]),
        ([1e9, 1], [65_536, 1]),
    ],
)
def test_weights_become_whole_numbers(weights: list[float], whole: list[int]) -> None:
    assert whole_weights(weights) == whole


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(RecipeError, match=r"weight .* expected a number above 0. Leave the build out"):
        Order([chain(10), chain(10, weight=weight)], seed=0)


def test_far_positions_cost_no_more_than_near_ones() -> None:
    mixture = Order([chain(100_000)], seed=0)
    order._window.cache_clear()
    far = 7 * 10**12 + 33
    assert mixture.at(far, far + 256).sample_n.shape == (256,)
    assert order._window.cache_info().misses <= 2
