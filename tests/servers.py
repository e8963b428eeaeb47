"""Real Prefect commands in an environment that holds nothing but a PATH and a home, and a project of fake flows."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.process_tree import below, send
from flows.process_tree import running as running_processes
from tests.doors import ROOT

BIN = Path(sys.executable).parent

FAKE_FLOWS = '''"""Flows that note that they ran."""

import os
import time

from prefect import flow


@flow(name="build-shards")
def build_shards(recipe: str = "", seconds: float = 0.0) -> str:
    with open("ran.txt", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(seconds)
    return recipe


@flow(name="mine-negatives")
def mine_negatives() -> None: ...


@flow(name="train-student")
def train_student() -> None: ...


@flow(name="close-the-loop")
def close_the_loop() -> None: ...
'''


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """What `env -i` would leave, with our own `prefect` first."""
    home.mkdir(parents=True, exist_ok=True)
    return {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), **more}


def fake_project(folder: Path, *, also: str = "") -> Path:
    """A folder with our own prefect.yaml, `also` added, whose flows do nothing."""
    folder.mkdir()
    yaml = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    (folder / "prefect.yaml").write_text(yaml.replace("flows.deployed", "fakes") + also, encoding="utf-8")
    (folder / "fakes.py").write_text(FAKE_FLOWS, encoding="utf-8")
    return folder


def run(command: list[str], environment: Mapping[str, str], *, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What a command says, stdout and stderr as one."""
    return subprocess.run(
        command,
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=400,
    )


@contextlib.contextmanager
def running(
    command: list[str], environment: Mapping[str, str], log: Path, *, cwd: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a session of its own; in the end it is killed with all that it has started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            send(signal.SIGKILL, [process.pid, *below(process.pid, running_processes())])
            process.wait()


def wait_for(what: str, condition: Callable[[], bool], *logs: Path, limit_s: float = 300.0) -> None:
    """Fail, with the ends of the logs, if it is not so in time."""
    until = time.monotonic() + limit_s
    while not condition():
        tails = [f"{log}:\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.exists()]
        assert time.monotonic() < until, "\n".join([f"{what}: not within {limit_s:.0f} s", *tails])
        time.sleep(0.1)


def is_healthy(port: int) -> bool:
    try:
        return bool(ask(port, "GET", "/api/health"))
    except OSError:
        return False


def ask(port: int, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  (JSON)
    """What the server answers, as JSON."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def left_of(home: Path) -> dict[int, str]:
    """The processes that still run with this home, and their commands (Linux)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"HOME={home}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found
