from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import tables
from manifests.errors import ManifestError
from manifests.sample import KINDS, MaskState, NegativeKind
from manifests.tables import SAMPLES, read_table, write_table
from shards.masks import mask_to_array, union
from student.truth import NO_PROMPT, Places, Truth, read_truth, true_masks
from tests.factories import Made, absent, make_build, make_mask, make_sample, make_samples, present

LEFT, RIGHT = make_mask(left=0, right=20), make_mask(left=30, right=50)


def make_truth(folder: Path, *samples: Made, split: str = "test") -> Truth:
    return read_truth(str(make_build(folder / "build", samples)), split)


def asked(truth: Truth) -> dict[tuple[str, str], tuple[bool, tuple[str, ...]]]:
    """Picture and phrase, whether it is present, and the kinds."""
    kinds = np.array([str(kind) for kind in KINDS])
    return {
        (truth.key(at), truth.phrase(at)): (bool(truth.present_n[at]), tuple(kinds[truth.kinds_nk[at]].tolist()))
        for at in range(len(truth))
    }


def test_a_phrase_of_several_kinds_and_a_repeated_picture_are_one_prompt(tmp_path: Path) -> None:
    prompts = (
        present("cat", LEFT),
        absent("dog"),
        absent("dog", NegativeKind.POPULAR),
        absent("kite", NegativeKind.CO_OCCURRING),
    )
    first = make_sample("photos-1", *prompts, split="test")
    again = make_sample("photos-1-r1", *prompts[:2], absent("owl"), split="test", image_key="photos-1")
    truth = make_truth(tmp_path, first, again)
    assert asked(truth) == {
        ("photos-1", "cat"): (True, ()),
        ("photos-1", "dog"): (False, ("random", "popular")),
        ("photos-1", "kite"): (False, ("co_occurring",)),
        ("photos-1", "owl"): (False, ("random",)),
    }
    assert truth.keys.to_pylist() == ["photos-1"]


def test_only_the_split_is_read(tmp_path: Path) -> None:
    truth = read_truth(str(make_build(tmp_path / "build")), "test")
    of_test = [made for made in make_samples() if made.split == "test"]
    assert truth.keys.to_pylist() == [made.image_key for made in of_test]
    assert len(truth) == sum(len(made.sample.prompts) for made in of_test)
    assert [truth.sources[at] for at in truth.source_i] == [made.sample.source for made in of_test]
    sizes = [[made.sample.height, made.sample.width] for made in of_test]
    assert truth.size_i2.tolist() == sizes


def test_masks_are_whole_partial_or_not_there(tmp_path: Path) -> None:
    sample = make_sample(
        "photos-1",
        present("whole", LEFT),
        present("part", LEFT, mask_state=MaskState.PARTIAL),
        present("boxed"),
        absent("gone"),
        split="test",
    )
    truth = make_truth(tmp_path, sample)
    named = dict(
        zip([truth.phrase(at) for at in range(4)], zip(truth.complete_n, truth.masked_n, strict=True), strict=True)
    )
    assert named == {"whole": (True, True), "part": (False, True), "boxed": (False, False), "gone": (False, False)}


def test_the_true_masks_of_wanted_prompts_are_those_of_the_labels(tmp_path: Path) -> None:
    samples = [
        make_sample("photos-2", present("cat", LEFT, RIGHT), present("dog", RIGHT), split="test"),
        make_sample("photos-1", present("cat", RIGHT), absent("dog"), split="test"),
    ]
    truth = make_truth(tmp_path, *samples)
    wanted_n = np.array([truth.phrase(at) == "cat" for at in range(len(truth))])
    found = {(truth.key(at), truth.phrase(at)): union(masks) for at, masks in true_masks(truth, wanted_n)}
    assert set(found) == {("photos-1", "cat"), ("photos-2", "cat")}
    assert np.array_equal(mask_to_array(found["photos-2", "cat"]), mask_to_array(LEFT) | mask_to_array(RIGHT))
    assert np.array_equal(mask_to_array(found["photos-1", "cat"]), mask_to_array(RIGHT))


def test_a_picture_is_closed_by_its_labels_or_by_a_known_absence(tmp_path: Path) -> None:
    samples = [
        make_sample("photos-0", present("cat", LEFT), split="test"),
        make_sample("photos-1", present("cat", LEFT), absent("dog"), split="test"),
        replace(make_sample("photos-2", present("cat", LEFT), split="test"), exhaustive_over=("photos",)),
        replace(make_sample("photos-3", present("cat", LEFT), split="test"), open_over=("photos",)),
        make_sample("blank-4", absent("dog", NegativeKind.BLANK), split="test"),
    ]
    truth = make_truth(tmp_path, *samples)
    assert dict(zip(truth.keys.to_pylist(), truth.closed_i.tolist(), strict=True)) == {
        "photos-0": False,
        "photos-1": True,
        "photos-2": True,
        "photos-3": True,
        "blank-4": True,
    }


def test_masks_are_read_of_row_groups_alone_that_hold_wanted_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 2)
    samples = [make_sample(f"photos-{n}", present("cat", LEFT), present("dog", RIGHT), split="test") for n in range(4)]
    truth = make_truth(tmp_path, *samples)
    read, asked_for = pq.ParquetFile.read_row_group, []

    def spy(found: pq.ParquetFile, index: int, columns: list[str]) -> pa.Table:
        asked_for.append((index, "masks" in columns))
        return read(found, index, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    wanted_n = np.array([truth.key(at) == "photos-2" for at in range(len(truth))])
    assert [truth.key(at) for at, _ in true_masks(truth, wanted_n)] == ["photos-2"] * 2
    assert [index for index, has_masks in asked_for if has_masks] == [2]
    assert [index for index, has_masks in asked_for if not has_masks] == [0, 1, 2, 3]


def test_phrases_are_equal_if_their_casefolded_texts_are(tmp_path: Path) -> None:
    truth = make_truth(tmp_path, make_sample("photos-1", present("Straße", LEFT), absent("dog"), split="test"))
    places = Places(truth)
    phrase_r = places.phrases_of(pa.array(["STRASSE", " dog ", "owl", None, ""]))
    assert phrase_r.tolist() == [0, 1, -1, -1, -1]
    image_r = places.images_of(pa.array(["photos-1", "photos-1", "photos-1", "photos-1", "photos-2"]))
    assert image_r.tolist() == [0, 0, 0, 0, -1]
    assert places.prompts_of(image_r, phrase_r).tolist() == [0, 1, NO_PROMPT, NO_PROMPT, NO_PROMPT]


def test_a_split_without_samples_is_refused(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "build", [made for made in make_samples() if made.split != "test"])
    with pytest.raises(ManifestError, match=r"has no samples of split 'test'; it has train, val\. Name one of these"):
        read_truth(str(folder), "test")


def test_a_phrase_that_is_both_present_and_absent_is_refused(tmp_path: Path) -> None:
    folder = make_build(
        tmp_path / "build", [make_sample("photos-1", present("cat", LEFT), absent("dog"), split="test")]
    )
    uri = str(folder / "samples.parquet")
    rows = read_table(uri, SAMPLES)
    write_table(uri, rows.set_column(rows.column_names.index("phrase"), "phrase", pa.array(["cat", "Cat"])), SAMPLES)
    with pytest.raises(ManifestError, match=r"'cat' is both present and absent in photos-1; expected one answer"):
        read_truth(str(folder), "test")
