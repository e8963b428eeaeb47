"""What is asked of which picture of a split: its plan, a whole vocabulary, or what a file says.

A picture that the build repeats is asked once, and so is a phrase that stands under several kinds.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests import files
from manifests.errors import Rejected, TableError
from manifests.tables import SAMPLES, VOCABULARIES, iterate_table, read_table
from shards.blocks import SampleIndex, iterate_samples
from shards.labels import normalise_phrase, phrase_id
from shards.phrase_file import read_phrases
from student.numbers import Numbers

PLAN, VOCABULARY = "plan", "vocabulary"

_TEXT = (1 << 32) - 1


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EachItsOwn:
    """Phrases by the picture's key; as numbers, for there may be ten for each of some million pictures."""

    number_of: Mapping[str, int]  # of each picture, by its key
    phrases: Sequence[str]
    first_i: NDArray[np.int64]  # where the phrases of picture i begin in `phrase_n`; one more for the end
    phrase_n: NDArray[np.int32]

    def of(self, key: str) -> Sequence[str]:
        """See `Questions`."""
        image = self.number_of.get(key)
        if image is None:
            return ()
        return sorted(self.phrases[phrase] for phrase in self.phrase_n[self.first_i[image] : self.first_i[image + 1]])

    def digest(self, keys: Sequence[str]) -> str:
        """See `Questions`."""
        return _digest([[key, list(self.of(key))] for key in keys])

    def all(self) -> list[str]:
        """See `Questions`."""
        return sorted({self.phrases[phrase] for phrase in np.unique(self.phrase_n)})


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
        return _planned(index)
    if ask == VOCABULARY:
        uri = files.join(index.folder, "vocabularies.parquet")
        named = read_table(uri, VOCABULARIES, ["phrase"])["phrase"].to_pylist()
        return SameForAll(_distinct([*named, *_planned(index).all()], uri))
    if not files.exists(ask):
        raise TableError(
            f"--ask {ask}: there is no such file; expected plan, vocabulary, a text file with a phrase a line, or a "
            "Parquet table with key and phrase"
        )
    if ask.endswith(".parquet"):
        return _from_table(ask, index)
    return SameForAll(sorted(read_phrases(ask, ask).phrases))


class _Pairs:
    """Pairs of a picture and what it is asked, while rows come in."""

    def __init__(self) -> None:
        self.images, self._texts = Numbers(), Numbers()
        self._pairs = [np.zeros(0, np.int64)]  # numbers of picture and text, 32 bits each

    def add(self, keys: pa.ChunkedArray, phrases: pa.ChunkedArray) -> None:
        """Take some rows."""
        if len(keys):
            self._pairs.append(self.images.column(keys) << 32 | self._texts.column(phrases))

    def questions(self, uri: str) -> EachItsOwn:
        """What was read from `uri`, each once: of texts that differ in case alone, a picture is asked the first.

        Raises:
            TableError: a text is no phrase.
        """
        normal = {text: _normalise(text, uri) for text in self._texts.of}
        texts = sorted(normal, key=lambda text: (phrase_id(normal[text]), text))
        place_t = np.zeros(len(texts), np.int64)
        place_t[[self._texts.of[text] for text in texts]] = np.arange(len(texts))
        spellings = Numbers()
        spelling_t = np.array([spellings.number(phrase_id(normal[text])) for text in texts], np.int64)

        pairs = np.concatenate(self._pairs)
        pair_n = np.unique(pairs & ~_TEXT | place_t[pairs & _TEXT])
        _, first_n = np.unique(pair_n & ~_TEXT | spelling_t[pair_n & _TEXT], return_index=True)
        image_n, text_n = pair_n[first_n] >> 32, pair_n[first_n] & _TEXT
        return EachItsOwn(
            number_of=self.images.of,
            phrases=[normal[text] for text in texts],
            first_i=np.searchsorted(image_n, np.arange(len(self.images.of) + 1)),
            phrase_n=text_n.astype(np.int32),
        )


def _planned(index: SampleIndex) -> EachItsOwn:
    pairs = _Pairs()
    uri = files.join(index.folder, "samples.parquet")
    for group in iterate_table(uri, SAMPLES, ["split", "image_key", "phrase"]):
        rows = group.filter(pc.equal(group["split"], index.split))
        pairs.add(rows["image_key"], rows["phrase"])
    return pairs.questions(uri)


def _from_table(uri: str, index: SampleIndex) -> EachItsOwn:
    try:
        with files.open_input(uri) as file:
            rows = pq.read_table(file, columns=["key", "phrase"])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise TableError(f"{uri}: expected a Parquet table with columns key and phrase: {error}") from error
    if rows.column_names != ["key", "phrase"] or rows["key"].null_count or rows["phrase"].null_count:
        raise TableError(f"{uri}: found columns {rows.column_names}; expected key and phrase, without nulls")
    pairs = _Pairs()
    pairs.add(rows["key"], rows["phrase"])
    asked = pairs.images.of
    if not asked:
        raise TableError(f"{uri}: holds no row; expected a key and a phrase to ask in each")
    strangers = sorted(asked.keys() - {key for key, _, _ in _samples(index)})
    if strangers:
        raise TableError(
            f"{uri}: {len(strangers)} of {len(asked)} keys are no pictures of split {index.split} of {index.folder}, "
            f"{strangers[0]!r} first; expected image keys of that split. Leave the others out, or name their split"
        )
    return pairs.questions(uri)


def _distinct(phrases: Sequence[str], uri: str) -> list[str]:
    """The phrases, normalised and sorted; of those that differ in case alone, the first."""
    found: dict[str, str] = {}
    for phrase in phrases:
        normal = _normalise(phrase, uri)
        found.setdefault(phrase_id(normal), normal)
    if not found:
        raise TableError(f"{uri}: holds no phrase; expected at least one to ask")
    return sorted(found.values())


def _normalise(phrase: str, uri: str) -> str:
    try:
        return normalise_phrase(phrase)
    except Rejected as error:
        raise TableError(f"{uri}: {phrase[:60]!r} is no phrase: {error}; take it out") from error
