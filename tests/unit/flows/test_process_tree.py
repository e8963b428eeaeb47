"""Processes below a process are found and ended, also those that ignore a request or have lost their parent."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.process_tree import Process, below, children, end, running

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process, and the stubborn child that it has put into another session."""
    with subprocess.Popen([sys.executable, "-c", PARENT, STUBBORN], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        yield parent, child
        for pid in (parent.pid, child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    return pid in {process.pid for process in running()}


def test_those_below_are_listed_parents_first() -> None:
    listed = [Process(pid=pid, parent=parent) for pid, parent in [(4, 3), (3, 2), (9, 1), (2, 1), (5, 2)]]

    assert below(2, listed) == [3, 5, 4]
    assert children(1, listed) == [9, 2]
    assert below(4, listed) == []


def test_a_child_in_another_session_is_found_and_ended_with_its_parent(
    family: tuple[subprocess.Popen[str], int],
) -> None:
    parent, child = family
    assert child in below(os.getpid(), running())

    begun = time.monotonic()
    end([parent.pid], limit_s=0.5)

    parent.wait(timeout=10)
    assert parent.returncode == -signal.SIGTERM
    assert time.monotonic() - begun < 5
    until = time.monotonic() + 5
    while runs(child):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_without_proc_the_same_processes_are_listed_by_ps(tmp_path: Path) -> None:
    if not Path("/bin/ps").exists():
        pytest.skip("this machine has no ps")

    mine = next(process for process in running(tmp_path) if process.pid == os.getpid())

    assert mine in running()
    assert mine.parent == os.getppid()
