"""The phrases that masks are looked up among: a file of one noun phrase a line, or the one that comes along.

Repeated and blank lines are passed over and counted; anything else that is no phrase stops with its line.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shards.phrase_file import read_phrases

BUNDLED = str(Path(__file__).with_name("vocabulary.txt"))  # its source and licence stand in vocabulary.toml beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Phrases, each once in its first spelling."""

    phrases: tuple[str, ...]
    num_repeated: int
    num_blank: int

    @property
    def digest(self) -> str:
        """16 hex digits over the phrases; their order, which decides between equal scores, counts."""
        return hashlib.sha256(msgspec.json.encode(self.phrases)).hexdigest()[:16]


def load_vocabulary(uri: str = "") -> Vocabulary:
    """The vocabulary at `uri`, or the bundled one for "".

    Raises:
        RecipeError: there is no such file, it is empty or not UTF-8, or a line is no phrase.
    """
    place = uri or BUNDLED
    read = read_phrases(place, place)
    return Vocabulary(phrases=read.phrases, num_repeated=read.num_repeated, num_blank=read.num_blank)
