import os
import subprocess
import sys
from pathlib import Path

import pytest

from student.history import read_history
from student.run_record import read_run
from tests.students import losses_of, run_training, tiny_config, vals_of, write_config, write_teacher
from tests.worlds import REPOSITORY, build_world, write_world


def train_together(build: Path, out: Path, *options: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """What the real command did as several processes."""
    command = [sys.executable, "-W", "error", "-m", "student.train", str(build), "--out", str(out), *options, "--quiet"]
    return subprocess.run(
        [*command, "--processes", str(processes), "--device", "cpu"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    build_world(write_world(tmp_path), tmp_path / "build")
    build = tmp_path / "build"
    teacher = write_teacher(build, tmp_path, without=["car"])
    run_training(build, tmp_path / "one", teacher=(str(teacher),), epochs=(1, 1))
    config = write_config(tmp_path, tiny_config())
    done = train_together(
        build, tmp_path / "two", "--config", config, "--teacher", str(teacher), "--epochs", "1,1", "--workers", "1"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_history(str(tmp_path / "two"))) == len(read_history(str(tmp_path / "one")))
    for found, expected in zip(losses_of(tmp_path / "two"), losses_of(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert vals_of(tmp_path / "two") == [pytest.approx(val, rel=1e-3) for val in vals_of(tmp_path / "one")]
    record = read_run(str(tmp_path / "two"))
    assert record is not None
    assert record.finished
