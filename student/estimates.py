"""A figure with its interval, or the reason why there is none: what every metric gives.

A metric that lacks its data is undefined, and never 0; a NaN never leaves a metric.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Undefined(NamedTuple):
    """Why a figure could not be read."""

    why: str


Value = float | Undefined


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure; `low` <= `value` <= `high`."""

    value: float
    low: float  # 2.5 % and 97.5 % of bootstrap draws over images
    high: float
    num: int  # prompts (images, for prompt sensitivity) that it rests on


Estimated = Estimate | Undefined
Estimates = dict[str, Estimated]  # by the key of a reading

NO_PROMPT = Undefined("no prompt was asked")
NO_PRESENT = Undefined("no present prompt was evaluated")
NO_ABSENT = Undefined("no absent prompt was evaluated")


def number_of(value: Value) -> float | None:
    """The figure as a record has it: None where it is undefined."""
    return None if isinstance(value, Undefined) else value


def one_sided(present_n: NDArray[np.bool_]) -> Undefined | None:
    """Why presence cannot be judged on these labels [N]; None where both sides are there."""
    if not len(present_n):
        return NO_PROMPT
    if not present_n.any():
        return NO_PRESENT
    return NO_ABSENT if present_n.all() else None
