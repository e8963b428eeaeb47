"""The four rules of prompts, over thousands of random label tables."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.recipe import Prompts
from manifests.sample import KINDS, Evidence, NegativeKind
from shards.allotment import Room, pour, share_kinds
from shards.benchmark import ask_benchmark
from shards.candidates import Candidates, train_statistics
from shards.inventory import ABSENT, PRESENT, STATES, Inventory
from shards.mixing import apportion
from shards.prompts import NO_KIND, Asked, ask_generated, ask_train
from shards.sources.source import LabelState
from tests.inventories import make_inventory, random_states

OPEN = STATES.index(LabelState.OPEN)
HALVES = {NegativeKind.RANDOM: 0.5, NegativeKind.CO_OCCURRING: 0.5}


def asked_train(inventory: Inventory, prompts: Prompts, seed: int = 0) -> Asked:
    pictures = np.arange(inventory.num_images)
    candidates = Candidates(inventory, np.ones(len(inventory.phrases), np.bool_))
    statistics = train_statistics(candidates, pictures)
    return ask_train(candidates, statistics, pictures, prompts, np.random.default_rng(seed))


def asked_test(inventory: Inventory, seed: int = 0) -> Asked:
    pictures = np.arange(inventory.num_images)
    candidates = Candidates(inventory, np.ones(len(inventory.phrases), np.bool_))
    statistics = train_statistics(candidates, pictures)
    return ask_benchmark(candidates, statistics, pictures, np.random.default_rng(seed), "test")


worlds = st.builds(
    lambda seed, num, phrases: (np.random.default_rng(seed), num, phrases),
    st.integers(0, 2**32),
    st.integers(1, 60),
    st.integers(1, 24),
)


@settings(max_examples=150, deadline=None)
@given(worlds, st.floats(0, 8), st.sampled_from([HALVES, {NegativeKind.POPULAR: 1.0}, {NegativeKind.RANDOM: 1.0}]))
def test_nothing_present_open_or_implied_is_ever_asked_as_absent(
    world: tuple[np.random.Generator, int, int], absent: float, kinds: dict[NegativeKind, float]
) -> None:
    rng, num, num_phrases = world
    states = random_states(rng, num, num_phrases, share_open=0.1)
    implies = [sorted({v, *rng.integers(0, num_phrases, rng.integers(0, 3)).tolist()}) for v in range(num_phrases)]
    inventory = make_inventory(states, exhaustive_n=rng.random(num) < 0.7, implies=implies)
    for asked in (asked_train(inventory, Prompts(absent_per_image=absent, kinds=kinds)), asked_test(inventory)):
        seen: set[tuple[int, int, int]] = set()
        for sample, phrase, kind in zip(asked.sample_q, asked.phrase_q, asked.kind_q, strict=True):
            if kind == NO_KIND:
                assert states[sample, phrase] == PRESENT
                continue
            blocked = {i for v in np.flatnonzero(np.isin(states[sample], (PRESENT, OPEN))) for i in implies[v]}
            assert phrase not in blocked
            assert inventory.exhaustive_n()[sample] or states[sample, phrase] == ABSENT
            assert (int(sample), int(phrase), int(kind)) not in seen
            seen.add((int(sample), int(phrase), int(kind)))


@settings(max_examples=150, deadline=None)
@given(worlds, st.floats(0, 6))
def test_train_asks_no_phrase_twice_and_counts_and_kinds_are_exact_where_candidates_suffice(
    world: tuple[np.random.Generator, int, int], absent: float
) -> None:
    rng, num, _ = world
    states = random_states(rng, num, 60, share_present=0.06, share_open=0.0)
    inventory = make_inventory(states, source_n=rng.integers(0, 2, num).astype(np.int16))
    asked = asked_train(inventory, Prompts(absent_per_image=absent, kinds=HALVES, present_per_image=100))
    pairs = list(zip(asked.sample_q.tolist(), asked.phrase_q.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    is_absent = asked.kind_q != NO_KIND
    present_n = np.bincount(asked.sample_q[~is_absent], minlength=num)
    absent_n = np.bincount(asked.sample_q[is_absent], minlength=num)
    for source, wanted in asked.absent_requested.items():
        here = inventory.source_n == source
        alone = here & (present_n == 0)  # these are asked at least one, whatever the ratio
        assert abs(int(absent_n[here].sum()) - wanted) <= 1 + int(alone.sum())
        busy = here & (present_n > 0)
        if busy.any() and not alone.any():
            assert np.ptp(absent_n[busy]) <= 1
    kinds = Counter(asked.kind_q[is_absent].tolist())
    quota = apportion(int(is_absent.sum()), [0.5, 0.5])
    if not any("ran out" in note for note in asked.notes):
        assert abs(kinds[KINDS.index(NegativeKind.CO_OCCURRING)] - quota[0]) <= 1


def test_sources_have_one_ratio_of_present_to_absent() -> None:
    rng = np.random.default_rng(5)
    states = random_states(rng, 600, 80, share_present=0.05, share_open=0.0)
    states[300:, 20:] = -1  # the second source labels far less
    inventory = make_inventory(states, source_n=np.repeat([0, 1], 300).astype(np.int16))
    asked = asked_train(inventory, Prompts())
    is_absent = asked.kind_q != NO_KIND
    source_q = inventory.source_n[asked.sample_q]
    ratios = [(is_absent & (source_q == s)).sum() / (~is_absent & (source_q == s)).sum() for s in (0, 1)]
    assert abs(ratios[0] - ratios[1]) < 0.05
    assert is_absent.sum() == 5 * 600


def test_prior_is_flat_where_candidates_allow_it_and_not_when_popular_alone_is_asked() -> None:
    states = random_states(np.random.default_rng(1), 800, 40, share_present=0.05, share_open=0.0)
    inventory = make_inventory(states)

    def spread_of_ratios(kinds: dict[NegativeKind, float]) -> float:
        asked = asked_train(inventory, Prompts(absent_per_image=3, kinds=kinds))
        present = np.bincount(asked.phrase_q[asked.kind_q == NO_KIND], minlength=40)
        absent = np.bincount(asked.phrase_q[asked.kind_q != NO_KIND], minlength=40)
        return float(np.std(absent / (absent + present)))

    assert spread_of_ratios({NegativeKind.RANDOM: 1.0}) < 0.03
    assert spread_of_ratios({NegativeKind.POPULAR: 1.0}) > 0.2


@settings(max_examples=100, deadline=None)
@given(worlds)
def test_benchmark_asks_one_of_each_setting_per_presence_of_exhaustive_images(
    world: tuple[np.random.Generator, int, int],
) -> None:
    rng, num, _ = world
    exhaustive = rng.random(num) < 0.6
    states = random_states(rng, num, 50, share_present=0.05)
    inventory = make_inventory(states, exhaustive_n=exhaustive)
    asked = asked_test(inventory)
    present_n = np.bincount(asked.sample_q[asked.kind_q == NO_KIND], minlength=num)
    np.testing.assert_array_equal(present_n, (states == PRESENT).sum(axis=1))
    for kind in (NegativeKind.RANDOM, NegativeKind.POPULAR, NegativeKind.CO_OCCURRING):
        num_kind = np.bincount(asked.sample_q[asked.kind_q == KINDS.index(kind)], minlength=num)
        np.testing.assert_array_equal(num_kind, np.where(exhaustive, present_n, 0))


def test_popular_and_co_occurring_of_the_benchmark_agree_with_a_naive_count() -> None:
    states = random_states(np.random.default_rng(2), 120, 30, share_present=0.08, share_open=0.0)
    present = states == PRESENT
    asked = asked_test(make_inventory(states))
    frequency = present.sum(axis=0)
    for sample in range(120):
        mine = asked.sample_q == sample
        count = int(present[sample].sum())
        absent = np.flatnonzero(~present[sample])
        popular = asked.phrase_q[mine & (asked.kind_q == KINDS.index(NegativeKind.POPULAR))]
        assert sorted(frequency[popular]) == sorted(sorted(frequency[absent])[len(absent) - count :])
        beside = [
            sum((present[:, p] & present[:, v]).sum() / present[:, p].sum() for p in np.flatnonzero(present[sample]))
            for v in absent
        ]
        chosen = asked.phrase_q[mine & (asked.kind_q == KINDS.index(NegativeKind.CO_OCCURRING))]
        by_phrase = dict(zip(absent.tolist(), beside, strict=True))
        hardest = sorted(by_phrase.values())[len(absent) - count :]
        np.testing.assert_allclose(sorted(by_phrase[int(v)] for v in chosen), hardest, atol=1e-4)


def test_images_that_only_deny_by_name_are_asked_what_they_deny() -> None:
    states = random_states(np.random.default_rng(3), 40, 12, share_open=0.0)
    states[:, 10] = np.where(states[:, 10] == PRESENT, PRESENT, ABSENT)
    asked = asked_test(make_inventory(states, exhaustive_n=np.zeros(40, np.bool_)))
    absent = asked.kind_q != NO_KIND
    assert set(asked.phrase_q[absent].tolist()) == {10}
    assert absent.sum() == (states[:, 10] == ABSENT).sum()
    assert asked.requested["random"] == asked.absent_requested[0] == absent.sum()


def test_a_source_that_can_deny_nothing_gets_no_absence_and_is_named() -> None:
    states = random_states(np.random.default_rng(4), 60, 12)
    half = np.repeat([True, False], 30)
    inventory = make_inventory(states, exhaustive_n=half, source_n=(~half).astype(np.int16))
    asked = asked_train(inventory, Prompts())
    assert (asked.sample_q[asked.kind_q != NO_KIND] < 30).all()
    assert any("s1 gets no absent prompts" in note for note in asked.notes)


@pytest.mark.parametrize("prompts", [Prompts(evidence=[Evidence.VERIFIED]), Prompts(absent_per_image=0)])
def test_evidence_that_the_recipe_leaves_out_is_not_asked_in_train(prompts: Prompts) -> None:
    asked = asked_train(make_inventory(random_states(np.random.default_rng(4), 60, 12)), prompts)
    assert (asked.kind_q == NO_KIND).all()
    assert any("no absent prompts" in note for note in asked.notes)


def test_shortfalls_are_counted_when_candidates_run_out() -> None:
    states = np.full((30, 4), PRESENT, np.int8)
    states[:, 3] = -1
    asked = asked_train(make_inventory(states), Prompts(kinds={NegativeKind.RANDOM: 1.0}))
    assert (asked.kind_q != NO_KIND).sum() == 30
    assert any("30 of 150 absent prompts" in note for note in asked.notes)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40), st.integers(0, 200))
def test_pour_fills_to_the_total_or_to_the_brim(places: list[tuple[int, int]], total: int) -> None:
    base, room = (np.array(c) for c in zip(*places, strict=True))
    base = np.minimum(base, total // len(base))
    poured = pour(total, base, room)
    assert (poured <= room).all()
    assert poured.sum() == min(total, room.sum())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_kinds_are_within_one_over_the_split_where_there_is_room(places: list[tuple[int, int]]) -> None:
    count, hard = (np.array(c) for c in zip(*places, strict=True))
    room = np.stack([np.minimum(hard, 9), np.full(len(count), 9)], axis=1)
    wanted = apportion(int(count.sum()), [0.4, 0.6])
    shared = share_kinds(count, wanted, Room(room_nk=room))
    np.testing.assert_array_equal(shared.sum(axis=1), count)
    assert shared[:, 0].sum() == min(wanted[0], np.minimum(count, hard).sum())


def test_prompts_of_many_generated_pictures_take_no_memory_for_phrases_not_asked() -> None:
    histogram = np.ones(4000, np.int64)
    tracemalloc.start()
    sample, _ = ask_generated(1000, 2, histogram, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(sample) == 2000
    assert peak < 4 << 20  # all ranks of all pictures would be 32 MB


def test_generated_prompts_follow_the_real_histogram_without_repeats() -> None:
    histogram = np.array([0, 50, 10, 40, 0, 100])
    sample, phrase = ask_generated(4000, 2, histogram, np.random.default_rng(0))
    assert set(phrase.tolist()) <= {1, 2, 3, 5}
    assert all(len(set(pair)) == 2 for pair in phrase.reshape(-1, 2).tolist())
    counts = np.bincount(phrase, minlength=6)
    assert counts[5] > counts[1] > counts[3] > counts[2]
    np.testing.assert_array_equal(sample, np.repeat(np.arange(4000), 2))
