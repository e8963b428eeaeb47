"""`prefect deployment run NAME` as a user types it, in a clean environment, against a real server with a password."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doors import ROOT
from tests.servers import clean_environment, fake_project, free_port, is_healthy, run, running, wait_for

ALSO = """
  - {name: nightly, entrypoint: fakes.mine_negatives, work_pool: *pool}
  - {name: nightly, entrypoint: fakes.train_student, work_pool: *pool}
"""
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server with the deployments of prefect.yaml and two that are both called nightly."""

    port: int
    home: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def type(self, line: str, *, login: str = "admin:right", **more: str) -> tuple[int, str]:
        """The exit code and the output of a line typed in the repository."""
        settings = {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": login, "DO_NOT_TRACK": "1", **more}
        result = run(line.split(), clean_environment(self.home, **settings))
        return result.returncode, result.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("prefect")
    project = fake_project(folder / "project", also=ALSO)
    found = Server(port=free_port(), home=folder / "home")
    environment = clean_environment(found.home, **QUIET, PREFECT_SERVER_API_AUTH_STRING="admin:right")
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(found.port)]
    with running(command, environment, folder / "server.log", cwd=folder):
        wait_for("the server is up", lambda: is_healthy(found.port), folder / "server.log")
        client = {**environment, "PREFECT_API_URL": found.url, "PREFECT_API_AUTH_STRING": "admin:right"}
        for line in ("prefect work-pool create absentia --type process", "prefect --no-prompt deploy --all"):
            result = run(line.split(), client, cwd=project)
            assert result.returncode == 0, result.stdout
        yield found


def created(output: str) -> tuple[str, str]:
    """The deployment that was run, and the run's parameters."""
    deployment = re.search(r"Creating flow run for deployment '(.*)'", output)
    parameters = re.search(r"Parameters: (.*)", output)
    assert deployment, output
    assert parameters, output
    return deployment[1], parameters[1]


def test_a_bare_name_that_means_one_deployment_runs_it(server: Server) -> None:
    code, output = server.type("prefect deployment run build-shards")

    assert (code, created(output)) == (0, ("build-shards/build-shards", "{}")), output


def test_options_go_with_a_bare_name_as_with_a_full_one(server: Server) -> None:
    for name in ("build-shards", "build-shards/build-shards"):
        code, output = server.type(f"prefect deployment run {name} --param recipe=a.toml")

        assert (code, created(output)) == (0, ("build-shards/build-shards", "{'recipe': 'a.toml'}")), output


def test_python_m_prefect_takes_bare_names_too(server: Server) -> None:
    code, output = server.type("python -m prefect deployment run build-shards")

    assert (code, created(output)[0]) == (0, "build-shards/build-shards"), output


def test_a_bare_name_that_fits_several_lists_them_and_runs_none(server: Server) -> None:
    code, output = server.type("prefect deployment run nightly")

    assert code == 1
    assert output.splitlines() == [
        f"error: 'nightly' means 2 deployments on {server.url}; expected one. Name the one to run:",
        "  prefect deployment run mine-negatives/nightly",
        "  prefect deployment run train-student/nightly",
    ]


def test_a_bare_name_that_fits_none_is_told_the_nearest(server: Server) -> None:
    code, output = server.type("prefect deployment run build-shard")

    assert code == 1
    assert output.count("\n") == 1
    assert output.startswith(f"error: 'build-shard' is neither a flow nor a deployment on {server.url}; the nearest is")


def test_a_full_name_that_is_not_there_is_told_as_stock_prefect_tells_it(server: Server) -> None:
    assert server.type("prefect deployment run build-shards/other") == (
        1,
        "Deployment 'build-shards/other' not found!\n",
    )


@pytest.mark.parametrize("name", ["build-shards", "build-shards/build-shards"])
def test_a_wrong_password_ends_in_one_line_without_the_password(server: Server, name: str) -> None:
    code, output = server.type(f"prefect deployment run {name}", login="admin:wrong")

    assert code == 1
    assert output == (
        f"error: {server.url}: the server refuses the password (401); PREFECT_API_AUTH_STRING is wrong. Set it to the "
        "server's own PREFECT_SERVER_API_AUTH_STRING, as user:password\n"
    )


@pytest.mark.parametrize("name", ["build-shards", "build-shards/build-shards"])
def test_a_server_that_is_down_ends_in_one_line(server: Server, name: str) -> None:
    nobody = f"http://somebody:secret@127.0.0.1:{free_port()}/api"
    code, output = server.type(f"prefect deployment run {name}", PREFECT_API_URL=nobody)

    assert code == 1
    assert output.count("\n") == 1
    assert "no Prefect server answers (" in output
    assert "secret" not in output


def test_an_address_without_api_is_told(server: Server) -> None:
    code, output = server.type("prefect deployment run build-shards", PREFECT_API_URL=server.url.removesuffix("/api"))

    assert code == 1
    assert output.count("\n") == 1
    assert "answers, but is no Prefect API" in output


def test_processes_that_prefect_starts_do_not_inherit_the_switches(tmp_path: Path) -> None:
    """A temporary server would log a traceback, as it imports Prefect inside a running loop."""
    (tmp_path / "prefect").write_text(
        "import os, prefect\nfrom prefect.cli import deployment\n"
        "print(deployment._get_deployment.__code__.co_filename, [name for name in os.environ if 'PLUGINS' in name])\n"
    )
    command = ["python", str(tmp_path / "prefect"), "deployment", "run", "build-shards"]
    result = run(command, clean_environment(tmp_path, **QUIET))

    assert result.stdout == f"{ROOT / 'flows' / 'prefect_plugin.py'} []\n"


@pytest.mark.parametrize(("enabled", "said"), [("true", "other ran\n"), ("false", "")])
def test_other_plugins_run_if_and_only_if_the_user_has_switched_them_on(
    tmp_path: Path, enabled: str, said: str
) -> None:
    (tmp_path / "prefect").write_text("import prefect\n")
    (tmp_path / "prefect.toml").write_text(f"[plugins]\nenabled = {enabled}\n")
    (tmp_path / "other.py").write_text(
        "from prefect.plugins import register_hook\n\n\n"
        "@register_hook\ndef setup_environment(*, ctx):\n    print('other ran')\n"
    )
    (tmp_path / "other-1.dist-info").mkdir()
    (tmp_path / "other-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (tmp_path / "other-1.dist-info" / "entry_points.txt").write_text("[prefect.plugins]\nother = other\n")
    command = ["python", str(tmp_path / "prefect"), "deployment", "run", "build-shards"]

    assert run(command, clean_environment(tmp_path, **QUIET), cwd=tmp_path).stdout == said


def test_prefect_imported_elsewhere_is_as_it_was(server: Server) -> None:
    said = "from prefect.cli import deployment; print(deployment._get_deployment.__module__, deployment.__name__)"
    result = run(["python", "-c", said, "deployment", "run", "build-shards"], clean_environment(server.home, **QUIET))

    assert result.stdout == "prefect.cli.deployment prefect.cli.deployment\n"
    assert (
        "flows"
        not in run(
            ["python", "-c", "import prefect, sys; print(*sys.modules)"], clean_environment(server.home, **QUIET)
        ).stdout.split()
    )


def test_only_the_runs_that_were_asked_for_were_created(server: Server) -> None:
    """Comes last: one bare, two with options, one with python -m."""
    code, output = server.type("prefect flow-run ls --limit 50")

    assert code == 0
    assert len(re.findall("^│ [0-9a-f]{8}-", output, re.MULTILINE)) == 4, output
