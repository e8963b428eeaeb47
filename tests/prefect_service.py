"""A Prefect server with the deployments and a worker, started as users start them, and the user's own line."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.worlds import REPOSITORY

LIMIT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What `make serve` started."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]

    def environment(self) -> dict[str, str]:
        """That of a clean shell: the environment's programs, a home, and where the server is."""
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(self.home), "PREFECT_API_URL": f"{self.url}/api", "DO_NOT_TRACK": "1"}

    def type(self, *line: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What the user types, in the repository."""
        return subprocess.run(
            line, cwd=REPOSITORY, env=self.environment(), check=check, capture_output=True, text=True, timeout=LIMIT_S
        )

    def run(self, deployment: str, **parameters: object) -> str:
        """The id of a run that was asked for; it starts within seconds."""
        given = [text for name, value in parameters.items() for text in ("--param", f"{name}={json.dumps(value)}")]
        said = self.type("prefect", "deployment", "run", deployment, *given).stdout
        return said.partition("UUID: ")[2].split()[0]

    def ask(self, method: str, way: str, body: object = None) -> object:
        """What the server's API answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  (our own server)
            f"{self.url}/api{way}", data, {"Content-Type": "application/json"}, method=method
        )
        text = fetch(request)
        return json.loads(text) if text else None

    def state(self, run: str) -> tuple[str, str]:
        """Type and message of a flow run's state."""
        found = self.ask("GET", f"/flow_runs/{run}")
        assert isinstance(found, dict)
        state = found["state"] or {"type": "NONE", "message": ""}
        return state["type"], state["message"] or ""

    def finished(self, run: str, *, limit_s: float = LIMIT_S) -> tuple[str, str]:
        """The state in which a run ended."""
        until(lambda: self.state(run)[0] in {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}, limit_s, self.tail)
        return self.state(run)

    def artifacts(self, run: str) -> dict[str, object]:
        """Data of a run's artifacts by their keys."""
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}, "limit": 200}
        found = self.ask("POST", "/artifacts/filter", body)
        assert isinstance(found, list)
        return {artifact["key"]: artifact["data"] for artifact in found}

    def tail(self) -> str:
        """The ends of the logs."""
        logs = sorted(self.home.rglob("absentia-*.log"))
        return "\n".join(f"== {log.name}\n" + "\n".join(log.read_text().splitlines()[-30:]) for log in logs)

    def flow_process(self, out: Path) -> int | None:
        """The process that runs the flow which builds into `out`, told by the lock that it holds."""
        with contextlib.suppress(FileNotFoundError):
            inode = (out / "work" / ".lock").stat().st_ino
            for line in Path("/proc/locks").read_text().splitlines():
                fields = line.split()
                if "POSIX" in fields and fields[5].rpartition(":")[2] == str(inode):
                    return int(fields[4])
        return None


def fetch(request: urllib.request.Request | str, *, timeout_s: float = 30) -> bytes:
    """The body of an answer; one that refuses is closed before it is raised, or a later test is told of its socket."""
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310  (our own servers)
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as refused:
        refused.close()
        raise


def until(true: Callable[[], bool], limit_s: float, say: Callable[[], str] = str) -> None:
    """Return once it is true; fail with what `say` tells after so many seconds."""
    end_s = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end_s, f"not within {limit_s:.0f} s\n{say()}"
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(home: Path) -> Iterator[Service]:
    """A server, the deployments and a worker, as `make serve` starts them; stopped as Ctrl-C stops them."""
    port = free_port()
    home.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.serve", "--port", str(port)],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
    )
    service = Service(url=f"http://127.0.0.1:{port}", home=home, process=process)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        assert any(b"Ctrl-C" in line for line in lines), service.tail()
        yield service
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.communicate()
