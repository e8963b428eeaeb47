"""SA-Co: pairs become labels of one picture, masks as complete as they say, and broken rows never an absence."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.errors import Reason, SourceError
from manifests.recipe import Recipe, SacoSource
from manifests.sample import MaskState
from shards.masks import mask_from_array
from shards.sources.saco import Saco, open_saco
from shards.sources.source import Found, Label, LabelState, Picture, Reject

HEIGHT, WIDTH = 30, 40
GOLD = Path("../shared/data/saco/gold_readme_sample.json")
Json = dict[str, Any]


def some_rle(seed: int = 0, *, height: int = HEIGHT, width: int = WIDTH) -> Json:
    array = np.zeros((height, width), np.bool_)
    array[seed % 20 : seed % 20 + 5, 3:9] = True
    mask = mask_from_array(array)
    return {"size": list(mask.size), "counts": mask.counts}


def some_pair(number: int, phrase: str = "dog", file_name: str = "a/1.jpg", **changes: object) -> Json:
    return {
        "id": number,
        "file_name": file_name,
        "text_input": phrase,
        "width": WIDTH,
        "height": HEIGHT,
        "queried_category": "0",
        "is_instance_exhaustive": 1,
        "is_pixel_exhaustive": 1,
    } | changes


def some_annotation(number: int, pair: int, **changes: object) -> Json:
    return {
        "id": number,
        "image_id": pair,
        "source": "manual",
        "area": 0.025,
        "bbox": [0.1, 0.1, 0.2, 0.2],
        "segmentation": some_rle(number),
        "category_id": 1,
        "iscrowd": 0,
    } | changes


def open_source(folder: Path, **changes: object) -> Saco:
    table = SacoSource(**{"images": "images", "annotations": "*.json"} | changes)  # type: ignore[arg-type]
    return open_saco("saco", table, Recipe(name="r", mix={}, sources={}, folder=str(folder)))


def scan_source(source: Saco, folder: Path) -> list[Found]:
    prepared = source.prepare(str(folder / "work"))
    return [one for part in prepared.parts for one in source.scan(part)] + list(prepared.rejects)


def scan(folder: Path, pairs: Sequence[object], annotations: Sequence[object]) -> list[Found]:
    for name in ("a/1.jpg", "a/2.jpg", "3.png"):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(b"bytes of " + name.encode())
    (folder / "x.json").write_text(json.dumps({"images": pairs, "annotations": annotations}))
    return scan_source(open_source(folder), folder)


def pictures(found: Iterable[Found]) -> dict[str, Picture]:
    return {one.image_id: one for one in found if isinstance(one, Picture)}


def labels(found: Iterable[Found]) -> dict[str, Label]:
    return {label.phrase: label for picture in pictures(found).values() for label in picture.labels}


def reasons(found: Iterable[Found]) -> list[Reason]:
    return [one.reason for one in found if isinstance(one, Reject)]


def test_pairs_of_one_file_become_one_picture(tmp_path: Path) -> None:
    pairs = [some_pair(1, "dog"), some_pair(2, "cat"), some_pair(3, "owl", "3.png"), some_pair(4, "fox", "a/2.jpg")]
    found = scan(tmp_path, pairs, [some_annotation(1, 1), some_annotation(2, 1), some_annotation(3, 3)])
    assert not reasons(found)
    assert {one.image_id: (one.uri, one.data) for one in pictures(found).values()} == {
        "a/1": ("a/1.jpg", b"bytes of a/1.jpg"),
        "a/2": ("a/2.jpg", b"bytes of a/2.jpg"),
        "3": ("3.png", b"bytes of 3.png"),
    }
    dog, cat = labels(found)["dog"], labels(found)["cat"]
    assert (dog.state, dog.mask_state, dog.known_by) == (LabelState.PRESENT, MaskState.COMPLETE, "source")
    assert [mask.counts for mask in dog.masks] == [some_rle(1)["counts"], some_rle(2)["counts"]]
    assert (cat.state, cat.masks) == (LabelState.ABSENT, ())
    assert pictures(found)["a/1"].claimed_size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("instance", "pixel", "annotated", "state", "mask_state"),
    [
        (1, 1, True, LabelState.PRESENT, MaskState.COMPLETE),
        (1, 0, True, LabelState.PRESENT, MaskState.PARTIAL),
        (0, 0, True, LabelState.PRESENT, MaskState.PARTIAL),
        (1, 0, False, LabelState.ABSENT, None),
        (0, 0, False, LabelState.OPEN, None),
        (None, None, False, LabelState.OPEN, None),
    ],
)
def test_the_flags_say_what_is_known(
    tmp_path: Path, instance: int, pixel: int, annotated: bool, state: LabelState, mask_state: MaskState | None
) -> None:
    pair = some_pair(1, is_instance_exhaustive=instance, is_pixel_exhaustive=pixel)
    label = labels(scan(tmp_path, [pair], [some_annotation(1, 1)] if annotated else []))["dog"]
    assert label.state is state
    assert mask_state in (None, label.mask_state)


BROKEN: dict[Reason, Json] = {
    Reason.MASK_CORRUPT: {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "\x7f~"}},
    Reason.MASK_SIZE: {"segmentation": some_rle(height=HEIGHT - 5)},
    Reason.MASK_EMPTY: {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}},
    Reason.WRONG_FIELD: {"segmentation": [[1, 2, 3, 4, 5, 6]]},
    Reason.UNKNOWN_CATEGORY: {"category_id": 2},
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_annotation_leaves_its_phrase_open(tmp_path: Path, reason: Reason) -> None:
    found = scan(tmp_path, [some_pair(1), some_pair(2, "cat")], [some_annotation(1, 1, **BROKEN[reason])])
    assert reasons(found) == [reason]
    assert labels(found)["dog"].state is LabelState.OPEN
    assert labels(found)["cat"].state is LabelState.ABSENT


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [HEIGHT, WIDTH], "counts": "\ud800"},
        {"size": [10**30, WIDTH], "counts": "a"},
        {"size": [HEIGHT, WIDTH], "counts": [10**30]},
        {"size": [float("nan"), WIDTH], "counts": "a"},
        None,
    ],
)
def test_what_no_table_can_hold_leaves_its_phrase_open_too(tmp_path: Path, segmentation: object) -> None:
    found = scan(tmp_path, [some_pair(1)], [some_annotation(1, 1, segmentation=segmentation, bbox=None)])
    assert len(reasons(found)) == 1
    assert labels(found)["dog"].state is LabelState.OPEN


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_annotation_beside_a_sound_one_leaves_the_presence_partial(tmp_path: Path, reason: Reason) -> None:
    found = scan(tmp_path, [some_pair(1)], [some_annotation(1, 1, **BROKEN[reason]), some_annotation(2, 1)])
    label = labels(found)["dog"]
    assert (label.state, label.mask_state, len(label.masks)) == (LabelState.PRESENT, MaskState.PARTIAL, 1)


def test_plain_run_lengths_crowds_and_boxes_alone_are_presences(tmp_path: Path) -> None:
    runs = {"size": [HEIGHT, WIDTH], "counts": [5, 10, HEIGHT * WIDTH - 15]}
    annotations = [
        some_annotation(1, 1, segmentation=runs, iscrowd=1),
        some_annotation(2, 2, segmentation=None, bbox=[float("nan")] * 4),
    ]
    found = scan(tmp_path, [some_pair(1), some_pair(2, "cat")], annotations)
    assert labels(found)["dog"].mask_state is MaskState.COMPLETE
    assert labels(found)["cat"].mask_state is MaskState.NONE
    assert not reasons(found)


def test_answers_that_contradict_leave_the_phrase_open(tmp_path: Path) -> None:
    found = scan(tmp_path, [some_pair(1), some_pair(2, "Dog ")], [some_annotation(1, 2)])
    assert reasons(found) == [Reason.CONTRADICTION]
    assert labels(found)["dog"].state is LabelState.OPEN


def test_two_annotators_who_agree_are_not_added_up(tmp_path: Path) -> None:
    (tmp_path / "y.json").write_text(json.dumps({"images": [some_pair(1)], "annotations": [some_annotation(7, 1)]}))
    found = scan(tmp_path, [some_pair(1)], [some_annotation(1, 1)])
    assert len(pictures(found)) == 1
    assert [mask.counts for mask in labels(found)["dog"].masks] == [some_rle(1)["counts"]]


def test_pairs_that_share_an_id_are_counted_and_left_open(tmp_path: Path) -> None:
    found = scan(tmp_path, [some_pair(1), some_pair(1, "cat")], [some_annotation(1, 1)])
    assert reasons(found) == [Reason.DUPLICATE_ID] * 2
    assert {label.state for label in labels(found).values()} == {LabelState.OPEN}


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        ("  ", Reason.EMPTY_PHRASE),
        ("x" * 10_000, Reason.PHRASE_TOO_LONG),
        ("\ud800", Reason.PHRASE_NOT_UTF8),
    ],
)
def test_a_bad_phrase_is_counted_and_the_picture_stays(tmp_path: Path, phrase: str, reason: Reason) -> None:
    found = scan(tmp_path, [some_pair(1, phrase), some_pair(2, "cat")], [some_annotation(1, 1)])
    assert reasons(found) == [reason]
    assert list(labels(found)) == ["cat"]


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (some_pair(9, file_name="../secret.jpg"), Reason.UNSAFE_NAME),
        (some_pair(9, file_name="none.jpg"), Reason.MISSING_FILE),
        (some_pair(9, file_name="a"), Reason.UNREADABLE),
        (some_pair(9, file_name="\ud800.jpg"), Reason.WRONG_FIELD),
        ({"id": 9}, Reason.WRONG_FIELD),
        (some_pair(9, width="wide"), Reason.WRONG_FIELD),
        (some_pair(9, width=10**30), Reason.WRONG_FIELD),
        (None, Reason.WRONG_FIELD),
    ],
)
def test_a_bad_pair_loses_its_picture_and_no_other(tmp_path: Path, pair: object, reason: Reason) -> None:
    found = scan(tmp_path, [pair, some_pair(1)], [])
    assert reasons(found) == [reason]
    assert [one.image for one in found if isinstance(one, Reject)] == [True]
    assert list(pictures(found)) == ["a/1"]


def test_a_pair_of_another_size_is_left_open(tmp_path: Path) -> None:
    found = scan(tmp_path, [some_pair(1, "cat"), some_pair(2, width=7)], [])
    assert reasons(found) == [Reason.SIZE_MISMATCH]
    assert labels(found)["dog"].state is LabelState.OPEN


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [(some_annotation(1, 77), Reason.UNKNOWN_IMAGE), ({"id": 1}, Reason.WRONG_FIELD), (7, Reason.WRONG_FIELD)],
)
def test_annotations_of_no_pair_are_counted(tmp_path: Path, annotation: object, reason: Reason) -> None:
    assert reasons(scan(tmp_path, [some_pair(1)], [annotation])) == [reason]


def test_a_file_is_found_without_its_folders(tmp_path: Path) -> None:
    found = scan(tmp_path, [some_pair(1, file_name="elsewhere/3.png")], [])
    assert pictures(found)["elsewhere/3"].uri == "3.png"


def test_many_buckets_and_annotations_before_pairs_give_the_same(tmp_path: Path) -> None:
    names = ("a/1.jpg", "a/2.jpg", "3.png")
    pairs = [some_pair(number, f"thing {number}", names[number % 3]) for number in range(60)]
    annotations = [some_annotation(number, number % 60) for number in range(90)]
    few = pictures(scan(tmp_path, pairs, annotations))
    (tmp_path / "x.json").write_text(json.dumps({"annotations": annotations[::-1], "images": pairs}))
    source = open_source(tmp_path)
    many = Saco(name="saco", root=source.root, annotations=source.annotations, licence=source.licence, bucket_bytes=500)
    assert len(many.prepare(str(tmp_path / "work")).parts) == 3
    again = pictures(scan_source(many, tmp_path))
    assert {name: len(one.labels) for name, one in again.items()} == dict.fromkeys(few, 20)
    for name, one in few.items():
        for label, other in zip(one.labels, again[name].labels, strict=True):
            assert (label.phrase, label.state, set(label.masks)) == (other.phrase, other.state, set(other.masks))


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("{", {}, r"x\.json: broken JSON"),
        ('{"images": [], "annotations": []}', {}, r"x\.json: no image-phrase pair; expected SA-Co's `images`"),
        ('{"images": 5}', {}, r"x\.json: images is a int; expected an array"),
        ("{}", {"annotations": "none.json"}, r"annotations: nothing at .*none\.json; expected an SA-Co json"),
        ("{}", {"annotations": []}, r"annotations is empty"),
        ("{}", {"images": "none"}, r"none does not exist; expected"),
    ],
)
def test_a_wrong_source_stops_with_one_sentence(
    tmp_path: Path, text: str, changes: dict[str, object], message: str
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path, **changes).prepare(str(tmp_path / "work"))


@pytest.mark.real_data
@pytest.mark.skipif(not GOLD.exists(), reason="../shared/data/saco is not there")
def test_the_published_example_is_read_as_its_page_says(tmp_path: Path) -> None:
    gold = json.loads(GOLD.read_text())
    picture = tmp_path / "images" / gold["images"][0]["file_name"]
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"jpeg")
    (tmp_path / "x.json").write_text(GOLD.read_text())
    found = scan_source(open_source(tmp_path), tmp_path)
    assert not reasons(found)
    chili, fish = labels(found)["chili"], labels(found)["the fish ball"]
    assert (chili.state, chili.mask_state, len(chili.masks)) == (LabelState.PRESENT, MaskState.COMPLETE, 2)
    assert fish.state is LabelState.ABSENT
