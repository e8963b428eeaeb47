"""The written order of a mix: every source within one of its rate, in every prefix and in every shard.

After p samples a source of rate r may hold floor(p r) or ceil(p r) of them, so each of its samples has a first and a
last position at which it may stand. The generated sources together are held to the same rule, and so is every shard by
itself. Taking the source that lags most is not enough: it runs into positions where two sources are due at once. Here
the earliest deadline goes first, and a depth-first search takes choices back where that fails. There are few states
(floor or ceil for each source), and dead ones are remembered, so that none is searched twice.

All arithmetic is in integers: a rate is a weight over the common denominator, here called `scale`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from manifests.errors import BuildError

NEVER = 1 << 62  # later than any position
MAX_DEAD_STATES = 500_000  # bounds memory; thirty times what any mix of up to eight sources was seen to need


def interleave(
    rates: Sequence[Fraction],
    grouped: Collection[int],
    num_samples: int,
    *,
    shard_samples: int,
    first: Collection[int] = (),
    max_dead_states: int = MAX_DEAD_STATES,
) -> NDArray[np.int16]:
    """Return the source, as an index into `rates`, of every written position.

    After every p samples each source i holds less than one sample more or fewer than p × rates[i], and the sources of
    `grouped` together differ from their summed rates by less than one. In every window of `shard_samples` (the last
    may be shorter) both differ by at most one. The same arguments give the same order.

    Args:
        rates: Shares that sum to exactly 1.
        grouped: Indices of the sources whose sum is held too.
        num_samples: Length of the order.
        shard_samples: Length of a shard.
        first: Indices of the sources of which one should stand first, if any order allows it.
        max_dead_states: Dead ends that the search may remember before it gives up.

    Raises:
        BuildError: No such order was found. Of tens of thousands of random mixes of two to eight sources none came
            here; of those of nine to sixteen one in some thousand did, by the budget.
    """
    scale = lcm(*(rate.denominator for rate in rates))
    weights = [int(rate * scale) for rate in rates]
    group = frozenset(grouped)

    def search(length: int) -> list[int]:
        order = _Search(weights, group, length, shard_samples, frozenset(first)).run(max_dead_states)
        if order is None:
            raise BuildError(_no_order(scale, num_samples, shard_samples))
        return order

    # Where shards and whole multiples of `scale` meet, every source holds exactly its share: the order starts afresh.
    period = lcm(scale, shard_samples) if shard_samples < num_samples else scale
    num_periods, remainder = divmod(num_samples, period)
    tile = np.array(search(period) if num_periods else [], dtype=np.int16)
    return np.concatenate([np.tile(tile, num_periods), np.array(search(remainder), dtype=np.int16)])


def _no_order(scale: int, num_samples: int, shard_samples: int) -> str:
    easier = min(-(-shard_samples // scale) * scale, num_samples)
    return (
        f"[mix]: found no order of {num_samples} samples in shards of {shard_samples} that keeps every source, and the "
        f"generated ones together, within one of their rates; use shard_samples = {easier}, or rounder rates"
    )


@dataclass(slots=True)
class _Track:
    """A source, or the generated sources together: how many it holds, and when its next sample may and must stand."""

    weight: int
    count: int = 0
    low: int = 0  # fewest that it may hold at the end of the shard
    high: int = 0  # most that it may hold there
    release: int = NEVER  # first position (from 1) at which the next sample may stand
    deadline: int = NEVER  # last position at which it may

    def open_shard(self, start_count: int, length: int, scale: int) -> None:
        """Set how many the track may hold at the end of a shard that it enters with `start_count`."""
        self.low = start_count - (-length * self.weight // scale) - 1
        self.high = start_count + length * self.weight // scale + 1

    def refresh(self, shard_end: int, scale: int) -> None:
        """Set the release and the deadline of the next sample; call it after every change."""
        if not self.weight:
            return
        self.release = scale * self.count // self.weight + 1 if self.count < self.high else NEVER
        self.deadline = -(-scale * (self.count + 1) // self.weight)
        if self.count < self.low:
            self.deadline = min(self.deadline, shard_end - (self.low - self.count) + 1)


class _Search:
    """A depth-first search over positions; `order` holds the choices so far."""

    def __init__(
        self,
        weights: Sequence[int],
        group: frozenset[int],
        num_samples: int,
        shard_samples: int,
        first: frozenset[int],
    ) -> None:
        self.first = first
        self.scale = sum(weights)
        self.num_samples = num_samples
        self.shard_samples = shard_samples
        self.sources = [_Track(weight) for weight in weights]
        self.group = _Track(sum(weights[index] for index in group))
        self.tracks = [*self.sources, self.group]
        self.member = [index in group for index in range(len(weights))]
        self.order: list[int] = []
        self.dead: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        self.shard_starts: list[tuple[int, ...]] = []  # counts per track, per shard entered
        self.shard_end = 0
        self._enter_shard()

    def run(self, max_dead_states: int) -> list[int] | None:
        """Return the order, or None where there is none (or none was found within the budget)."""
        pending = [self._options()]
        while len(self.order) < self.num_samples:
            if pending[-1]:
                self._place(pending[-1].pop())
                pending.append([] if self.dead and self._state() in self.dead else self._options())
                continue
            pending.pop()
            if not pending or len(self.dead) >= max_dead_states:
                return None
            self.dead.add(self._state())
            self._take_back()
        return self.order

    def _options(self) -> list[int]:
        """Return the sources that may stand next, the most urgent last; none where two that are due exclude each other.

        A member of the group is as urgent as the group.
        """
        position = len(self.order) + 1
        group = self.group
        due = sum(track.deadline <= position for track in self.tracks)
        ranked = []
        for index, (source, member) in enumerate(zip(self.sources, self.member, strict=True)):
            if source.release > position or (member and group.release > position):
                continue
            if due and due != (source.deadline <= position) + (member and group.deadline <= position):
                continue  # a track that is due would be left out
            urgency = min(source.deadline, group.deadline) if member else source.deadline
            ranked.append((position == 1 and index in self.first, -urgency, -source.deadline, -index))
        ranked.sort()
        return [-index for *_, index in ranked]

    def _place(self, index: int) -> None:
        self.order.append(index)
        self._count(index, 1)
        if len(self.order) == self.shard_end < self.num_samples:
            self._enter_shard()

    def _take_back(self) -> None:
        leaves_shard = len(self.order) == self.shard_end - self._shard_length()
        self._count(self.order.pop(), -1)
        if leaves_shard:
            self.shard_starts.pop()
            self._open_shard()

    def _count(self, index: int, change: int) -> None:
        for track in (self.sources[index], self.group) if self.member[index] else (self.sources[index],):
            track.count += change
            track.refresh(self.shard_end, self.scale)

    def _enter_shard(self) -> None:
        self.shard_starts.append(tuple(track.count for track in self.tracks))
        self._open_shard()

    def _shard_length(self) -> int:
        return min(self.shard_samples, self.num_samples - (len(self.shard_starts) - 1) * self.shard_samples)

    def _open_shard(self) -> None:
        length = self._shard_length()
        self.shard_end = (len(self.shard_starts) - 1) * self.shard_samples + length
        for track, start_count in zip(self.tracks, self.shard_starts[-1], strict=True):
            track.open_shard(start_count, length, self.scale)
            track.refresh(self.shard_end, self.scale)

    def _state(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(track.count for track in self.tracks), self.shard_starts[-1]
