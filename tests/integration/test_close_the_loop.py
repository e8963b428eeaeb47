"""`python -m flows.close_the_loop`: two rounds, killed between them, and what they leave."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.close_the_loop import main
from flows.loop_record import LoopRecord
from manifests.manifest import read_manifest
from student.readings import read_json
from tests.students import tiny_config, write_config
from tests.worlds import REPOSITORY, error_line, write_world

LIMIT_S = 400.0


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Long enough that the first student draws masks, on which its false alarms are judged."""
    folder = tmp_path_factory.mktemp("loop")
    recipe = write_world(folder / "world")
    config = write_config(folder, tiny_config())
    options = ["--out", str(folder / "out"), "--config", config, "--epochs", "12", "--workers", "1", "--device", "cpu"]
    return [str(recipe), *options, "--quiet"]


@pytest.fixture(scope="module")
def out(command: list[str]) -> Path:
    """The folder of a loop that was killed when its second round began, and then finished."""
    folder = Path(command[2])
    with running(command) as process:
        until_s = time.monotonic() + LIMIT_S
        while not (folder / "round_2" / "build" / "work").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until_s
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (folder / "loop.json").exists()
    (folder.parent / "first.json").write_text(json.dumps(stamps(folder / "round_1")))
    with running([*command, "--json"]) as process:
        said, log = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, log
    assert json.loads(said) == json.loads((folder / "loop.json").read_text())
    return folder


def running(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "flows.close_the_loop", *command],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stamps(folder: Path) -> dict[str, int]:
    """When each file below was written; the last three stages of a round may have been at work when it was killed."""
    return {path.as_posix(): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_the_first_round_finished_is_not_done_again(out: Path) -> None:
    before = json.loads((out.parent / "first.json").read_text())
    after = stamps(out / "round_1")
    assert {name for name in before if after.get(name) != before[name]} <= {
        name for name in before if "/work/" in name or name.endswith(".lock")
    }


def test_the_second_build_scans_nothing_anew(out: Path) -> None:
    first, second = (out / name / "build" / "work" for name in ("round_1", "round_2"))
    tables = sorted((first / "catalog").rglob("*.parquet"))
    assert tables
    assert all(path.samefile(second / path.relative_to(first)) for path in tables)


def test_both_rounds_are_judged_on_the_first_rounds_test_and_stand_in_the_report(out: Path) -> None:
    found = read_json(str(out / "loop.json"), LoopRecord)
    assert [one.number for one in found.rounds] == [1, 2]
    assert (found.judged_on, found.split) == ("round_1/build", "test")
    digests = {
        json.loads((out / one.evaluation / "evaluation.json").read_text())["build_sha256"] for one in found.rounds
    }
    assert len(digests) == 1
    assert all(one.readings["miou"].value is not None for one in found.rounds)
    report = (out / found.report).read_text()
    assert "round_1" in report
    assert "round_2" in report


def test_the_second_build_asks_what_the_first_student_took_for_present(out: Path) -> None:
    found = read_json(str(out / "loop.json"), LoopRecord)
    assert found.rounds[0].absent.get("false_alarm", 0) == 0
    assert found.rounds[1].absent["false_alarm"] > 0
    asked = pq.read_table(out / "round_2" / "build" / "samples.parquet").to_pylist()
    alarms = {(row["image_key"], row["phrase"]): row for row in asked if row["kind"] == "false_alarm"}
    told = pq.read_table(out / "round_1" / "predictions.parquet").to_pylist()
    presence = {(row["key"], row["phrase"]): row["presence"] for row in told}
    assert alarms
    assert all(row["split"] == "train" for row in alarms.values())
    assert all(presence[pair] == pytest.approx(row["score"], abs=1e-3) for pair, row in alarms.items())
    assert read_manifest(str(out / "round_2" / "build")).leaks == []


def test_a_finished_loop_returns_what_it_was(out: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = stamps(out)
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "round 2" in said
    assert "train's false_alarm" in said
    assert {
        name for name, time_ns in stamps(out).items() if before.get(name) != time_ns and ".lock" not in name
    } == set()


def test_a_folder_of_something_else_is_refused(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").touch()
    done = subprocess.run(
        [sys.executable, "-m", "flows.close_the_loop", command[0], "--out", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert error_line(done.stderr) == (
        f"error: {tmp_path}: holds 'picture.jpg', which no loop wrote; expected an empty or a new folder, or that of a "
        "loop. Choose another --out"
    )


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--rounds", "0"), "--rounds 0: expected 1 or more"),
        (("--epochs", "0"), "--epochs 0: expected 1 or more"),
        (("--false-alarms", "1"), "--false-alarms 1.0: expected a share between 0 and 1"),
    ],
)
def test_a_wrong_option_is_refused(option: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["r.toml", "--out", "loop", *option])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_loop_into_a_bucket_is_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command[0], "--out", "memory://loop", "--quiet"]) == 1
    assert "a student is trained in a folder of this machine" in capsys.readouterr().err
