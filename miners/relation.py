"""Which phrases a phrase's presence makes doubtful, as rows of numbers.

A relation is directed: row v holds the phrases whose absence may not be mined where phrase v is present.
"""

# V phrases, R related pairs

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from manifests.ragged import rows_of_groups


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relation:
    """Pairs of phrases (present, doubtful); those of phrase v are `doubtful_r[starts[v] : starts[v + 1]]`, sorted."""

    starts: NDArray[np.int64]  # V + 1
    doubtful_r: NDArray[np.int32]

    @classmethod
    def of_pairs(cls, num_phrases: int, present_r: NDArray[np.int64], doubtful_r: NDArray[np.int64]) -> Self:
        """The relation of some pairs; repeats are dropped."""
        joined = np.unique(present_r.astype(np.int64) * num_phrases + doubtful_r)
        starts = np.searchsorted(joined, np.arange(num_phrases + 1, dtype=np.int64) * num_phrases)
        return cls(starts=starts.astype(np.int64), doubtful_r=(joined % max(num_phrases, 1)).astype(np.int32))

    @property
    def num_phrases(self) -> int:
        """V."""
        return len(self.starts) - 1

    def __or__(self, other: Self) -> Self:
        """All pairs of both."""
        first, second = self.pairs(), other.pairs()
        present_r, doubtful_r = (np.concatenate(columns) for columns in zip(first, second, strict=True))
        return self.of_pairs(self.num_phrases, present_r, doubtful_r)

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Present and doubtful phrase of every pair."""
        present_r = np.repeat(np.arange(self.num_phrases, dtype=np.int64), np.diff(self.starts))
        return present_r, self.doubtful_r.astype(np.int64)

    def holds(self, present: int, doubtful: int) -> bool:
        """Whether the presence of the one makes the absence of the other doubtful."""
        row = self.doubtful_r[self.starts[present] : self.starts[present + 1]]
        return bool(np.any(row == doubtful))

    def expand(
        self, owner: NDArray[np.int64], phrase: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """What each `phrase` makes doubtful, with the owner of each."""
        rows, of_phrase = rows_of_groups(self.starts[phrase], self.starts[phrase + 1] - self.starts[phrase])
        return owner[of_phrase], self.doubtful_r[rows]
