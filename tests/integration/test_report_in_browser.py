"""The report's page in a real browser: nothing fetched, nothing wider than the window, light and dark at a click."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from student.readings import Latency
from student.report import main
from tests.browser import Page, any_browser
from tests.runs import (
    NOTED,
    make_evaluation,
    make_history,
    make_quantisation,
    make_reading,
    make_run,
    write_failures_of,
)

pytestmark = pytest.mark.browser

HOSTILE = '</figcaption><img src=x onerror="window.broken = 1">'


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with any_browser() as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run beside a baseline, with everything that a report can show."""
    folder = tmp_path_factory.mktemp("report")
    figures = {key: make_reading(0.4) for key in ("miou", "il_mcc", "ece", "hallucination_blank", "pope_random_f1")}
    run = make_run(
        folder / "student",
        make_evaluation(figures),
        latency=Latency(ms=62.7, conditions=NOTED),
        quantisation=make_quantisation(),
        history=make_history(),
    )
    write_failures_of(run / "evaluation" / "failures.html", ["cat", HOSTILE, "dog"])
    base = make_run(folder / HOSTILE.replace("/", "-"), make_evaluation(figures))
    main([str(run), "--baseline", str(base), "--out", str(folder / "out")])
    return folder / "out" / "report.html"


def test_the_page_needs_nothing_but_itself(browser: Page, report: Path) -> None:
    browser.events.clear()
    browser.resize(1280, 900)
    browser.open(report)

    assert browser.requests() == [report.resolve().as_uri()]
    assert browser.complaints() == []
    assert browser.run("window.broken") is None
    assert browser.run("document.scripts.length") == 0
    assert browser.run("[...document.querySelectorAll('.failures img')].map((one) => one.naturalWidth)") == [80, 80, 80]
    assert browser.run("document.querySelectorAll('#curves path.curve').length") == 4


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_its_window(browser: Page, report: Path, width: int) -> None:
    browser.resize(width, 900)
    browser.open(report)

    assert browser.run("document.documentElement.scrollWidth") <= width


def test_colours_follow_the_system_until_somebody_chooses(browser: Page, report: Path) -> None:
    browser.resize(1280, 900)
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    browser.prefer(prefers_color_scheme="light")
    browser.open(report)
    light = browser.run(ground)
    browser.prefer(prefers_color_scheme="dark")
    dark = browser.run(ground)

    assert light != dark
    browser.mouse("label:has(#theme-light)", click=True)
    assert browser.run(ground) == light


def test_what_is_folded_opens(browser: Page, report: Path) -> None:
    browser.resize(1280, 900)
    browser.open(report)

    shown = "document.querySelector('details .readings').checkVisibility()"
    assert browser.run(shown) is False
    browser.run("document.querySelector('details summary').focus()")
    browser.press("Enter")
    assert browser.run(shown) is True
