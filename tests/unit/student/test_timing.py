from collections.abc import Iterable
from itertools import chain, repeat

import pytest

from student.readings import Conditions
from student.timing import MAX_WINDOWS, WINDOW, read_latency, warm_up


class Machine:
    """A clock, and a call that takes the next of some milliseconds on it."""

    def __init__(self, milliseconds: Iterable[float]) -> None:
        self.now = 0.0
        self.num_calls = 0
        self._left = iter(milliseconds)

    def clock(self) -> float:
        return self.now

    def call(self) -> None:
        self.num_calls += 1
        self.now += next(self._left) / 1000


def test_the_first_call_stands_apart_and_warmed_calls_give_the_quantiles() -> None:
    warm = [10.0] * (2 * WINDOW)
    machine = Machine([500.0, *warm, *([20.0] * 90), *([40.0] * 10)])
    found = read_latency(machine.call, Conditions(), num_calls=100, clock=machine.clock)
    assert found.first_ms == pytest.approx(500)
    assert found.ms == pytest.approx(20)
    assert found.p95_ms == pytest.approx(40)
    assert (found.num_calls, found.num_warm_up, found.stable) == (100, 2 * WINDOW, True)


def test_how_far_it_is_is_told_between_the_calls_and_costs_them_nothing() -> None:
    machine = Machine(repeat(10.0))
    told: list[tuple[int, int]] = []

    def tell(done: int, most: int) -> None:
        machine.now += 5
        told.append((done, most))

    found = read_latency(machine.call, Conditions(), num_calls=20, clock=machine.clock, told=tell)
    assert found.ms == pytest.approx(10)
    assert found.p95_ms == pytest.approx(10)
    most = 1 + MAX_WINDOWS * WINDOW + 20
    assert told == sorted(told)
    assert (told[0], told[-1]) == ((1 + WINDOW, most), (most, most))


def test_warming_up_ends_once_two_windows_agree_within_five_per_cent() -> None:
    falling = chain.from_iterable(repeat(ms, WINDOW) for ms in (100.0, 90.0, 80.0, 77.0, 50.0))
    machine = Machine(falling)
    found = warm_up(machine.call, clock=machine.clock)
    assert (found.num_calls, found.stable) == (4 * WINDOW, True)


def test_a_difference_of_just_five_per_cent_is_not_stable_yet() -> None:
    machine = Machine(chain(repeat(100.0, WINDOW), repeat(105.1, WINDOW), repeat(105.1, WINDOW)))
    assert warm_up(machine.call, clock=machine.clock).num_calls == 3 * WINDOW


def test_a_call_that_never_settles_is_said_to_be_unstable() -> None:
    machine = Machine(chain.from_iterable(repeat(ms, WINDOW) for ms in [10.0, 20.0] * MAX_WINDOWS))
    found = warm_up(machine.call, clock=machine.clock)
    assert (found.num_calls, found.stable) == (MAX_WINDOWS * WINDOW, False)


def test_slow_calls_warm_up_for_half_a_minute_at_most() -> None:
    machine = Machine(chain.from_iterable(repeat(ms, WINDOW) for ms in [2100.0, 1000.0] * 20))
    found = warm_up(machine.call, clock=machine.clock)
    assert (found.num_calls, found.stable) == (2 * WINDOW, False)
