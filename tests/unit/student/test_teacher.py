from pathlib import Path

import numpy as np
import pytest
import torch

from manifests import tables
from manifests.errors import TableError
from student.model import PRIOR_LOGIT
from student.teacher import SPREAD, read_teacher

Row = tuple[str, str, list[float]]  # key, phrase, row


def write_rows(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tables.table_writer(str(path), tables.EMBEDDINGS) as writer:
        for key, phrase, row in rows:
            writer.add(key, phrase, [], np.array(row, np.float16))
    return path


def test_phrases_are_found_as_strings_whatever_their_case(tmp_path: Path) -> None:
    rows: list[Row] = [("a-1", "", [9, 9]), ("", "Café chair", [1, 0]), ("", "dog", [0, 1])]
    teacher = read_teacher([str(write_rows(tmp_path / "t.parquet", rows))])
    found, known = teacher.phrase_rows(["dog", "CAFÉ chair", "kite"])
    assert teacher.width == 2
    assert known.tolist() == [True, True, False]
    assert torch.equal(found.float(), torch.tensor([[0.0, 1], [1, 0], [0, 0]]))
    assert teacher.num_unknown(["dog", "kite", "wombat"]) == 2


def test_cosines_are_told_as_logits_by_where_the_tables_cosines_lie(tmp_path: Path) -> None:
    rows: list[Row] = [("a-1", "", [4, 0]), ("a-2", "", [0, 2]), ("", "cat", [1, 0]), ("", "dog", [0, 9])]
    teacher = read_teacher([str(write_rows(tmp_path / "t.parquet", rows))])
    assert (teacher.mean, teacher.deviation) == (0.5, 0.5)  # of 1, 0, 0 and 1
    found = teacher.match(torch.tensor([[1.0, 0], [3, 4]], dtype=torch.float16), ["cat", "dog"])
    above, below = PRIOR_LOGIT + SPREAD, PRIOR_LOGIT - SPREAD
    expected = [[above, below], [PRIOR_LOGIT + 0.2 * SPREAD, PRIOR_LOGIT + 0.6 * SPREAD]]  # cosines .6 and .8
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-3, rtol=0)


def test_a_table_without_pictures_or_of_one_cosine_has_no_spread_to_divide_by(tmp_path: Path) -> None:
    alone = read_teacher([str(write_rows(tmp_path / "t.parquet", [("", "cat", [1, 0]), ("", "dog", [0, 1])]))])
    one = read_teacher([str(write_rows(tmp_path / "u.parquet", [("a-1", "", [1, 0]), ("", "cat", [1, 0])]))])
    assert (alone.mean, alone.deviation) == (one.mean, one.deviation) == (0.0, 1.0)


def test_every_step_matches_other_phrases_where_there_are_many(tmp_path: Path) -> None:
    rows: list[Row] = [("", f"thing {number}", [1, number]) for number in range(9)]
    teacher = read_teacher([str(write_rows(tmp_path / "t.parquet", rows))])
    assert teacher.draw_phrases(9, seed=0, step=0) == [f"thing {number}" for number in range(9)]
    drawn = [teacher.draw_phrases(4, seed=0, step=step) for step in range(20)]
    assert {len(set(phrases)) for phrases in drawn} == {4}
    assert {phrase for phrases in drawn for phrase in phrases} == set(teacher.row_of)
    assert drawn[3] == teacher.draw_phrases(4, seed=0, step=3) != teacher.draw_phrases(4, seed=1, step=3)


def test_a_folder_of_parts_is_read_without_its_crops(tmp_path: Path) -> None:
    images = write_rows(tmp_path / "images" / "0.parquet", [("a-1", "", [1, 0])])
    phrases = write_rows(tmp_path / "phrases" / "0.parquet", [("", "dog", [0, 1])])
    write_rows(tmp_path / "crops" / "0.parquet", [("a-1", "dog", [1, 1])])
    write_rows(tmp_path / "work" / "0.parquet", [("", "cat", [1, 1])])
    teacher = read_teacher([str(tmp_path)])
    assert teacher.parts == [str(images), str(phrases)]
    assert list(teacher.row_of) == ["dog"]


def test_tables_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no Parquet file there; expected an embeddings table"):
        read_teacher([str(tmp_path)])
    pictures = write_rows(tmp_path / "p.parquet", [("a-1", "", [1, 0])])
    with pytest.raises(TableError, match=r"p\.parquet: no row of a phrase .*miners\.embed"):
        read_teacher([str(pictures)])
    uneven = write_rows(tmp_path / "u.parquet", [("", "cat", [1, 0]), ("", "dog", [1])])
    with pytest.raises(TableError, match=r"rows of \[1, 2\] numbers, expected one width"):
        read_teacher([str(uneven)])
    apart = write_rows(tmp_path / "a.parquet", [("a-1", "", [1, 0, 0]), ("", "cat", [1, 0])])
    with pytest.raises(TableError, match=r"a\.parquet: rows of pictures of \[3\] numbers, expected 2 as those of"):
        read_teacher([str(apart)])
    broken: list[list[Row]] = [[("", "cat", [1, np.nan])], [("a-1", "", [np.inf, 0]), ("", "cat", [1, 0])]]
    for number, rows in enumerate(broken):
        table = write_rows(tmp_path / f"n{number}.parquet", rows)
        with pytest.raises(TableError, match=rf"n{number}\.parquet: a row holds a number that is not finite"):
            read_teacher([str(table)])
