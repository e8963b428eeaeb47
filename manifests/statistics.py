"""Statistics that more than one package needs."""

import numpy as np
from numpy.typing import NDArray


def auc(scores_n: NDArray[np.float64], present_n: NDArray[np.bool_]) -> float:
    """Probability that a present row scores above an absent one, ties counting half; 0.5 where one side is empty.

    Source: Mann and Whitney (1947), as the area under the ROC curve.
    """
    num_present = int(present_n.sum())
    num_absent = len(present_n) - num_present
    if not num_present or not num_absent:
        return 0.5
    _, inverse, counts = np.unique(scores_n, return_inverse=True, return_counts=True)
    middle_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(middle_ranks[inverse][present_n].sum())
    return (rank_sum - num_present * (num_present + 1) / 2) / (num_present * num_absent)
