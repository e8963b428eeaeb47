import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from student.history import read_history
from student.run_record import read_run
from tests.factories import make_build
from tests.students import coloured_boxes, losses_of, run_training, tiny_config, vals_of, write_config, write_teacher
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
        timeout=900,
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
    assert done.returncode == 0, done.stderr
    [warned] = done.stderr.splitlines()  # once, by the rank that leads: the rows of this teacher are noise
    assert "with an AUC of 0.48; expected 0.55 or more" in warned
    assert len(read_history(str(tmp_path / "two"))) == len(read_history(str(tmp_path / "one")))
    for found, expected in zip(losses_of(tmp_path / "two"), losses_of(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert vals_of(tmp_path / "two") == [pytest.approx(val, rel=1e-3) for val in vals_of(tmp_path / "one")]
    record = read_run(str(tmp_path / "two"))
    assert record is not None
    assert record.finished


def test_a_phase_with_a_loss_of_weight_0_trains_together_too(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "build", [*coloured_boxes("train", 16), *coloured_boxes("val", 2)])
    losses = msgspec.structs.replace(tiny_config().losses, mask_bce=0.0, mask_dice=0.0)
    config = write_config(tmp_path, tiny_config(losses=losses))
    done = train_together(folder, tmp_path / "run", "--config", config, "--epochs", "2", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert len(losses_of(tmp_path / "run")) == 4
