"""What labels know of a kind's hardness, and which kinds they know nothing of."""

import numpy as np
import pytest

from manifests.recipe import MINED_KINDS
from manifests.sample import NegativeKind
from shards.candidates import Statistics, hardness

STATISTICS = Statistics(
    columns=np.arange(2, dtype=np.int32), count_c=np.array([3, 5]), beside_cc=np.array([[0.0, 7.0], [9.0, 0.0]])
)
PRESENT_BC = np.array([[True, False], [False, True]])


def test_hardness_is_what_stands_beside_how_frequent_it_is_or_nothing_at_all() -> None:
    assert hardness(NegativeKind.CO_OCCURRING, STATISTICS, PRESENT_BC).tolist() == [[0, 7], [9, 0]]
    assert hardness(NegativeKind.POPULAR, STATISTICS, PRESENT_BC).tolist() == [[3, 5], [3, 5]]
    assert hardness(NegativeKind.RANDOM, STATISTICS, PRESENT_BC).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("kind", [NegativeKind.BLANK, NegativeKind.NOISE, *MINED_KINDS])
def test_kinds_that_do_not_come_from_labels_have_none(kind: NegativeKind) -> None:
    with pytest.raises(ValueError, match=f"{kind} does not come from labels"):
        hardness(kind, STATISTICS, PRESENT_BC)
