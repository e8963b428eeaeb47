"""How many absences each sample carries, and of which kinds: totals exact, shares within one, room respected.

Counts per image come first, then the shares of the kinds. Where a source's labels allow some kinds alone, its images
hold more of those and the others less, so the shares are a flow from images to kinds; it is found by pouring evenly and
then moving what lies wrong along shortest chains of kinds, all images at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.recipe import Prompts
from shards.mixing import spread

# N real samples of a split, K kinds
_NOTHING = -1  # in a chain: slots that hold no kind yet


def absent_by_source(
    source_n: NDArray[np.int16], num_present_n: NDArray[np.int64], room_n: NDArray[np.int64], settings: Prompts
) -> dict[int, float]:
    """Absences asked of each source, so that all have one ratio of present to absent and the mean is the recipe's.

    A source of which nothing can be denied gets none; its share is not moved to others, whose ratio would break.
    """
    total = settings.absent_per_image * len(source_n)
    num_present = int(num_present_n.sum())
    wanted: dict[int, float] = {}
    for source in np.unique(source_n).tolist():
        here = source_n == source
        if not room_n[here].any():
            wanted[source] = 0.0
        elif num_present:
            wanted[source] = total * float(num_present_n[here].sum()) / num_present
        else:
            wanted[source] = settings.absent_per_image * float(here.sum())
    return wanted


def count_absent(
    source_n: NDArray[np.int16],
    wanted_s: Mapping[int, float],
    room_n: NDArray[np.int64],
    num_present_n: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Absences of each sample: its source's total spread within one, moved to others where candidates run out.

    A sample without presences is asked at least one absence, since it was planned to be asked something.
    """
    count_n = np.zeros(len(source_n), np.int64)
    for source, wanted in wanted_s.items():
        here = np.flatnonzero(source_n == source)
        base_n = np.maximum(spread(round(wanted), len(here)), num_present_n[here] == 0)
        count_n[here] = pour(round(wanted), base_n, room_n[here])
    return count_n


def pour(total: int, base_n: NDArray[np.int64], room_n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts near `base_n`, none above its room, that sum to `total` or to all the room that there is."""
    count_n = np.minimum(base_n, room_n)
    while (lacking := total - int(count_n.sum())) > 0:
        spare = np.flatnonzero(count_n < room_n)
        if not len(spare):
            break
        chosen = spare if lacking >= len(spare) else spare[np.arange(lacking) * len(spare) // lacking]
        count_n[chosen] += 1
    return count_n


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Room:
    """How many candidates of each kind each sample has, hardest kind first.

    The first `num_apart` kinds share no candidate with any other; those of each further kind lie among the next one's.
    """

    room_nk: NDArray[np.int64]
    num_apart: int = 0

    def spare(self, count_nk: NDArray[np.int64], kind: int, leaving: int = _NOTHING) -> NDArray[np.int64]:
        """How many absences of each sample could become ones of `kind`, were they taken from the kind `leaving`."""
        if kind < self.num_apart:
            return self.room_nk[:, kind] - count_nk[:, kind]
        last = leaving if leaving > kind else self.room_nk.shape[1]
        if self.num_apart <= leaving < kind:
            return count_nk[:, leaving]  # one among the kind's own candidates is given back
        held_nk = np.cumsum(count_nk[:, self.num_apart :], axis=1)
        left_nk = self.room_nk[:, self.num_apart :] - held_nk
        free_n: NDArray[np.int64] = left_nk[:, kind - self.num_apart : last - self.num_apart].min(axis=1)
        return np.maximum(free_n, 0)


def share_kinds(count_n: NDArray[np.int64], wanted: Sequence[int], room: Room) -> NDArray[np.int64]:
    """How many absences of each kind each sample carries: no sample more than its count, kinds as many as wanted.

    What a sample's candidates lack of a kind is made up on other samples, then by the other kinds, the softest first.
    """
    count_nk = np.zeros_like(room.room_nk)
    running = np.concatenate([[0], np.cumsum(count_n)])
    for k, num in enumerate(wanted):
        edges = running * num // max(1, int(running[-1]))
        free_n = np.minimum(_unfilled(count_n, count_nk), room.spare(count_nk, k))
        count_nk[:, k] = pour(num, np.diff(edges), free_n)
    while _make_up(count_n, count_nk, wanted, room):
        pass
    for k in reversed(range(len(wanted))):
        count_nk[:, k] += np.minimum(_unfilled(count_n, count_nk), room.spare(count_nk, k))
    return count_nk


def _unfilled(count_n: NDArray[np.int64], count_nk: NDArray[np.int64]) -> NDArray[np.int64]:
    left_n: NDArray[np.int64] = count_n - count_nk.sum(axis=1)
    return left_n


def _make_up(count_n: NDArray[np.int64], count_nk: NDArray[np.int64], wanted: Sequence[int], room: Room) -> bool:
    """Fill more slots by one shortest chain to a kind that lacks some; False where no chain is left.

    Source: augmenting paths in a bipartite flow (Edmonds and Karp, 1972), the images of each step taken together.
    """
    before = int(count_nk.sum())
    lacking_k = np.array(wanted) - count_nk.sum(axis=0)
    if before == count_n.sum() or not (lacking_k > 0).any():
        return False
    chain = _shortest_chain(count_n, count_nk, lacking_k, room)
    if not chain:
        return False
    steps = list(zip([_NOTHING, *chain], chain, strict=False))
    movable = [_movable(count_n, count_nk, leaving, kind, room) for leaving, kind in steps]
    amount = min(int(lacking_k[chain[-1]]), *(int(moved_n.sum()) for moved_n in movable))
    for leaving, kind in reversed(steps):
        moved_n = _portion(_movable(count_n, count_nk, leaving, kind, room), amount)
        count_nk[:, kind] += moved_n
        if leaving != _NOTHING:
            count_nk[:, leaving] -= moved_n
    return int(count_nk.sum()) > before


def _movable(
    count_n: NDArray[np.int64], count_nk: NDArray[np.int64], leaving: int, kind: int, room: Room
) -> NDArray[np.int64]:
    """How many slots of each sample can go from `leaving` to `kind`."""
    held_n = _unfilled(count_n, count_nk) if leaving == _NOTHING else count_nk[:, leaving]
    return np.minimum(held_n, room.spare(count_nk, kind, leaving))


def _shortest_chain(
    count_n: NDArray[np.int64], count_nk: NDArray[np.int64], lacking_k: NDArray[np.int64], room: Room
) -> list[int]:
    """Kinds from one that takes unfilled slots to one that lacks some, each handing on to the next; [] if none does."""
    chains: list[list[int]] = [[]]
    reached: set[int] = set()
    while chains:
        longer = []
        for chain in chains:
            leaving = chain[-1] if chain else _NOTHING
            for kind in range(len(lacking_k)):
                if kind in reached or not _movable(count_n, count_nk, leaving, kind, room).any():
                    continue
                if lacking_k[kind] > 0:
                    return [*chain, kind]
                reached.add(kind)
                longer.append([*chain, kind])
        chains = longer
    return []


def _portion(movable_n: NDArray[np.int64], amount: int) -> NDArray[np.int64]:
    """`amount` of all that can be moved, or all of it, spread evenly over the samples."""
    running = np.concatenate([[0], np.cumsum(movable_n)])
    total = int(running[-1])
    portion_n: NDArray[np.int64] = np.diff(running * min(amount, total) // max(1, total))
    return portion_n
