"""A plain command in a process of its own, for work that wants one: training keeps its heap and hears its signals."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO

from manifests.errors import AbsentiaError

_GRACE_S = 20.0  # a trainer writes its checkpoint after the step at hand


def run_module(module: str, arguments: Sequence[str], *, tell: Callable[[str], None]) -> dict[str, object]:
    """What `python -m MODULE ARGUMENTS --json` prints; `tell` gets every line of its log as it comes.

    Where the caller is stopped, the command is asked to end and gets the time to save what it has.

    Raises:
        AbsentiaError: it failed; the message is its own.
    """
    command = [sys.executable, "-m", module, *arguments, "--json"]
    process = subprocess.Popen(  # noqa: S603  (our own module)
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    said: list[str] = []
    log = threading.Thread(target=_hand_on, args=(process.stderr, said, tell), daemon=True)
    log.start()
    try:
        printed = process.stdout.read() if process.stdout else ""
        process.wait()
    except BaseException:
        _end(process)
        raise
    log.join()
    if process.returncode:
        lines = [line for line in said if line.startswith("error: ")] or said[-1:]
        raise AbsentiaError(lines[-1].removeprefix("error: ") if lines else f"{module} ended with {process.returncode}")
    found = json.loads(printed)
    return found if isinstance(found, dict) else {"result": found}


def _hand_on(stream: IO[str] | None, said: list[str], tell: Callable[[str], None]) -> None:
    for line in stream or ():
        text = line.rstrip()
        if text:
            said.append(text)
            tell(text)


def _end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
