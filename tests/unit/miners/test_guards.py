"""Each guard on its own: what it takes out, and what it leaves."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from miners import guards
from miners.outside import NO_MASK, Said
from miners.relation import Relation
from shards import labelled
from shards.inventory import ABSENT, PRESENT, STATES, Inventory
from shards.sources.source import LabelState
from tests.inventories import make_inventory

OPEN = STATES.index(LabelState.OPEN)
NONE = -1
NO_PICTURE = np.array([], np.int64)


def states(*rows: list[int]) -> NDArray[np.int8]:
    return np.array(rows, np.int8)


def every_pair(inventory: Inventory) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """All pictures with all phrases, picture by picture."""
    num, num_phrases = inventory.num_images, len(inventory.phrases)
    return np.repeat(np.arange(num), num_phrases), np.tile(np.arange(num_phrases, dtype=np.int32), num)


def left_open(inventory: Inventory, *open_over: list[str], **vocabularies: tuple[str, ...]) -> Inventory:
    """`inventory`, whose pictures leave open the vocabularies that `open_over` names, picture by picture."""
    column = pa.array(open_over, pa.list_(pa.string()))
    place = inventory.images.schema.get_field_index("open_over")
    return replace(inventory, images=inventory.images.set_column(place, "open_over", column), vocabularies=vocabularies)


def said(presence: float, *, image: int = 0, phrase: int = 0, num_phrases: int = 2) -> Said:
    return Said(
        image_p=np.array([image]),
        phrase_p=np.array([phrase], np.int32),
        presence_p=np.array([presence]),
        mask_p=np.array([NO_MASK]),
        masks=(),
        num_phrases=num_phrases,
        rejects=(),
        num_rejects={},
    )


def test_what_labels_call_present_or_open_is_taken_out_and_what_they_deny_stays() -> None:
    inventory = make_inventory(states([PRESENT, OPEN, ABSENT, NONE]))
    assert guards.annotation(inventory, *every_pair(inventory)).tolist() == [True, True, False, False]


def test_what_a_present_phrase_implies_is_taken_out() -> None:
    inventory = make_inventory(states([PRESENT, NONE, NONE]), implies=[[0, 2], [1], [2]])
    assert guards.annotation(inventory, *every_pair(inventory)).tolist() == [True, False, True]


def test_a_vocabulary_left_open_is_taken_out_unless_denied_by_name_or_exhaustive_elsewhere() -> None:
    rows = states([NONE, ABSENT, NONE, NONE], [NONE, ABSENT, NONE, NONE], [NONE, NONE, NONE, NONE])
    bare = make_inventory(rows, exhaustive_n=np.array([False, True, False]), implies=[[0, 3], [1], [2], [3]])
    inventory = left_open(bare, ["federated"], ["federated"], [], federated=("P0", "p1"))
    found = guards.annotation(inventory, *every_pair(inventory)).reshape(3, 4)
    assert found[0].tolist() == [True, False, False, True]  # p3 is said by p0, which nobody looked for
    assert not found[1].any()
    assert not found[2].any()


def test_an_absence_is_known_by_an_exhaustive_vocabulary_or_by_name_and_never_against_a_presence() -> None:
    rows = states([PRESENT, NONE, NONE], [PRESENT, ABSENT, NONE], [ABSENT, PRESENT, NONE])
    inventory = make_inventory(rows, exhaustive_n=np.array([True, False, False]), implies=[[0], [1, 0], [2]])
    found = guards.known_absent(inventory, *every_pair(inventory)).reshape(3, 3)
    assert found.tolist() == [[False, True, True], [False, True, False], [False, False, False]]


def test_a_source_that_is_exhaustive_over_nothing_still_yields_rows() -> None:
    inventory = make_inventory(states([PRESENT, NONE, NONE]), exhaustive_n=np.array([False]))
    pairs = every_pair(inventory)
    assert (~guards.annotation(inventory, *pairs)).sum() == 2
    assert not guards.known_absent(inventory, *pairs).any()


def test_what_a_present_or_open_phrase_makes_doubtful_is_taken_out_in_one_direction() -> None:
    relation = Relation.of_pairs(3, np.array([0, 1]), np.array([1, 2]))
    inventory = make_inventory(states([PRESENT, NONE, NONE], [NONE, OPEN, NONE], [ABSENT, NONE, PRESENT]))
    found = guards.semantic(relation, inventory, *every_pair(inventory)).reshape(3, 3)
    assert found.tolist() == [[False, True, False], [False, False, True], [False, False, False]]


def test_many_pictures_are_looked_up_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    inventory = make_inventory(rng.integers(-1, 3, (40, 5)).astype(np.int8), exhaustive_n=rng.random(40) < 0.5)
    image_c, phrase_c = rng.integers(0, 40, 900), rng.integers(0, 5, 900).astype(np.int32)
    at_once = guards.annotation(inventory, image_c, phrase_c)
    assert at_once.any()
    monkeypatch.setattr(labelled, "_BLOCK_CELLS", 15)
    assert np.array_equal(guards.annotation(inventory, image_c, phrase_c), at_once)


def test_no_candidate_is_no_candidate() -> None:
    inventory = make_inventory(states([PRESENT, NONE]))
    relation = Relation.of_pairs(2, NO_PICTURE, NO_PICTURE)
    none = (NO_PICTURE, np.array([], np.int32))
    assert not len(guards.annotation(inventory, *none))
    assert not len(guards.known_absent(inventory, *none))
    assert not len(guards.semantic(relation, inventory, *none))
    assert not len(guards.duplicate(inventory, np.array([0]), *none))


def test_a_near_copy_of_a_picture_that_shows_the_phrase_is_taken_out() -> None:
    rows = states([PRESENT, NONE, NONE], [NONE, NONE, NONE], [NONE, NONE, NONE], [NONE, OPEN, NONE])
    inventory = make_inventory(rows, implies=[[0, 2], [1], [2]])
    found = guards.duplicate(inventory, np.array([0, 0, 2, 0]), *every_pair(inventory)).reshape(4, 3)
    assert found[1].tolist() == [True, True, True]
    assert not found[2].any()


def test_a_near_copy_also_makes_related_phrases_doubtful() -> None:
    inventory = make_inventory(states([PRESENT, NONE], [NONE, NONE]))
    relation = Relation.of_pairs(2, np.array([0]), np.array([1]))
    group_n = np.array([0, 0])
    pairs = every_pair(inventory)
    assert guards.duplicate(inventory, group_n, *pairs).tolist() == [True, False, True, False]
    assert guards.duplicate(inventory, group_n, *pairs, relation=relation).all()


def test_an_alarm_that_lies_on_nothing_known_may_be_true() -> None:
    assert guards.overlap(np.array([0.49, 0.5, 1.0, np.nan])).tolist() == [True, False, False, True]


def test_a_second_model_takes_out_verifies_or_says_nothing() -> None:
    image_c, phrase_c = np.array([0, 0, 1]), np.array([0, 1, 0], np.int32)
    for presence, expected in ((0.5, (True, False)), (0.49, (False, True))):
        found = guards.verifier(said(presence), image_c, phrase_c)
        assert (found.rejected_c[0], found.verified_c[0]) == expected
        assert not found.rejected_c[1:].any()
        assert not found.verified_c[1:].any()


def test_a_person_takes_out_or_verifies() -> None:
    image_c, phrase_c = np.array([0]), np.array([0], np.int32)
    assert guards.reviewer(said(1.0), image_c, phrase_c).rejected_c.all()
    assert guards.reviewer(said(0.0), image_c, phrase_c).verified_c.all()


def test_relations_join() -> None:
    one = Relation.of_pairs(3, np.array([0, 0]), np.array([2, 2]))
    both = one | Relation.of_pairs(3, np.array([2]), np.array([1]))
    assert [both.holds(0, 2), both.holds(2, 1), both.holds(2, 0)] == [True, True, False]
    assert len(both.doubtful_r) == 2
