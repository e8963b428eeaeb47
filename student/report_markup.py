"""Markup of a report's page: elements of escaped text, emphasis, and figures that are not torn from their units."""

import html
import re

TONES = {1: "good", -1: "bad", 0: ""}  # the class of what is better, worse, neither
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_UNIT = re.compile(r"(?<=\d) (?=(?:%|ms|MB)(?!\w))|(?<=×) (?=\d)")


def text(plain: str) -> str:
    """A text as markup; `**` becomes bold, and a figure stays on the line of its unit."""
    escaped = html.escape(_UNIT.sub("\u00a0", plain), quote=False)
    return _BOLD.sub(r"<b>\1</b>", escaped)


def without_bold(plain: str) -> str:
    """A text without its emphasis."""
    return _BOLD.sub(r"\1", plain)


def element(name: str, inner: str, **attributes: str) -> str:
    """An element around markup; `class_` stands for `class`, and what is "" is left out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value}
    said = "".join(f' {key}="{html.escape(value)}"' for key, value in given.items())
    return f"<{name}{said}>{inner}</{name}>"
