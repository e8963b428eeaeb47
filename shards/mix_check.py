"""The mix of a build held against its recipe: in every prefix, in every shard, and in the manifest's own numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.errors import RecipeError
from manifests.manifest import MANIFEST_NAME, Manifest, SplitMix, index_name
from manifests.sample import NegativeKind
from shards.draw import generated_sources
from shards.faults import Check, Fault
from shards.mixing import Mix, apportion, decimal, exact, resolve_mix

# S samples of a split in written order

_GENERATED = (str(NegativeKind.BLANK), str(NegativeKind.NOISE))
_INT64 = 1 << 62
_CLOSE = 1e-6  # requests are floats in the manifest


@dataclass(slots=True, kw_only=True)
class SplitTally:
    """What one split holds, counted from samples.parquet."""

    sources: list[str] = field(default_factory=list)
    source_s: list[NDArray[np.int16]] = field(default_factory=list)  # per shard, index into `sources`
    pairs: Counter[tuple[str, bool]] = field(default_factory=Counter)  # prompts by source and presence
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, rows: pa.Table) -> None:
        """Take in the rows of one shard."""
        keys, sources = rows["key"].to_pylist(), rows["source"].to_pylist()
        by_key = dict(zip(keys, sources, strict=True))
        self.sources += [name for name in dict.fromkeys(sources) if name not in self.sources]
        self.source_s.append(np.array([self.sources.index(name) for name in by_key.values()], np.int16))
        self.pairs.update(zip(sources, rows["present"].to_pylist(), strict=True))
        self.kinds.update(kind for kind in rows["kind"].to_pylist() if kind)


def mix_faults(manifest: Manifest, tallies: Mapping[str, SplitTally]) -> Iterator[Fault]:
    """Everything in which the samples and the manifest differ from the recipe, or from each other."""
    if manifest.mix.keys() - tallies.keys() or any(name not in manifest.mix for name in tallies):
        told, held = sorted(manifest.mix), sorted(tallies)
        yield _fault(Check.MIX, f"mix has the splits {told}; the samples are of {held}")
    yield from _size_faults(manifest, tallies)
    for split, tally in tallies.items():
        if split not in manifest.mix:
            continue
        try:
            mix = resolve_mix(manifest.recipe.shares(split), generated_sources(manifest.recipe))
        except (RecipeError, KeyError) as error:
            yield _fault(Check.MANIFEST, f"its recipe does not add up in split {split}: {error}")
            continue
        yield from _rate_faults(split, mix, tally)
        yield from _told_faults(manifest, split, mix, tally)
        yield from _kind_faults(manifest, split, manifest.mix[split], tally)


def _fault(check: Check, message: str, where: str = MANIFEST_NAME) -> Fault:
    return Fault(check=check, where=where, message=message)


def _size_faults(manifest: Manifest, tallies: Mapping[str, SplitTally]) -> Iterator[Fault]:
    """The samples that the recipe asks for, shared out to the splits."""
    recipe = manifest.recipe
    if recipe.samples is None or recipe.when_short == "shrink":
        return
    shares = {str(split): exact(share) for split, share in recipe.splits.items() if share}
    wanted = dict(zip(shares, apportion(recipe.samples, list(shares.values())), strict=True))
    for split, num in wanted.items():
        held = sum(len(part) for part in tallies[split].source_s) if split in tallies else 0
        if held != num:
            yield _fault(Check.MIX, f"holds {held} samples; the recipe asks for {num}", index_name(split))


def _rate_faults(split: str, mix: Mix, tally: SplitTally) -> Iterator[Fault]:
    """Samples within one of rate × length in every prefix and in every shard, the generated ones together too."""
    order_s = np.concatenate([*tally.source_s, np.empty(0, np.int16)])
    for name in set(tally.sources) - set(mix.names):
        yield _fault(Check.MIX, f"holds samples of {name}, which has no share in the recipe", index_name(split))
    tracks = {name: (frozenset({name}), rate) for name, rate in zip(mix.names, mix.rates, strict=True)}
    if len(mix.group) > 1:
        rates = (rate for name, rate in zip(mix.names, mix.rates, strict=True) if name in mix.group)
        tracks[" and ".join(sorted(mix.group)) + " together"] = (mix.group, sum(rates, Fraction(0)))
    edges = np.cumsum([0, *map(len, tally.source_s)]).tolist()
    for name, (members, rate) in tracks.items():
        numbers = [number for number, source in enumerate(tally.sources) if source in members]
        count_s = np.concatenate([[0], np.cumsum(np.isin(order_s, numbers))])
        yield from _prefix_faults(split, name, rate, count_s)
        for number, (start, end) in enumerate(pairwise(edges)):
            held, wanted = int(count_s[end] - count_s[start]), rate * (end - start)
            if abs(held - wanted) > 1:
                message = f"holds {held} of {end - start} samples of {name}; expected {decimal(wanted)} within one"
                yield _fault(Check.MIX, message, f"shards/{split}-{number:06d}.tar")


def _prefix_faults(split: str, name: str, rate: Fraction, count_s: NDArray[np.int64]) -> Iterator[Fault]:
    small = len(count_s) * max(rate.denominator, 1) < _INT64
    kind = np.int64 if small else object
    off_s = np.abs(count_s.astype(kind) * rate.denominator - np.arange(len(count_s)).astype(kind) * rate.numerator)
    wrong = np.flatnonzero(off_s >= rate.denominator)
    if len(wrong):
        place = int(wrong[0])
        message = (
            f"its first {place} samples hold {count_s[place]} of {name}; expected {decimal(rate * place)} within one"
            f" (and so in {len(wrong)} prefixes)"
        )
        yield _fault(Check.MIX, message, index_name(split))


def _told_faults(manifest: Manifest, split: str, mix: Mix, tally: SplitTally) -> Iterator[Fault]:
    """What the manifest says of the mix, beside what stands in the shards."""
    told = manifest.mix[split]
    held = Counter(tally.sources[number] for part in tally.source_s for number in part.tolist())
    num = sum(held.values())
    rates = dict(zip(mix.names, mix.rates, strict=True))
    for name in dict.fromkeys([*told.samples, *held]):
        said = told.samples[name].achieved if name in told.samples else 0
        if said != held[name]:
            yield _fault(Check.MIX, f"says {said} samples of {name} in {split}; the shards hold {held[name]}")
    for name, share in told.samples.items():
        wanted = float(rates.get(name, Fraction(0)) * num)
        too_few = share.requested < wanted - _CLOSE
        if too_few or (manifest.recipe.when_short != "shrink" and share.requested > wanted + _CLOSE):
            message = f"says that {share.requested:g} samples of {name} were requested in {split}; it was {wanted:g}"
            yield _fault(Check.MIX, message)
    for name in dict.fromkeys([*told.pairs, *held]):
        pairs = told.pairs.get(name)
        said_pairs = (pairs.present, pairs.absent.achieved) if pairs else (0, 0)
        counted = (tally.pairs[name, True], tally.pairs[name, False])
        if said_pairs != counted:
            message = f"says {said_pairs} present and absent prompts of {name} in {split}; the shards hold {counted}"
            yield _fault(Check.MIX, message)


def _kind_faults(manifest: Manifest, split: str, told: SplitMix, tally: SplitTally) -> Iterator[Fault]:
    """The kinds of absent prompts: as many as the manifest says, and as many as were asked or a note that says why."""
    real = {kind: num for kind, num in tally.kinds.items() if kind not in _GENERATED}
    for kind in dict.fromkeys([*told.prompts, *real]):
        said = told.prompts[kind].achieved if kind in told.prompts else 0
        if said != real.get(kind, 0):
            yield _fault(Check.KINDS, f"says {said} {kind} prompts in {split}; the shards hold {real.get(kind, 0)}")
    explained = any(note.startswith(f"{split}:") for note in manifest.notes)
    sparse = split == "train" and manifest.recipe.prompts.absent_per_image < 1  # an image is asked at least one
    for kind, share in told.prompts.items():
        off = share.achieved - share.requested
        # val and test ask all that a source denies by name besides the settings: there, more is no fault
        if (off < -1 or (off > 1 and split == "train")) and not explained and not sparse:
            yield _fault(
                Check.KINDS,
                f"{split} has {share.achieved} {kind} prompts for {share.requested:g} requested, and no note says why",
            )
