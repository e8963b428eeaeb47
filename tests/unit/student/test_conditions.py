import msgspec
import pytest

from student.conditions import device_name, differing_conditions, not_comparable, read_conditions, say_conditions
from student.readings import Conditions

SAID = Conditions(
    device="cpu A", threads=1, batch=1, resolution=256, num_phrases=4, precision="fp32", runtime="torch 2.15", load=0.1
)


def test_latencies_of_equal_conditions_compare_whatever_the_load() -> None:
    assert differing_conditions(SAID, msgspec.structs.replace(SAID, load=7.5)) == []
    assert not_comparable(SAID, msgspec.structs.replace(SAID, load=None)) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cpu B"}, "device cpu A against cpu B"),
        ({"threads": 2}, "threads 1 against 2"),
        ({"batch": 8}, "batch 1 against 8"),
        ({"resolution": 320}, "resolution 256 against 320"),
        ({"num_phrases": 1}, "phrases 4 against 1"),
        ({"precision": "int8-int4"}, "precision fp32 against int8-int4"),
        ({"runtime": "onnxruntime 1.32.0"}, "runtime torch 2.15 against onnxruntime 1.32.0"),
        ({"device": ""}, "device cpu A against not said"),
        ({"threads": 0}, "threads 1 against not said"),
    ],
)
def test_every_condition_that_differs_is_named(change: dict[str, object], said: str) -> None:
    other = msgspec.structs.replace(SAID, **change)
    assert differing_conditions(SAID, other) == [said]
    assert not_comparable(SAID, other) == f"not comparable: {said}"
    assert len(differing_conditions(other, SAID)) == 1


def test_what_neither_said_may_differ() -> None:
    silent = Conditions()
    assert differing_conditions(silent, silent) == [
        f"{word} not said of either"
        for word in ("device", "threads", "batch", "resolution", "phrases", "precision", "runtime")
    ]


def test_no_condition_is_forgotten() -> None:
    said = {name for name in Conditions.__struct_fields__ if name != "load"}
    changed = {name: 9 if isinstance(getattr(SAID, name), int) else "other" for name in said}
    assert len(differing_conditions(SAID, msgspec.structs.replace(SAID, **changed))) == len(said)


def test_conditions_of_this_machine_name_it() -> None:
    found = read_conditions(
        threads=2, batch=1, resolution=64, num_phrases=3, precision="fp16", runtime=("onnxruntime", "1.2")
    )
    assert found.device == device_name()
    assert found.device.startswith("cpu ")
    assert found.runtime == "onnxruntime 1.2"
    assert "threads 2" in say_conditions(found)
    assert "phrases 3" in say_conditions(found)
