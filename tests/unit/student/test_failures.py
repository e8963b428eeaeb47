import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from manifests.sample import Mask, NegativeKind
from shards.masks import mask_from_array
from student.evaluation import Asked, Evaluated, evaluate
from student.failures import Group, choose_failures, write_failures
from tests.factories import absent, make_build, make_mask, make_sample, present
from tests.predictions import Said, oracle, write_predictions

HOSTILE = "</script><b>dog"
SAID = {  # presence by picture and phrase
    ("photos-1", "cat"): 0.9,
    ("photos-1", "owl"): 0.6,
    ("photos-1", "dog"): 0.2,
    ("photos-2", "cat"): 0.4,
    ("photos-2", "boxed"): 0.1,
    ("photos-2", "owl"): 0.7,
    ("photos-2", HOSTILE): 0.99,
    ("photos-3", "cat"): 0.8,
}


def evaluated(folder: Path) -> Evaluated:
    """Two misses, two false alarms of `owl` (one asked for two reasons), one of another kind, a mask elsewhere."""
    twice = (absent("owl"), absent("owl", NegativeKind.POPULAR))
    samples = [
        make_sample("photos-1", present("cat", make_mask()), absent("owl"), absent("dog"), split="test"),
        make_sample(
            "photos-2",
            present("cat", make_mask()),
            present("boxed"),
            *twice,
            absent(HOSTILE, NegativeKind.CO_OCCURRING),
            split="test",
        ),
        make_sample("photos-3", present("cat", make_mask(800, 600)), split="test", width=800, height=600),
    ]
    build = make_build(folder / "build", samples)
    rows = [replace(row, presence=SAID[row.key, row.phrase], mask=_mask(row)) for row in oracle(build)]
    predictions = write_predictions(folder / "said.parquet", rows)
    return evaluate(Asked(predictions=predictions, build=str(build), num_draws=20))


def _mask(row: Said) -> Mask | None:
    """Right in the first picture, a corner elsewhere."""
    if row.key == "photos-1":
        return row.mask
    return (
        make_mask(800, 600, left=700, right=800, top=500, bottom=600)
        if row.key == "photos-3"
        else make_mask(left=60, right=64)
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    return evaluated(tmp_path_factory.mktemp("failures"))


def named(found: Evaluated, groups: list[Group]) -> dict[str, list[tuple[str, str]]]:
    prompts = found.judged.prompt_n
    return {
        group.name: [(found.truth.key(at), found.truth.phrase(at)) for at in prompts[group.rows].tolist()]
        for group in groups
    }


def test_the_surest_false_alarms_and_the_blindest_misses_come_first(found: Evaluated) -> None:
    groups = choose_failures(found.judged, has_masks=True, threshold=0.5)
    assert named(found, groups) == {
        "alarm_random": [("photos-2", "owl"), ("photos-1", "owl")],
        "alarm_popular": [("photos-2", "owl")],
        "alarm_co_occurring": [("photos-2", HOSTILE)],
        "unseen": [("photos-2", "boxed"), ("photos-2", "cat")],
        "elsewhere": [("photos-3", "cat")],
    }
    assert [(group.num_found, group.num_asked) for group in groups] == [(2, 3), (1, 1), (1, 1), (2, 4), (1, 3)]


def test_a_group_shows_no_more_than_its_share(found: Evaluated) -> None:
    groups = choose_failures(found.judged, has_masks=True, threshold=0.5, per_group=1)
    assert named(found, groups)["alarm_random"] == [("photos-2", "owl")]
    assert groups[0].num_found == 2


def test_without_masks_none_lies_elsewhere(found: Evaluated) -> None:
    groups = choose_failures(found.judged, has_masks=False, threshold=0.5)
    assert "elsewhere" not in [group.name for group in groups]


def index_of(page: Path) -> dict[str, dict[str, list[object]]]:
    text = page.read_text("utf-8")
    index: dict[str, dict[str, list[object]]] = json.loads(text.split('id="index">')[1].split("</script>")[0])
    return index


def test_the_page_holds_each_failure_with_its_picture_and_masks(found: Evaluated, tmp_path: Path) -> None:
    page = tmp_path / "failures.html"
    assert write_failures(str(page), found) == page.stat().st_size
    index = index_of(page)
    rows, pictures = index["rows"], index["pictures"]
    assert pictures["key"] == ["photos-1", "photos-2", "photos-3"]
    assert (pictures["width"], pictures["height"]) == ([64, 64, 400], [48, 48, 300])
    assert [pictures["key"][at] for at in rows["picture"]] == [  # type: ignore[call-overload]
        *["photos-2", "photos-1", "photos-2", "photos-2", "photos-2", "photos-2", "photos-3"]
    ]
    assert rows["phrase"][3] == HOSTILE
    assert rows["kinds"][0] == ["random", "popular"]
    assert rows["true"][0] == ""
    assert rows["iou"] == [None, None, None, None, None, 0.0, 0.0]
    assert rows["predicted"][0] == make_mask(left=60, right=64).counts
    at_page_size = np.zeros((300, 400), np.bool_)
    at_page_size[250:300, 350:400] = True
    assert rows["predicted"][6] == mask_from_array(at_page_size).counts
    assert rows["true"][6] == make_mask(400, 300, left=4, top=3, right=20, bottom=15).counts
    assert "<b>dog" not in page.read_text("utf-8")


def test_the_same_evaluation_gives_the_same_page(found: Evaluated, tmp_path: Path) -> None:
    for name in ("one.html", "other.html"):
        write_failures(str(tmp_path / name), found)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "other.html").read_bytes()


def test_a_perfect_model_has_an_empty_page(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build")
    predictions = write_predictions(tmp_path / "said.parquet", oracle(build))
    write_failures(
        str(tmp_path / "page.html"), evaluate(Asked(predictions=predictions, build=str(build), num_draws=20))
    )
    assert index_of(tmp_path / "page.html")["rows"]["phrase"] == []
