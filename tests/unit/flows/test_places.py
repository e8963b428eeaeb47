"""Places: one process a part, so that what kills one part costs no other."""

import os
import signal
import time
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from flows.places import open_places
from manifests.errors import BuildError, Reason, Rejected


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise Rejected(Reason.TRUNCATED, "half of it")


def test_a_call_runs_in_another_process_and_gives_what_it_returns() -> None:
    with open_places(1) as place:
        assert place(os.getpid) == place(os.getpid) != os.getpid()


def test_a_call_raises_what_it_raised() -> None:
    with open_places(1) as place, pytest.raises(Rejected, match="half of it"):
        place(refuse)


def test_a_process_that_is_killed_costs_its_own_call_and_is_replaced() -> None:
    with open_places(2) as place, ThreadPoolExecutor(2) as threads:
        slow = threads.submit(place, partial(time.sleep, 1.0))
        with pytest.raises(BrokenExecutor):
            place(die)
        assert slow.result() is None
        assert [place(os.getpid) for _ in range(4)].count(os.getpid()) == 0


def test_a_process_that_dies_while_nothing_is_asked_of_it_is_replaced() -> None:
    with open_places(1) as place:
        pid = place(os.getpid)
        os.kill(pid, signal.SIGKILL)
        deadline_s = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        time.sleep(0.5)  # until the pool has seen it
        with pytest.raises(BrokenExecutor):
            place(os.getpid)
        assert place(os.getpid) not in (pid, os.getpid())


def test_a_part_that_runs_too_long_is_ended_and_said(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with open_places(1, limit_s=8.0) as place:
        place(os.getpid)  # the process is there
        with pytest.raises(BuildError, match=r"a part ran for more than 8 s; expected minutes\. Look at its input"):
            place(partial(_write_and_sleep, begun))
        pid = int(begun.read_text())
        deadline_s = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert place(os.getpid) != pid


def _write_and_sleep(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(300)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]


def test_no_more_processes_are_used_than_there_are_places() -> None:
    with open_places(2) as place, ThreadPoolExecutor(6) as threads:
        pids = list(threads.map(lambda _: place(os.getpid), range(12)))
    assert len(set(pids)) <= 2
