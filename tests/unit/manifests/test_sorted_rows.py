"""Many tables become one sorted table, with the same bytes however much of them is in memory at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests import sorted_rows, tables
from manifests.sorted_rows import write_sorted
from manifests.tables import PREDICTIONS, TableWriter, read_metadata, read_table, table_writer

ORDER = ["key", "phrase"]


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 400)
    monkeypatch.setattr(sorted_rows, "_BLOCK_ROWS", 40)


def _write_parts(folder: Path, sizes: Sequence[int], *, letters: int = 10) -> list[str]:
    """Tables of shuffled rows, some keys with many of them; the order of their phrases is beyond ASCII."""
    rng = np.random.default_rng(3)
    key_n = np.sort((rng.random(sum(sizes)) ** 3 * 300).astype(int))
    rows = [(f"k{key}", f"é{chr(0xFF00 + number % 7)}\U0001f42d{number}") for number, key in enumerate(key_n)]
    order = iter(rng.permutation(len(rows)))
    uris = []
    for number, size in enumerate(sizes):
        uris.append(str(folder / f"part-{number}.parquet"))
        with table_writer(uris[-1], PREDICTIONS) as writer:
            for _ in range(size):
                key, phrase = rows[next(order)]
                writer.add(key, phrase, 0.5, {"size": [4, 4], "counts": phrase[-1] * letters})
    return uris


def _pairs(*uris: str) -> list[tuple[str, str]]:
    rows = [read_table(uri, PREDICTIONS, ORDER).to_pydict() for uri in uris]
    return [pair for one in rows for pair in zip(one["key"], one["phrase"], strict=True)]


@pytest.mark.parametrize("run_bytes", [1, 60_000, 10_000_000])
def test_rows_that_are_spilled_and_merged_give_the_bytes_of_those_that_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_bytes: int
) -> None:
    uris = _write_parts(tmp_path, [400, 1, 950, 0, 1701])
    whole, merged, work = str(tmp_path / "whole.parquet"), str(tmp_path / "merged.parquet"), tmp_path / "work"
    write_sorted(uris, whole, PREDICTIONS, ORDER, work=str(work), metadata={"ask": "plan"})
    assert _pairs(whole) == sorted(_pairs(*uris))
    assert read_metadata(whole, PREDICTIONS) == {"ask": "plan"}
    assert not work.exists(), "a run that is alone is not spilled"

    monkeypatch.setattr(sorted_rows, "RUN_BYTES", run_bytes)
    write_sorted(uris, merged, PREDICTIONS, ORDER, work=str(work), metadata={"ask": "plan"})
    assert Path(merged).read_bytes() == Path(whole).read_bytes()
    assert work.exists() == (run_bytes < 100_000)
    assert not [*work.glob("*")], "runs are deleted"


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []  # bytes

    class Watched(TableWriter):
        def add_table(self, table: pa.Table) -> None:
            held.append(pa.total_allocated_bytes())
            super().add_table(table)

    def peak(sizes: Sequence[int], folder: Path) -> int:
        uris = _write_parts(folder, sizes, letters=1000)
        held.clear()
        before = int(pa.total_allocated_bytes())
        with monkeypatch.context() as patched:
            patched.setattr(tables, "TableWriter", Watched)
            write_sorted(uris, str(folder / "out.parquet"), PREDICTIONS, ORDER, work=str(folder / "work"))
        return max(held) - before

    monkeypatch.setattr(sorted_rows, "RUN_BYTES", 1_000_000)
    few, many = (tmp_path / name for name in ("few", "many"))
    assert peak([400] * 40, many) < 1.5 * peak([400] * 4, few), (
        "sixteen times the bytes of a run, after less than twice"
    )


@pytest.mark.parametrize("metadata", [None, {"ask": "plan"}])
def test_no_tables_give_one_without_rows(tmp_path: Path, metadata: Mapping[str, str] | None) -> None:
    out = str(tmp_path / "out.parquet")
    write_sorted([], out, PREDICTIONS, ORDER, work=str(tmp_path), metadata=metadata)
    assert read_table(out, PREDICTIONS).num_rows == 0
    assert read_metadata(out, PREDICTIONS) == (metadata or {})
