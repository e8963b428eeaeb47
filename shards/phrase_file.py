"""The phrases of a text file, one a line, each once: a vocabulary, or what a model is to be asked.

Repeated and blank lines are passed over and counted; anything else that is no phrase stops with its text.
"""

from dataclasses import dataclass

from manifests import files
from manifests.errors import RecipeError, Rejected
from shards.labels import normalise_phrase, phrase_id


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseFile:
    """What a file holds."""

    phrases: tuple[str, ...]  # each in its first spelling and at its first place
    num_repeated: int
    num_blank: int


def read_phrases(uri: str, name: str) -> PhraseFile:
    """The phrases at `uri`; `name` is what asks for them, in messages.

    Raises:
        RecipeError: the file is missing or cannot be read, is empty, not UTF-8, or a line is no phrase.
    """
    try:
        lines = files.read_text(uri).splitlines()
        texts = [normalise_phrase(line) for line in lines if line.strip()]
    except FileNotFoundError as error:
        raise RecipeError(f"vocabulary {name!r}: no source of this name, and no file at {uri}") from error
    except OSError as error:
        raise RecipeError(
            f"vocabulary {name!r}: {uri} cannot be read: {error}; expected a file of one phrase a line"
        ) from error
    except (UnicodeDecodeError, Rejected) as error:
        raise RecipeError(f"{uri}: not a vocabulary, which has one phrase a line in UTF-8: {error}") from error
    if not texts:
        raise RecipeError(f"{uri}: the vocabulary is empty; expected one phrase a line")
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(phrase_id(text), text)
    return PhraseFile(
        phrases=tuple(first.values()), num_repeated=len(texts) - len(first), num_blank=len(lines) - len(texts)
    )
