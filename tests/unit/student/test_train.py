"""On which device a run trains, and with how many threads: what the command and a flow both ask first."""

from collections.abc import Iterator

import pytest
import torch

from manifests.errors import RecipeError, TrainingError
from student.preparing import Request
from student.train import choose_device
from tests.students import tiny_config


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No environment that says anything, and torch's threads as they were afterwards."""
    for name in ("OMP_NUM_THREADS", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    yield
    torch.set_num_threads(before)


def request(**changes: object) -> Request:
    return Request(builds={"build": None}, out="run", config=tiny_config(**changes))


@pytest.mark.usefixtures("threads")
def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", request()) == torch.device("cpu")


def test_a_device_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(RecipeError, match=r"--device abacus: .*; expected auto, cpu, or a device of this machine"):
        choose_device("abacus", request())


@pytest.mark.usefixtures("threads")
def test_half_precision_wants_a_gpu_and_a_resumed_run_says_its_own() -> None:
    with pytest.raises(TrainingError, match=r"precision float16 on a CPU .* Use bfloat16 or float32"):
        choose_device("cpu", request(precision="float16"))
    assert choose_device("cpu", request(precision="bfloat16")).type == "cpu"
    assert choose_device("cpu", Request(builds={}, out="run")).type == "cpu"


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 6),
        ({"WORLD_SIZE": "2"}, 3),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "3"}, 2),  # the processes of this machine share its cores
        ({"WORLD_SIZE": "64"}, 1),
        ({"WORLD_SIZE": "2", "OMP_NUM_THREADS": "6"}, 6),  # somebody has decided already
    ],
)
def test_processes_share_the_cores_of_a_machine(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    choose_device("cpu", request())
    assert torch.get_num_threads() == expected
