"""Starts a command as several processes on this machine, and lets them speak with one voice.

The first process has the terminal. What the others say is kept, and shown only if one of them fails and the first does
not: they mostly fail for the same reason, and one line is enough.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from student.stopping import until_interrupt

LAUNCHED = "RANK"  # in the environment of a process that is one of several
GRACE_S = 10.0  # between a failure of another process and the end of the first one
STOPPED_BY_KEYBOARD = 130  # the exit code, as shells have it
_POLL_S = 0.05
_ERROR = re.compile(rb"^error: ", re.MULTILINE)

Process = subprocess.Popen[bytes]


def launch(command: Sequence[str], num_processes: int, *, grace_s: float = GRACE_S) -> int:
    """The exit code of `command` as `num_processes` processes: 0, or that of one that failed.

    SIGTERM is passed on to all of them, and so is the first Ctrl-C, as SIGTERM: they may have had it from the terminal
    already. All are gone when this returns.

    Raises:
        KeyboardInterrupt: there was a second Ctrl-C.
    """
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(num_processes)}
    with contextlib.ExitStack() as files:
        said: list[IO[bytes]] = [files.enter_context(tempfile.TemporaryFile()) for _ in range(num_processes - 1)]
        running = [_start(command, {**os.environ, **shared}, rank, said) for rank in range(num_processes)]
        before = signal.signal(signal.SIGTERM, lambda *_: _terminate(running))
        try:
            with until_interrupt(lambda: _terminate(running)) as interrupted:
                code = _await_all(running, said, grace_s)
            return STOPPED_BY_KEYBOARD if code and interrupted.is_set() else code
        finally:
            signal.signal(signal.SIGTERM, before)
            for process in running:
                process.kill()
                process.wait()


def _terminate(running: Sequence[Process]) -> None:
    for process in running:
        process.terminate()


def _start(command: Sequence[str], env: dict[str, str], rank: int, said: Sequence[IO[bytes]]) -> Process:
    own = {**env, LAUNCHED: str(rank), "LOCAL_RANK": str(rank)}
    return subprocess.Popen(command, env=own, stderr=said[rank - 1] if rank else None)  # noqa: S603 - our own command


def _await_all(running: Sequence[Process], said: Sequence[IO[bytes]], grace_s: float) -> int:
    """0 when all have ended well; otherwise a code that is not, once the first has ended or had time to."""
    failed_at = None
    while True:
        codes = [process.poll() for process in running]
        if codes[0]:
            return codes[0]
        if all(code == 0 for code in codes):
            return 0
        failed = [rank for rank, code in enumerate(codes) if code or (rank and _ERROR.search(_text(said[rank - 1])))]
        if failed and failed_at is None:
            failed_at = time.monotonic()
        if failed and failed_at is not None and time.monotonic() - failed_at > grace_s:
            sys.stderr.write(_text(said[failed[0] - 1]).decode(errors="replace"))
            return codes[failed[0]] or 1
        time.sleep(_POLL_S)


def _text(file: IO[bytes]) -> bytes:
    """All that a process has said so far."""
    return os.pread(file.fileno(), 1 << 16, 0)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
