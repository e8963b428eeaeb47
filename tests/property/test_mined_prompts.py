"""Mined absences among the four rules of prompts, over random labels and random tables."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from manifests.recipe import MINED_KINDS, Prompts
from manifests.sample import KINDS, Evidence, NegativeKind
from shards.allotment import Room, share_kinds
from shards.candidates import Candidates, train_statistics
from shards.inventory import ABSENT, PRESENT, STATES, Inventory
from shards.mined import Mined
from shards.mixing import apportion
from shards.prompts import NO_KIND, NOT_MINED, Asked, ask_train
from shards.shortcuts import guessed_auc
from shards.sources.source import LabelState
from tests.inventories import make_inventory, random_states
from tests.mined_rows import make_mined

OPEN = STATES.index(LabelState.OPEN)
QUARTERS = dict.fromkeys(
    (NegativeKind.RANDOM, NegativeKind.CO_OCCURRING, NegativeKind.NEAR_TEXT, NegativeKind.NEAR_IMAGE), 0.25
)
KIND_SHARES = [
    QUARTERS,
    {NegativeKind.NEAR_TEXT: 1.0},
    {NegativeKind.NEAR_IMAGE: 0.3, NegativeKind.FALSE_ALARM: 0.3, NegativeKind.POPULAR: 0.4},
]

worlds = st.builds(
    lambda seed, num, phrases: (np.random.default_rng(seed), num, phrases),
    st.integers(0, 2**32),
    st.integers(1, 50),
    st.integers(2, 24),
)


def asked(inventory: Inventory, prompts: Prompts, mined: Mined | None, seed: int = 0) -> Asked:
    pictures = np.arange(inventory.num_images)
    candidates = Candidates(inventory, np.ones(len(inventory.phrases), np.bool_))
    statistics = train_statistics(candidates, pictures)
    return ask_train(candidates, statistics, pictures, prompts, np.random.default_rng(seed), mined)


def mined_at_random(inventory: Inventory, rng: np.random.Generator, per_image: int) -> Mined:
    num = inventory.num_images * per_image
    picture, phrase = rng.integers(0, inventory.num_images, num), rng.integers(0, len(inventory.phrases), num)
    return make_mined(inventory, picture, phrase, rng.integers(0, len(MINED_KINDS), num), rng)


@settings(max_examples=150, deadline=None)
@given(worlds, st.floats(0, 6), st.sampled_from(KIND_SHARES), st.integers(0, 12))
def test_no_present_open_or_unbacked_phrase_is_asked_and_none_twice(
    world: tuple[np.random.Generator, int, int], absent: float, kinds: dict[NegativeKind, float], per_image: int
) -> None:
    rng, num, num_phrases = world
    states = random_states(rng, num, num_phrases, share_open=0.1)
    implies = [sorted({v, *rng.integers(0, num_phrases, rng.integers(0, 3)).tolist()}) for v in range(num_phrases)]
    inventory = make_inventory(states, exhaustive_n=rng.random(num) < 0.6, implies=implies)
    mined = mined_at_random(inventory, rng, per_image)
    found = asked(inventory, Prompts(absent_per_image=absent, kinds=kinds), mined)
    pairs = list(zip(found.sample_q.tolist(), found.phrase_q.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for (sample, phrase), kind, row in zip(pairs, found.kind_q.tolist(), found.mined_q.tolist(), strict=True):
        if kind == NO_KIND:
            continue
        blocked = {i for v in np.flatnonzero(np.isin(states[sample], (PRESENT, OPEN))) for i in implies[v]}
        assert phrase not in blocked
        assert (row != NOT_MINED) == (KINDS[kind] in MINED_KINDS)
        if row == NOT_MINED:
            assert inventory.exhaustive_n()[sample] or states[sample, phrase] == ABSENT
        else:
            assert (mined.image_m[row], mined.phrase_m[row], mined.kind_m[row]) == (sample, phrase, kind)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 60), st.integers(1, 5))
def test_counts_and_kinds_are_exact_where_candidates_suffice(seed: int, num: int, absent: int) -> None:
    rng = np.random.default_rng(seed)
    states = random_states(rng, num, 60, share_present=0.06, share_open=0.0)
    states[:, 0] = PRESENT
    exhaustive = rng.random(num) < 0.8
    exhaustive[0] = True
    inventory = make_inventory(states, exhaustive_n=exhaustive, source_n=(~exhaustive).astype(np.int16))
    mined = mined_at_random(inventory, rng, 40)
    found = asked(inventory, Prompts(absent_per_image=absent, kinds=QUARTERS, present_per_image=100), mined)
    is_absent = found.kind_q != NO_KIND
    per_sample = np.bincount(found.sample_q[is_absent], minlength=num)
    for source, wanted in found.absent_requested.items():
        here = inventory.source_n == source
        assert abs(int(per_sample[here].sum()) - wanted) <= 1 or any("absent prompts" in n for n in found.notes)
    counts = Counter(found.kind_q[is_absent].tolist())
    if not found.notes:
        held = [counts[KINDS.index(kind)] for kind in QUARTERS]
        assert sum(held) == is_absent.sum()
        assert np.abs(np.array(held) - is_absent.sum() / 4).max() <= 1


def most_by_flow(count_n: NDArray[np.int64], wanted: list[int], room: Room) -> int:
    """The most slots that any allotment fills with no kind above what is wanted: a plain search for augmenting paths.

    Slots and wants are single units here; a slot of sample n may take a unit of a kind while the rules of `room` hold.
    """
    num, num_kinds = room.room_nk.shape
    best = 0
    seen: set[tuple[int, tuple[int, ...]]] = set()

    def fill(n: int, left: tuple[int, ...], filled: int) -> None:
        nonlocal best
        best = max(best, filled)
        if n == num or (n, left) in seen:
            return
        seen.add((n, left))
        for held in np.ndindex(*(int(count_n[n]) + 1,) * num_kinds):
            apart = all(held[k] <= room.room_nk[n, k] for k in range(room.num_apart))
            nested = np.cumsum(held[room.num_apart :]) <= room.room_nk[n, room.num_apart :]
            if sum(held) <= count_n[n] and apart and nested.all() and all(map(int.__le__, held, left)):
                fill(n + 1, tuple(a - b for a, b in zip(left, held, strict=True)), filled + sum(held))

    fill(0, tuple(wanted), 0)
    return best


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), *[st.integers(0, 2)] * 4), min_size=1, max_size=4),
    st.tuples(*[st.integers(0, 3)] * 4),
)
def test_kinds_come_as_near_to_what_is_wanted_as_any_allotment(
    places: list[tuple[int, int, int, int, int]], shares: tuple[int, int, int, int]
) -> None:
    count_n = np.array([place[0] for place in places])
    room_nk = np.array([place[1:] for place in places])
    room_nk[:, 3] = np.maximum(room_nk[:, 2], room_nk[:, 3])  # the candidates of a hard kind are among the softer one's
    room = Room(room_nk=room_nk, num_apart=2)
    wanted = apportion(int(count_n.sum()), [*shares[:3], shares[3] + 1])
    shared = share_kinds(count_n, wanted, room)
    assert (shared >= 0).all()
    assert (shared.sum(axis=1) <= count_n).all()
    assert (shared[:, :2] <= room_nk[:, :2]).all()
    assert (np.cumsum(shared[:, 2:], axis=1) <= room_nk[:, 2:]).all()
    best = most_by_flow(count_n, wanted, room)
    filled = int(np.minimum(shared.sum(axis=0), wanted).sum())
    # rule 2 comes first: a slot is filled even by a kind that has enough
    over = int((shared.sum(axis=0) - np.array(wanted)).clip(0).sum())
    assert filled == best
    assert filled + over == shared.sum()


def test_sources_without_exhaustive_labels_carry_mined_kinds_alone_and_the_others_make_up_for_it() -> None:
    rng = np.random.default_rng(3)
    states = random_states(rng, 600, 80, share_present=0.05, share_open=0.0)
    states[:, 0] = PRESENT
    exhaustive = np.arange(600) < 400
    inventory = make_inventory(states, exhaustive_n=exhaustive, source_n=(~exhaustive).astype(np.int16))
    found = asked(inventory, Prompts(kinds=QUARTERS, present_per_image=100), mined_at_random(inventory, rng, 30))
    is_absent = found.kind_q != NO_KIND
    assert found.notes == ()
    assert is_absent.sum() == 3000
    assert Counter(found.kind_q[is_absent].tolist()) == {KINDS.index(kind): 750 for kind in QUARTERS}
    unlabelled = found.mined_q[is_absent & (found.sample_q >= 400)]
    assert (unlabelled != NOT_MINED).all()
    source_q = inventory.source_n[found.sample_q]
    ratios = [(is_absent & (source_q == s)).sum() / (~is_absent & (source_q == s)).sum() for s in (0, 1)]
    assert abs(ratios[0] - ratios[1]) < 0.02


def test_what_mining_takes_from_a_kind_of_labels_is_made_up_by_the_next() -> None:
    states = np.full((40, 12), -1, np.int8)
    states[:, 0] = PRESENT
    states[36:, 1] = PRESENT  # so p1 stands beside p0, and is all that co_occurring can ask of the others
    inventory = make_inventory(states)
    phrase = np.where(np.arange(40) < 18, 1, 5)
    near_text = np.full(40, MINED_KINDS.index(NegativeKind.NEAR_TEXT))
    mined = make_mined(inventory, np.arange(40), phrase, near_text, np.random.default_rng(0))
    kinds = dict.fromkeys((NegativeKind.NEAR_TEXT, NegativeKind.CO_OCCURRING, NegativeKind.RANDOM), 1 / 3)
    found = asked(inventory, Prompts(absent_per_image=3, kinds=kinds), mined)
    counts = Counter(KINDS[kind] for kind in found.kind_q.tolist() if kind != NO_KIND)
    assert counts == {NegativeKind.NEAR_TEXT: 40, NegativeKind.CO_OCCURRING: 18, NegativeKind.RANDOM: 62}
    assert "train: 18 of 40 co_occurring prompts; the candidates of that kind ran out" in found.notes


def favourites(inventory: Inventory, rng: np.random.Generator) -> Mined:
    """A miner's rows: as many of every phrase, however rare it is, and rare ones most."""
    num, num_phrases = inventory.num_images, len(inventory.phrases)
    rare = num_phrases - 1 - (rng.random(8 * num) ** 2 * num_phrases).astype(np.int64)
    phrase = np.concatenate([np.repeat(np.arange(num_phrases), 60), rare])
    picture = np.concatenate([rng.integers(0, num, 60 * num_phrases), np.repeat(np.arange(num), 8)])
    kind = np.repeat([MINED_KINDS.index(NegativeKind.NEAR_IMAGE), 0], [60 * num_phrases, 8 * num])
    return make_mined(inventory, picture, phrase, kind, rng)


def test_phrases_that_are_mined_far_more_often_than_present_do_not_give_themselves_away() -> None:
    rng = np.random.default_rng(4)
    frequency = np.minimum(0.5, 0.8 / np.arange(1, 101) ** 0.9)
    states = np.where(rng.random((1200, 100)) < frequency, PRESENT, -1).astype(np.int8)
    inventory = make_inventory(states)
    mined = favourites(inventory, rng)
    found = asked(inventory, Prompts(kinds=QUARTERS), mined)
    is_present = found.kind_q == NO_KIND
    assert guessed_auc(found.phrase_q.astype(np.int64), is_present) < 0.60
    rows = np.concatenate([inventory.labels.phrase_l, mined.phrase_m]).astype(np.int64)
    naive = guessed_auc(rows, np.arange(len(rows)) < len(inventory.labels.phrase_l))
    assert naive > 0.7


def test_mined_rows_outside_the_vocabulary_are_not_asked_and_counted() -> None:
    rng = np.random.default_rng(5)
    inventory = make_inventory(random_states(rng, 60, 12, share_open=0.0))
    mined = mined_at_random(inventory, rng, 10)
    pictures, inside = np.arange(60), np.arange(12) < 8
    candidates = Candidates(inventory, inside)
    statistics = train_statistics(candidates, pictures)
    found = ask_train(candidates, statistics, pictures, Prompts(kinds=QUARTERS), rng, mined)
    assert (found.phrase_q[found.mined_q != NOT_MINED] < 8).all()
    kinds = [KINDS.index(NegativeKind.NEAR_TEXT), KINDS.index(NegativeKind.NEAR_IMAGE)]
    outside = int((np.isin(mined.kind_m, kinds) & (mined.phrase_m >= 8)).sum())
    assert f"mined: {outside} rows for train's pictures are of phrases outside prompts.vocabulary" in found.notes


def test_mined_kinds_are_asked_where_the_evidence_leaves_out_annotated() -> None:
    rng = np.random.default_rng(6)
    inventory = make_inventory(random_states(rng, 60, 12, share_open=0.0), exhaustive_n=np.zeros(60, np.bool_))
    prompts = Prompts(kinds=QUARTERS, evidence=[Evidence.MINED], absent_per_image=1)
    found = asked(inventory, prompts, mined_at_random(inventory, rng, 10))
    assert (found.mined_q[found.kind_q != NO_KIND] != NOT_MINED).all()
    assert (found.kind_q != NO_KIND).sum() == 60
    assert "train: no co_occurring or random prompts; prompts.evidence leaves out annotated" in found.notes


def test_a_source_for_which_nothing_was_mined_is_named() -> None:
    rng = np.random.default_rng(7)
    exhaustive = np.arange(60) < 30
    inventory = make_inventory(
        random_states(rng, 60, 12), exhaustive_n=exhaustive, source_n=(~exhaustive).astype(np.int16)
    )
    found = asked(inventory, Prompts(kinds=QUARTERS), None)
    assert (
        "train: source s1 gets no absent prompts, because its labels deny nothing and nothing was mined for it"
        in found.notes
    )
    assert any(note.startswith("train: 0 of ") and "near_image" in note for note in found.notes)
