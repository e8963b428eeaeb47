"""Tables that people typed, in README and above the page of results, say what the tables of the runs say."""

import re
from itertools import dropwhile, takewhile

import pytest

from benchmarks.proof_page import BELOW
from tests.doors import ROOT

TYPED, WRITTEN = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split(BELOW)
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEADING = "| the student met"
ARM_OF = {  # by what README calls it
    "presences alone": "a",
    "and blank and noise pictures, and random absences": "c",
    "a quarter of those replaced by hard ones: the default": "e",
    "mined ones alone": "d",
}


def rows(text: str, start: str) -> list[list[str]]:
    """The cells of the first table from `start` on, without its heading."""
    lines = text[text.index(start) :].splitlines()
    table = list(takewhile(lambda line: line.startswith("|"), dropwhile(lambda line: not line.startswith("|"), lines)))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def written(title: str, arm: str) -> list[str]:
    """The cells of an arm in a written table: its folds, and figures."""
    return next(row[1:] for row in rows(WRITTEN, f"### {title}\n") if row[0].startswith(f"**{arm}**"))


def means(cells: list[str]) -> list[float]:
    """Figures without their intervals."""
    return [float(cell.partition(" ")[0]) for cell in cells]


def typed(cells: list[str]) -> list[float]:
    """Figures as people write them: "none", "27 %, at less recall", ".53 / .43 / −.28"."""
    words = [word.partition(",")[0] for cell in cells for word in cell.split(" / ")]
    plain = [{"none": "0", "all": "1"}.get(word, word.replace("−", "-")) for word in words]
    return [float(word.removesuffix(" %")) / 100 if word.endswith("%") else float(word) for word in plain]


def figures(arm: str) -> list[float]:
    """Generated and co-occurring absences called present, MCC in three settings, mIoU."""
    hallucinated = means(written("Hallucination: absent prompts that are called present, from 0.5 on", arm)[1:])
    mcc = means(written("MCC in POPE's three settings, at the threshold that val chose", arm)[1:])
    return [max(hallucinated[3:]), hallucinated[2], *mcc, means(written("Masks and presence", arm)[1:])[0]]


@pytest.mark.parametrize("row", rows(README, HEADING), ids=lambda row: ARM_OF[row[0]])
def test_readme_says_what_the_runs_say(row: list[str]) -> None:
    assert typed(row[1:]) == pytest.approx(figures(ARM_OF[row[0]]), abs=0.0051)


@pytest.mark.parametrize("row", rows(TYPED, HEADING), ids=lambda row: row[0])
def test_the_head_of_the_page_says_what_the_runs_say(row: list[str]) -> None:
    found = re.search(r"\*\*([a-z])\*\*", row[0])
    assert found is not None
    assert row[1] == written("Masks and presence", found[1])[0]
    assert typed(row[2:]) == pytest.approx(figures(found[1]), abs=0.0051)
