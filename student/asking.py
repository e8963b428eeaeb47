"""What is asked of which picture of a split: its plan, a whole vocabulary, or what a file says.

A picture that the build repeats is asked once, and so is a phrase that stands under several kinds.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import files
from manifests.errors import Rejected, TableError
from manifests.tables import SAMPLES, VOCABULARIES, iterate_table, read_table
from shards.blocks import SampleIndex, iterate_samples
from shards.labels import normalise_phrase, phrase_id
from shards.phrase_file import read_phrases

PLAN, VOCABULARY = "plan", "vocabulary"


class Picture(NamedTuple):
    """A picture of a split."""

    key: str  # of the image: that of its first sample
    sample: int  # its place in the written order
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shelf:
    """The pictures that first occur in one shard."""

    shard: str  # its name, without folder and ending
    sha256: str
    pictures: list[Picture]


class Questions(Protocol):
    """Phrases for pictures."""

    def of(self, key: str) -> Sequence[str]:
        """What is asked of a picture, sorted and each once; nothing where nothing is."""

    def digest(self, keys: Sequence[str]) -> str:
        """Names what is asked of some pictures."""

    def all(self) -> list[str]:
        """Every phrase that is asked anywhere, sorted."""


@dataclass(frozen=True, slots=True, eq=False)
class SameForAll:
    """The same phrases for each picture."""

    phrases: Sequence[str]

    def of(self, key: str) -> Sequence[str]:
        """See `Questions`."""
        return self.phrases

    def digest(self, keys: Sequence[str]) -> str:
        """See `Questions`."""
        return _digest([list(keys), list(self.phrases)])

    def all(self) -> list[str]:
        """See `Questions`."""
        return list(self.phrases)


@dataclass(frozen=True, slots=True, eq=False)
class EachItsOwn:
    """Phrases by the picture's key."""

    phrases: Mapping[str, Sequence[str]]

    def of(self, key: str) -> Sequence[str]:
        """See `Questions`."""
        return self.phrases.get(key, ())

    def digest(self, keys: Sequence[str]) -> str:
        """See `Questions`."""
        return _digest([[key, list(self.of(key))] for key in keys])

    def all(self) -> list[str]:
        """See `Questions`."""
        return sorted({phrase for asked in self.phrases.values() for phrase in asked})


def _digest(asked: object) -> str:
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()


def read_shelves(index: SampleIndex) -> list[Shelf]:
    """The pictures of a split by shard, in written order; a repeat is left out."""
    shelves = [Shelf(shard=_stem(shard.url), sha256=shard.sha256, pictures=[]) for shard in index.shards]
    seen: set[str] = set()
    for sample, (key, width, height) in enumerate(_samples(index)):
        if key not in seen:
            seen.add(key)
            picture = Picture(key=key, sample=sample, width=width, height=height)
            shelves[int(index.shard_n[sample])].pictures.append(picture)
    return shelves


def _samples(index: SampleIndex) -> Iterator[tuple[str, int, int]]:
    columns = ["image_key", "width", "height"]
    for group in iterate_samples(index.folder, index.split, list(index.shards), columns):
        yield from zip(*(group[name].to_pylist() for name in columns), strict=True)


def _stem(url: str) -> str:
    return url.rpartition("/")[2].removesuffix(".tar")


def read_questions(ask: str, index: SampleIndex) -> Questions:
    """The questions that `ask` names: "plan", "vocabulary", a file with a phrase a line, or a table of key and phrase.

    The vocabulary is that of all sources, and whatever else the split asks, as SA-1B's phrases are in none.

    Raises:
        TableError: there is no such file, it asks nothing, or it names pictures that are not in the split.
        RecipeError: the text file is none, holds no phrase, or a line is no phrase.
    """
    if ask == PLAN:
        return EachItsOwn(_planned(index))
    if ask == VOCABULARY:
        uri = files.join(index.folder, "vocabularies.parquet")
        named = read_table(uri, VOCABULARIES, ["phrase"])["phrase"].to_pylist()
        return SameForAll(_distinct([*named, *EachItsOwn(_planned(index)).all()], uri))
    if not files.exists(ask):
        raise TableError(
            f"--ask {ask}: there is no such file; expected plan, vocabulary, a text file with a phrase a line, or a "
            "Parquet table with key and phrase"
        )
    if ask.endswith(".parquet"):
        return EachItsOwn(_from_table(ask, index))
    return SameForAll(sorted(read_phrases(ask, ask).phrases))


def _planned(index: SampleIndex) -> dict[str, list[str]]:
    asked: dict[str, set[str]] = {}
    uri = files.join(index.folder, "samples.parquet")
    for group in iterate_table(uri, SAMPLES, ["split", "image_key", "phrase"]):
        _gather(group.filter(pc.equal(group["split"], index.split)), "image_key", asked)
    return {key: sorted(phrases) for key, phrases in asked.items()}


def _gather(rows: pa.Table, key: str, asked: dict[str, set[str]]) -> None:
    for one, phrase in zip(rows[key].to_pylist(), rows["phrase"].to_pylist(), strict=True):
        asked.setdefault(one, set()).add(phrase)


def _from_table(uri: str, index: SampleIndex) -> dict[str, list[str]]:
    try:
        with files.open_input(uri) as file:
            rows = pq.read_table(file, columns=["key", "phrase"])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise TableError(f"{uri}: expected a Parquet table with columns key and phrase: {error}") from error
    if rows.column_names != ["key", "phrase"] or rows["key"].null_count or rows["phrase"].null_count:
        raise TableError(f"{uri}: found columns {rows.column_names}; expected key and phrase, without nulls")
    asked: dict[str, set[str]] = {}
    _gather(rows, "key", asked)
    if not asked:
        raise TableError(f"{uri}: holds no row; expected a key and a phrase to ask in each")
    strangers = sorted(asked.keys() - {key for key, _, _ in _samples(index)})
    if strangers:
        raise TableError(
            f"{uri}: {len(strangers)} of {len(asked)} keys are no pictures of split {index.split} of {index.folder}, "
            f"{strangers[0]!r} first; expected image keys of that split. Leave the others out, or name their split"
        )
    return {key: _distinct(sorted(phrases), uri) for key, phrases in asked.items()}


def _distinct(phrases: Sequence[str], uri: str) -> list[str]:
    """The phrases, normalised and sorted; of those that differ in case alone, the first."""
    found: dict[str, str] = {}
    for phrase in phrases:
        try:
            normal = normalise_phrase(phrase)
        except Rejected as error:
            raise TableError(f"{uri}: {phrase[:60]!r} is no phrase: {error}; take it out") from error
        found.setdefault(phrase_id(normal), normal)
    if not found:
        raise TableError(f"{uri}: holds no phrase; expected at least one to ask")
    return sorted(found.values())
