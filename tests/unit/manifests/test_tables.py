"""Tables: what is written is read, row groups do not depend on who wrote, and other files are refused by name."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import tables
from manifests.errors import TableError
from manifests.tables import (
    PREDICTIONS,
    VOCABULARIES,
    iterate_table,
    open_table,
    read_metadata,
    read_table,
    table_writer,
)


def write(path: Path, num: int, *, batch: int | None = None) -> str:
    with table_writer(str(path), VOCABULARIES, {"encoder": "conse"}) as writer:
        if batch is None:
            for number in range(num):
                writer.add("coco", f"p{number}")
        else:
            rows = pa.table({"phrase": [f"p{n}" for n in range(num)], "vocabulary": ["coco"] * num})
            for start in range(0, num, batch):
                writer.add_table(rows.slice(start, batch))
    return str(path)


def test_rows_come_back_in_order_with_their_metadata(tmp_path: Path) -> None:
    uri = write(tmp_path / "a", 10)
    assert read_table(uri, VOCABULARIES, ["phrase"])["phrase"].to_pylist() == [f"p{n}" for n in range(10)]
    assert read_metadata(uri, VOCABULARIES) == {"encoder": "conse"}


def test_the_same_rows_give_the_same_bytes_however_they_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 16)
    by_row = Path(write(tmp_path / "a", 100)).read_bytes()
    for batch in (1, 7, 16, 33, 100):
        assert Path(write(tmp_path / "b", 100, batch=batch)).read_bytes() == by_row
    assert open_table(str(tmp_path / "a"), VOCABULARIES).num_row_groups == 7
    assert sum(rows.num_rows for rows in iterate_table(str(tmp_path / "a"), VOCABULARIES)) == 100


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    found = read_table(write(tmp_path / "a", 0), VOCABULARIES)
    assert found.num_rows == 0
    assert found.column_names == VOCABULARIES.names


def test_a_failed_write_leaves_no_table(tmp_path: Path) -> None:
    def fail() -> None:
        with table_writer(str(tmp_path / "a"), VOCABULARIES) as writer:
            writer.add("coco", "dog")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_such_table_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="not found; expected the vocabularies table"):
        read_table(str(tmp_path / "none"), VOCABULARIES)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        read_table(str(tmp_path / "text"), VOCABULARIES)
    pq.write_table(pa.table({"phrase": ["a"]}), tmp_path / "other")
    with pytest.raises(TableError, match="columns vocabulary are missing; found phrase"):
        read_table(str(tmp_path / "other"), VOCABULARIES)


def test_a_newer_table_is_called_newer(tmp_path: Path) -> None:
    schema = VOCABULARIES.with_metadata({"absentia.schema": "99"})
    pq.write_table(pa.Table.from_pylist([{"vocabulary": "a", "phrase": "b"}], schema=schema), tmp_path / "new")
    with pytest.raises(TableError, match="table schema 99 is newer than 1"):
        read_table(str(tmp_path / "new"), VOCABULARIES)


@pytest.mark.parametrize("stamp", ["2.0", "", "-1", "v1", "1" * 5000, b"\xff"])
def test_a_foreign_version_of_a_table_is_one_clear_error(tmp_path: Path, stamp: str | bytes) -> None:
    schema = VOCABULARIES.with_metadata({"absentia.schema": stamp})
    pq.write_table(pa.Table.from_pylist([{"vocabulary": "a", "phrase": "b"}], schema=schema), tmp_path / "foreign")
    with pytest.raises(TableError, match=r"foreign: table schema .* is none; expected a whole number up to 1"):
        read_table(str(tmp_path / "foreign"), VOCABULARIES)


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("mask", pa.array(["S3o0a0"]), "column mask of the predictions table: expected struct<.*>, found string: "),
        ("presence", pa.array(["high"]), "column presence of the predictions table: expected float, found string: "),
        ("key", pa.array([[1]]), "column key of the predictions table: expected string, found list<.*>: "),
    ],
)
def test_a_column_of_a_type_that_cannot_be_turned_is_refused_by_name(
    tmp_path: Path, column: str, values: pa.Array, said: str
) -> None:
    rows = pa.table({"key": ["a"], "phrase": ["dog"], "presence": [0.5], "mask": pa.array([None], PREDICTIONS[3].type)})
    pq.write_table(rows.set_column(PREDICTIONS.names.index(column), column, values), tmp_path / "a")
    with pytest.raises(TableError, match=said):
        next(iterate_table(str(tmp_path / "a"), PREDICTIONS))


def test_columns_that_fit_come_in_the_schemas_types(tmp_path: Path) -> None:
    mask = pa.array(
        [{"size": [2, 3], "counts": b"6"}], pa.struct([("size", pa.list_(pa.int64())), ("counts", pa.binary())])
    )
    rows = pa.table({"mask": mask, "presence": [True], "phrase": pa.array(["dog"]).dictionary_encode(), "key": ["a"]})
    pq.write_table(rows, tmp_path / "a")
    [found] = iterate_table(str(tmp_path / "a"), PREDICTIONS)
    assert found.schema == PREDICTIONS
    assert found.to_pylist() == [
        {"key": "a", "phrase": "dog", "presence": 1.0, "mask": {"size": [2, 3], "counts": "6"}}
    ]
