"""Stock `prefect` commands as children of this process: started, waited for, and ended with all that they started.

Each runs in a session of its own, so that a Ctrl-C in the terminal reaches this process alone, which ends all in order.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from flows.process_tree import children, end, running
from manifests.errors import AbsentiaError

_LIMIT_S = 180.0  # a first start makes the database, on a slow disk in a minute
_END_S = 8.0  # for runs to tell the server that they were cut short
_TAIL = 15  # lines


class StoppedError(Exception):
    """The user wants it to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A `prefect` command that runs, and where its output goes."""

    what: str  # in messages and in the log's name
    process: subprocess.Popen[bytes]
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """The commands that run, in the order of their start."""

    folder: Path
    environment: Mapping[str, str]
    stop: threading.Event
    started: list[Command] = field(default_factory=list)

    def start(self, what: str, *arguments: str, cwd: Path) -> Command:
        """`prefect` with these arguments, running in `cwd`."""
        log = self.folder / f"absentia-{what}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  (our own interpreter)
                [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
                cwd=cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(Command(what=what, process=process, log=log))
        return self.started[-1]

    def wait(self, until: Callable[[], bool], *, what: str, limit_s: float = _LIMIT_S) -> None:
        """Return when `until` is true.

        Raises:
            AbsentiaError: a command ended that should run on, or it takes too long.
        """
        begun = time.monotonic()
        while not until():
            self._require_running()
            if time.monotonic() - begun > limit_s:
                raise AbsentiaError(f"{what} takes more than {limit_s:.0f} s.{_tails(self.started)}")
            if self.stop.wait(0.2):
                raise StoppedError

    def run(self, what: str, *arguments: str, cwd: Path) -> str:
        """What a command says that ends by itself, if it succeeds or says that all is as it should be."""
        child = self.start(what, *arguments, cwd=cwd)
        self.started.remove(child)
        try:
            self.wait(lambda: child.process.poll() is not None, what=f"`prefect {' '.join(arguments)}`")
        finally:
            _end(child)
        said = child.log.read_text(encoding="utf-8", errors="replace")
        if child.process.returncode and "already exists" not in said:
            raise AbsentiaError(f"`prefect {' '.join(arguments)}` failed.{_tails([child])}")
        return said

    def end(self) -> None:
        """End all, the last first, and before a worker its runs: it would kill them before they could say so."""
        known = {child.process.pid for child in self.started}
        for child in reversed(self.started):
            if child.what == "worker":
                listed = running()
                left = [pid for pid in children(os.getpid(), listed) if pid not in known]  # by a worker that died
                end(children(child.process.pid, listed) + left, limit_s=_END_S)
            _end(child)

    def _require_running(self) -> None:
        for child in self.started:
            if child.process.poll() is not None:
                raise AbsentiaError(f"the {child.what} ended by itself.{_tails([child])}")


def stopped_by_signals() -> threading.Event:
    """Set when the user types Ctrl-C, closes the terminal, or asks the process to end."""
    stop = threading.Event()

    def handle(_signum: int, _frame: FrameType | None) -> None:
        stop.set()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, handle)
    return stop


def _end(command: Command) -> None:
    if command.process.poll() is None:
        end([command.process.pid], limit_s=_END_S)
        command.process.wait()


def _tails(commands: Sequence[Command]) -> str:
    """The ends of their logs."""
    return "".join(
        "\n".join(
            [f" Its log is {child.log}, which ends:", *child.log.read_text(errors="replace").splitlines()[-_TAIL:]]
        )
        for child in commands
    )
