"""The page of failures in a real browser: masks are drawn where they are, failures are filtered, sorted, enlarged."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.sample import NegativeKind
from student.evaluation import Asked, evaluate
from student.failures import write_failures
from tests.browser import Page, any_browser
from tests.factories import absent, make_build, make_mask, make_sample, present
from tests.predictions import oracle, write_predictions

HOSTILE = '</script><img src=x onerror="window.broken = 1"><!--'

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two false alarms and a mask that lies elsewhere, in three pictures of 64 x 48."""
    folder = tmp_path_factory.mktemp("failures")
    samples = [
        make_sample("photos-1", absent("owl"), split="test"),
        make_sample("photos-2", absent(HOSTILE, NegativeKind.POPULAR), split="test"),
        make_sample("photos-3", present("cat", make_mask(left=0, top=0, right=20, bottom=20)), split="test"),
    ]
    build = make_build(folder / "build", samples)
    presence = {"owl": 0.7, HOSTILE: 0.9, "cat": 0.8}
    mask = make_mask(left=40, top=30, right=60, bottom=44)
    rows = [replace(row, presence=presence[row.phrase], mask=mask) for row in oracle(build)]
    predictions = write_predictions(folder / "said.parquet", rows, name="a <b>model</b>")
    write_failures(str(folder / "page.html"), evaluate(Asked(predictions=predictions, build=str(build), num_draws=20)))
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with any_browser() as page:
        yield page


@pytest.fixture
def page(browser: Page, page_path: Path) -> Page:
    browser.send("Page.navigate", url="about:blank")
    browser.wait_for("location.href === 'about:blank'")
    browser.resize(1300, 900)
    browser.events.clear()
    browser.open(page_path)
    browser.wait_for("document.querySelectorAll('.card img[src]').length > 0")
    return browser


def phrases(page: Page) -> list[str]:
    found: list[str] = page.run("[...document.querySelectorAll('.card .phrase')].map((one) => one.textContent)")
    return found


def pixel(page: Page, card: int, x: int, y: int) -> list[int]:
    """Red, green, blue and opacity of what is drawn over a card's picture."""
    found: list[int] = page.run(
        f"[...document.querySelectorAll('.card canvas')[{card}].getContext('2d').getImageData({x}, {y}, 1, 1).data]"
    )
    return found


def choose(page: Page, select: str, value: str) -> None:
    page.run(
        f"""(() => {{ const select = document.querySelector('#{select}'); select.value = {json.dumps(value)};
        select.dispatchEvent(new Event('change')); }})()"""
    )


def test_every_failure_is_shown_and_nothing_is_fetched(page: Page) -> None:
    assert phrases(page) == ["owl", HOSTILE, "cat"]
    assert page.run("document.querySelector('h1').textContent") == "Failures of a <b>model</b>"
    assert page.run("window.broken ?? 0") == 0
    assert page.run("[...document.querySelectorAll('.card img')].every((image) => image.naturalWidth === 64)")
    facts = page.run("[...document.querySelectorAll('.card .facts')].map((one) => one.textContent)")
    assert facts == ["presence 0.700random", "presence 0.900popular", "presence 0.800IoU 0.00present"]
    assert page.run("[...document.querySelectorAll('.card .key')].map((one) => one.textContent)") == [
        *["photos-1", "photos-2", "photos-3"]
    ]
    assert page.complaints() == []
    assert [url for url in page.requests() if not url.startswith("file:")] == []


def test_the_predicted_mask_is_painted_and_the_true_one_outlined(page: Page) -> None:
    assert pixel(page, 0, 50, 37)[3] == 120  # inside what was predicted
    assert pixel(page, 0, 40, 37)[3] == 255  # its edge
    assert pixel(page, 0, 39, 37)[3] == 0
    assert pixel(page, 0, 0, 0)[3] == 0  # nothing is true here
    assert pixel(page, 2, 0, 10) == [0, 190, 140, 255]
    assert pixel(page, 2, 19, 10) == [0, 190, 140, 255]
    assert pixel(page, 2, 2, 10) == [0, 0, 0, 255]
    assert pixel(page, 2, 10, 10)[3] == 0  # an outline is not filled
    assert pixel(page, 2, 50, 37)[3] == 120


def test_failures_are_filtered_sorted_and_searched(page: Page) -> None:
    choose(page, "sort", "sure")
    assert phrases(page) == [HOSTILE, "cat", "owl"]
    page.run(
        """[...document.querySelectorAll("[data-facet='failure'] label")]
        .find((label) => label.textContent.startsWith('False alarms: random')).click()"""
    )
    assert phrases(page) == ["owl"]
    assert page.run("document.querySelector('#count').textContent") == "1 of 3 failures"
    page.run("document.querySelector('#clear').click()")
    assert len(phrases(page)) == 3
    page.run("document.activeElement.blur()")
    page.press("/")
    page.type("photos-3")
    page.wait_for("document.querySelectorAll('.card').length === 1")
    assert phrases(page) == ["cat"]


def test_a_failure_is_enlarged_and_walked_from(page: Page) -> None:
    page.mouse(".card .picture", click=True)
    page.wait_for("document.querySelector('#detail').open")
    assert page.run("document.querySelector('#detail-phrase').textContent") == "owl"
    page.press("ArrowRight")
    page.press("ArrowRight")
    rows = page.run(
        "[...document.querySelectorAll('#detail-rows tr')].map((row) => [...row.cells].map((one) => one.textContent))"
    )
    assert ["picture", "photos-3"] in rows
    assert ["truth", "present"] in rows
    assert ["true mask", "outlined"] in rows
    assert page.run("document.querySelector('#detail-picture img').naturalWidth") == 64
    page.press("Escape")
    page.wait_for("!document.querySelector('#detail').open")


def test_a_narrow_window_needs_no_sideways_scrolling(page: Page) -> None:
    page.resize(400, 800)
    page.wait_for("document.documentElement.scrollWidth <= 400")
    time.sleep(0.1)
    assert page.run("document.querySelector('.card').clientWidth") > 300
