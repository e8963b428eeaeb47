"""Exact counts of a mix: what a recipe's shares mean, how large each split may be, and how counts are spread.

Rates are fractions, never floats: 0.025 of 40 samples is one sample. A source is short as soon as rate × samples is
more than it has; that one rule decides whether a build stops, shrinks or repeats, and is what its message prints.
Nothing here reads a file or draws a random number.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.errors import BuildError, RecipeError
from shards.interleave import interleave

REST = "rest"

Share: TypeAlias = Fraction | float | Literal["rest"]
WhenShort: TypeAlias = Literal["stop", "repeat", "shrink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The sources that stand in one split, with their exact shares of its samples."""

    names: tuple[str, ...]
    rates: tuple[Fraction, ...]  # per name; they sum to 1
    group: frozenset[str]  # the generated sources, whose sum is held too

    def order(self, num_samples: int, *, shard_samples: int, first: Collection[str] = ()) -> NDArray[np.int16]:
        """Return an index into `names` for every written position, within one of the rates everywhere.

        One of the sources `first` stands first where that is possible. See `shards.interleave.interleave` for what is
        promised of prefixes and shards.
        """
        grouped = [index for index, name in enumerate(self.names) if name in self.group]
        preferred = [index for index, name in enumerate(self.names) if name in first]
        return interleave(self.rates, grouped, num_samples, shard_samples=shard_samples, first=preferred)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRequest:
    """What one split is asked to hold, and what there is for it."""

    mix: Mix
    fraction: Fraction | float  # of the build's samples; 0: the split stays empty
    capacities: Mapping[str, int | None]  # images per source in this split; None: as many as are asked (generated)
    first: Collection[str] = ()  # sources of which one should stand first


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitPlan:
    """How many samples a split holds of each source, and in which order they are written."""

    names: tuple[str, ...]
    order: NDArray[np.int16]  # per written position, an index into `names`
    requested: Mapping[str, Fraction]  # rate × samples asked for, before any shrinking
    achieved: Mapping[str, int]
    repeats: Mapping[str, int]  # how often the images of a source are gone through; 1: none stands twice

    @property
    def num_samples(self) -> int:
        """Samples of the split."""
        return len(self.order)


def exact(number: Fraction | float) -> Fraction:
    """Return the decimal that was written, not the nearest binary float: 0.1 is one tenth.

    Raises:
        RecipeError: The number is infinite or not a number.
    """
    if isinstance(number, Fraction):
        return number
    try:
        return Fraction(str(number))
    except ValueError:
        raise RecipeError(f"expected a finite number, got {number}") from None


def decimal(number: Fraction) -> str:
    """Return a fraction as a person writes it: 0.025, 400, 33.3333333333."""
    return f"{float(number):.12g}"


def resolve_mix(shares: Mapping[str, Share], generated: Collection[str], *, where: str = "[mix]") -> Mix:
    """Return the exact rates of the sources that may stand in one split.

    Args:
        shares: Share of the samples by source; one of them may be "rest".
        generated: Sources whose samples are made, not read; their sum is held too.
        where: Begins the message of an error.

    Raises:
        RecipeError: A share lies outside 0 to 1, two say "rest", or they do not add up to 1.
    """
    given = {name: exact(share) for name, share in shares.items() if not isinstance(share, str)}
    for name, share in given.items():
        if not 0 <= share <= 1:
            raise RecipeError(f"{where}: {name} = {decimal(share)}: expected a share from 0 to 1")
    rest = _rest(shares, given, where)
    return Mix(
        names=tuple(shares),
        rates=tuple(given.get(name, rest) for name in shares),
        group=frozenset(generated) & frozenset(shares),
    )


def _rest(shares: Mapping[str, Share], given: Mapping[str, Fraction], where: str) -> Fraction:
    """Return what the given shares leave for the source that says "rest" (0 where none does)."""
    takers = [name for name in shares if name not in given]
    left = 1 - sum(given.values(), Fraction(0))
    terms = [f"{name} {decimal(share)}" for name, share in given.items()]
    arithmetic = f"{' + '.join(terms) or 'no share'} = {decimal(1 - left)}"
    for name in takers:
        if shares[name] != REST:
            raise RecipeError(f'{where}: {name} = "{shares[name]}": expected a number or "{REST}"')
    if len(takers) > 1:
        raise RecipeError(f'{where}: {" and ".join(takers)} all say "{REST}"; exactly one may')
    if takers and left <= 0:
        raise RecipeError(f'{where}: {arithmetic}, which leaves nothing for {takers[0]} = "{REST}"; lower a share')
    if not takers and left:
        raise RecipeError(f'{where}: {arithmetic}, not 1; change a share, or let one source say "{REST}"')
    return left


def apportion(total: int, weights: Sequence[Fraction | float]) -> list[int]:
    """Return whole counts that sum to `total` and follow the weights, by largest remainder, ties to the first.

    Raises:
        RecipeError: A weight is negative, or all are 0 while there is something to share out.
    """
    exact_weights = [exact(weight) for weight in weights]
    whole = sum(exact_weights, Fraction(0))
    if any(weight < 0 for weight in exact_weights) or (total and not whole):
        found = ", ".join(decimal(weight) for weight in exact_weights) or "none"
        raise RecipeError(f"expected weights of 0 and more, one of them positive, to share out {total}, got {found}")
    if not whole:
        return [0] * len(exact_weights)
    quotas = [total * weight / whole for weight in exact_weights]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda index: counts[index] - quotas[index])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def spread(total: int, num: int, *, phase: int = 0) -> NDArray[np.int64]:
    """Return `num` counts, each total / num rounded down or up, that sum to `total`; so does any run, within one.

    Args:
        total: What is shared out.
        num: Among how many; 0 only with a total of 0.
        phase: Shifts which of them round up; any integer.

    Raises:
        ValueError: There is something to share out and nothing to hold it.
    """
    if total and not num:
        raise ValueError(f"expected at least one place for a total of {total}")
    edges = np.arange(num + 1, dtype=np.int64) * total + (phase % num if num else 0)
    return np.diff(edges // max(num, 1))


def largest_size(mix: Mix, capacities: Mapping[str, int | None]) -> int | None:
    """Return the most samples for which rate × samples is no more than any source has; None: no source limits it.

    A source in an order of so many samples never exceeds its capacity, since it stays below rate × samples + 1.
    """
    limits = [
        int(capacity / rate)
        for name, rate in zip(mix.names, mix.rates, strict=True)
        if rate and (capacity := capacities[name]) is not None
    ]
    return min(limits, default=None)


def plan_splits(
    requests: Mapping[str, SplitRequest], *, samples: int | None, shard_samples: int, when_short: WhenShort
) -> dict[str, SplitPlan]:
    """Return the plan of every split, with all rates held.

    Args:
        requests: By split.
        samples: Samples of the whole build, apportioned to the splits by their fractions; None: each split holds as
            many as its sources allow.
        shard_samples: Samples in a shard.
        when_short: What to do where a source has fewer images than rate × samples: stop; repeat its images; or shrink
            the whole build to the largest number of samples for which every split has enough.

    Raises:
        BuildError: A source is short and may not be repeated, or has no image at all, or nothing limits the samples.
    """
    active = {split: request for split, request in requests.items() if exact(request.fraction) > 0}
    for split, request in active.items():
        _refuse_empty(split, request, samples)
    wanted = _largest_sizes(active) if samples is None else _sizes(active, samples)
    sizes = wanted
    if samples is not None and when_short != "repeat" and not _fits(active, wanted):
        smaller = _largest_total(active, samples)
        if when_short == "stop":
            raise BuildError(_shortage(active, wanted, smaller))
        sizes = _sizes(active, smaller)
    return {
        split: _plan(request, sizes.get(split, 0), wanted.get(split, 0), shard_samples)
        for split, request in requests.items()
    }


def _refuse_empty(split: str, request: SplitRequest, samples: int | None) -> None:
    for name, rate in zip(request.mix.names, request.mix.rates, strict=True):
        if rate and request.capacities[name] == 0:
            raise BuildError(
                f"split {split}: expected {decimal(rate)} of the samples from {name}, which has no image there; add "
                f"images, set splits.{split} = 0, or let {name} stand in other splits alone"
            )
    if samples is None and largest_size(request.mix, request.capacities) is None:
        raise BuildError(f"split {split}: all its sources are generated, so nothing says how many; set samples")


def _largest_sizes(requests: Mapping[str, SplitRequest]) -> dict[str, int]:
    return {split: largest_size(request.mix, request.capacities) or 0 for split, request in requests.items()}


def _sizes(requests: Mapping[str, SplitRequest], total: int) -> dict[str, int]:
    counts = apportion(total, [request.fraction for request in requests.values()])
    return dict(zip(requests, counts, strict=True))


def _fits(requests: Mapping[str, SplitRequest], sizes: Mapping[str, int]) -> bool:
    limits = {split: largest_size(request.mix, request.capacities) for split, request in requests.items()}
    return all(limit is None or sizes[split] <= limit for split, limit in limits.items())


def _largest_total(requests: Mapping[str, SplitRequest], samples: int) -> int:
    """Return the largest total, up to `samples`, whose every split has enough images."""
    whole = sum((exact(request.fraction) for request in requests.values()), Fraction(0))
    total = samples
    for request in requests.values():
        limit = largest_size(request.mix, request.capacities)
        if limit is not None:  # a split gets at least its quota rounded down
            total = min(total, int((limit + 1) * whole / exact(request.fraction)))
    while not _fits(requests, _sizes(requests, total)):
        total -= 1
    return total


def _shortage(requests: Mapping[str, SplitRequest], sizes: Mapping[str, int], smaller: int) -> str:
    """Return the message that names the source that is shortest, with its arithmetic and the cure."""
    shortages = []
    for split, request in requests.items():
        for name, rate in zip(request.mix.names, request.mix.rates, strict=True):
            needed, capacity = rate * sizes[split], request.capacities[name]
            if capacity is not None and needed > capacity:
                arithmetic = f"{decimal(rate)} × {sizes[split]} samples = {decimal(needed)} images, it has {capacity}"
                shortages.append((needed / capacity, f"split {split}: source {name} is short: {arithmetic}"))
    worst = max(shortages, key=lambda shortage: shortage[0])[1]
    others = f" (and {len(shortages) - 1} more such)" if len(shortages) > 1 else ""
    return f'{worst}{others}; use samples = {smaller}, or when_short = "shrink" or "repeat"'


def _plan(request: SplitRequest, num_samples: int, num_wanted: int, shard_samples: int) -> SplitPlan:
    mix = request.mix
    order = mix.order(num_samples, shard_samples=shard_samples, first=request.first)
    counts = [int(count) for count in np.bincount(order, minlength=len(mix.names))]
    achieved = dict(zip(mix.names, counts, strict=True))
    return SplitPlan(
        names=mix.names,
        order=order,
        requested={name: rate * num_wanted for name, rate in zip(mix.names, mix.rates, strict=True)},
        achieved=achieved,
        repeats={name: _rounds(count, request.capacities[name]) for name, count in achieved.items()},
    )


def _rounds(count: int, capacity: int | None) -> int:
    return 1 if not count or capacity is None else -(-count // capacity)
