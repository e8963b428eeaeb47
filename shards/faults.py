"""What can be wrong with a finished build: a closed list of checks, and one sentence per fault."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import msgspec

_MOST_OF_A_CHECK = 100  # faults of one check that are told in full; the rest are counted


class Check(StrEnum):
    """What a fault is about. Closed: each is reached by a test that damages a build."""

    MANIFEST = "manifest"  # the manifest contradicts itself
    FILE = "file"  # missing, too many, of another size, or with another digest
    INDEX = "index"  # a wids index differs from the manifest
    TAR = "tar"  # a shard is no sound, closed tar
    MEMBER = "member"  # a member that stock readers would drop, misname or pair wrongly
    KEY = "key"  # a key that stock readers would cut, split or find twice
    COUNT = "count"  # numbers of samples or prompts
    SAMPLE = "sample"  # the JSON of a sample
    PROMPT = "prompt"  # a prompt that breaks a rule of its own sample
    ROW = "row"  # samples.parquet differs from the shard
    TABLE = "table"  # a table that cannot be read, or holds nulls
    IMAGE = "image"  # a picture that does not decode, or is not what its sample says
    MASK = "mask"  # an RLE that does not decode, has another size, or no pixel
    FIRST = "first"  # loaders would infer wrong types from the first sample of a split
    SPLIT = "split"  # a sample or a near-duplicate stands in two splits
    LABEL = "label"  # asked against what the labels say
    MIX = "mix"  # samples further than one from the request
    KINDS = "kinds"  # the kinds of absent prompts
    AUDIT = "audit"  # the shortcut audit is not what the samples give


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong, and where."""

    check: Check
    where: str  # a file of the build, relative to its folder
    key: str = ""  # "" where no single sample is meant
    message: str

    def __str__(self) -> str:
        place = f"{self.where}: {self.key}" if self.key else self.where
        return f"{place}: {self.message}"


def shortened(faults: Iterable[Fault]) -> Iterator[Fault]:
    """`faults`, of which each check and file tells a hundred and counts the rest."""
    told: dict[tuple[Check, str], int] = {}
    for fault in faults:
        place = (fault.check, fault.where)
        told[place] = told.get(place, 0) + 1
        if told[place] <= _MOST_OF_A_CHECK:
            yield fault
    for (check, where), num in told.items():
        if num > _MOST_OF_A_CHECK:
            yield Fault(check=check, where=where, message=f"{num - _MOST_OF_A_CHECK} more faults of this kind")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what is wrong; the command prints it as JSON."""

    build: str
    deep: bool
    shards: int
    samples: int
    prompts: int
    num_bytes: int
    faults: list[Fault]

    @property
    def summary(self) -> str:
        """One line for people."""
        size = f"{self.num_bytes / 1e6:,.1f} MB"
        held = f"{self.shards:,} shards, {self.samples:,} samples, {self.prompts:,} prompts, {size}"
        depth = "every picture and mask decoded" if self.deep else "pictures and masks not decoded (--deep does)"
        if self.faults:
            return f"{len(self.faults)} faults in {held}; {depth}"
        return f"sound: {held}; every hash, count, rate and invariant holds; {depth}"
