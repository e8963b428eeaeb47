"""The two forms of exact dot products: numpy's and the compiled loop's, to the last bit."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from miners.dots import named_dots

FORMS = {"numpy": named_dots.plain, "loop": named_dots.compiled()}


def dots(form: str, queries_qd: NDArray[np.float64], bits_nd: NDArray[np.uint16], rows_qk: list[list[int]]) -> object:
    """What a form fills in; −1 where it fills in nothing."""
    dots_qk = np.full(np.shape(rows_qk), -1.0)
    FORMS[form](queries_qd, bits_nd, np.array(rows_qk), dots_qk)
    return dots_qk.tolist()


@pytest.mark.parametrize("form", FORMS)
def test_every_finite_float16_is_read_as_it_is(form: str) -> None:
    bits_n = np.arange(1 << 16, dtype=np.uint16)
    bits_n = bits_n[np.isfinite(bits_n.view(np.float16))]
    found = dots(form, np.ones((1, 1)), bits_n[:, None], [list(range(len(bits_n)))])
    assert found == [bits_n.view(np.float16).astype(np.float64).tolist()]


@pytest.mark.parametrize("form", FORMS)
def test_rows_that_are_not_named_are_left_alone(form: str) -> None:
    bits_nd = np.array([[1.0, 0.5], [-0.25, 2.0]], np.float16).view(np.uint16)
    queries_qd = np.array([[1.0, 2.0], [4.0, 0.0]])
    assert dots(form, queries_qd, bits_nd, [[1, -1, 0], [-1, 1, 1]]) == [[3.75, -1, 2.0], [-1, -1.0, -1.0]]


@pytest.mark.parametrize("width", [1, 7, 512])
def test_both_forms_say_the_same(width: int) -> None:
    random = np.random.default_rng(width)
    rows_nd = random.normal(size=(50, width))
    rows_nd /= np.linalg.norm(rows_nd, axis=1, keepdims=True)
    rows_nd[::3] *= 2.0**-13  # most of which are subnormal
    bits_nd = rows_nd.astype(np.float16).view(np.uint16)
    queries_qd = rows_nd[:9].astype(np.float16).astype(np.float64)
    rows_qk = random.integers(-1, 50, (9, 700)).tolist()
    assert dots("numpy", queries_qd, bits_nd, rows_qk) == dots("loop", queries_qd, bits_nd, rows_qk)


def test_a_process_that_asks_for_few_does_not_import_a_compiler() -> None:
    script = """
import sys
import numpy as np
from miners.exact_search import exact_scores
rows_nd = np.eye(3, dtype=np.float16)
assert exact_scores(rows_nd, rows_nd, np.array([[0], [2], [-1]])).tolist() == [[1.0], [0.0], [-np.inf]]
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
