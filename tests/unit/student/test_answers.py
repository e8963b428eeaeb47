import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import tables
from manifests.errors import TableError
from manifests.sample import Mask
from student.answers import Answers, predicted_masks, read_answers
from student.truth import read_truth
from tests.factories import absent, make_build, make_mask, make_sample, present
from tests.predictions import Said, oracle, write_predictions

Change = Callable[[list[Said]], list[Said]]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [
        make_sample(f"photos-{split}{n}", present("cat", make_mask()), absent("dog"), absent("owl"), split=split)
        for split in ("val", "test")
        for n in range(2)
    ]
    return make_build(tmp_path_factory.mktemp("answers") / "build", samples)


def answers_of(build: Path, folder: Path, change: Change, *, max_missing_share: float = 0.5) -> Answers:
    uri = write_predictions(folder / "said.parquet", change(oracle(build)))
    return read_answers(read_truth(str(build), "test"), uri, max_missing_share=max_missing_share)


def first_as(**changes: object) -> Change:
    return lambda rows: [replace(rows[0], **changes), *rows[1:]]  # type: ignore[arg-type]


def test_every_prompt_gets_its_row_wherever_that_stands(build: Path, tmp_path: Path) -> None:
    truth = read_truth(str(build), "test")
    found = answers_of(build, tmp_path, lambda rows: rows[::-1])
    assert found.presence_n.tolist() == pytest.approx([0.9 if present else 0.1 for present in truth.present_n])
    assert found.area_n.tolist() == [24 * 32 if present else 0 for present in truth.present_n]
    assert found.counted["used"] == len(truth) == 6
    assert not any(num for name, num in found.counted.items() if name != "used")


def test_rows_that_belong_to_no_prompt_are_counted_by_why(build: Path, tmp_path: Path) -> None:
    strangers = [
        Said(key="photos-test0", phrase="zebra", presence=0.5),
        Said(key="photos-test0", phrase="", presence=0.5),
        Said(key="elsewhere-1", phrase="dog", presence=0.5),
        Said(key="photos-val0", phrase="dog", presence=0.5),
        Said(key="photos-val1", phrase="zebra", presence=7.0),
    ]
    found = answers_of(build, tmp_path, lambda rows: [*strangers, *rows])
    assert {name: num for name, num in found.counted.items() if num} == {
        "unknown_phrase": 2,
        "unknown_key": 1,
        "other_split": 2,
        "used": 6,
    }


def test_a_phrase_that_the_split_asks_of_other_pictures_is_counted_as_not_asked(tmp_path: Path) -> None:
    samples = [
        make_sample("photos-1", present("cat", make_mask()), split="test"),
        make_sample("photos-2", absent("owl"), split="test"),
    ]
    build = make_build(tmp_path / "build", samples)
    extra = Said(key="photos-1", phrase="owl", presence=0.5)
    assert answers_of(build, tmp_path, lambda rows: [*rows, extra]).counted["not_asked"] == 1


@pytest.mark.parametrize("presence", [1.5, -0.1, math.nan, math.inf, None])
def test_a_presence_outside_0_to_1_is_counted_and_its_prompt_is_missing(
    build: Path, tmp_path: Path, presence: float | None
) -> None:
    found = answers_of(build, tmp_path, first_as(presence=presence))
    assert (found.counted["bad_presence"], found.counted["missing"]) == (1, 1)
    assert np.isnan(found.presence_n[0])
    assert found.answered_n.tolist() == [False] + [True] * 5


@pytest.mark.parametrize(
    "mask",
    [
        make_mask(48, 64),  # transposed
        Mask(size=(48, 64), counts="~~~"),
        Mask(size=(48, 64), counts=make_mask(64, 40).counts),
    ],
)
def test_a_broken_mask_or_one_of_another_size_is_counted_and_its_prompt_is_missing(
    build: Path, tmp_path: Path, mask: Mask
) -> None:
    found = answers_of(build, tmp_path, first_as(mask=mask))
    assert (found.counted["bad_mask"], found.counted["missing"]) == (1, 1)
    assert not found.answered_n[0]


def test_an_empty_mask_and_none_are_no_fault(build: Path, tmp_path: Path) -> None:
    empty = Mask(size=(48, 64), counts=make_mask(left=0, right=0).counts)
    found = answers_of(
        build, tmp_path, lambda rows: [replace(rows[0], mask=empty), replace(rows[1], no_mask=True), *rows[2:]]
    )
    assert (found.counted["missing"], found.area_n[0]) == (0, 0)
    assert found.has_masks


def test_masks_that_are_all_empty_texts_or_null_are_none(build: Path, tmp_path: Path) -> None:
    empty: Change = lambda rows: [replace(rows[0], mask=None), *(replace(row, no_mask=True) for row in rows[1:])]  # noqa: E731
    assert not answers_of(build, tmp_path, empty).has_masks


def test_a_table_without_any_mask_gives_none(build: Path, tmp_path: Path) -> None:
    assert not answers_of(build, tmp_path, lambda rows: [replace(row, no_mask=True) for row in rows]).has_masks


def test_missing_rows_are_counted_and_refused_above_a_share(build: Path, tmp_path: Path) -> None:
    without_one: Change = lambda rows: rows[1:]  # noqa: E731
    assert answers_of(build, tmp_path, without_one, max_missing_share=1 / 6).counted["missing"] == 1
    with pytest.raises(
        TableError, match=r"1 of 6 prompts of split test have no usable row, the first is 'cat' in "
    ) as said:
        answers_of(build, tmp_path, without_one, max_missing_share=0.16)
    assert "expected at most 16.0%" in str(said.value)
    assert "--max-missing-share" in str(said.value)


def test_logits_are_refused_with_the_row_that_shows_them(build: Path, tmp_path: Path) -> None:
    logits: Change = lambda rows: [replace(row, presence=-3.5) for row in rows]  # noqa: E731
    with pytest.raises(
        TableError, match=r"6 of 6 prompts.*6 rows are bad presence \(row 0 has presence -3.5, expected"
    ):
        answers_of(build, tmp_path, logits)


def test_predictions_of_another_build_are_refused(build: Path, tmp_path: Path) -> None:
    other: Change = lambda rows: [replace(row, key=f"other-{row.key}") for row in rows]  # noqa: E731
    with pytest.raises(TableError, match=r"6 of 6 prompts .* 6 rows are unknown key\. Predict the split whole"):
        answers_of(build, tmp_path, other)


def test_a_prompt_that_is_answered_twice_is_refused(build: Path, tmp_path: Path) -> None:
    twice: Change = lambda rows: [*rows, replace(rows[2], phrase=rows[2].phrase.upper())]  # noqa: E731
    with pytest.raises(
        TableError, match=r"row 6 answers 'owl' in photos-test0 a second time; expected one row for each"
    ):
        answers_of(build, tmp_path, twice)


def test_row_groups_change_nothing(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answers_of(build, tmp_path, first_as(presence=2.0))
    monkeypatch.setattr(tables, "ROW_GROUP", 2)
    parts = answers_of(build, tmp_path, first_as(presence=2.0))
    assert np.array_equal(whole.presence_n, parts.presence_n, equal_nan=True)
    assert (whole.area_n.tolist(), whole.counted) == (parts.area_n.tolist(), parts.counted)
    with pytest.raises(TableError, match="row 6 answers 'cat' in photos-test0 a second time"):
        answers_of(build, tmp_path, lambda rows: [*rows, rows[0]])


def test_a_table_that_is_no_predictions_is_refused(build: Path) -> None:
    with pytest.raises(TableError, match="is no predictions table: columns presence, mask are missing"):
        read_answers(read_truth(str(build), "test"), str(build / "labels.parquet"), max_missing_share=0.5)


def test_predicted_masks_are_those_of_the_wanted_prompts(build: Path, tmp_path: Path) -> None:
    truth = read_truth(str(build), "test")
    found = answers_of(build, tmp_path, lambda rows: rows[::-1])
    assert dict(predicted_masks(truth, found.uri, truth.image_n == 1)) == {3: make_mask()}


def test_predicted_masks_are_read_of_row_groups_alone_that_hold_wanted_prompts(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 3)
    truth = read_truth(str(build), "test")
    found = answers_of(build, tmp_path, lambda rows: rows)
    read, with_masks = pq.ParquetFile.read_row_group, []

    def spy(table: pq.ParquetFile, index: int, columns: list[str]) -> pa.Table:
        with_masks.extend([index] if "mask" in columns else [])
        return read(table, index, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    assert dict(predicted_masks(truth, found.uri, truth.image_n == 1)) == {3: make_mask()}
    assert with_masks == [1]
