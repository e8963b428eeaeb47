"""A call in a process of its own: its bars are seen here, its mistakes are raised here, and it ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.progress import Progress

from flows.apart import run_apart
from manifests.errors import BuildError, TrainingError
from tests.doors import ROOT
from tests.prefect_service import until

PARENT = """
import sys
from functools import partial
from rich.progress import Progress
from flows.apart import run_apart
from tests.unit.flows.test_apart import sleep_in
if __name__ == "__main__":
    run_apart(partial(sleep_in, sys.argv[1]), Progress(disable=True))
"""


def count(progress: Progress) -> int:
    bar = progress.add_task("count", total=3)
    for _ in range(3):
        progress.advance(bar)
    progress.update(bar, description="counted")
    return os.getpid()


def refuse(_progress: Progress) -> None:
    raise TrainingError("nothing to learn from")


def stumble(_progress: Progress) -> None:
    raise ZeroDivisionError("a bug")


def die(_progress: Progress) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_in(path: str, _progress: Progress) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(300)


def test_what_it_returns_and_how_far_it_is_are_seen_here() -> None:
    with Progress(disable=True) as progress:
        assert run_apart(count, progress) != os.getpid()
    (shown,) = progress.tasks
    assert (shown.description, shown.completed, shown.total) == ("counted", 3, 3)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (refuse, TrainingError, "^nothing to learn from$"),
        (stumble, RuntimeError, "ZeroDivisionError: a bug"),
        (die, BuildError, "ended by signal 9; expected it to finish. Often that is for memory"),
    ],
)
def test_what_is_raised_there_is_raised_here(call: object, error: type[Exception], said: str) -> None:
    with Progress(disable=True) as progress, pytest.raises(error, match=said):
        run_apart(call, progress)  # type: ignore[arg-type]


def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Else the next run would train into the same folder beside it."""
    (tmp_path / "parent.py").write_text(PARENT)
    told = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(told)], env=environment) as parent:
        until(lambda: told.exists() and bool(told.read_text()), 120)
        parent.kill()
    path = Path(f"/proc/{told.read_text()}/stat")
    until(lambda: not path.exists() or path.read_text().rpartition(") ")[2].startswith("Z"), 60)
