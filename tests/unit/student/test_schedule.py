import pytest

from student.config import OptimiserConfig
from student.schedule import make_schedule, rate_factor

SCHEDULE = make_schedule((1, 2), (1, 2), epoch_samples=10, batch_size=4)


def test_an_epoch_is_as_many_whole_batches_as_its_samples_need() -> None:
    assert SCHEDULE.epoch_steps == 3
    assert SCHEDULE.num_steps == 9


def test_places_run_through_the_phases() -> None:
    places = [SCHEDULE.at(step) for step in range(9)]
    assert [place.phase for place in places] == [1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert [place.epoch for place in places] == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert [place.step for place in places] == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    assert [step for step, place in enumerate(places) if place.ends_epoch] == [2, 5, 8]
    assert [step for step, place in enumerate(places) if place.ends_phase] == [2, 8]


def test_there_is_no_place_after_the_last_step() -> None:
    with pytest.raises(IndexError, match="step 9 of 9"):
        SCHEDULE.at(9)


def test_the_rate_warms_up_and_falls_to_nothing_in_each_phase() -> None:
    schedule = make_schedule((1, 2), (10, 20), epoch_samples=10, batch_size=1)
    factors = [rate_factor(schedule.at(step), OptimiserConfig(warmup=0.1)) for step in range(schedule.num_steps)]
    for phase in (factors[:100], factors[100:]):
        top = phase.index(max(phase))
        assert top == len(phase) // 10
        assert phase[top] == 1
        assert phase[:top] == sorted(phase[:top])
        assert phase[top:] == sorted(phase[top:], reverse=True)
        assert 0 < phase[0] < 0.1
        assert 0 <= phase[-1] < 0.01


def test_without_a_warm_up_the_rate_is_whole_at_once() -> None:
    assert rate_factor(SCHEDULE.at(0), OptimiserConfig(warmup=0)) == 1
