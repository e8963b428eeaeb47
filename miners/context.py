"""What stands around: how many of a picture's nearest pictures show a phrase.

A kitchen without a kettle resembles kitchens with one, whatever the kettle itself looks like. Of each picture the
nearest ones of the pool are found once, and their labels vote, weighted by cosine.
"""

# N pictures, K neighbours, V phrases, S pairs of picture and phrase with a vote, C candidates

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.ragged import rows_of_groups
from miners.index import Index
from miners.pool import Pool

NEIGHBOURS = 20
MAX_PICTURES = 1 << 16  # every picture asks for its neighbours, so the cost grows with the square; above it none votes
_LEAST = 0.02  # vote of nobody


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Context:
    """The votes, by picture and phrase."""

    num_phrases: int
    pair_s: NDArray[np.int64]  # row × V + column, sorted
    share_s: NDArray[np.float64]  # 0 to 1

    def bonus(self, row_c: NDArray[np.int64], column_c: NDArray[np.int64]) -> NDArray[np.float64]:
        """The logarithm of the share of votes of each candidate."""
        wanted = row_c * self.num_phrases + column_c
        place = np.minimum(np.searchsorted(self.pair_s, wanted), max(0, len(self.pair_s) - 1))
        if not len(self.pair_s):
            return np.full(len(wanted), np.log(_LEAST))
        found: NDArray[np.float64] = np.log(np.where(self.pair_s[place] == wanted, self.share_s[place], 0.0) + _LEAST)
        return found

    def bonuses(self, start: int, stop: int) -> NDArray[np.float64]:
        """The same for all phrases of the rows `start` to `stop` [B, V]."""
        first, last = np.searchsorted(self.pair_s, [start * self.num_phrases, stop * self.num_phrases])
        share_bv = np.zeros((stop - start) * self.num_phrases)
        share_bv[self.pair_s[first:last] - start * self.num_phrases] = self.share_s[first:last]
        return np.log(share_bv + _LEAST).reshape(stop - start, self.num_phrases)


def can_vote(pool: Pool) -> bool:
    """Whether a pool is small enough for its pictures to vote."""
    return 1 < pool.num_pictures <= MAX_PICTURES


def nobody_votes(pool: Pool) -> Context:
    """A context without votes."""
    return Context(num_phrases=pool.num_phrases, pair_s=np.empty(0, np.int64), share_s=np.empty(0))


def gather_context(pool: Pool, index: Index) -> Context:
    """The votes of every picture's NEIGHBOURS nearest others."""
    found = index.search(pool.images_nd, min(NEIGHBOURS + 1, pool.num_pictures))
    others_nk = (found.rows_qk >= 0) & (found.rows_qk != np.arange(pool.num_pictures)[:, None])
    others_nk &= np.cumsum(others_nk, axis=1) <= NEIGHBOURS
    weight_nk = np.where(others_nk, np.maximum(found.scores_qk, 0.0), 0.0)
    weight_nk /= np.maximum(weight_nk.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    row, near = np.nonzero(weight_nk)
    return _votes(pool, row, found.rows_qk[row, near], weight_nk[row, near])


def _votes(pool: Pool, row_e: NDArray[np.int64], voter_e: NDArray[np.int64], weight_e: NDArray[np.float64]) -> Context:
    """The votes of E pairs of a picture and one that votes for it."""
    shown_row, shown_column = pool.present()
    starts = np.searchsorted(shown_row, np.arange(pool.num_pictures + 1))
    shown, vote = rows_of_groups(starts[voter_e], starts[voter_e + 1] - starts[voter_e])
    pair, of_pair = np.unique(row_e[vote] * pool.num_phrases + shown_column[shown], return_inverse=True)
    share = np.bincount(of_pair, weights=weight_e[vote], minlength=len(pair))
    return Context(num_phrases=pool.num_phrases, pair_s=pair, share_s=np.minimum(share, 1.0))
