"""How phrases are written: spelling, number, heads of compounds, and what stands beside the head.

The rules are general; the words that they speak of stand in `meaning.toml`.
"""

import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import msgspec

from manifests import files
from manifests.errors import RecipeError
from shards.labels import phrase_id

BUNDLED_MEANING = str(Path(__file__).with_name("meaning.toml"))

_SIBILANTS = ("ches", "shes", "sses", "xes", "zes", "oes")
_NO_PLURALS = ("ss", "us", "is")
_SHORTEST_PLURAL = 4


class _WordLists(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Closed classes of words."""

    singular: list[str]
    always_plural: list[str]
    determiners: list[str]
    prepositions: list[str]
    without: list[str]
    measures: list[str]
    transparent: list[str]


class MeaningFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `meaning.toml` says; its comments tell what each table means."""

    source: str
    spellings: list[list[str]]
    plurals: dict[str, str]
    words: _WordLists
    attributes: dict[str, list[str]]
    false_heads: dict[str, list[str]]
    senses: dict[str, list[str]]
    parts: dict[str, list[str]]
    reveals: dict[str, list[str]]
    dimensions: dict[str, list[list[str]]]
    exclusive: dict[str, list[str]]


class Written(NamedTuple):
    """A phrase taken apart: its words, and the sense that stood in parentheses behind them."""

    words: tuple[str, ...]
    sense: str = ""

    @property
    def key(self) -> str:
        """Equal for "hair dryer", "hair-dryer" and "hairdryer"."""
        return "".join(self.words) + (f"({self.sense})" if self.sense else "")


class Divided(NamedTuple):
    """A phrase cut at its first preposition."""

    head: tuple[str, ...]
    preposition: str
    rest: tuple[str, ...]


@dataclass(frozen=True)
class English:
    """The rules, over the words of one meaning file."""

    meaning: MeaningFile

    @cached_property
    def _spelling(self) -> Mapping[str, str]:
        return {word: same[0] for same in self.meaning.spellings for word in same}

    @cached_property
    def _attribute(self) -> Mapping[str, str]:
        return {word: kind for kind, words in self.meaning.attributes.items() for word in words}

    @cached_property
    def _false_compounds(self) -> frozenset[tuple[str, ...]]:
        return frozenset(
            self._words(f"{first} {head}") for head, firsts in self.meaning.false_heads.items() for first in firsts
        )

    def written(self, phrase: str) -> Written:
        """`phrase` without case, accents, hyphens, possessives and leading determiners, in one spelling."""
        plain = unicodedata.normalize("NFKD", phrase_id(phrase))
        plain = "".join(character for character in plain if not unicodedata.combining(character))
        outside, _, behind = plain.partition("(")
        inside, _, after = behind.partition(")")
        words = self._words(f"{outside} {after}")
        return Written(words, " ".join(self._words(inside))) if words else Written(self._words(plain) or (plain,))

    def _words(self, text: str) -> tuple[str, ...]:
        text = text.replace("’", "'").replace("'s ", " ").replace("'", "")
        for mark in "-_/,.":
            text = text.replace(mark, " ")
        words = [self._spelling.get(word, word) for word in text.split()]
        while len(words) > 1 and (words[0] in self.meaning.words.determiners or words[0].isdigit()):
            words.pop(0)
        return tuple(words)

    def singulars(self, word: str) -> tuple[str, ...]:
        """What `word` may be the plural of."""
        lists = self.meaning.words
        if (known := self.meaning.plurals.get(word)) is not None:
            return (known,)
        if word in lists.singular or word in lists.always_plural or word.endswith(_NO_PLURALS):
            return ()
        if len(word) < _SHORTEST_PLURAL or not word.endswith("s"):
            return ()
        if word.endswith("ies") and len(word) > _SHORTEST_PLURAL:
            return (f"{word[:-3]}y",)
        if word.endswith(_SIBILANTS):
            return word[:-2], word[:-1]
        return (word[:-1],)

    def lemmas(self, word: str) -> tuple[str, ...]:
        """`word` and what it may be the plural of."""
        return (word, *self.singulars(word))

    def divided(self, words: Sequence[str]) -> Divided:
        """`words` cut at the first preposition; all of them are the head where there is none."""
        for place in range(1, len(words) - 1):
            joins = words[place] == "and" and words[place - 1] in self._attribute  # a black and white cat
            if words[place] in self.meaning.words.prepositions and not joins:
                rest = list(words[place + 1 :])
                skipped = {*self.meaning.words.determiners, *self.meaning.words.prepositions}
                while len(rest) > 1 and rest[0] in skipped:
                    rest.pop(0)
                return Divided(tuple(words[:place]), words[place], tuple(rest))
        return Divided(tuple(words), "", ())

    def attributes(self, words: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
        """The adjectives that stand before a phrase's head, by what they speak of, and the words behind them."""
        found: dict[str, str] = {}
        place = 0
        while place < len(words) - 1 and (words[place] in self._attribute or (found and words[place] == "and")):
            if words[place] in self._attribute:
                found[self._attribute[words[place]]] = words[place]
            place += 1
        return found, tuple(words[place:])

    def misleads(self, words: Sequence[str]) -> bool:
        """Whether the last of `words` is not what they name: a hot dog is no dog."""
        return tuple(words) in self._false_compounds


def load_english(path: str = BUNDLED_MEANING) -> English:
    """The rules over the words at `path`.

    Raises:
        RecipeError: there is no such file, or it is no meaning file.
    """
    try:
        return English(msgspec.convert(tomllib.loads(files.read_text(path)), MeaningFile))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error}; expected the words of the semantic guard") from error
    except ValueError as error:
        raise RecipeError(f"{path}: no meaning file: {error}; expected the tables of {BUNDLED_MEANING}") from error
