"""How long a call takes once it is warm: the first call apart, warm-up until it is stable, then quantiles."""

# K calls

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from student.readings import Conditions, Latency

WINDOW = 10  # calls whose median is compared with that of the window before
STABLE = 0.05  # relative difference of two successive medians below which a call counts as warm
MAX_WINDOWS = 20
MAX_WARM_UP_S = 30.0
NUM_CALLS = 50  # timed once warm
Clock = Callable[[], float]  # seconds
Told = Callable[[int, int], None]  # calls that are made, and all that there may be; called between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed:
    """What warming up came to."""

    num_calls: int
    stable: bool  # False where a limit ended it


def read_latency(
    call: Callable[[], object],
    conditions: Conditions,
    *,
    num_calls: int = NUM_CALLS,
    clock: Clock = time.perf_counter,
    told: Told | None = None,
) -> Latency:
    """Milliseconds of `call`: the first one, and median and 95th percentile of `num_calls` warmed ones."""
    tell = told or _tell_nobody
    most = 1 + MAX_WINDOWS * WINDOW + num_calls
    first_s = _seconds(call, clock)
    warmed = warm_up(call, clock=clock, told=lambda done, _: tell(1 + done, most))
    ms_k = np.empty(num_calls)
    for k in range(num_calls):
        tell(most - num_calls + k, most)
        ms_k[k] = 1000 * _seconds(call, clock)
    tell(most, most)
    return Latency(
        ms=float(np.median(ms_k)),
        p95_ms=float(np.quantile(ms_k, 0.95)),
        first_ms=1000 * first_s,
        num_calls=num_calls,
        num_warm_up=warmed.num_calls,
        stable=warmed.stable,
        conditions=conditions,
    )


def _tell_nobody(done: int, most: int) -> None:
    """Nobody watches."""


def warm_up(call: Callable[[], object], *, clock: Clock = time.perf_counter, told: Told = _tell_nobody) -> Warmed:
    """Call until the medians of two successive windows differ by less than 5 %, or 20 windows or 30 s are over."""
    start, before = clock(), float("inf")
    for number in range(1, MAX_WINDOWS + 1):
        median = float(np.median([_seconds(call, clock) for _ in range(WINDOW)]))
        told(number * WINDOW, MAX_WINDOWS * WINDOW)
        if abs(median - before) < STABLE * before:
            return Warmed(num_calls=number * WINDOW, stable=True)
        if clock() - start > MAX_WARM_UP_S:
            return Warmed(num_calls=number * WINDOW, stable=False)
        before = median
    return Warmed(num_calls=MAX_WINDOWS * WINDOW, stable=False)


def _seconds(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start
