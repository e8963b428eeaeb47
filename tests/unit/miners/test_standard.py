"""Standard scores: the closed form beside the naive mean and deviation of every query."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from manifests.errors import TableError
from miners.key_sample import sample_rows
from miners.standard import DEVIATION_FLOOR, SAMPLE_ROWS, pool_statistics

Rows = NDArray[np.float16]


def unit_rows(num: int, width: int = 24, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    rows_nd = rng.standard_normal((num, width)) * np.linspace(1, 0.2, width) + 0.3
    rows_nd /= np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return rows_nd.astype(np.float16)


def make_keys(num: int) -> pa.Array:
    return pa.array([f"k-{row}" for row in range(num)], pa.string())


def test_the_closed_form_is_the_mean_and_deviation_of_the_scores() -> None:
    rows_nd, queries_qd = unit_rows(900), unit_rows(30, seed=1)
    scores_qn = queries_qd.astype(np.float64) @ rows_nd.astype(np.float64).T
    mean_q, deviation_q = pool_statistics(rows_nd, make_keys(900)).standardise(queries_qd)
    np.testing.assert_allclose(mean_q, scores_qn.mean(axis=1), atol=1e-7)
    np.testing.assert_allclose(deviation_q, scores_qn.std(axis=1), rtol=1e-5)


def test_the_order_of_a_large_pool_does_not_show() -> None:
    num = SAMPLE_ROWS + 3000
    rows_nd, order = unit_rows(num, width=8), np.random.default_rng(5).permutation(num)
    first = pool_statistics(rows_nd, make_keys(num))
    shuffled = pool_statistics(rows_nd[order], make_keys(num).take(pa.array(order)))
    assert (first.mean_d == shuffled.mean_d).all()
    assert (first.covariance_dd == shuffled.covariance_dd).all()


def test_the_second_moment_is_that_of_whole_numbers() -> None:
    rows_nd = unit_rows(400, width=6)
    whole_nd = (rows_nd.astype(np.float64) * 2**24).astype(np.int64).astype(object)
    second_dd = (whole_nd.T @ whole_nd).astype(object)
    expected_dd = np.array([[float(Fraction(int(cell), 400 << 48)) for cell in row] for row in second_dd])
    mean_d = rows_nd.sum(axis=0, dtype=np.float64) / 400
    found_dd = pool_statistics(rows_nd, make_keys(400)).covariance_dd
    np.testing.assert_allclose(found_dd, expected_dd - np.outer(mean_d, mean_d), atol=2.0**-29 + 1e-15)


def test_queries_in_chunks_or_alone_get_the_same_numbers() -> None:
    statistics, queries_qd = pool_statistics(unit_rows(500, width=384), make_keys(500)), unit_rows(64, 384, seed=1)
    whole = statistics.standardise(queries_qd)
    for chunk in (1, 7):
        parts = [statistics.standardise(queries_qd[start : start + chunk]) for start in range(0, 64, chunk)]
        assert (np.concatenate([mean for mean, _ in parts]) == whole[0]).all()
        assert (np.concatenate([deviation for _, deviation in parts]) == whole[1]).all()


def test_every_step_is_exact_so_that_a_sum_in_any_order_gives_the_same() -> None:
    statistics, query_d = pool_statistics(unit_rows(300, width=64), make_keys(300)), unit_rows(1, 64, seed=1)[0]
    integers = [int(value * 2**24) for value in query_d.astype(float)]
    mean = sum(int(m * 2**28) * q for m, q in zip(statistics.mean_d, integers, strict=True)) / 2**52
    spread = [
        round(sum(int(c * 2**28) * q for c, q in zip(row, integers, strict=True)) / 2**24) / 2**28
        for row in statistics.covariance_dd
    ]
    variance = sum(int(s * 2**28) * q for s, q in zip(spread, integers, strict=True)) / 2**52
    (found_mean,), (found_deviation,) = statistics.standardise(query_d[None])
    assert found_mean == np.float32(mean)
    assert found_deviation == np.float32(np.sqrt(variance))


@pytest.mark.parametrize("num", [1, 40])
def test_a_pool_of_equal_rows_has_the_least_deviation(num: int) -> None:
    rows_nd = np.repeat(unit_rows(1), num, axis=0)
    mean_q, deviation_q = pool_statistics(rows_nd, make_keys(num)).standardise(unit_rows(3, seed=1))
    assert (deviation_q == DEVIATION_FLOOR).all()
    assert np.isfinite(mean_q).all()


def test_what_cannot_be_standardised_is_refused() -> None:
    with pytest.raises(TableError, match="the pool has no row"):
        pool_statistics(np.empty((0, 8), np.float16), make_keys(0))
    rows_nd = unit_rows(5)
    rows_nd[2] = np.nan
    with pytest.raises(TableError, match="row 2 of the pool holds NaN"):
        pool_statistics(rows_nd, make_keys(5))
    with pytest.raises(TableError, match="queries: rows of width 8, but the pool's have 24"):
        pool_statistics(unit_rows(5), make_keys(5)).standardise(unit_rows(2, width=8))


def test_a_sample_is_of_keys_not_of_places() -> None:
    keys = make_keys(200)
    order = np.random.default_rng(1).permutation(200)
    first, other = keys.take(pa.array(sample_rows(keys, 20, "a"))), keys.take(pa.array(order))
    assert other.take(pa.array(sample_rows(other, 20, "a"))).to_pylist() == first.to_pylist()
    assert set(first.to_pylist()) != set(keys.take(pa.array(sample_rows(keys, 20, "b"))).to_pylist())
    assert sorted(sample_rows(keys, 500, "a").tolist()) == list(range(200))
