"""Prompt Sensitivity: how far a model's mask follows the phrase rather than the picture alone."""

# I images

import numpy as np
from numpy.typing import NDArray

from student.bootstrap import NUM_DRAWS, measure
from student.estimates import Estimated, Undefined


def prompt_sensitivity(
    sensitivity_i: NDArray[np.floating], *, rng: np.random.Generator, num_draws: int = NUM_DRAWS
) -> Estimated:
    """The mean over images of the mean absolute difference of mask probabilities over all pairs of asked prompts.

    An image with fewer than two prompts has none (NaN) and is left out.
    """
    known_i = sensitivity_i[~np.isnan(sensitivity_i)].astype(np.float64)
    num = len(known_i) or Undefined("no image was asked two prompts")
    counts_ic = np.stack([known_i, np.ones_like(known_i)], axis=1)
    found = measure(counts_ic, _mean, {"prompt_sensitivity": num}, rng=rng, num_draws=num_draws)
    return found["prompt_sensitivity"]


def _mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return sums[..., :1] / sums[..., 1:]
