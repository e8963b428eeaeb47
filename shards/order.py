"""The global order of training: which sample of which manifest stands at any position, without replaying a step.

Each manifest is an endless chain of its epochs' permutations, and weights interleave the chains. Everything is a
function of the seed and the position, so a run resumes anywhere, under any number of workers and ranks. Permutations
come from a hash and not from a random generator, because numpy may change its generators' streams between releases
and a resumed run must not. They shuffle blocks of consecutive samples, then samples within a few blocks, so that a
bucket is read in long ranges.
"""

# N positions, M manifests, L samples of a window

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from manifests.errors import RecipeError

BLOCK_SAMPLES = 64  # written side by side, read together
WINDOW_BLOCKS = 16  # shuffled blocks whose samples are shuffled among each other
WINDOW_SAMPLES = BLOCK_SAMPLES * WINDOW_BLOCKS

_MAX_PERIOD = 1 << 16  # positions after which the interleaving repeats; odder weights are rounded to it

_Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One manifest of the mixture."""

    num_samples: int  # of one epoch, at least 1
    digest: str  # of its samples: what its permutations are seeded by
    weight: float  # its share of the positions, relative to the others'; above 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What stands at N consecutive positions."""

    manifest_n: _Int64
    epoch_n: _Int64  # how often the manifest was gone through before
    sample_n: _Int64  # its place in the manifest's written order


class Order:
    """Random access to the global order of a mixture."""

    def __init__(self, chains: Sequence[Chain], *, seed: int, shuffle: bool = True) -> None:
        """Lay out one period of the interleaving.

        Raises:
            RecipeError: a weight is not above 0.
        """
        self._chains = tuple(chains)
        self._seed = seed
        self._shuffle = shuffle
        self._turns_m = np.array(whole_weights([chain.weight for chain in chains]), np.int64)
        self._manifest_of_slot, self._turn_of_slot = _interleave(self._turns_m)

    @property
    def digest(self) -> str:
        """What the order depends on, in 16 hex digits: a position of one order means nothing in another."""
        parts = [f"{self._seed}/{self._shuffle}", *(f"{chain.digest}/{chain.num_samples}" for chain in self._chains)]
        return hashlib.sha256("\n".join([*parts, str(self._turns_m.tolist())]).encode()).hexdigest()[:16]

    def at(self, start: int, stop: int) -> Places:
        """What stands at positions `start` to `stop` (excluded)."""
        rounds, slots = np.divmod(np.arange(start, stop, dtype=np.int64), len(self._manifest_of_slot))
        manifest_n = self._manifest_of_slot[slots]
        consumed_n = rounds * self._turns_m[manifest_n] + self._turn_of_slot[slots]
        epoch_n, sample_n = np.divmod(consumed_n, np.array([c.num_samples for c in self._chains])[manifest_n])
        if self._shuffle:
            for manifest in np.unique(manifest_n).tolist():
                rows = np.flatnonzero(manifest_n == manifest)
                sample_n[rows] = self._shuffled(self._chains[manifest], epoch_n[rows], sample_n[rows])
        return Places(manifest_n=manifest_n, epoch_n=epoch_n, sample_n=sample_n)

    def _shuffled(self, chain: Chain, epoch_n: _Int64, place_n: _Int64) -> _Int64:
        """The sample at each place of its epoch's permutation."""
        sample_n = np.empty_like(place_n)
        for epoch in np.unique(epoch_n).tolist():
            rows = np.flatnonzero(epoch_n == epoch)
            sample_n[rows] = _permuted(f"{self._seed}/{chain.digest}/{epoch}", chain.num_samples, place_n[rows])
        return sample_n


class WrittenOrder:
    """Every sample once: the manifests one after another, each as it was written."""

    def __init__(self, chains: Sequence[Chain]) -> None:
        self._chains = tuple(chains)
        self._starts_m = np.cumsum([0, *(chain.num_samples for chain in chains)])

    @property
    def num_samples(self) -> int:
        """Where the order ends."""
        return int(self._starts_m[-1])

    @property
    def digest(self) -> str:
        """See `Order.digest`."""
        parts = ["written", *(f"{chain.digest}/{chain.num_samples}" for chain in self._chains)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def at(self, start: int, stop: int) -> Places:
        """What stands at positions `start` to `stop` (excluded), or to the order's end if that comes first."""
        positions = np.arange(start, min(stop, self.num_samples), dtype=np.int64)
        manifest_n = np.searchsorted(self._starts_m, positions, side="right") - 1
        sample_n = positions - self._starts_m[manifest_n]
        return Places(manifest_n=manifest_n, epoch_n=np.zeros_like(positions), sample_n=sample_n)


def whole_weights(weights: Sequence[float]) -> list[int]:
    """Smallest whole numbers in the ratio of `weights`; where that is too fine a ratio, close to it and at least 1.

    Raises:
        RecipeError: a weight is not above 0.
    """
    for weight in weights:
        if not 0 < weight < float("inf"):
            raise RecipeError(f"weight {weight} of a build; expected a number above 0. Leave the build out instead")
    exact = [Fraction(str(weight)) for weight in weights]  # 0.1 is one tenth here, not the nearest binary fraction
    scale = lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    divisor = gcd(*whole)
    whole = [weight // divisor for weight in whole]
    total = sum(whole)
    return whole if total <= _MAX_PERIOD else [max(1, round(weight * _MAX_PERIOD / total)) for weight in whole]


def _interleave(turns_m: _Int64) -> tuple[_Int64, _Int64]:
    """One period: the manifest of each slot, and how many of its turns came before.

    A manifest's turns lie evenly over the period, each in the middle of its stretch: the sequence of Sainte-Laguë.
    """
    manifest = np.repeat(np.arange(len(turns_m)), turns_m)
    turn = np.concatenate([np.arange(turns) for turns in turns_m.tolist()])
    period = int(turns_m.sum())
    middle = (2 * turn + 1) * period / turns_m[manifest]
    slots = np.lexsort((manifest, middle))
    return manifest[slots], turn[slots]


def _permuted(seed: str, num_samples: int, place_n: _Int64) -> _Int64:
    """The samples at `place_n` of the permutation of `num_samples` that `seed` names."""
    starts = _window_starts(seed, num_samples)
    window_n = np.searchsorted(starts, place_n, side="right") - 1
    sample_n = np.empty_like(place_n)
    for window in np.unique(window_n).tolist():
        rows = np.flatnonzero(window_n == window)
        sample_n[rows] = _window(seed, num_samples, window)[place_n[rows] - starts[window]]
    return sample_n


@functools.lru_cache(maxsize=32)
def _block_order(seed: str, num_samples: int) -> _Int64:
    """The blocks in shuffled order."""
    return _permutation(f"{seed}/blocks", -(-num_samples // BLOCK_SAMPLES))


@functools.lru_cache(maxsize=32)
def _window_starts(seed: str, num_samples: int) -> _Int64:
    """The place of each window's first sample; the window after the written order's short last block starts early."""
    blocks = _block_order(seed, num_samples)
    starts = np.arange(-(-len(blocks) // WINDOW_BLOCKS)) * WINDOW_SAMPLES
    missing = len(blocks) * BLOCK_SAMPLES - num_samples
    short_window = int(np.flatnonzero(blocks == len(blocks) - 1)[0]) // WINDOW_BLOCKS
    starts[short_window + 1 :] -= missing
    return starts


@functools.lru_cache(maxsize=256)
def _window(seed: str, num_samples: int, window: int) -> _Int64:
    """The samples [L] of one window, in shuffled order."""
    blocks = _block_order(seed, num_samples)[window * WINDOW_BLOCKS :][:WINDOW_BLOCKS]
    samples = (blocks[:, None] * BLOCK_SAMPLES + np.arange(BLOCK_SAMPLES)).ravel()
    samples = samples[samples < num_samples]
    shuffled: _Int64 = samples[_permutation(f"{seed}/window/{window}", len(samples))]
    return shuffled


def _permutation(seed: str, length: int) -> _Int64:
    """A permutation of 0 to `length` (excluded): the order of the hashes of its numbers, ties by number."""
    key = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "little")
    return np.argsort(_mixed(np.arange(1, length + 1, dtype=np.uint64), key), kind="stable")


def _mixed(counters: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """The outputs of SplitMix64 with state `key` at `counters`.

    Source: Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators", figure 16.
    """
    state = counters * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
