"""The contact sheet in a real browser: what it shows, how it is filtered, and that it stays fluent with 10,000 rows."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.manifest import Manifest, read_manifest
from manifests.sample import NegativeKind
from shards.build_pictures import open_splits
from shards.masks import mask_from_array, mask_to_array, union
from shards.page import PagePrompt, PageSample, drawn_masks, write_page
from shards.sheet import read_samples
from shards.show import View, about_build, show_build
from tests.browser import Page, any_browser
from tests.factories import absent, make_build, make_mask, make_recipe, make_sample, make_samples, present

HOSTILE = '</script><img src=x onerror="window.broken = 1"><!--'
GRAIN = mask_from_array(np.random.default_rng(0).random((48, 64)) < 0.3)  # runs of every length, growing and shrinking
SHAPE = present("odd shape", GRAIN, make_mask(left=0, top=3, right=17, bottom=40))
CARD = ".card[data-place='0']"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with any_browser() as page:
        yield page


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(str(make_build(tmp_path_factory.mktemp("manifest") / "build")))


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small build whose first sample has an odd shape and whose second has a hostile phrase."""
    folder = tmp_path_factory.mktemp("sheet")
    first = make_sample("photos-first", SHAPE, present("box", make_mask()), absent("kite", NegativeKind.POPULAR))
    second = make_sample("photos-second", present(HOSTILE, make_mask()), absent("zebra"))
    build = make_build(folder / "build", [first, second, *make_samples()], recipe=make_recipe(name="<b>sheet</b> & co"))
    show_build(str(build), str(folder / "page.html"), View(limit=0, quiet=True))
    return folder / "page.html"


@pytest.fixture
def page(browser: Page, sheet: Path) -> Page:
    open_wide(browser, sheet)
    return browser


def open_wide(browser: Page, path: Path) -> None:
    browser.send("Page.navigate", url="about:blank")
    browser.wait_for("location.href === 'about:blank'")
    browser.events.clear()
    browser.resize(1300, 900)
    browser.prefer(prefers_color_scheme="light")
    browser.open(path)
    browser.wait_for("document.querySelectorAll('.card img[src]').length > 0")


def count(page: Page) -> tuple[int, int, int]:
    """Samples that fit, samples of the page, prompts that fit."""
    text = str(page.run("document.querySelector('#count').textContent")).replace(",", "")
    found = re.fullmatch(r"(\d+) of (\d+) samples (\d+) prompts", text)
    assert found is not None, text
    return int(found[1]), int(found[2]), int(found[3])


def keys(page: Page) -> list[str]:
    found: list[str] = page.run("[...document.querySelectorAll('.card .key')].map((key) => key.textContent)")
    return found


def search(page: Page, text: str) -> None:
    page.run("document.querySelector('#search').value = ''; document.querySelector('#search').focus()")
    page.type(text)
    page.wait_for(f"new URLSearchParams(location.hash.slice(1)).get('q') === {json.dumps(text)}")


def drawn(page: Page, selector: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where a canvas is not empty [height, width]."""
    script = f"""(() => {{
      const canvas = document.querySelector({json.dumps(selector)});
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return [canvas.height, canvas.width, [...pixels].filter((_, i) => i % 4 === 3).map((alpha) => +(alpha > 0))];
    }})()"""
    height, width, alphas = page.run(script)
    return np.array(alphas, np.bool_).reshape(height, width)


def true_masks(sheet: Path, key: str, *phrases: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    found = [one.mask for one in drawn_masks(sheet.read_text("utf-8")) if one.key == key and one.phrase in phrases]
    return mask_to_array(union(found))


def many_samples(one: PageSample, number: int) -> Iterator[PageSample]:
    for i in range(number):
        prompts = [PagePrompt(phrase=f"thing {(i * 7 + j) % 500}", present=False, kind="random") for j in range(5)]
        yield PageSample(
            key=f"photos-{i:06d}",
            source="photos",
            split="train",
            width=one.width,
            height=one.height,
            thumbnail=one.thumbnail,
            thumbnail_width=one.thumbnail_width,
            thumbnail_height=one.thumbnail_height,
            prompts=(*one.prompts, *prompts[: i % 6]),
        )


def test_the_page_opens_alone_and_without_complaint(page: Page, sheet: Path) -> None:
    assert page.complaints() == []
    assert page.requests() == [sheet.resolve().as_uri()]
    assert count(page)[:2] == (21, 21)
    assert page.run("document.documentElement.lang") == "en"
    assert page.run("document.querySelector('h1').textContent") == "<b>sheet</b> & co"


def test_every_picture_decodes_and_says_what_is_in_it(page: Page) -> None:
    page.wait_for("[...document.querySelectorAll('.card img')].every((image) => image.naturalWidth > 0)")
    alt = page.run(f'document.querySelector("{CARD} img").alt')
    assert alt == "Picture photos-first. Present: odd shape, box. Absent: kite."


def test_a_hostile_phrase_is_shown_as_text(page: Page) -> None:
    assert page.run("window.broken") is None
    phrases = page.run("[...document.querySelectorAll('.card .phrase')].map((phrase) => phrase.textContent)")
    assert HOSTILE in phrases
    assert page.run("document.querySelectorAll('.phrase *').length") == 0


def test_a_prompt_shows_answer_kind_evidence_and_masks(page: Page) -> None:
    prompts = page.run(
        f'[...document.querySelectorAll("{CARD} .prompt")].map((prompt) => prompt.innerText.split("\\n"))'
    )
    assert prompts == [
        ["✓", "odd shape", "2 masks · annotated"],
        ["✓", "box", "1 mask · annotated"],
        ["✗", "kite", "popular · annotated"],
    ]
    assert page.run(f'[...document.querySelectorAll("{CARD} .tag")].map((tag) => tag.textContent)') == [
        "photos",
        "train",
    ]


def test_present_and_absent_differ_in_colour_in_light_and_dark(page: Page) -> None:
    script = f"""['.is-present', '.is-absent'].map((kind) =>
      getComputedStyle(document.querySelector("{CARD} " + kind + " .phrase")).color)
      .concat(getComputedStyle(document.documentElement).backgroundColor)"""
    light = page.run(script)
    page.prefer(prefers_color_scheme="dark")
    dark = page.run(script)
    assert len({*light, *dark}) == 6


def test_masks_are_drawn_pixel_by_pixel(page: Page, sheet: Path) -> None:
    expected = true_masks(sheet, "photos-first", "odd shape", "box")
    assert np.array_equal(drawn(page, f"{CARD} canvas"), expected)


def test_a_phrase_shows_its_own_masks_while_the_mouse_is_over_it(page: Page, sheet: Path) -> None:
    both = drawn(page, f"{CARD} canvas")
    page.mouse(f"{CARD} .prompt:nth-of-type(2)")  # the first button is the picture
    assert np.array_equal(drawn(page, f"{CARD} canvas"), true_masks(sheet, "photos-first", "odd shape"))
    page.mouse(f"{CARD} .is-absent")
    assert not drawn(page, f"{CARD} canvas").any()
    page.mouse("#search")
    assert np.array_equal(drawn(page, f"{CARD} canvas"), both)


def test_a_click_keeps_a_phrase_until_the_next_click(page: Page, sheet: Path) -> None:
    second = f"{CARD} .prompt:nth-of-type(3)"
    both = drawn(page, f"{CARD} canvas")
    page.mouse(second, click=True)
    page.mouse("#search", click=True)
    assert page.run(f"document.querySelector({json.dumps(second)}).getAttribute('aria-pressed')") == "true"
    assert np.array_equal(drawn(page, f"{CARD} canvas"), true_masks(sheet, "photos-first", "box"))
    page.mouse(second, click=True)
    page.mouse("#search", click=True)
    assert np.array_equal(drawn(page, f"{CARD} canvas"), both)


def test_masks_can_be_hidden_by_key(page: Page) -> None:
    filled = drawn(page, f"{CARD} canvas")
    page.press("m")
    outlined = drawn(page, f"{CARD} canvas")
    page.press("m")
    assert 0 < outlined.sum() < filled.sum()
    assert not drawn(page, f"{CARD} canvas").any()


def test_search_finds_phrases_and_keys_and_clear_forgets(page: Page) -> None:
    search(page, "zebra")
    assert keys(page) == ["photos-second"]
    assert count(page) == (1, 21, 1)
    assert page.run("document.querySelector('.card .prompt .phrase').textContent") == "zebra"
    assert "q=zebra" in page.run("location.hash")
    search(page, "FIRST")
    assert keys(page) == ["photos-first"]
    search(page, "no such phrase")
    assert page.run("document.querySelector('#empty').checkVisibility()")
    page.mouse("#clear", click=True)
    assert count(page)[0] == 21


def test_filters_of_one_facet_widen_and_of_several_narrow(page: Page) -> None:
    def choose(facet: str, name: str) -> None:
        page.run(
            f"""[...document.querySelectorAll("[data-facet='{facet}'] label")]
            .find((label) => label.querySelector(".name").textContent === {json.dumps(name)}).click()"""
        )

    choose("kind", "popular")
    assert (keys(page), count(page)) == (["photos-first"], (1, 21, 1))
    choose("kind", "blank")
    assert count(page) == (4, 21, 7)
    choose("split", "val")
    assert count(page) == (1, 21, 2)
    choose("answer", "✓ present")
    assert count(page) == (0, 21, 0)
    numbers = page.run("""[...document.querySelectorAll("[data-facet='answer'] .number")].map((n) => n.textContent)""")
    assert numbers == ["0", "2"]  # what each answer would give


def test_the_address_brings_a_view_back(page: Page, sheet: Path) -> None:
    page.send("Page.navigate", url="about:blank")
    page.wait_for("location.href === 'about:blank'")
    page.send("Page.navigate", url=sheet.resolve().as_uri() + "#q=cat&split=val&sort=key")
    page.wait_for("document.querySelectorAll('.card img[src]').length > 0")
    shown = keys(page)
    assert shown == sorted(shown)
    assert all("val" in key or "blank" in key for key in shown)
    assert page.run("document.querySelector('#search').value") == "cat"


def test_arrow_keys_walk_over_pictures_and_phrases(page: Page) -> None:
    focus = (
        "document.activeElement.closest('.card').dataset.place + ' ' + document.activeElement.className.split(' ')[0]"
    )
    page.run(f'document.querySelector("{CARD} .picture").focus()')
    page.press("ArrowRight")
    assert page.run(focus) == "1 picture"
    page.press("ArrowDown")
    assert page.run(focus) == "1 prompt"
    page.press("End")
    assert page.run(focus) == "20 picture"
    page.press("Home")
    assert page.run(focus) == "0 picture"
    page.press("/")
    assert page.run("document.activeElement.id") == "search"


def test_a_picture_is_enlarged_and_left_by_keyboard(page: Page, sheet: Path) -> None:
    page.run(f'document.querySelector("{CARD} .picture").focus()')
    page.press("Enter")
    page.wait_for("document.querySelector('#detail').open")
    assert page.run("document.querySelector('#detail-key').textContent") == "photos-first"
    assert np.array_equal(drawn(page, "#detail canvas"), true_masks(sheet, "photos-first", "odd shape", "box"))
    assert "complete" in page.run("document.querySelector('#detail-prompts tr').innerText")
    page.press("ArrowRight")
    assert page.run("document.querySelector('#detail-key').textContent") == "photos-second"
    page.press("Escape")
    page.wait_for("!document.querySelector('#detail').open")
    page.wait_for("document.activeElement.closest('.card')?.dataset.place === '1'")


def test_a_narrow_window_needs_no_sideways_scrolling(page: Page) -> None:
    page.resize(400, 800)
    page.wait_for("document.documentElement.scrollWidth <= 400")
    assert page.run("document.querySelector('.card').clientWidth") > 300


def test_ten_thousand_rows_scroll_and_filter_at_once(
    browser: Page, manifest: Manifest, sheet: Path, tmp_path: Path
) -> None:
    one = next(
        read_samples(open_splits(str(sheet.parent / "build"), read_manifest(str(sheet.parent / "build")), None), 160)
    )
    write_page(
        str(tmp_path / "large.html"), many_samples(one, 10_000), about_build(manifest, "large", "10,000 samples")
    )
    open_wide(browser, tmp_path / "large.html")
    assert count(browser)[0] == 10_000
    browser.run("scrollTo(0, document.body.scrollHeight / 2)")
    browser.wait_for("[...document.querySelectorAll('.card')].some((card) => card.dataset.place > 4900)")
    browser.wait_for("[...document.querySelectorAll('.card img')].every((image) => image.naturalWidth > 0)")
    places = browser.run("[...document.querySelectorAll('.card')].map((card) => Number(card.dataset.place))")
    assert places == list(range(places[0], places[-1] + 1))
    assert len(places) < 60
    spent_ms = browser.run(
        """(() => { const start = performance.now();
        document.querySelector("[data-facet='kind'] label:nth-of-type(2)").click();
        return performance.now() - start; })()"""
    )
    assert count(browser)[0] == 8_333  # five of six ask for something at random
    assert spent_ms < 1000
