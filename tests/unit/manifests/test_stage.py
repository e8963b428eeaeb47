"""Stages: finished parts are not run again, on any executor, and the first error stops what has not begun."""

import errno
import os
import pty
import subprocess
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from botocore.exceptions import EndpointConnectionError

from manifests.errors import BuildError
from manifests.stage import Inline, local_executor, progress_bar, run_command, run_stage
from tests.doors import ROOT


class Task(msgspec.Struct, frozen=True):
    name: str
    weight: int = 1


class Record(msgspec.Struct, frozen=True):
    text: str


def shout(task: Task) -> Record:
    return Record(text=task.name.upper())


def ran(folder: Path, names: list[str], executor: Executor, function: object = shout) -> list[str]:
    with progress_bar(quiet=True) as progress:
        records = run_stage(
            "test",
            [Task(name) for name in names],
            function,  # type: ignore[arg-type]
            Record,
            folder=str(folder),
            executor=executor,
            progress=progress,
        )
    return [record.text for record in records]


def test_records_come_in_the_order_of_the_parts_on_any_executor(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(40)]
    upper = [name.upper() for name in names]
    assert ran(tmp_path / "a", names, Inline()) == upper
    with ThreadPoolExecutor(4) as threads:
        assert ran(tmp_path / "b", names, threads) == upper
    with local_executor(2) as processes:
        assert ran(tmp_path / "c", names, processes) == upper


def test_a_finished_part_is_not_run_again_and_a_damaged_record_is(tmp_path: Path) -> None:
    ran(tmp_path, ["a", "b"], Inline())
    calls: list[str] = []

    def count(task: Task) -> Record:
        calls.append(task.name)
        return shout(task)

    assert ran(tmp_path, ["a", "b", "c"], Inline(), count) == ["A", "B", "C"]
    assert calls == ["c"]
    (tmp_path / "a.json").write_bytes(b'{"te')
    ran(tmp_path, ["a", "b", "c"], Inline(), count)
    assert calls == ["c", "a"]


def test_an_error_keeps_what_was_finished(tmp_path: Path) -> None:
    def fail_on_b(task: Task) -> Record:
        if task.name == "b":
            raise BuildError("no b")
        return shout(task)

    with pytest.raises(BuildError, match="no b"):
        ran(tmp_path, ["a", "b", "c"], Inline(), fail_on_b)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json"]


def test_a_command_turns_the_users_mistake_into_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> int:
        raise BuildError("too few")

    def stopped() -> int:
        raise KeyboardInterrupt

    assert run_command(wrong) == 1
    assert capsys.readouterr().err == "error: too few\n"
    assert run_command(stopped) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert run_command(lambda: 0) == 0


def test_a_place_that_cannot_be_read_is_one_error_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def read_a_folder() -> int:
        return len(tmp_path.read_bytes())

    def reach_no_bucket() -> int:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9/bucket")

    for main, words in ((read_a_folder, str(tmp_path)), (reach_no_bucket, "http://127.0.0.1:9/bucket")):
        assert run_command(main) == 1
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert line.count("\n") == 1
        assert words in line


def test_a_full_disk_is_told_apart_from_a_place_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    def fill() -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "history.jsonl")

    assert run_command(fill) == 1
    line = capsys.readouterr().err
    assert "history.jsonl" in line
    assert "the disk is full; free some space" in line
    assert "read it" not in line


LOGS = """
import logging
from manifests.stage import log_to_stderr, progress_bar
log_to_stderr()
with progress_bar() as progress:
    bar = progress.add_task("scan", total=2)
    progress.refresh()
    logging.getLogger("shards.scan").info("half of it")
    logging.getLogger("somewhere.else").info("nobody asked")
"""


def test_a_log_line_stands_above_a_live_bar_and_not_in_it() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", LOGS], cwd=ROOT, env=environment, stderr=theirs, check=True)
    os.close(theirs)
    said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    line = next(line for line in said.split("\n") if "half of it" in line)
    assert done.returncode == 0
    assert line.rpartition("\x1b[2K")[2].strip() == "half of it"  # what stood there was wiped first
    assert "nobody asked" not in said


def test_an_error_of_the_program_is_no_mistake_of_the_user() -> None:
    def divide() -> int:
        return 1 // 0

    with pytest.raises(ZeroDivisionError):
        run_command(divide)
