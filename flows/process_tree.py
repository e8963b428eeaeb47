"""Every process below another one, and an end to all of them, whatever sessions and groups they have made."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process as the system lists it."""

    pid: int
    parent: int


def running(proc: Path = _PROC) -> list[Process]:
    """Every process of the machine that has not ended; from `proc` where there is one, otherwise from `ps`."""
    if (proc / "self" / "stat").exists():
        lines = [_stat_line(path) for path in proc.glob("[0-9]*/stat")]
    else:
        command = ["ps", "-A", "-o", "pid=,stat=,ppid="]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  (a fixed command)
        lines = listed.stdout.splitlines()
    rows = [line.split() for line in lines if line]
    return [Process(pid=int(pid), parent=int(parent)) for pid, state, parent in rows if not state.startswith("Z")]


def children(pid: int, listed: Iterable[Process]) -> list[int]:
    """The processes that `pid` has started, or adopted."""
    return [process.pid for process in listed if process.parent == pid]


def below(pid: int, listed: Sequence[Process]) -> list[int]:
    """The children of `pid`, their children, and so on, parents first."""
    found = [pid]
    for each in found:
        found += [child for child in children(each, listed) if child not in found]
    return found[1:]


def adopt_orphans() -> None:
    """Make this process the parent of what a dead process below it has left, where the system can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end(roots: Iterable[int], *, limit_s: float) -> None:
    """Ask these processes to end; after `limit_s`, end those that remain of them and of all below them."""
    roots = list(roots)
    listed = running()
    doomed = {*roots, *(young for old in roots for young in below(old, listed))}
    send(signal.SIGTERM, roots)
    until = time.monotonic() + limit_s
    while True:
        listed = running()
        doomed |= {young for old in list(doomed) for young in below(old, listed)}
        left = doomed & {process.pid for process in listed}
        if not left or time.monotonic() > until:
            send(signal.SIGKILL, left)
            return
        time.sleep(0.05)


def send(what: signal.Signals, pids: Iterable[int]) -> None:
    """Signal each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def _stat_line(path: Path) -> str:
    """`pid state parent` of a process; nothing if it has just ended."""
    try:
        pid, _, rest = path.read_text(errors="replace").partition(" (")
    except OSError:
        return ""
    state, parent = rest.rpartition(") ")[2].split()[:2]
    return f"{pid} {state} {parent}"
