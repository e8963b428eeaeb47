"""The phrases that may be asked as absent, image by image, and how hard each would be."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.sample import NegativeKind
from shards.inventory import ABSENT, Inventory

# V phrases, C candidate phrases (columns), B images of a block
LABELLED_HARD_FIRST = (NegativeKind.CO_OCCURRING, NegativeKind.POPULAR, NegativeKind.RANDOM)
BLOCK_CELLS = 1 << 13  # rows × columns drawn together before the prior is read again; a constant that shapes the draw


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statistics:
    """What the train split says of each candidate phrase."""

    columns: NDArray[np.int32]  # phrase of each column
    count_c: NDArray[np.int64]  # train samples in which it is present
    beside_cc: NDArray[np.float64]  # P(column present | row present) over train, in whole millionths: sums are exact


class Candidates:
    """The phrases that may be asked as absent, sample by sample."""

    def __init__(self, inventory: Inventory, vocabulary_v: NDArray[np.bool_]) -> None:
        labels = inventory.labels
        possible_v = np.any(inventory.vocabulary_g, axis=0)
        possible_v[labels.phrase_l[labels.state_l == ABSENT]] = True
        self.inventory = inventory
        self.vocabulary_v = vocabulary_v  # phrases that may be asked as absent at all
        self.columns: NDArray[np.int32] = np.flatnonzero(possible_v & vocabulary_v).astype(np.int32)
        self.column_v = np.full(len(inventory.phrases), -1, np.int64)
        self.column_v[self.columns] = np.arange(len(self.columns))
        self._vocabulary_gc = inventory.vocabulary_g[:, self.columns]

    def blocks(self, pictures: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Positions in `pictures`, as many together as fit in BLOCK_CELLS."""
        rows = max(1, BLOCK_CELLS // max(1, len(self.columns)))
        for start in range(0, len(pictures), rows):
            yield np.arange(start, min(start + rows, len(pictures)))

    def allowed(self, pictures: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each candidate (columns) is known to be absent from each of `pictures` (rows)."""
        labels = self.inventory.labels
        allowed_bc = self._vocabulary_gc[self.inventory.group_n[pictures]]
        rows, owner = labels.rows_of(pictures)
        denied = labels.state_l[rows] == ABSENT
        self._set(allowed_bc, owner[denied], labels.phrase_l[rows[denied]], value=True)
        self._set(allowed_bc, *self.inventory.blocked(pictures), value=False)
        return allowed_bc

    def present(self, pictures: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each candidate (columns) is present in each of `pictures` (rows)."""
        present_bc = np.zeros((len(pictures), len(self.columns)), np.bool_)
        rows, owner = self.inventory.present(pictures)
        self._set(present_bc, owner, self.inventory.labels.phrase_l[rows], value=True)
        return present_bc

    def _set(
        self, cells_bc: NDArray[np.bool_], owner: NDArray[np.int64], phrase: NDArray[np.int32], *, value: bool
    ) -> None:
        column = self.column_v[phrase]
        here = column >= 0
        cells_bc[owner[here], column[here]] = value


def train_statistics(candidates: Candidates, pictures: NDArray[np.int64]) -> Statistics:
    """Frequencies and co-occurrence over the train samples `pictures`."""
    num = len(candidates.columns)
    together_cc = np.zeros((num, num), np.float32)
    for block in candidates.blocks(pictures):
        present_bc = candidates.present(pictures[block]).astype(np.float32)
        together_cc += present_bc.T @ present_bc
    count_c = np.diagonal(together_cc).astype(np.int64)
    beside_cc: NDArray[np.float64] = np.rint(1e6 * together_cc.astype(np.float64) / np.maximum(count_c, 1)[:, None])
    np.fill_diagonal(beside_cc, 0)
    return Statistics(columns=candidates.columns, count_c=count_c, beside_cc=beside_cc)


def hardness(kind: NegativeKind, statistics: Statistics, present_bc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How hard each candidate is by the rule of `kind`; 0 where the kind does not know it."""
    match kind:
        case NegativeKind.CO_OCCURRING:
            return present_bc.astype(np.float64) @ statistics.beside_cc
        case NegativeKind.POPULAR:
            return np.broadcast_to(statistics.count_c.astype(np.float64), present_bc.shape)
        case NegativeKind.RANDOM:
            return np.ones(present_bc.shape)
        case (
            NegativeKind.BLANK
            | NegativeKind.NOISE
            | NegativeKind.NEAR_TEXT
            | NegativeKind.NEAR_IMAGE
            | NegativeKind.FALSE_ALARM
        ):
            raise ValueError(f"{kind} does not come from labels")
