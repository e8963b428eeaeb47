"""The mined absences that the drawn samples may be asked: how much room they give, and which of them are taken.

A miner has its favourites: a phrase that stands in few pictures may be near to thousands. Were they all asked, the
phrase alone would say "absent". So a kind's rows of one phrase are held to a small multiple of the phrase's share of
all absences, the smallest for which the kinds still come out as wanted; among what is left each phrase is drawn in
proportion to what it still lacks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from manifests.sample import KINDS, NegativeKind
from shards.candidates import Candidates
from shards.mined import Mined

# N real samples of a split, O offers (sorted by sample and phrase), V phrases, K mined kinds, L kinds from labels
_ROWS_AT_ONCE = 1 << 10  # drawn together before the prior is read again; a constant that shapes the draw
MULTIPLES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0, 32.0)  # of a phrase's share that a kind may take, tried in turn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Offers:
    """Mined rows, once for every sample that they may be put to."""

    kinds: tuple[NegativeKind, ...]  # K, hardest first
    row_o: NDArray[np.int64]  # row of `Mined`
    sample_o: NDArray[np.int64]
    phrase_o: NDArray[np.int32]
    kind_o: NDArray[np.int64]  # index into `kinds`
    place_o: NDArray[np.int64]  # among the offers of its kind and phrase, the hardest first
    column_o: NDArray[np.int64]  # of the candidate that labels make of it, too; -1 where only mining gives it
    known_ol: NDArray[np.bool_]  # whether each kind from labels could ask it, too (L kinds)
    num_outside: int = 0  # rows for these samples whose phrase the vocabulary does not hold

    def room_nk(self, num_samples: int) -> NDArray[np.int64]:
        """Offers of each kind to each sample; no two share a phrase."""
        num_kinds = len(self.kinds)
        counted = np.bincount(self.sample_o * num_kinds + self.kind_o, minlength=num_samples * num_kinds)
        return counted.reshape(num_samples, num_kinds)

    def among(self, known_bc: NDArray[np.bool_], block: NDArray[np.int64]) -> tuple[slice, NDArray[np.bool_]]:
        """The offers to the samples of `block`, a run of positions, and whether each is a cell of `known_bc`."""
        start, end = np.searchsorted(self.sample_o, [block[0], block[-1] + 1])
        row, column = self.sample_o[start:end] - block[0], self.column_o[start:end]
        held = column >= 0
        held[held] = known_bc[row[held], column[held]]
        return slice(int(start), int(end)), held

    def beside_n(self, num_samples: int) -> NDArray[np.int64]:
        """Offers to each sample that no kind from labels could ask."""
        return np.bincount(self.sample_o[~self.known_ol.any(axis=1)], minlength=num_samples)

    def notes(self) -> tuple[str, ...]:
        """What was not offered, in a sentence; none where all was."""
        if not self.num_outside:
            return ()
        return (f"mined: {self.num_outside} rows for train's pictures are of phrases outside prompts.vocabulary",)

    def thinned(self, multiple: float, target_v: NDArray[np.float64], shares: Sequence[float]) -> "Offers":
        """The hardest offers of every phrase and kind, up to `multiple` times the phrase's share of that kind."""
        most_o = np.ceil(multiple * target_v[self.phrase_o] * np.asarray(shares)[self.kind_o])
        return self._only(self.place_o < most_o)

    def _only(self, kept_o: NDArray[np.bool_]) -> "Offers":
        names = ("row_o", "sample_o", "phrase_o", "kind_o", "place_o", "column_o", "known_ol")
        return replace(self, **{name: getattr(self, name)[kept_o] for name in names})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Taken:
    """Mined absences that samples are asked, sorted by sample."""

    row_t: NDArray[np.int64]  # row of `Mined`
    sample_t: NDArray[np.int64]
    phrase_t: NDArray[np.int32]
    column_t: NDArray[np.int64]  # see `Offers.column_o`
    kind_t: NDArray[np.int8]  # index into KINDS
    known_tl: NDArray[np.bool_]  # see `Offers.known_ol`

    def lost_nl(self, num_samples: int) -> NDArray[np.int64]:
        """How many candidates of each kind from labels each sample has lost to them."""
        lost_nl = np.zeros((num_samples, self.known_tl.shape[1]), np.int64)
        np.add.at(lost_nl, self.sample_t, self.known_tl)
        return lost_nl

    def strike(self, allowed_bc: NDArray[np.bool_], block: NDArray[np.int64]) -> None:
        """Take the cells out of `allowed_bc` that the samples of `block`, a run of positions, are asked already."""
        if not len(block):
            return
        start, end = np.searchsorted(self.sample_t, [block[0], block[-1] + 1])
        column = self.column_t[start:end]
        here = column >= 0
        allowed_bc[self.sample_t[start:end][here] - block[0], column[here]] = False


def make_offers(
    mined: Mined | None, candidates: Candidates, pictures: NDArray[np.int64], kinds: Sequence[NegativeKind], others: int
) -> Offers:
    """What `mined` offers to the samples that show `pictures`, of some kinds and within the vocabulary.

    There are `others` kinds from labels; `known_ol` is not filled in yet.
    """
    if mined is None or not kinds:
        none = np.empty(0, np.int64)
        return Offers(
            kinds=tuple(kinds),
            row_o=none,
            sample_o=none,
            phrase_o=none.astype(np.int32),
            kind_o=none,
            place_o=none,
            column_o=none,
            known_ol=np.zeros((0, others), np.bool_),
        )
    kind_of = np.full(len(KINDS), -1)
    kind_of[[KINDS.index(kind) for kind in kinds]] = np.arange(len(kinds))
    row, sample = mined.rows_of(pictures)
    asked = kind_of[mined.kind_m[row]] >= 0
    inside = candidates.vocabulary_v[mined.phrase_m[row]]
    row, sample = row[asked & inside], sample[asked & inside]
    phrase, kind = mined.phrase_m[row], kind_of[mined.kind_m[row]]
    return Offers(
        kinds=tuple(kinds),
        row_o=row,
        sample_o=sample,
        phrase_o=phrase,
        kind_o=kind,
        place_o=_places(mined, row, sample, kind),
        column_o=np.where(mined.denied_m[row], candidates.column_v[phrase], -1),
        known_ol=np.zeros((len(row), others), np.bool_),
        num_outside=int((asked & ~inside).sum()),
    )


def _places(
    mined: Mined, row: NDArray[np.int64], sample: NDArray[np.int64], kind: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The place of each offer among those of its kind and phrase: by rank, standard score and sample."""
    phrase = mined.phrase_m[row]
    rank = mined.rank_m[row].view(np.uint32)  # one without a rank, -1, comes last
    order = np.lexsort((sample, -mined.standard_score_m[row], rank, phrase, kind))
    group = kind[order] * (int(phrase.max(initial=0)) + 1) + phrase[order]
    first = np.searchsorted(group, group, side="left")
    place = np.empty(len(row), np.int64)
    place[order] = np.arange(len(row)) - first
    return place


def take(
    offers: Offers,
    count_nk: NDArray[np.int64],
    target_v: NDArray[np.float64],
    asked_v: NDArray[np.int64],
    rng: np.random.Generator,
) -> Taken:
    """As many offers of each kind as `count_nk` says, each phrase in proportion to what it still lacks.

    `asked_v` is counted on. Source: Gumbel top-k (Kool et al., 2019, arXiv 1903.06059).
    """
    chosen = [np.empty(0, np.int64)]
    for k in range(len(offers.kinds)):
        rows = np.flatnonzero(offers.kind_o == k)
        sample_r = offers.sample_o[rows]
        edges = np.searchsorted(sample_r, sample_r[::_ROWS_AT_ONCE], side="left")  # no sample is cut in two
        for start, end in pairwise([*edges.tolist(), len(rows)]):
            here = rows[start:end]
            phrase, sample = offers.phrase_o[here], offers.sample_o[here]
            weight = _weight(target_v[phrase], asked_v[phrase])
            order = np.lexsort((-(weight + rng.gumbel(size=len(here))), sample))
            rank = np.arange(len(here)) - np.searchsorted(sample, sample, side="left")
            picked = here[order[rank < count_nk[sample, k]]]
            np.add.at(asked_v, offers.phrase_o[picked], 1)
            chosen.append(picked)
    found = np.sort(np.concatenate(chosen))
    return Taken(
        row_t=offers.row_o[found],
        sample_t=offers.sample_o[found],
        phrase_t=offers.phrase_o[found],
        column_t=offers.column_o[found],
        known_tl=offers.known_ol[found],
        kind_t=np.array([KINDS.index(kind) for kind in offers.kinds], np.int8)[offers.kind_o[found]],
    )


def _weight(target_o: NDArray[np.float64], asked_o: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logarithm of what each phrase still lacks; of those that lack nothing the least overdone goes first."""
    lacking_o = target_o - asked_o
    overdone_o = np.maximum(-lacking_o, 0) / np.maximum(target_o, 1)
    return np.log(np.maximum(lacking_o, 1e-3)) - overdone_o
