"""The services of docker-compose.yml without Docker: each one's own command and environment, with this machine's ports.

What the file says is run as it stands; only hosts, ports and folders of containers become those of the test.
"""

import base64
import contextlib
import json
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.process_tree import below, end, send
from flows.process_tree import running as running_processes
from tests.compose_file import services
from tests.postgres import Postgres, postgres
from tests.prefect_service import Service, fetch, free_port, until
from tests.worlds import REPOSITORY

PASSWORD = "of-the-server"  # noqa: S105
LOGIN = f"admin:{PASSWORD}"
DATABASE_PASSWORD = "of-the-database"  # noqa: S105
START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a service is started without its container."""

    command: list[str]
    environment: Mapping[str, str]
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed(Service):
    """PostgreSQL, the server and a worker; each can be stopped, killed and started again."""

    database: Postgres
    plans: Mapping[str, Plan]
    health: Mapping[str, str]  # what a service's health check asks
    running: dict[str, subprocess.Popen[bytes]]

    def environment(self) -> dict[str, str]:
        """That of a shell with what .env says."""
        return {**Service.environment(self), "PREFECT_API_AUTH_STRING": LOGIN}

    def ask(self, method: str, way: str, body: object = None) -> object:
        """What the server's API answers to who knows the password."""
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Basic {base64.b64encode(LOGIN.encode()).decode()}",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api{way}", data, headers, method=method)  # noqa: S310
        text = fetch(request)
        return json.loads(text) if text else None

    def start(self, name: str) -> None:
        """Start a service and wait until it is as healthy as its health check demands."""
        plan = self.plans[name]
        with self.log(name).open("ab") as output:
            self.running[name] = subprocess.Popen(
                plan.command,
                cwd=plan.folder,
                env=plan.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(lambda: self.is_healthy(name), START_S, self.tail)

    def stop(self, name: str, signum: signal.Signals = signal.SIGTERM) -> None:
        """End a service with all that it started, as its container ends: nothing of it is left."""
        process = self.running.pop(name)
        if signum == signal.SIGKILL:
            send(signum, [process.pid, *below(process.pid, running_processes())])
        else:
            end([process.pid], limit_s=30.0)
        process.wait()

    def is_healthy(self, name: str) -> bool:
        """Whether a service's own health check passes."""
        with contextlib.suppress(OSError):
            fetch(self.health[name], timeout_s=4)
            return True
        return False

    def log(self, name: str) -> Path:
        """Where a service's output goes."""
        return self.home / f"absentia-{name}.log"


@contextlib.contextmanager
def composed(home: Path, *, names: Sequence[str] = ("server", "worker")) -> Iterator[Composed]:
    """PostgreSQL and the named services of the file, started in the order in which they depend on each other."""
    home.mkdir()
    ports = {name: free_port() for name in ("database", "server", "worker")}
    url = f"http://127.0.0.1:{ports['server']}"
    given = services(
        {
            "POSTGRES_PASSWORD": DATABASE_PASSWORD,
            "PREFECT_API_AUTH_STRING": LOGIN,
            "PREFECT_API_URL": f"{url}/api",
            "ABSENTIA_PORT": str(ports["server"]),
        }
    )
    here = {
        "http://server:4200": url,
        "http://127.0.0.1:4200": url,
        "http://127.0.0.1:8080": f"http://127.0.0.1:{ports['worker']}",
        "0.0.0.0": "127.0.0.1",  # noqa: S104
        "4200": str(ports["server"]),
        "5432": str(ports["database"]),
        "8080": str(ports["worker"]),
        "database": "127.0.0.1",
    }
    command = given["database"]["command"]
    with postgres(port=ports["database"], password=DATABASE_PASSWORD, command=command) as database:
        until(lambda: _takes_connections(database), 60, database.log.read_text)
        database.ask("CREATE DATABASE prefect", database="postgres")
        plans = {
            "server": _read_only(_plan(given["server"], here, home / "server")),
            "worker": _read_only(_plan(given["worker"], here, home / "worker", folder=REPOSITORY)),
        }
        running: dict[str, subprocess.Popen[bytes]] = {}
        assert database.process is not None
        found = Composed(
            url=url,
            home=home,
            process=database.process,
            database=database,
            plans=plans,
            health={name: _health(given[name], here) for name in plans},
            running=running,
        )
        try:
            for name in names:
                found.start(name)
            yield found
        finally:
            for name in list(running)[::-1]:
                found.stop(name)


def _plan(service: Mapping[str, Any], here: Mapping[str, str], home: Path, *, folder: Path | None = None) -> Plan:
    home.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(home),
        "DO_NOT_TRACK": "1",  # of the image, as is PYTHONUNBUFFERED
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        **{name: _on_this_machine(value, here) for name, value in service["environment"].items() if value is not None},
    }
    environment = {name: value.replace("/tmp/prefect", str(home / "prefect")) for name, value in environment.items()}  # noqa: S108
    return Plan(
        command=[_on_this_machine(word, here) for word in service["command"]],
        environment=environment,
        folder=folder or home,
    )


def _read_only(plan: Plan) -> Plan:
    """The same on code that cannot be written to, as in a container, where this machine lets us make a mount."""
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    places = sorted({str(REPOSITORY), sys.prefix})
    mounts = [f"mount --bind {at} {at}; mount -o remount,ro,bind {at}" for at in map(shlex.quote, places)]
    script = [*own, "sh", "-euc", "; ".join([*mounts, 'cd "$PWD"', 'exec "$@"']), "sh"]
    try:
        subprocess.run([*script, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return plan
    return replace(plan, command=[*script, *plan.command])


def _health(service: Mapping[str, Any], here: Mapping[str, str]) -> str:
    """The address that a health check opens."""
    *_, program = service["healthcheck"]["test"]
    address = next(word for word in shlex.split(program.replace("(", " ").replace(",", " ")) if "://" in word)
    return _on_this_machine(address, here)


def _on_this_machine(value: str, here: Mapping[str, str]) -> str:
    if value in here:
        return here[value]
    for name, address in here.items():
        if "://" in name:
            value = value.replace(name, address)
    return value


def _takes_connections(database: Postgres) -> bool:
    with contextlib.suppress(AssertionError):
        return database.ask("SELECT 1", database="postgres") == "1"
    return False
