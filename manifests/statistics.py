"""Statistics that more than one package needs."""

# N rows, or units of the bootstrap

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


def bootstrap_ratio(
    part_n: NDArray[np.integer], whole_n: NDArray[np.integer], rng: np.random.Generator, *, num_draws: int = 1000
) -> tuple[float, float]:
    """2.5 % and 97.5 % quantiles of Σ part ÷ Σ whole over units drawn with replacement; (0, 0) where the whole is 0.

    Source: Efron (1979), percentile interval; the units are independent, rows within one are not.
    """
    used = np.flatnonzero(whole_n)
    if not len(used):
        return 0.0, 0.0
    low_memory = max(1, (1 << 22) // len(used))
    ratios = []
    for start in range(0, num_draws, low_memory):
        drawn = rng.integers(0, len(used), (min(low_memory, num_draws - start), len(used)))
        ratios.append(part_n[used][drawn].sum(axis=1) / whole_n[used][drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(ratios), [0.025, 0.975])
    return float(low), float(high)
