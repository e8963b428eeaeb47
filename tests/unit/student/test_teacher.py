from pathlib import Path

import numpy as np
import pytest
import torch

from manifests import tables
from manifests.errors import TableError
from student.teacher import read_teacher

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
