"""Statistics against their definitions."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.statistics import auc


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40))
def test_auc_is_the_share_of_pairs_that_are_in_order(rows: list[tuple[int, bool]]) -> None:
    present = [score for score, here in rows if here]
    absent = [score for score, here in rows if not here]
    pairs = [(p > a) + 0.5 * (p == a) for p in present for a in absent]
    expected = float(np.mean(pairs)) if pairs else 0.5
    scores = np.array([score for score, _ in rows], np.float64)
    assert abs(auc(scores, np.array([here for _, here in rows], np.bool_)) - expected) < 1e-12
