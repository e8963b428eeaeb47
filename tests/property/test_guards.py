"""The guards over thousands of random label tables: nothing annotated passes, and no order matters."""

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from miners import guards
from miners.relation import Relation
from shards.inventory import ABSENT, Inventory
from tests.inventories import make_inventory, random_states

Rule = Callable[[NDArray[np.int64], NDArray[np.int32]], NDArray[np.bool_]]

seeds = st.integers(0, 2**32)


def make_case(rng: np.random.Generator) -> tuple[Inventory, Relation, NDArray[np.int64]]:
    """Pictures with labels, a relation over their phrases, and groups of near-duplicates."""
    num, num_phrases = int(rng.integers(1, 30)), int(rng.integers(1, 12))
    implies = [sorted({v, *rng.integers(0, num_phrases, rng.integers(0, 3)).tolist()}) for v in range(num_phrases)]
    labels = random_states(rng, num, num_phrases, share_open=0.1)
    labels[rng.random(labels.shape) < 0.1] = ABSENT
    inventory = make_inventory(labels, exhaustive_n=rng.random(num) < 0.5, implies=implies)
    related = rng.integers(0, num_phrases, (2, 8))
    group_n = np.minimum(np.arange(num), rng.integers(0, num, num))
    return inventory, Relation.of_pairs(num_phrases, *related), group_n[group_n]


def candidates(rng: np.random.Generator, inventory: Inventory) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    num = int(rng.integers(0, 200))
    image_c = rng.integers(0, inventory.num_images, num)
    return image_c, rng.integers(0, len(inventory.phrases), num).astype(np.int32)


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_nothing_that_labels_call_present_or_open_or_imply_ever_passes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inventory, _, _ = make_case(rng)
    image_c, phrase_c = candidates(rng, inventory)
    taken = guards.annotation(inventory, image_c, phrase_c)
    known = guards.known_absent(inventory, image_c, phrase_c)
    assert not (taken & known).any()
    labels = inventory.labels
    for image, phrase, out in zip(image_c.tolist(), phrase_c.tolist(), taken.tolist(), strict=True):
        rows = range(labels.starts[image], labels.starts[image + 1])
        said = [int(labels.phrase_l[row]) for row in rows if labels.state_l[row] != ABSENT]
        implied = {
            int(v)
            for w in said
            for v in inventory.implied[inventory.implied_starts[w] : inventory.implied_starts[w + 1]]
        }
        assert out == (phrase in implied)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_each_guard_answers_for_a_candidate_whatever_stands_beside_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inventory, relation, group_n = make_case(rng)
    image_c, phrase_c = candidates(rng, inventory)
    order = rng.permutation(len(image_c))[: int(rng.integers(0, len(image_c) + 1))]
    rules: tuple[Rule, ...] = (
        lambda i, p: guards.annotation(inventory, i, p),
        lambda i, p: guards.known_absent(inventory, i, p),
        lambda i, p: guards.semantic(relation, inventory, i, p),
        lambda i, p: guards.duplicate(inventory, group_n, i, p, relation=relation),
    )
    for rule in rules:
        assert np.array_equal(rule(image_c[order], phrase_c[order]), rule(image_c, phrase_c)[order])
