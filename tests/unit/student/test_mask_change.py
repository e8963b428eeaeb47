import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from student.mask_change import mean_change


@given(st.integers(2, 9), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_it_is_the_mean_over_all_pairs_and_cells(num: int, cells: int, seed: int) -> None:
    masks_pn = np.random.default_rng(seed).random((num, cells), np.float32)
    pairs = [abs(masks_pn[i].astype(float) - masks_pn[j]).mean() for i in range(num) for j in range(i)]
    assert mean_change(masks_pn) == pytest.approx(np.mean(pairs), abs=1e-9)


def test_masks_that_are_alike_do_not_change() -> None:
    assert mean_change(np.full((5, 7), 0.3, np.float32)) == pytest.approx(0, abs=1e-12)


def test_all_against_nothing_changes_by_one() -> None:
    assert mean_change(np.array([[0, 0], [1, 1]], np.float32)) == 1


def test_one_prompt_has_no_change() -> None:
    assert math.isnan(mean_change(np.ones((1, 4), np.float32)))
