"""Intervals over images: each draw weighs the images' counts, and a metric is a function of the weighted sums.

Prompts of one image are not independent, so images are drawn with replacement, as often as there are images; how often
each was drawn is its weight. Sums of all draws are then one matrix product, in blocks of bounded memory.

Source: Efron (1979), percentile interval.
"""

# D draws, I images, N prompts, C counts, M metrics

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from student.estimates import Estimate, Estimates, Undefined

NUM_DRAWS = 1000
QUANTILES = (0.025, 0.975)
BLOCK = 1 << 21  # weights that are held at once

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # sums [..., C] to metrics [..., M], NaN: undefined


def measure(
    counts_ic: NDArray[np.float64],
    statistic: Statistic,
    asked: Mapping[str, int | Undefined],
    *,
    rng: np.random.Generator,
    num_draws: int = NUM_DRAWS,
) -> Estimates:
    """The metrics of `statistic` by name, with their intervals.

    Args:
        counts_ic: What each image adds to the sums.
        statistic: Metrics from sums; NaN for those that are undefined there, which a draw may bring about.
        asked: Names in the statistic's order, each with the number of prompts it rests on, or why it is undefined.
        rng: Draws the images.
        num_draws: How many times.
    """
    if all(isinstance(num, Undefined) for num in asked.values()):
        return {name: num for name, num in asked.items() if isinstance(num, Undefined)}
    value_m, low_m, high_m = intervals(counts_ic, statistic, rng=rng, num_draws=num_draws)
    return {
        name: num
        if isinstance(num, Undefined)
        else Estimate(value=float(value_m[m]), low=float(low_m[m]), high=float(high_m[m]), num=num)
        for m, (name, num) in enumerate(asked.items())
    }


def intervals(
    counts_ic: NDArray[np.float64], statistic: Statistic, *, rng: np.random.Generator, num_draws: int = NUM_DRAWS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Value, 2.5 % and 97.5 % quantile [M] of the draws; see `bounds`."""
    value_m = statistic(counts_ic.sum(axis=0))
    drawn = [statistic(weights_di @ counts_ic) for weights_di in draw_weights(len(counts_ic), rng, num_draws)]
    return value_m, *bounds(np.concatenate(drawn), value_m)


def draw_weights(num_images: int, rng: np.random.Generator, num_draws: int) -> Iterator[NDArray[np.float64]]:
    """How often each image was drawn [block of D, I], block by block; every row sums to I."""
    block = max(1, BLOCK // num_images)
    for start in range(0, num_draws, block):
        num = min(block, num_draws - start)
        drawn = rng.integers(0, num_images, (num, num_images))
        drawn += np.arange(num)[:, None] * num_images
        weights = np.bincount(drawn.ravel(), minlength=num * num_images)
        yield weights.reshape(num, num_images).astype(np.float64)


def bounds(
    drawn_dm: NDArray[np.float64], value_m: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The quantiles [M] of the draws in which a metric was defined, widened to its value where they leave it out."""
    ordered_dm = np.sort(drawn_dm, axis=0)  # NaN last
    num_m = np.count_nonzero(~np.isnan(drawn_dm), axis=0)
    low_m, high_m = (_quantile(ordered_dm, num_m, share) for share in QUANTILES)
    return np.fmin(low_m, value_m), np.fmax(high_m, value_m)


def _quantile(ordered_dm: NDArray[np.float64], num_m: NDArray[np.intp], share: float) -> NDArray[np.float64]:
    """The quantile at `share` of the first `num_m` rows of each column, interpolated; NaN where there are none."""
    place_m = share * np.maximum(num_m - 1, 0)
    below_m = np.floor(place_m).astype(np.intp)
    above_m = np.minimum(below_m + 1, np.maximum(num_m - 1, 0))
    column_m = np.arange(ordered_dm.shape[1])
    lower_m, upper_m = ordered_dm[below_m, column_m], ordered_dm[above_m, column_m]
    quantile_m: NDArray[np.float64] = lower_m + (place_m - below_m) * (upper_m - lower_m)
    return quantile_m


def per_image(columns: Sequence[NDArray[np.generic]], image_n: NDArray[np.integer]) -> NDArray[np.float64]:
    """The sum of every column [N] over the prompts of each image that occurs [I, C]."""
    order = np.argsort(image_n, kind="stable")
    ordered_n = image_n[order]
    starts_i = np.flatnonzero(np.concatenate((np.ones(min(1, len(order)), np.bool_), ordered_n[1:] != ordered_n[:-1])))
    columns_cn = np.stack(columns).astype(np.float64)[:, order]
    counts_ci: NDArray[np.float64] = np.add.reduceat(columns_cn, starts_i, axis=1)
    return np.ascontiguousarray(counts_ci.T)


def ratio(
    part: NDArray[np.float64], whole: NDArray[np.float64], otherwise: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """`part` by `whole`, and `otherwise` where the whole is 0."""
    safe = np.where(whole > 0, whole, 1.0)
    return np.where(whole > 0, part / safe, otherwise)
