"""Labels taken away and added, against what a dictionary would say."""

import numpy as np

from shards.inventory import ABSENT, KNOWN_BY, MASK_STATES, PRESENT, STATES, Inventory
from shards.relabelled import with_presences, without_labels
from shards.sources.source import LabelState
from tests.inventories import make_inventory

OPEN = STATES.index(LabelState.OPEN)


def states(inventory: Inventory) -> dict[tuple[int, int], int]:
    labels = inventory.labels
    owner = np.repeat(np.arange(inventory.num_images), np.diff(labels.starts))
    return dict(zip(zip(owner.tolist(), labels.phrase_l.tolist(), strict=True), labels.state_l.tolist(), strict=True))


def test_labels_that_are_gone_are_gone_and_the_others_stay() -> None:
    inventory = make_inventory(np.array([[PRESENT, ABSENT], [-1, PRESENT], [OPEN, -1]], np.int8))
    found = without_labels(inventory, np.array([True, False, True, False]))
    assert states(found) == {(0, 1): ABSENT, (2, 0): OPEN}
    assert found.labels.starts.tolist() == [0, 1, 1, 2]


def test_a_found_presence_replaces_what_was_said_and_has_no_mask() -> None:
    inventory = make_inventory(np.array([[PRESENT, ABSENT], [-1, PRESENT], [OPEN, -1]], np.int8))
    found = with_presences(inventory, np.array([2, 0, 1, 0]), np.array([0, 1, 0, 1], np.int32))
    assert states(found) == {(0, 0): PRESENT, (0, 1): PRESENT, (1, 0): PRESENT, (1, 1): PRESENT, (2, 0): PRESENT}
    added = found.labels.known_by_l == KNOWN_BY.index("reviewer")
    assert added.sum() == 3
    assert {MASK_STATES[state] for state in found.labels.mask_state_l[added].tolist()} == {"none"}
    assert found.labels.num_bytes_l[added].tolist() == [0, 0, 0]


def test_a_presence_that_is_known_keeps_its_label() -> None:
    inventory = make_inventory(np.array([[PRESENT, -1]], np.int8))
    found = with_presences(inventory, np.array([0]), np.array([0], np.int32))
    assert found.labels.known_by_l.tolist() == inventory.labels.known_by_l.tolist()
