"""How far the masks of one picture change when another phrase is asked: what prompt sensitivity is the mean of."""

# P prompts, N cells

import numpy as np
from numpy.typing import NDArray

MOST_PROMPTS = 512  # of one picture; the first ones are compared where there are more


def mean_change(masks_pn: NDArray[np.float32]) -> float:
    """The mean absolute difference of mask probabilities over all pairs of prompts and all cells; NaN under 2 prompts.

    Sorted per cell, the k-th smallest of P values is the larger one in k pairs and the smaller one in P − 1 − k, so
    all pairs are summed at once.
    """
    num = len(masks_pn)
    if num < 2:
        return float("nan")
    sorted_pn = np.sort(masks_pn.astype(np.float64), axis=0)
    weight_p = 2 * np.arange(num) - (num - 1)
    return float((weight_p @ sorted_pn).mean() / (num * (num - 1) / 2))
