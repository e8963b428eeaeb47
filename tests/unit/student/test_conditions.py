import platform
import re
import sys
from pathlib import Path

import pytest

from student import conditions
from student.conditions import device_name, read_conditions, say_conditions


def test_conditions_of_this_machine_name_it() -> None:
    found = read_conditions(
        threads=2, batch=1, resolution=64, num_phrases=3, precision="fp16", runtime=("onnxruntime", "1.2")
    )
    assert found.device == device_name()
    assert found.device.startswith("cpu ")
    assert found.runtime == "onnxruntime 1.2"
    assert "threads 2" in say_conditions(found)
    assert "phrases 3" in say_conditions(found)


@pytest.mark.parametrize("said", ["processor\t: 0\nFeatures\t: fp asimd\n", "model name\t: Example 9 \nflags\t: a\n"])
def test_bench_names_the_processor_as_a_reading_does(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(said)
    monkeypatch.setattr(conditions, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    script = (Path(conditions.__file__).parent / "bench_template.py").read_text()
    lines = [line for line in script.splitlines() if line.startswith(("cpu =", "said = "))]
    names = {"re": re, "sys": sys, "platform": platform, "Path": lambda _: tmp_path / "cpuinfo"}

    exec("\n".join(lines), names)  # noqa: S102 - lines of our own file

    assert names["said"] == {"device": device_name(), "batch": 1}
    assert device_name() in ("cpu aarch64", "cpu Example 9")
