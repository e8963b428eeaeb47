"""Prefect's server on PostgreSQL: how its memory and its database grow with the task runs that it has seen.

    python benchmarks/prefect_server.py [--tasks 1000] [--rounds 3] [--json FILE]

Both are started as docker-compose.yml says, without Docker, with a password. A flow of trivial tasks warms the server
up; then each round runs a further one and waits until PostgreSQL holds all of its task runs. Memory is the resident
memory of all processes of the server, the database's size what PostgreSQL says, vacuumed, with indexes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.timing import Claim, Figures, Value, add_options, machine, report
from flows.process_tree import below, running
from tests.compose_service import Composed, composed

WARM_UP = 200
SETTLED_S = 3.0  # the server writes its events in batches
LIMIT_S = 600.0
MEGABYTE = 1e6
MEMORY_BOUND, DATABASE_BOUND = 25.0, 25.0  # MB per 1,000 task runs
_FLOW = """
import sys
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

@task(cache_policy=NO_CACHE, persist_result=False)
def nothing(): ...

@flow
def trivial(num: int):
    for _ in range(num):
        nothing()

trivial(int(sys.argv[1]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the server holds once it has seen so many task runs."""

    num_tasks: int
    memory: float  # MB
    database: float  # MB
    seconds: float  # the round took


def rounds(service: Composed, num_tasks: int, num_rounds: int) -> Iterator[Reading]:
    """A reading after the warm-up and one after each round."""
    for num in (WARM_UP, *[num_tasks] * num_rounds):
        expected, start = _seen(service) + num, time.perf_counter()
        command = [sys.executable, "-c", _FLOW, str(num)]
        subprocess.run(command, env=service.environment(), cwd=service.home, check=True, capture_output=True)
        while _seen(service) < expected:
            if time.perf_counter() > start + LIMIT_S:
                raise TimeoutError(f"the server knows of {_seen(service)} task runs; expected {expected}")
            time.sleep(0.2)
        seconds = time.perf_counter() - start
        time.sleep(SETTLED_S)
        service.database.ask("VACUUM")
        database = int(service.database.ask("SELECT pg_database_size('prefect')")) / MEGABYTE
        yield Reading(num_tasks=expected, memory=_memory(service), database=database, seconds=seconds)


def _seen(service: Composed) -> int:
    """Task runs in the database that came to their end."""
    return int(service.database.ask("SELECT count(*) FROM task_run WHERE state_type = 'COMPLETED'"))


def _memory(service: Composed) -> float:
    """Resident memory of the server and all that it started, in MB; pages that they share count once for each."""
    server = service.running["server"].pid
    pids = [server, *below(server, running())]
    return sum(_resident(pid) for pid in pids) / MEGABYTE


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0)


def measure(num_tasks: int, num_rounds: int) -> Figures:
    """The figures of one run."""
    conditions = machine("prefect", "sqlalchemy", "asyncpg")
    with tempfile.TemporaryDirectory() as folder, composed(Path(folder) / "home", names=["server"]) as service:
        postgres = service.database.ask("SHOW server_version")
        found = list(rounds(service, num_tasks, num_rounds))
    per = num_tasks / 1000
    memory = median((after.memory - before.memory) / per for before, after in pairwise(found))
    database = median((after.database - before.database) / per for before, after in pairwise(found))
    rows: list[dict[str, Value]] = [
        {
            "task runs so far": f"{each.num_tasks:,}",
            "server's memory in MB": each.memory,
            "database in MB": each.database,
            "s": each.seconds,
        }
        for each in found
    ]
    return Figures(
        benchmark="prefect_server",
        title="Prefect's server: memory and database per 1,000 task runs",
        command=f"python benchmarks/prefect_server.py --tasks {num_tasks} --rounds {num_rounds}",
        conditions={**conditions, "PostgreSQL": postgres, "warm-up in task runs": WARM_UP, "rounds": num_rounds},
        rows=rows,
        claims=[
            _at_most("memory per 1,000 task runs", memory, MEMORY_BOUND),
            _at_most("database per 1,000 task runs", database, DATABASE_BOUND),
        ],
    )


def _at_most(name: str, value: float, bound: float) -> Claim:
    return Claim(name=name, value=value, bound=bound, at_least=False, unit="MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--tasks", type=int, default=1000, help="trivial task runs of each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report(measure(options.tasks, options.rounds), options.json)


if __name__ == "__main__":
    main()
