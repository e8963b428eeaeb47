"""One shard held against the manifest, against samples.parquet and against what stock readers expect.

A shard is read once from start to end, one member in memory at a time; every sample is judged by itself.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, zip_longest

import pyarrow as pa

from manifests import files
from manifests.errors import ManifestError
from manifests.manifest import Shard
from manifests.sample import Sample, decode_sample
from manifests.tables import SAMPLES
from shards.faults import Check, Fault
from shards.members import HashedFile, Member, TarFault, walk
from shards.sample_check import image_faults, mask_faults, prompt_faults
from shards.tar import MAX_NAME_BYTES

KEY = re.compile(r"[A-Za-z0-9_-]+")
_COLUMNS = SAMPLES.names

Row = tuple[object, ...]  # values in the order of SAMPLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the rest of the build says of one shard."""

    folder: str
    split: str
    shard: Shard
    rows: pa.Table | None  # of samples.parquet; None where that cannot be read
    deep: bool


@dataclass(slots=True, kw_only=True)
class ShardFacts:
    """What one shard turned out to hold."""

    faults: list[Fault] = field(default_factory=list)
    num_samples: int = 0
    num_prompts: int = 0
    num_bytes: int = 0
    num_masks: int = 0
    first_has_mask: bool = False


def check_shard(told: Told) -> ShardFacts:
    """Everything that can be said of one shard without the others."""
    check = _ShardCheck(told)
    try:
        check.run()
    except FileNotFoundError:
        check.add(Check.FILE, f"not found; expected a shard of {told.shard.filesize} bytes")
    return check.facts


class _ShardCheck:
    """A shard being read."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.facts = ShardFacts()
        self._rows = None if told.rows is None else _rows_by_key(told.rows)
        self._sources: Counter[str] = Counter()
        self._all_decode = True
        self._keys: dict[str, None] = {}  # in the order of the shard

    def add(self, check: Check, message: str, key: str = "") -> None:
        """Note a fault of this shard."""
        self.facts.faults.append(Fault(check=check, where=self.told.shard.url, key=key, message=message))

    def run(self) -> None:
        """Read the shard."""
        uri = files.join(self.told.folder, self.told.shard.url)
        size = files.num_bytes(uri)
        with files.open_input(uri) as opened:
            file = HashedFile(opened)
            try:
                self._pair(walk(file, size))
            except TarFault as error:
                self.add(Check.TAR, str(error))
            digest = file.drain()
        self.facts.num_bytes = file.num_bytes
        self._compare_whole(file.num_bytes, digest)

    def _compare_whole(self, num_bytes: int, digest: str) -> None:
        shard = self.told.shard
        if num_bytes != shard.filesize:
            self.add(Check.FILE, f"has {num_bytes} bytes; the manifest says {shard.filesize}")
        if digest != shard.sha256:
            self.add(Check.FILE, f"has sha256 {digest[:16]}…; the manifest says {shard.sha256[:16]}…")
        if self.facts.num_samples != shard.nsamples:
            self.add(Check.COUNT, f"holds {self.facts.num_samples} samples; the manifest says {shard.nsamples}")
        if self._all_decode and dict(self._sources) != shard.counts:
            held = dict(sorted(self._sources.items()))
            self.add(Check.COUNT, f"holds samples by source {held}; the manifest says {shard.counts}")
        if self._rows is not None:
            self._compare_keys(self._rows)

    def _compare_keys(self, rows: Mapping[str, list[Row]]) -> None:
        missing = sorted(rows.keys() - self._keys.keys())
        for key in missing:
            self.add(Check.ROW, "samples.parquet has rows of it, but no sample is here", key)
        if not missing and list(rows) != [key for key in self._keys if key in rows]:
            self.add(Check.ROW, "samples.parquet has its rows in another order than the shard its samples")

    def _pair(self, members: Iterator[Member]) -> None:
        """Put each `<key>.jpg` and the `<key>.json` after it together, and name what stands otherwise."""
        waiting: Member | None = None
        for member in members:
            stem, _, extension = member.name.partition(".")
            fault = _member_fault(member, extension)
            if fault is not None:
                self.add(*fault, stem)
            elif extension == "jpg":
                if waiting is not None:
                    self._lonely(waiting)
                waiting = member
            elif waiting is None or waiting.name.partition(".")[0] != stem:
                self.add(Check.MEMBER, "its .json stands apart from its .jpg; expected it right after", stem)
            else:
                self._sample(stem, waiting, member)
                waiting = None
        if waiting is not None:
            self._lonely(waiting)

    def _lonely(self, picture: Member) -> None:
        self.add(Check.MEMBER, "no .json follows its .jpg", picture.name.partition(".")[0])

    def _sample(self, key: str, picture: Member, text: Member) -> None:
        if key in self._keys:
            self.add(Check.KEY, "stands twice in the shard; readers would merge or drop one", key)
        self._keys[key] = None
        self.facts.num_samples += 1
        try:
            sample = decode_sample(text.data)
        except ManifestError as error:
            self.add(Check.SAMPLE, str(error), key)
            self._all_decode = False
            return
        self._sources[sample.source] += 1
        self.facts.num_prompts += len(sample.prompts)
        num_masks = sum(len(prompt.masks) for prompt in sample.prompts)
        self.facts.num_masks += num_masks
        if len(self._keys) == 1:
            self.facts.first_has_mask = num_masks > 0
        for check, message in self._judge(key, sample, picture):
            self.add(check, message, key)

    def _judge(self, key: str, sample: Sample, picture: Member) -> Iterator[tuple[Check, str]]:
        if sample.key != key:
            yield Check.SAMPLE, f"its JSON says key {sample.key!r}"
        yield from image_faults(sample, picture.data, deep=self.told.deep)
        yield from mask_faults(sample, deep=self.told.deep)
        for message in prompt_faults(sample, self.told.split):
            yield Check.PROMPT, message
        if self._rows is None:
            return
        digest = hashlib.sha256(picture.data).hexdigest() if self.told.deep else None
        expected = self._rows.get(key, [])
        actual = _rows_of(sample, self.told, picture, digest)
        yield from ((Check.ROW, message) for message in _row_faults(expected, actual))


def _member_fault(member: Member, extension: str) -> tuple[Check, str] | None:
    """What stock readers would stumble over in one member's header."""
    name = member.name
    if not member.is_file:
        return Check.MEMBER, f"member {name!r} is no plain file; expected .jpg and .json files alone"
    if name.count(".") > 1:
        return Check.KEY, f"member {name!r} has more than one dot; readers cut the key at the first"
    if extension not in ("jpg", "json"):
        return Check.MEMBER, f"member {name!r} is foreign; expected <key>.jpg and <key>.json alone"
    if not KEY.fullmatch(name.partition(".")[0]):
        return Check.KEY, f"member {name!r}: expected a key of A-Z, a-z, 0-9, _ and -"
    if len(name) > MAX_NAME_BYTES:
        return Check.KEY, f"member {name!r} has {len(name)} bytes; expected at most {MAX_NAME_BYTES}"
    return None


def _rows_by_key(rows: pa.Table) -> dict[str, list[Row]]:
    """Rows of samples.parquet by key, in their order."""
    columns = [rows[name].to_pylist() for name in _COLUMNS]
    found: dict[str, list[Row]] = {}
    for key, group in groupby(zip(*columns, strict=True), key=lambda row: str(row[0])):
        found.setdefault(key, []).extend(group)
    return found


def _rows_of(sample: Sample, told: Told, picture: Member, digest: str | None) -> list[Row]:
    """What samples.parquet should say of `sample`; None for what is not compared."""
    of_sample = (sample.key, None, told.split, sample.source, told.shard.url, picture.offset, len(picture.data))
    known = digest or (None if sample.origin.encoded else sample.origin.sha256)
    return [
        (
            *of_sample,
            known,
            sample.width,
            sample.height,
            prompt.phrase,
            prompt.present,
            prompt.mask_state,
            prompt.kind or "",
            prompt.evidence,
            prompt.score,
            prompt.standard_score,
            prompt.rank,
            prompt.positive_key,
            prompt.positive_score,
        )
        for prompt in sample.prompts
    ]


def _row_faults(expected: Sequence[Row], actual: Sequence[Row]) -> Iterator[str]:
    """The first difference between the rows of samples.parquet and those of the shard."""
    if len(expected) != len(actual):
        yield f"samples.parquet has {len(expected)} rows of it, the shard {len(actual)} prompts"
    for told, held in zip_longest(expected, actual):
        if told is None or held is None:
            return
        for name, says, is_so in zip(_COLUMNS, told, held, strict=True):
            if is_so is not None and says != is_so:
                held_text = repr(str(is_so) if isinstance(is_so, str) else is_so)  # an enumeration as its text
                yield f"samples.parquet says {name} {says!r}, the shard {held_text}"
                return
    for key, image_key in dict.fromkeys((row[0], row[1]) for row in expected):
        if image_key != key and not re.fullmatch(re.escape(str(image_key)) + r"-r\d+", str(key)):
            yield f"samples.parquet says image_key {image_key!r}, which is not its key without -r1, -r2, …"
