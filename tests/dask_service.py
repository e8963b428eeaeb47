"""A real Dask scheduler and its workers, as processes that a test may kill, and the plain command upon them."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import BIN, clean_environment, running, wait_for
from tests.worlds import REPOSITORY, build_command, start

LIMIT_S = 400.0  # on a busy machine; nothing takes a tenth of it on a quiet one


@dataclass(slots=True, kw_only=True)
class Cluster:
    """What runs, and where its logs lie; each worker has one thread and no nanny that would start it again."""

    folder: Path
    stack: contextlib.ExitStack
    address: str = ""
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *command: str, name: str, **variables: str) -> subprocess.Popen[bytes]:
        """One process of the cluster."""
        environment = clean_environment(self.folder / "home", OMP_NUM_THREADS="1", **variables)
        line = [str(BIN / "python"), "-m", "dask", *command]
        process = running(line, environment, self.folder / f"{name}.log", cwd=self.folder)
        return self.stack.enter_context(process)

    def add_worker(self, **variables: str) -> subprocess.Popen[bytes]:
        """A worker more, with more variables in its environment."""
        name = f"worker-{len(self.workers)}"
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name]
        place = ["--local-directory", str(self.folder / name), "--memory-limit", "0"]
        self.workers.append(self.start("worker", self.address, *options, *place, name=name, **variables))
        return self.workers[-1]

    def log(self, name: str) -> Path:
        """Where `scheduler` or `worker-0` tells what it does."""
        return self.folder / f"{name}.log"


@contextlib.contextmanager
def dask_cluster(folder: Path, *, num_workers: int = 2, **variables: str) -> Iterator[Cluster]:
    """A cluster in a folder of its own, all of which is killed in the end; the scheduler gets the variables."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        cluster = Cluster(folder=folder, stack=stack)
        told = folder / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(told)]
        cluster.scheduler = cluster.start("scheduler", *options, name="scheduler", **variables)
        wait_for("a scheduler", lambda: bool(_address(told)), cluster.log("scheduler"), limit_s=LIMIT_S)
        cluster.address = _address(told)
        for _ in range(num_workers):
            cluster.add_worker()
        for number in range(num_workers):
            log = cluster.log(f"worker-{number}")
            wait_for("a worker", lambda log=log: "Registered to" in log.read_text(), log, limit_s=LIMIT_S)  # type: ignore[misc]
        yield cluster


def _address(told: Path) -> str:
    """The address that the scheduler wrote down; empty until it did so."""
    try:
        address: str = json.loads(told.read_text(encoding="utf-8"))["address"]
    except (FileNotFoundError, json.JSONDecodeError):
        return ""
    return address


def dask_command(recipe: Path, out: Path, address: str) -> list[str]:
    """The real command on a cluster."""
    return [*build_command(recipe, out), "--runner", "dask", "--scheduler", address]


def start_build(recipe: Path, out: Path, address: str) -> "subprocess.Popen[str]":
    """The real command on a cluster, running."""
    return start(dask_command(recipe, out, address))


def run_module(*line: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """What a command of ours did, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", *line], cwd=cwd, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
