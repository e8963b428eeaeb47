"""The page on scale holds what the benchmarks' JSON says, what follows from it, and what was simulated."""

import numpy as np
import pytest

from benchmarks.concept_rows import concept_rows, intrinsic_dimension
from benchmarks.scale_simulation import core_hours, costs, measure, simulate
from benchmarks.timing import Figures, Value
from benchmarks.write_docs import read_figures
from benchmarks.write_scale import PAGE, SIMULATION, SOURCE, disk_rows, extrapolated, page
from miners.inverted_lists import num_lists


def make_figures() -> Figures:
    point: dict[str, Value] = {"rows": 1_000_000, "build s": 36.0, "lists": 8192, "ms a query": 2.0}
    return Figures(
        benchmark="search",
        title="Search",
        command="python benchmarks/search.py",
        conditions={"cores": 2, "load before": 0.1, "width": 512, "neighbours": 100},
        rows=[{"kind": kind, **point} for kind in ("ivf_sq", "ivf_pq")],
        claims=[],
    )


@pytest.mark.skipif(
    not SOURCE.exists(), reason="the search benchmark was not run yet: no benchmarks/results/search.json"
)
def test_the_page_is_what_the_results_make_of_it() -> None:
    assert PAGE.read_text() == page(read_figures(SOURCE), read_figures(SIMULATION)), (
        "run python benchmarks/write_scale.py"
    )


def test_costs_are_carried_on_by_rows_and_lists() -> None:
    exact, codes, *_ = extrapolated(make_figures())
    lists = num_lists(11_000_000)
    assert exact["build in hours (extrapolated)"] == pytest.approx(36 * 11 * lists / 8192 / 3600)
    assert exact["ms a query (extrapolated)"] == pytest.approx(2 * 11 / (lists / 8192))
    assert exact["index in GB"] == pytest.approx((11e6 * (1024 + 8) + 4 * lists * 512) / 1e9)
    assert codes["index in GB"] == pytest.approx((11e6 * (64 + 8) + 4 * lists * 512) / 1e9)
    assert (exact["by default"], codes["by default"]) == ("no", "yes")


def test_the_page_says_what_was_not_measured() -> None:
    text = page(make_figures(), measure(1))
    assert "build in hours (extrapolated)" in text
    assert "**Nobody has run this; it was simulated.**" in text
    assert "**Simulated** (`benchmarks/scale_simulation.py`" in text


def test_the_simulation_is_of_the_costs_that_the_other_benchmarks_left() -> None:
    stored = [row for row in read_figures(SIMULATION).rows if "step, on one core" in row]
    assert [row["step, on one core"] for row in stored] == [cost.step for cost in costs()]
    assert [row["ms a picture"] for row in stored] == pytest.approx([cost.milliseconds for cost in costs()]), (
        "run python benchmarks/scale_simulation.py --json benchmarks/results/scale_simulation.json"
    )


def test_one_worker_takes_the_sum_and_the_last_task_bounds_many() -> None:
    alone = simulate(1000, 10.0, 1, np.random.default_rng(1), dies_after_s=1e12)
    many = simulate(1000, 10.0, 1000, np.random.default_rng(1), dies_after_s=1e12)
    assert alone.seconds == pytest.approx(10_000, rel=0.05)
    assert 20.0 < many.seconds < 100.0  # the longest task alone
    assert alone.num_lost == many.num_lost == 0


def test_a_lost_task_runs_again_and_its_worker_comes_back() -> None:
    whole = simulate(200, 10.0, 1, np.random.default_rng(2), dies_after_s=1e12)
    broken = simulate(200, 10.0, 1, np.random.default_rng(2), dies_after_s=100.0)
    assert 10 < broken.num_lost < 40  # one in ten runs
    assert broken.seconds > whole.seconds + 120.0 * broken.num_lost
    assert simulate(200, 10.0, 1, np.random.default_rng(2), dies_after_s=100.0) == broken


def test_hours_and_workers_that_a_disk_allows() -> None:
    slow, middle, fast = disk_rows({"workers": 1, "scan h": 20.0, "write h": 5.0})
    assert (middle["scan h"], middle["write h"]) == pytest.approx((10e12 / 1e9 / 3600, 20e12 / 1e9 / 3600))
    assert middle["workers"] == pytest.approx(25 / (30e12 / 1e9 / 3600))
    assert slow["workers"] == pytest.approx(float(middle["workers"]) / 5)
    assert fast["workers"] == pytest.approx(float(middle["workers"]) * 10)


def test_core_hours_are_those_of_every_picture() -> None:
    found = costs()
    scan = sum(cost.milliseconds for cost in found if cost.stage == "scan")
    assert core_hours(found, "scan") == pytest.approx(11_000_000 * scan / 1000 / 3600)


def test_concept_rows_are_unit_rows_of_few_dimensions_and_no_two_are_alike() -> None:
    rows_nd = concept_rows(1500, 64, seed=3)
    assert np.allclose(np.linalg.norm(rows_nd.astype(np.float64), axis=1), 1, atol=1e-3)
    assert len(np.unique(rows_nd, axis=0)) == 1500
    assert 3 < intrinsic_dimension(rows_nd) < 10
    assert (concept_rows(1500, 64, seed=3) == rows_nd).all()
    assert (concept_rows(1500, 64, seed=4) != rows_nd).any()
