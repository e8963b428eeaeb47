"""Rows of negatives tables: which of them train may be asked, and what becomes of the others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import Reason, TableError
from manifests.recipe import Recipe
from manifests.recipe_file import parse_recipe
from manifests.sample import KINDS, Evidence, NegativeKind
from shards.inventory import ABSENT, PRESENT, STATES, Inventory
from shards.mined import EVIDENCES, Mined, read_mined
from shards.sources.source import LabelState
from shards.splits import Assignment
from tests.inventories import make_inventory
from tests.negatives import Row, make_row, write_negatives

OPEN = STATES.index(LabelState.OPEN)
UNKNOWN = -1
NEAR_IMAGE, NEAR_TEXT = KINDS.index(NegativeKind.NEAR_IMAGE), KINDS.index(NegativeKind.NEAR_TEXT)
TEXT = """
name = "x"
[mix]
s0 = "rest"
[sources.s0]
format = "build"
data = "a"
[prompts]
evidence = {evidence}
kinds = {{ near_text = 0.5, near_image = 0.5 }}
[mine]
"""


def make_recipe(evidence: Sequence[str] = ("annotated", "verified", "mined")) -> Recipe:
    return parse_recipe(TEXT.format(evidence=list(evidence)), where="r.toml", folder="/")


def some_pictures() -> Inventory:
    """Picture 0 and 2 say nothing of most phrases, 1 and 3 are exhaustive; p0 is an animal wherever p1 is a dog."""
    states = np.full((4, 5), UNKNOWN, np.int8)
    states[:, 1] = PRESENT
    states[0, 2], states[0, 3] = OPEN, ABSENT
    return make_inventory(
        states, exhaustive_n=np.array([False, True, False, True]), implies=[[0], [0, 1], [2], [3], [4]]
    )


def read(
    tmp_path: Path, *tables: Sequence[Row], recipe: Recipe | None = None, split_n: Sequence[int] = (0, 0, 0, 0)
) -> Mined:
    uris = [write_negatives(tmp_path / f"{number}.parquet", rows) for number, rows in enumerate(tables)]
    inventory = some_pictures()
    assignment = Assignment(split_n=np.array(split_n, np.int8), group_n=np.arange(4), leaks=())
    return read_mined(uris, inventory, assignment, recipe or make_recipe())


def pairs(mined: Mined) -> list[tuple[int, int]]:
    return list(zip(mined.image_m.tolist(), mined.phrase_m.tolist(), strict=True))


def test_rows_arrive_as_they_stand_sorted_by_picture_and_phrase(tmp_path: Path) -> None:
    changes = {"score": 0.1, "standard_score": -2.7, "rank": 3, "positive_score": 0.9, "positive_key": "s0-2"}
    mined = read(tmp_path, [make_row("s0-2", "p4", kind="near_image", **changes), make_row("s0-0", "P4")])
    assert pairs(mined) == [(0, 4), (2, 4)]
    assert mined.kind_m.tolist() == [NEAR_TEXT, NEAR_IMAGE]
    assert [EVIDENCES[number] for number in mined.evidence_m] == [Evidence.MINED, Evidence.MINED]
    last = (mined.score_m[1], mined.standard_score_m[1], mined.rank_m[1], mined.positive_score_m[1])
    assert last == (np.float32(0.1), np.float32(-2.7), 3, np.float32(0.9))
    assert (mined.positive_key_m.to_pylist(), mined.miner_m.to_pylist()) == (["", "s0-2"], ["test", "test"])
    assert (mined.num_read, mined.dropped, mined.notes()) == (2, {}, ())


def test_what_joins_nothing_or_is_contradicted_is_dropped_and_counted(tmp_path: Path) -> None:
    mined = read(
        tmp_path,
        [
            make_row("s0-0", "p4"),
            make_row("s0-99", "p4"),
            make_row("s0-0", "zebra"),
            make_row("s0-0", "p1"),  # present
            make_row("s0-0", "p0"),  # implied by what is present
            make_row("s0-0", "p2"),  # left open
            make_row("s0-2", "p4", score=float("nan")),
            make_row("s0-2", "p3", evidence="annotated"),  # no label of this build says so
            make_row("s0-2", "p2", evidence="generated"),
        ],
    )
    assert pairs(mined) == [(0, 4)]
    assert mined.dropped == {
        Reason.UNKNOWN_KEY: 1,
        Reason.UNKNOWN_PHRASE: 1,
        Reason.ANNOTATION: 3,
        Reason.NOT_FINITE: 1,
        Reason.EVIDENCE: 2,
    }
    (note,) = mined.notes()
    assert note.startswith("mined: 8 of 9 rows of the negatives tables cannot be asked here: 3 annotation, 2 evidence")


def test_annotated_is_believed_where_a_vocabulary_or_a_label_denies_the_phrase(tmp_path: Path) -> None:
    rows = [make_row("s0-1", "p4", evidence="annotated"), make_row("s0-0", "p3", evidence="annotated")]
    mined = read(tmp_path, [*rows, make_row("s0-2", "p4")])
    assert pairs(mined) == [(0, 3), (1, 4), (2, 4)]
    assert mined.denied_m.tolist() == [True, True, False]


def test_evidence_that_the_recipe_does_not_allow_is_dropped(tmp_path: Path) -> None:
    rows = [make_row("s0-0", "p4"), make_row("s0-2", "p4", evidence="verified")]
    mined = read(tmp_path, rows, recipe=make_recipe(["annotated", "verified"]))
    assert pairs(mined) == [(2, 4)]
    assert mined.dropped == {Reason.EVIDENCE: 1}


def test_val_test_and_kinds_that_are_not_asked_are_passed_over_without_a_word(tmp_path: Path) -> None:
    rows = [make_row(f"s0-{number}", "p4") for number in range(4)]
    mined = read(tmp_path, [*rows, make_row("s0-0", "p3", kind="false_alarm")], split_n=(0, 1, 2, 0))
    assert pairs(mined) == [(0, 4), (3, 4)]
    assert mined.dropped == {}


def test_the_first_table_wins_and_within_a_table_the_better_rank(tmp_path: Path) -> None:
    first = [make_row("s0-0", "p4", rank=5, score=0.5), make_row("s0-0", "p4", rank=2, score=0.2)]
    second = [make_row("s0-0", "p4", rank=0, score=0.0), make_row("s0-2", "p4", rank=1)]
    mined = read(tmp_path, first, second)
    assert pairs(mined) == [(0, 4), (2, 4)]
    assert mined.rank_m.tolist() == [2, 1]


def test_no_order_of_the_rows_changes_anything(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = ["near_text", "near_image"]
    rows = [
        make_row(
            f"s0-{rng.integers(4)}",
            "p4",
            kind=kinds[rng.integers(2)],
            rank=int(rng.integers(-1, 2)),
            score=int(rng.integers(2)) / 2,
            positive_key=f"s0-{rng.integers(4)}",
            miner=f"m{rng.integers(2)}",
        )
        for _ in range(60)
    ]
    one, other = read(tmp_path, rows), read(tmp_path, [rows[place] for place in rng.permutation(60)])
    for name in ("image_m", "phrase_m", "kind_m", "rank_m", "score_m"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("positive_key_m", "miner_m"):
        assert getattr(one, name).to_pylist() == getattr(other, name).to_pylist()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            make_row("elsewhere-1", "p4"),
            "none of its 1 rows is of a picture of this build; the first is of 'elsewhere-1'",
        ),
        (make_row("s0-0", "p4", kind="random"), "row 0 has kind 'random'; expected one of near_text, near_image"),
        (make_row("s0-0", "p4", evidence="guessed"), "row 0 has evidence 'guessed'; expected one of generated"),
        (make_row("s0-0", "p4", miner=None), "column miner holds 1 nulls; expected a value in every row"),
    ],
)
def test_a_table_that_cannot_be_meant_stops(tmp_path: Path, row: Row, words: str) -> None:
    with pytest.raises(TableError, match=words) as caught:
        read(tmp_path, [row])
    assert "0.parquet" in str(caught.value)


def test_no_table_and_an_empty_one_give_no_row(tmp_path: Path) -> None:
    assert read(tmp_path).num_rows == 0
    assert read(tmp_path, []).num_rows == 0
    assert read(tmp_path, [], [make_row("s0-0", "p4")]).num_rows == 1


def test_rows_are_found_by_picture_as_often_as_it_is_asked_for(tmp_path: Path) -> None:
    mined = read(
        tmp_path, [make_row("s0-0", "p4"), make_row("s0-3", "p4", evidence="annotated"), make_row("s0-3", "p2")]
    )
    rows, owner = mined.rows_of(np.array([3, 1, 0, 3]))
    assert owner.tolist() == [0, 0, 2, 3, 3]
    assert pairs(mined)[rows[0]] == (3, 2)
    np.testing.assert_array_equal(mined.image_m[rows], np.array([3, 1, 0, 3])[owner])


def test_the_best_rank_of_a_picture_is_read_by_kind(tmp_path: Path) -> None:
    rows = [make_row("s0-0", "p4", kind="near_image", rank=4), make_row("s0-0", "p3", kind="near_image", rank=1)]
    mined = read(tmp_path, [*rows, make_row("s0-2", "p4", kind="near_image", rank=-1), make_row("s0-3", "p4", rank=0)])
    best = mined.best_rank_n(NEAR_IMAGE, 4)
    assert best[0] == 1
    assert best[0] < best[2] < best[1] == best[3]
