"""Search against the naive one, over pools of near-copies, equal rows and shuffled keys, in every way of asking."""

import tempfile

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from miners.index import IndexKind, open_index
from miners.standard import pool_statistics

Rows = NDArray[np.float16]


@st.composite
def pools(draw: st.DrawFn) -> tuple[Rows, list[str], Rows]:
    """Rows drawn from a few directions, some moved by the last bit; keys in any order; queries of the same kind."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    width, num_rows = draw(st.sampled_from([1, 3, 32])), draw(st.integers(1, 150))
    num_directions = draw(st.sampled_from([1, 3, 200]))
    directions = rng.standard_normal((num_directions, width))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rows_nd = directions.astype(np.float16)[rng.integers(0, num_directions, num_rows)]
    moved = rng.random(rows_nd.shape) < draw(st.sampled_from([0.0, 0.05]))
    rows_nd = (rows_nd.view(np.uint16) ^ moved.astype(np.uint16)).view(np.float16)
    queries_qd = directions.astype(np.float16)[rng.integers(0, num_directions, draw(st.integers(1, 5)))]
    keys = [f"{key:03d}" for key in rng.permutation(num_rows)]
    return rows_nd, keys, queries_qd


@given(
    pools(),
    st.integers(1, 40),
    st.sampled_from([IndexKind.FLAT, IndexKind.IVF_SQ]),
    st.sampled_from([1, 8]),
    st.sampled_from([None, 1, 2]),
)
@settings(deadline=None, max_examples=120)
def test_search_is_the_naive_one_in_every_way(
    pool: tuple[Rows, list[str], Rows], num: int, kind: IndexKind, num_threads: int, chunk: int | None
) -> None:
    rows_nd, keys, queries_qd = pool
    with tempfile.TemporaryDirectory() as folder:
        index = open_index(rows_nd, pa.array(keys), folder=folder, memory_bytes=1, num_threads=num_threads, kind=kind)
        found = index.search(queries_qd, num, chunk=chunk, probes=1000)
    scores_qn = queries_qd.astype(np.float64) @ rows_nd.astype(np.float64).T
    for query, scores in enumerate(scores_qn):
        rows = sorted(range(len(keys)), key=lambda row: (-scores[row], keys[row]))[:num]
        padding = num - len(rows)
        assert found.rows_qk[query].tolist() == rows + [-1] * padding
        assert found.scores_qk[query].tolist() == [*scores[rows], *[-np.inf] * padding]


@given(pools())
@settings(deadline=None, max_examples=60)
def test_standard_scores_are_the_naive_ones(pool: tuple[Rows, list[str], Rows]) -> None:
    rows_nd, keys, queries_qd = pool
    mean_q, deviation_q = pool_statistics(rows_nd, pa.array(keys)).standardise(queries_qd)
    scores_qn = queries_qd.astype(np.float64) @ rows_nd.astype(np.float64).T
    np.testing.assert_allclose(mean_q, scores_qn.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(deviation_q, np.maximum(scores_qn.std(axis=1), 2.0**-10), rtol=1e-3)
