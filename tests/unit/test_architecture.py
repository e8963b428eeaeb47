"""The page `docs/architecture.md`, the tree and the docstrings say the same of every module."""

import ast
from pathlib import Path

import pytest

from tests.doors import ROOT, compare, modules

PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules -->\n", "<!-- end of modules -->\n"


def first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def listing() -> str:
    lines: list[str] = []
    for path in modules():
        if path.name == "__init__.py":
            lines += ["", f"### {path.parent}/", "", first_line(path), ""]
        else:
            lines.append(f"- `{path.as_posix()}`: {first_line(path)}")
    return "\n".join(lines[1:]) + "\n"


@pytest.mark.parametrize("path", modules(), ids=str)
def test_a_module_is_described_by_one_sentence_on_the_first_line_of_its_docstring(path: Path) -> None:
    sentence = first_line(path)

    assert sentence.endswith("."), f"{path}: its docstring begins {sentence!r}; expected one whole sentence on one line"


def test_the_page_lists_every_module_with_its_sentence_and_no_other() -> None:
    head, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert (begin, end) == (BEGIN, END), f"{PAGE}: lost its {BEGIN.strip()} or {END.strip()}"

    compare(PAGE, head + BEGIN + listing() + END + tail)


def test_the_page_lists_packages_before_their_modules() -> None:
    assert listing().index("### shards/") < listing().index("`shards/tar.py`")
    assert listing().index("### shards/sources/") < listing().index("`shards/sources/sa1b.py`")
