"""`python -m flows.serve` in a clean environment: it starts, runs what is asked for, and leaves nothing behind."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.process_tree import below, send
from flows.process_tree import running as running_processes
from tests.doors import ROOT
from tests.servers import (
    ask,
    clean_environment,
    fake_project,
    free_port,
    is_healthy,
    left_of,
    run,
    running,
    wait_for,
)

NAMES = re.findall(r"^  - name: (.+)$", (ROOT / "prefect.yaml").read_text(encoding="utf-8"), re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server is started: its project, its home and its port."""

    project: Path
    home: Path
    port: int

    @property
    def log(self) -> Path:
        return self.home / "serve.log"

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.home, DO_NOT_TRACK="1")

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "flows.serve", "--port", str(self.port), *more]

    def serving(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return running(self.command(), self.environment, self.log, cwd=self.project)

    def wait_until_ready(self) -> None:
        wait_for("all is up", lambda: "Ctrl-C stops everything" in self.said(), self.log)

    def prefect_log(self, what: str) -> Path:
        return self.home / ".prefect" / f"absentia-{what}.log"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("serve")
    found = Place(project=fake_project(folder / "project"), home=folder / "home", port=free_port())
    (found.project / ".env").write_text("PREFECT_SERVER_API_AUTH_STRING=admin:of-another-server\n")
    yield found
    send(signal.SIGKILL, left_of(found.home))


@contextmanager
def a_run(place: Place) -> Iterator[int]:
    """The process of a run that would take long, asked for as the command says."""
    lines = re.search(r"In a second terminal:\n\n    (.*)\n    (.*)\n", place.said())
    assert lines, place.said()
    started = len(ran(place))
    result = run(
        ["bash", "-c", f"{lines[1]} && {lines[2]} --param seconds=300"], place.environment, cwd=place.project.parent
    )
    assert result.returncode == 0, result.stdout
    wait_for("the run runs", lambda: len(ran(place)) > started, place.log, place.prefect_log("worker"))
    yield ran(place)[-1]


def ran(place: Place) -> list[int]:
    """The processes of all runs so far."""
    noted = place.project / "ran.txt"
    return [int(pid) for pid in noted.read_text().split()] if noted.exists() else []


def test_it_serves_and_ctrl_c_stops_all_of_it_with_the_run(place: Place) -> None:
    with place.serving() as process:
        place.wait_until_ready()

        assert is_healthy(place.port)
        found = ask(place.port, "POST", "/api/deployments/filter", {})
        assert sorted(each["name"] for each in found) == sorted(NAMES)
        assert {each["work_pool_name"] for each in found} == {"absentia"}
        steps = {step["prefect.deployments.steps.set_working_directory"]["directory"] for [step] in pulls(found)}
        assert steps == {str(place.project)}
        assert ask(place.port, "GET", "/api/admin/settings")["server"]["analytics_enabled"] is False
        with a_run(place) as run_process:
            below_it = below(process.pid, running_processes())
            assert run_process in below_it
            busy = run(place.command("--folder", str(place.home / "other")), place.environment, cwd=place.project)
            twice = run(place.command("--port", str(free_port())), place.environment, cwd=place.project)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)

    assert process.returncode == 0, place.said()
    assert "Traceback" not in place.said()
    assert place.said().endswith("Stopped\n")
    assert not set(below_it) & {each.pid for each in running_processes()}
    assert left_of(place.home) == {}
    assert "Finished in state Crashed" in place.prefect_log("worker").read_text()
    assert busy.returncode == 1
    assert busy.stdout == (
        f"error: port {place.port} cannot be had: Address already in use. Stop what uses it, or choose another --port\n"
    )
    assert twice.returncode == 1
    assert re.fullmatch(r"error: .*/home/\.prefect: another `make serve` runs with it; .*\n", twice.stdout)


def pulls(found: list[dict[str, list[dict[str, dict[str, str]]]]]) -> list[list[dict[str, dict[str, str]]]]:
    return [each["pull_steps"] for each in found]


def test_it_starts_again_and_ends_with_an_error_and_no_orphans_where_the_worker_is_killed(place: Place) -> None:
    with place.serving() as process:
        place.wait_until_ready()
        with a_run(place) as run_process:
            listed = running_processes()
            worker = next(each.parent for each in listed if each.pid == run_process)
            subprocess.run(["kill", "-9", str(worker)], check=True)
            process.wait(timeout=300)

    assert process.returncode == 1
    assert f"error: the worker ended by itself. Its log is {place.prefect_log('worker')}, which ends:" in place.said()
    assert "Traceback" not in place.said()
    assert left_of(place.home) == {}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_it_stops_while_it_starts(place: Place, signum: signal.Signals) -> None:
    with place.serving() as process:
        wait_for("it starts the server", lambda: "Starting the Prefect server" in place.said(), place.log)
        wait_for("the server runs", lambda: bool(below(process.pid, running_processes())), place.log)
        process.send_signal(signum)
        process.wait(timeout=60)

    assert process.returncode == 0
    assert place.said().splitlines()[-1] == "Stopped"
    assert left_of(place.home) == {}


def test_deployments_that_cannot_be_applied_end_in_an_error_with_their_log(place: Place) -> None:
    place.home.mkdir(exist_ok=True)
    broken = Place(project=fake_project(place.home / "broken"), home=place.home, port=place.port)
    (broken.project / "fakes.py").write_text('"""No flow at all."""\n')
    with broken.serving() as process:
        process.wait(timeout=300)

    assert process.returncode == 1
    assert "error: `prefect deploy --all` failed. Its log is " in broken.said()
    assert "'build_shards' not found in 'fakes'" in " ".join(broken.said().split())
    assert left_of(place.home) == {}


def test_a_folder_without_prefect_yaml_is_refused(tmp_path: Path) -> None:
    result = run([sys.executable, "-m", "flows.serve"], clean_environment(tmp_path), cwd=tmp_path)

    assert result.returncode == 1
    assert result.stdout == (
        f"error: {tmp_path}: expected prefect.yaml, which names the deployments; run this in the repository\n"
    )


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    project = fake_project(tmp_path / "project")
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "flows.serve", "--folder", str(tmp_path / "file" / "folder")]
    result = run(command, clean_environment(tmp_path), cwd=project)

    assert result.returncode == 1
    assert re.fullmatch(r"error: .*/file/folder: Not a directory; expected a folder .*\n", result.stdout)


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    result = run([sys.executable, "-m", "flows.serve", "--port", port], clean_environment(tmp_path), cwd=tmp_path)

    assert result.returncode == 2
    assert "--port" in result.stdout
