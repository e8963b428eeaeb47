"""What models and people say of a build: joined to it, counted where it belongs to none, refused where it cannot be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests.errors import Reason, TableError
from manifests.sample import Mask
from manifests.tables import PREDICTIONS, table_writer
from miners import outside
from miners.outside import NO_MASK, Said, read_decisions, read_predictions
from shards.inventory import Inventory
from shards.masks import mask_from_array
from tests.factories import make_mask
from tests.inventories import make_inventory

KEYS = ("s0-0", "s0-1")  # the two pictures, 48 rows of 64 pixels; their phrases are p0, p1 and p2

Prediction = tuple[str, str, float | None, Mask | None]


def make_pictures() -> Inventory:
    inventory = make_inventory(np.full((2, 3), -1, np.int8))
    images = inventory.images
    for name, side in (("height", 48), ("width", 64)):
        place = images.schema.get_field_index(name)
        images = images.set_column(place, name, pa.array([side, side], pa.int32()))
    return replace(inventory, images=images)


def predictions(folder: Path, *rows: Prediction, name: str = "predictions") -> str:
    uri = str(folder / f"{name}.parquet")
    with table_writer(uri, PREDICTIONS) as writer:
        for key, phrase, presence, mask in rows:
            shape = {"size": list(mask.size), "counts": mask.counts} if mask else {"size": [], "counts": ""}
            writer.add(key, phrase, presence, shape)
    return uri


def decisions(folder: Path, *rows: tuple[str, str, str], name: str = "decisions", **changes: object) -> str:
    uri = folder / f"{name}.json"
    made = [{"key": key, "phrase": phrase, "decision": decision, "by": "ann"} for key, phrase, decision in rows]
    uri.write_text(json.dumps({"schema": 1, "decisions": made} | changes))
    return str(uri)


def presences(said: Said) -> list[tuple[int, int, float]]:
    return list(zip(said.image_p.tolist(), said.phrase_p.tolist(), said.presence_p.tolist(), strict=True))


def refused(text: str, *, decided: str = "", predicted: str = "") -> None:
    read = read_decisions if decided else read_predictions
    inventory = make_pictures()
    with pytest.raises(TableError, match=text) as caught:
        read([decided or predicted], inventory)
    assert str(caught.value).startswith(decided or predicted)


def test_predictions_are_joined_by_key_and_phrase_whatever_its_case(tmp_path: Path) -> None:
    uri = predictions(tmp_path, ("s0-1", " P2 ", 0.25, None), ("s0-0", "p1", 1.0, None), ("s0-0", "p0", 0.0, None))
    said = read_predictions([uri], make_pictures())
    assert presences(said) == [(0, 0, 0.0), (0, 1, 1.0), (1, 2, 0.25)]
    found = said.presence_of(np.array([1, 0, 1]), np.array([2, 1, 0], np.int32))
    assert np.array_equal(found, [0.25, 1.0, np.nan], equal_nan=True)
    assert said.num_rejects == {}


def test_masks_come_along_and_an_empty_one_is_none(tmp_path: Path) -> None:
    empty = mask_from_array(np.zeros((48, 64), np.bool_))
    uri = predictions(tmp_path, ("s0-0", "p0", 0.9, make_mask()), ("s0-0", "p1", 0.9, None), ("s0-0", "p2", 0.9, empty))
    said = read_predictions([uri], make_pictures())
    assert said.mask_p.tolist() == [0, NO_MASK, NO_MASK]
    assert said.masks == (make_mask(),)
    assert said.num_rejects == {}
    bare = read_predictions([uri], make_pictures(), masks_from=0.95)
    assert (bare.masks, bare.mask_p.tolist()) == ((), [NO_MASK] * 3)
    assert presences(bare) == presences(said)


def test_rows_of_other_pictures_and_phrases_and_broken_masks_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = predictions(
        tmp_path,
        ("other-7", "p0", 0.5, None),
        ("s0-0", "yeti", 0.5, None),
        ("s0-0", "", 0.5, None),
        ("s0-0", "p0", 0.5, make_mask(width=48, height=64)),
        ("s0-0", "p1", 0.5, Mask(size=(48, 64), counts="\x7f")),
        ("s0-0", "p2", 0.5, make_mask()),
    )
    expected = {Reason.UNKNOWN_KEY: 1, Reason.UNKNOWN_PHRASE: 2, Reason.MASK_SIZE: 1, Reason.MASK_CORRUPT: 1}
    said = read_predictions([uri], make_pictures())
    assert said.num_rejects == expected
    assert presences(said) == [(0, 2, 0.5)]
    first = said.rejects[0]
    assert (first.where, first.phrase, first.reason) == ("other-7", "p0", Reason.UNKNOWN_KEY)
    assert "row 0" in first.detail
    monkeypatch.setattr(outside, "KEPT_REJECTS", 2)
    said = read_predictions([uri], make_pictures())
    assert (len(said.rejects), said.num_rejects) == (2, expected)


def test_of_several_files_the_later_has_the_last_word(tmp_path: Path) -> None:
    one = predictions(tmp_path, ("s0-0", "p0", 0.1, make_mask()), ("s0-0", "p1", 0.2, None), name="one")
    two = predictions(tmp_path, ("s0-0", "p0", 0.9, None), name="two")
    earlier = read_predictions([one, two], make_pictures())
    assert earlier.presence_p.tolist() == pytest.approx([0.9, 0.2])
    assert earlier.mask_p.tolist() == [NO_MASK, NO_MASK]
    later = read_predictions([two, one], make_pictures())
    assert later.presence_p[0] == pytest.approx(0.1)
    assert later.mask_p.tolist() == [0, NO_MASK]


def test_no_file_says_nothing() -> None:
    said = read_predictions([], make_pictures())
    assert np.isnan(said.presence_of(np.array([0]), np.array([0], np.int32))).all()


@pytest.mark.parametrize("presence", [float("nan"), -0.01, 1.5, None])
def test_a_presence_that_is_no_probability_is_refused_with_its_row(tmp_path: Path, presence: float | None) -> None:
    uri = predictions(tmp_path, ("s0-0", "p0", 0.5, None), ("other", "p0", presence, None))
    refused(r"row 1: presence (nan|-0\.0|1\.5).*expected a number in 0 to 1\. Write probabilities", predicted=uri)


def test_one_file_must_not_speak_twice_of_one_pair(tmp_path: Path) -> None:
    uri = predictions(tmp_path, ("s0-0", "p0", 0.5, None), ("s0-1", "p1", 0.5, None), ("s0-0", "P0", 0.5, None))
    refused(r"rows 0 and 2 both speak of 'p0' in s0-0; expected one row for each .*Remove one", predicted=uri)
    decided = decisions(tmp_path, ("s0-1", "p1", "present"), ("s0-1", "p1", "absent"))
    refused(r"rows 0 and 1 both speak of 'p1' in s0-1", decided=decided)


def test_a_file_of_another_build_is_refused(tmp_path: Path) -> None:
    uri = predictions(tmp_path, ("a", "p0", 0.5, None), ("b", "p0", 0.5, None))
    refused(
        r"none of its 2 rows belongs to this build: row 0: no picture of this key: 'a', 'p0'; expected", predicted=uri
    )
    refused(
        r"none of its 1 rows.*no such phrase: 's0-0', 'yeti'", decided=decisions(tmp_path, ("s0-0", "yeti", "absent"))
    )
    empty = predictions(tmp_path)
    assert presences(read_predictions([empty], make_pictures())) == []


def test_decisions_are_presences_of_one_and_zero(tmp_path: Path) -> None:
    uri = decisions(tmp_path, ("s0-1", "p0", "present"), ("s0-0", "p2", "absent"), ("gone", "p0", "absent"))
    said = read_decisions([uri], make_pictures())
    assert presences(said) == [(0, 2, 0.0), (1, 0, 1.0)]
    assert said.num_rejects == {Reason.UNKNOWN_KEY: 1}
    assert "$.decisions 2" in said.rejects[0].detail


def test_a_decision_that_was_changed_later_is_the_later_one(tmp_path: Path) -> None:
    one = decisions(tmp_path, ("s0-1", "p0", "present"), name="one")
    two = decisions(tmp_path, ("s0-1", "p0", "absent"), name="two")
    assert presences(read_decisions([one, two], make_pictures())) == [(1, 0, 0.0)]
    assert presences(read_decisions([two, one], make_pictures())) == [(1, 0, 1.0)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", r"no decisions: .*expected \{\"schema\": 1"),
        ("{", "no decisions: "),
        ('{"decisions": []}', "missing required field `schema`"),
        ('{"schema": 2, "decisions": 7}', "decisions of schema 2 are newer than 1"),
        ('{"schema": 1, "decisions": [], "extra": 1}', "unknown field `extra`"),
        (
            '{"schema": 1, "decisions": [{"key": "s0-0", "phrase": "p0", "decision": "maybe"}]}',
            r"\$\.decisions\[0\]\.decision",
        ),
    ],
)
def test_a_file_that_holds_no_decisions_is_refused(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "decisions.json"
    path.write_text(text)
    refused(found, decided=str(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused("cannot be read", decided=str(tmp_path / "none.json"))
    refused("not found; expected the predictions table", predicted=str(tmp_path / "none.parquet"))
