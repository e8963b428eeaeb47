"""The elements of a huge JSON file's top-level arrays, one at a time, each with the text that it was read from.

The standard library's scanner reads element after element from a window over the file. Unlike a stricter parser it
takes `NaN` and integers of any length, which real files hold: there they cost one annotation, not the whole file.
"""

import codecs
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO

from manifests import files
from manifests.errors import SourceError

MAX_ELEMENT_CHARACTERS = 1 << 26

_WINDOW_BYTES = 1 << 20
_MARGIN = 64  # an error or an end this close to the window's end may be that of the window alone
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One element of a top-level array, or another top-level value (index -1)."""

    section: str  # the array's name
    index: int
    value: object  # as `json` reads it
    data: bytes  # the element as it stands in the file, without line ends


def stream_elements(uri: str, sections: Collection[str]) -> Iterator[Element]:
    """The elements of the top-level arrays called `sections` in the file at `uri`, in its order.

    Bytes that are not UTF-8 become lone surrogates in `value` and stay as they are in `data`. Memory goes with the
    largest element.

    Raises:
        SourceError: the file is missing, is not JSON, or is no JSON object.
    """
    try:
        with files.open_input(uri) as file:
            yield from _Reader(uri, file).read(sections)
    except FileNotFoundError as error:
        raise SourceError(f"{uri}: no such file; expected a JSON file. Check the path in the recipe") from error
    except OSError as error:
        raise SourceError(f"{uri}: cannot be read: {error}") from error


class _Reader:
    """A window of text over a file, and the place in it."""

    def __init__(self, uri: str, file: IO[bytes]) -> None:
        self._uri = uri
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape").decode
        self._text = ""
        self._place = 0
        self._bytes_before = 0  # of the file, before the window
        self._is_last = False

    def read(self, sections: Collection[str]) -> Iterator[Element]:
        """All elements of the arrays called `sections`; other values are passed over."""
        if self._peek() == "\ufeff":
            self._place += 1
        self._expect("{", "a JSON object at the top")
        separator = self._peek()
        while separator != "}":
            name, _ = self._value()
            if not isinstance(name, str):
                raise self._broken("expected a name in quotes")
            self._expect(":", f"':' after {name!r}")
            if self._peek() == "[":
                yield from self._array(name, wanted=name in sections)
            else:
                value, data = self._value()
                if name in sections:
                    yield Element(section=name, index=-1, value=value, data=data)
            separator = self._peek()
            if separator != "}":
                self._expect(",", "',' or '}' between top-level values")
        self._expect("}", "'}'")
        if self._peek():
            raise self._broken("expected the end of the file")

    def _array(self, name: str, *, wanted: bool) -> Iterator[Element]:
        self._expect("[", "'['")
        index = 0
        separator = self._peek()
        while separator != "]":
            value, data = self._value()
            if wanted:
                yield Element(section=name, index=index, value=value, data=data)
            index += 1
            separator = self._peek()
            if separator != "]":
                self._expect(",", f"',' or ']' after {name}[{index - 1}]")
        self._expect("]", "']'")

    def _value(self) -> tuple[object, bytes]:
        """The next value and its text."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                unterminated = error.msg.startswith("Unterminated string")
                if self._is_last or (error.pos < len(self._text) - _MARGIN and not unterminated):
                    raise self._broken(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:  # an integer of thousands of digits; brackets without end
                raise self._broken(str(error)) from error
            else:
                if self._is_last or end < len(self._text) - _MARGIN:
                    text = self._text[self._place : end].replace("\n", " ").replace("\r", " ")
                    self._place = end
                    return value, text.encode("utf-8", "surrogateescape")
            if len(self._text) - self._place > MAX_ELEMENT_CHARACTERS:
                raise self._broken(f"expected a value of at most {MAX_ELEMENT_CHARACTERS} characters")
            self._fill()

    def _peek(self) -> str:
        """The next character that is no space, or "" at the end; the place moves to it."""
        while True:
            found = _SPACE.match(self._text, self._place)
            self._place = found.end() if found else self._place
            if self._place < len(self._text):
                return self._text[self._place]
            if self._is_last:
                return ""
            self._fill()

    def _expect(self, character: str, what: str) -> None:
        if self._peek() != character:
            raise self._broken(f"expected {what}")
        self._place += 1

    def _fill(self) -> None:
        """Drop what was read, and take in at least as much as is left."""
        self._bytes_before += len(self._text[: self._place].encode("utf-8", "surrogateescape"))
        rest = self._text[self._place :]
        data = self._file.read(max(_WINDOW_BYTES, len(rest)))
        self._is_last = not data
        self._text = rest + self._decode(data, self._is_last)
        self._place = 0

    def _broken(self, message: str, place: int | None = None) -> SourceError:
        before = self._text[: self._place if place is None else place]
        offset = self._bytes_before + len(before.encode("utf-8", "surrogateescape"))
        after = self._text[len(before) : len(before) + 20]
        found = ascii(after) if after else "the end of the file"
        return SourceError(
            f"{self._uri}: broken JSON at byte {offset}: {message[:200]}; found {found}. Mend or replace the file"
        )
