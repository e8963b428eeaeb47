"""The page on scale holds what the search benchmark's JSON says, and what follows from it."""

import numpy as np
import pytest

from benchmarks.concept_rows import concept_rows, intrinsic_dimension
from benchmarks.timing import Figures, Value
from benchmarks.write_docs import read_figures
from benchmarks.write_scale import PAGE, SOURCE, extrapolated, page
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
    assert PAGE.read_text() == page(read_figures(SOURCE)), "run python benchmarks/write_scale.py"


def test_costs_are_carried_on_by_rows_and_lists() -> None:
    exact, codes, *_ = extrapolated(make_figures())
    lists = num_lists(11_000_000)
    assert exact["build in hours (extrapolated)"] == pytest.approx(36 * 11 * lists / 8192 / 3600)
    assert exact["ms a query (extrapolated)"] == pytest.approx(2 * 11 / (lists / 8192))
    assert exact["index in GB"] == pytest.approx((11e6 * (1024 + 8) + 4 * lists * 512) / 1e9)
    assert codes["index in GB"] == pytest.approx((11e6 * (64 + 8) + 4 * lists * 512) / 1e9)
    assert (exact["by default"], codes["by default"]) == ("no", "yes")


def test_the_page_says_what_was_not_measured() -> None:
    assert "build in hours (extrapolated)" in page(make_figures())


def test_concept_rows_are_unit_rows_of_few_dimensions_and_no_two_are_alike() -> None:
    rows_nd = concept_rows(1500, 64, seed=3)
    assert np.allclose(np.linalg.norm(rows_nd.astype(np.float64), axis=1), 1, atol=1e-3)
    assert len(np.unique(rows_nd, axis=0)) == 1500
    assert 3 < intrinsic_dimension(rows_nd) < 10
    assert (concept_rows(1500, 64, seed=3) == rows_nd).all()
    assert (concept_rows(1500, 64, seed=4) != rows_nd).any()
