"""Inventories with other labels: some taken away, or presences added that a person found."""

# N pictures, L labels, P presences that a person found, A those of them that are new

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.sample import MaskState
from shards.inventory import KNOWN_BY, MASK_STATES, PRESENT, Inventory, Labels


def owners(labels: Labels) -> NDArray[np.int64]:
    """The picture of every label."""
    return np.repeat(np.arange(len(labels.starts) - 1), np.diff(labels.starts))


def without_labels(inventory: Inventory, gone_l: NDArray[np.bool_]) -> Inventory:
    """The inventory without the labels that are `gone_l`."""
    kept = ~gone_l
    return _with_columns(inventory, owners(inventory.labels)[kept], _columns(inventory.labels, kept))


def with_presences(inventory: Inventory, image_p: NDArray[np.int64], phrase_p: NDArray[np.int32]) -> Inventory:
    """The inventory with a presence without a mask, known by a reviewer, for every pair that is not present already.

    What the labels said of such a pair before (absent, or left open) gives way.
    """
    labels = inventory.labels
    num_phrases = max(1, len(inventory.phrases))
    owner_l = owners(labels)
    pair_l, pair_p = owner_l * num_phrases + labels.phrase_l, np.unique(image_p * num_phrases + phrase_p)
    pair_p = pair_p[~np.isin(pair_p, pair_l[labels.state_l == PRESENT])]
    kept = ~np.isin(pair_l, pair_p)
    image_a, phrase_a = np.divmod(pair_p, num_phrases)
    added = {
        "phrase_l": phrase_a,
        "state_l": np.full(len(pair_p), PRESENT),
        "mask_state_l": np.full(len(pair_p), MASK_STATES.index(MaskState.NONE)),
        "known_by_l": np.full(len(pair_p), KNOWN_BY.index("reviewer")),
    }
    nothing = np.zeros(len(pair_p), np.int64)
    columns = {
        name: np.concatenate([column, added.get(name, nothing).astype(column.dtype)])
        for name, column in _columns(labels, kept).items()
    }
    return _with_columns(inventory, np.concatenate([owner_l[kept], image_a]), columns)


def _columns(labels: Labels, kept: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    names = [field.name for field in fields(Labels) if field.name != "starts"]
    return {name: getattr(labels, name)[kept] for name in names}


def _with_columns(inventory: Inventory, owner_l: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> Inventory:
    order = np.argsort(owner_l, kind="stable")
    starts = np.searchsorted(owner_l[order], np.arange(inventory.num_images + 1)).astype(np.int64)
    labels = Labels(starts=starts, **{name: column[order] for name, column in columns.items()})
    return replace(inventory, labels=labels)
