"""The difference of two evaluations over the same pictures, drawn together, so that what they share cancels.

An evaluation folder holds `sums.parquet`: what each picture adds to the numerator and denominator of a metric.
MCC and AUC are no such ratios, and have no pair. Sensitivity to prompts is read from `images.parquet`.
"""

# I pictures, M metrics, B draws

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from manifests import files
from manifests.tables import IMAGE_SUMS, PREDICTED_IMAGES, read_table
from student.bootstrap import NUM_DRAWS
from student.readings import IMAGES_NAME, SUMS_NAME

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 1 << 22  # weights held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSums:
    """Of one metric, what each picture adds to its numerator and denominator; keys are sorted."""

    keys: tuple[str, ...]
    part_i: NDArray[np.float64]
    whole_i: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A difference with the 2.5 % and 97.5 % quantiles of its draws."""

    value: float
    low: float
    high: float


def read_sums(folder: str) -> dict[str, ImageSums]:
    """By metric, the sums of the evaluation in `folder`; empty where it kept none.

    Raises:
        TableError: a table of them is damaged.
    """
    found = {}
    uri = files.join(folder, SUMS_NAME)
    if files.exists(uri):
        found = _by_metric(read_table(uri, IMAGE_SUMS))
    images = files.join(folder, IMAGES_NAME)
    if "prompt_sensitivity" not in found and files.exists(images):
        table = read_table(images, PREDICTED_IMAGES)
        value_i = table["prompt_sensitivity"].to_numpy().astype(np.float64)
        known_i = np.isfinite(value_i)
        keys = np.asarray(table["key"].to_pylist(), str)[known_i]
        found["prompt_sensitivity"] = _sorted(keys, value_i[known_i], np.ones(len(keys)))
    return found


def _by_metric(table: "pa.Table") -> dict[str, ImageSums]:
    key_n, metric_n = np.asarray(table["key"].to_pylist(), str), np.asarray(table["metric"].to_pylist(), str)
    part_n, whole_n = table["part"].to_numpy(), table["whole"].to_numpy()
    found = {}
    for name in np.unique(metric_n):
        here_n = metric_n == name
        found[str(name)] = _sorted(key_n[here_n], part_n[here_n], whole_n[here_n])
    return found


def _sorted(key_i: NDArray[np.str_], part_i: NDArray[np.float64], whole_i: NDArray[np.float64]) -> ImageSums:
    order = np.argsort(key_i)
    return ImageSums(keys=tuple(map(str, key_i[order])), part_i=part_i[order], whole_i=whole_i[order])


def paired_difference(
    ours: ImageSums, theirs: ImageSums, *, seed: int = 0, num_draws: int = NUM_DRAWS
) -> Paired | None:
    """Our ratio minus theirs, both under the same draws of pictures; None where a side rests on none.

    A picture that adds to one side alone adds 0 to the other.

    Source: Efron (1979), percentile interval of a paired statistic; the units are pictures.
    """
    if not ours.whole_i.sum() or not theirs.whole_i.sum():
        return None
    keys = sorted({*ours.keys, *theirs.keys})
    sums_4i = np.concatenate([_spread(ours, keys), _spread(theirs, keys)])
    rng, num = np.random.default_rng(seed), len(keys)
    block = max(1, _BLOCK // num)
    drawn = []
    for start in range(0, num_draws, block):
        weights_bi = rng.multinomial(num, np.full(num, 1 / num), min(block, num_draws - start))
        drawn.append(weights_bi @ sums_4i.T)
    part_b, whole_b, other_part_b, other_whole_b = np.concatenate(drawn).T
    usable_b = (whole_b > 0) & (other_whole_b > 0)
    if not usable_b.any():
        return None
    difference_b = part_b[usable_b] / whole_b[usable_b] - other_part_b[usable_b] / other_whole_b[usable_b]
    low, high = np.quantile(difference_b, [0.025, 0.975])
    part, whole, other_part, other_whole = sums_4i.sum(axis=1)
    return Paired(value=float(part / whole - other_part / other_whole), low=float(low), high=float(high))


def _spread(sums: ImageSums, keys: list[str]) -> NDArray[np.float64]:
    """Part and whole [2, I] over all `keys`, which are sorted."""
    place_i = np.searchsorted(keys, sums.keys)
    return np.stack([np.bincount(place_i, one_i, len(keys)) for one_i in (sums.part_i, sums.whole_i)])
