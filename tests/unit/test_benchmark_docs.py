"""The benchmark page holds what the benchmarks' JSON says, and no other figure."""

import re
from pathlib import Path

import msgspec
import pytest

from benchmarks.timing import RESULTS, Claim, Figures, median_ratio
from benchmarks.write_docs import ORDER, PAGE, all_figures, page, read_figures


def make_figures(value: float = 1.25) -> Figures:
    return Figures(
        benchmark="growth",
        title="Growth",
        command="python benchmarks/growth.py",
        conditions={"cores": 2},
        rows=[{"way": "ours", "s": 1.5}, {"way": "theirs", "s": 1234.5}, {"step": "hash", "ms": 0.0123}],
        claims=[Claim(name="ratio", value=value, bound=1.3, at_least=False)],
    )


@pytest.mark.skipif(not RESULTS.is_dir(), reason="no benchmark was run yet: benchmarks/results is not there")
def test_the_page_is_what_the_results_make_of_it() -> None:
    assert PAGE.read_text() == page(all_figures()), "run python benchmarks/write_docs.py"


@pytest.mark.skipif(not RESULTS.is_dir(), reason="no benchmark was run yet: benchmarks/results is not there")
def test_every_benchmark_has_left_its_figures() -> None:
    assert [figures.benchmark for figures in all_figures()] == list(ORDER)


def test_every_benchmark_of_the_page_is_a_script() -> None:
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    assert [name for name in ORDER if not (folder / f"{name}.py").exists()] == []


def test_rows_of_other_columns_stand_in_a_table_of_their_own() -> None:
    lines = page([make_figures()]).splitlines()
    assert "| ours | 1.5 |" in lines
    assert "| theirs | 1234 |" in lines
    assert "| hash | 0.0123 |" in lines
    assert lines.count("| way | s |") == lines.count("| step | ms |") == 1


@pytest.mark.parametrize(("value", "verdict"), [(1.3, "yes"), (1.31, "**no**")])
def test_a_missed_bound_is_said(value: float, verdict: str) -> None:
    (line,) = [line for line in page([make_figures(value)]).splitlines() if line.startswith("| ratio |")]
    assert line == f"| ratio | {value:g} × | at most 1.3 × | {verdict} |"


def test_a_bound_from_below_is_missed_below_it() -> None:
    assert Claim(name="speed", value=0.7, bound=0.7, at_least=True).holds
    assert not Claim(name="speed", value=0.69, bound=0.7, at_least=True).holds


def test_figures_survive_their_json(tmp_path: Path) -> None:
    (tmp_path / "growth.json").write_bytes(msgspec.json.encode(make_figures()))
    assert all_figures(tmp_path) == [make_figures()]


def test_a_single_ratio_is_read_as_a_claim(tmp_path: Path) -> None:
    rows = [{"way": "usual", "ms": 3.0}, {"way": "ours", "ms": 1.0}]
    single = {"benchmark": "read", "conditions": {"size": 256}, "rows": rows, "ratio": 3.0, "bound": 2.0}
    (tmp_path / "read.json").write_bytes(msgspec.json.encode(single))
    figures = read_figures(tmp_path / "read.json")
    assert figures.claims == [Claim(name="ratio", value=3.0, bound=2.0, at_least=True)]
    assert re.search(r"ours beside usual", figures.title)


def test_a_ratio_is_taken_round_by_round() -> None:
    times = {"a": [2.0, 30.0, 9.0], "b": [1.0, 10.0, 9.0]}  # a slow second round slows both
    assert median_ratio(times, "a", "b") == 2.0
