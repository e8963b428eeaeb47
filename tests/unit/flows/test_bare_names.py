"""What a bare name means, what the plugin replaces in Prefect, and for which command alone it is switched on."""

import asyncio
import importlib.metadata
import inspect
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import cast

import httpx
import pytest

from flows.bare_names import Deployed, explain, is_bare, meant_by, nearest_to
from tests.doors import ROOT

SERVER = "http://127.0.0.1:4200/api"
KNOWN = [
    Deployed(flow="build-shards", deployment="build-shards"),
    Deployed(flow="mine-negatives", deployment="nightly"),
    Deployed(flow="train-student", deployment="nightly"),
]


@pytest.mark.parametrize(
    ("bare", "meant"),
    [
        ("build-shards", ["build-shards/build-shards"]),
        ("mine-negatives", ["mine-negatives/nightly"]),
        ("nightly", ["mine-negatives/nightly", "train-student/nightly"]),
        ("build", []),
        ("", []),
    ],
)
def test_a_bare_name_means_each_deployment_that_bears_it_or_whose_flow_does(bare: str, meant: list[str]) -> None:
    assert meant_by(bare, reversed(KNOWN)) == meant


def test_a_name_with_a_slash_or_none_at_all_is_not_bare() -> None:
    assert is_bare("build-shards")
    assert not is_bare("build-shards/build-shards")
    assert not is_bare(None)


@pytest.mark.parametrize(
    ("bare", "nearest"),
    [("build-shard", "build-shards"), ("Build_Shards", "build-shards"), ("NIGHTLY", "nightly"), ("zzz", None)],
)
def test_the_nearest_name_is_the_one_that_is_spelt_most_alike(bare: str, nearest: str | None) -> None:
    assert nearest_to(bare, KNOWN) == nearest


def test_several_are_listed_as_the_commands_to_type() -> None:
    said = explain("nightly", KNOWN, server=SERVER)

    assert "'nightly' means 2 deployments" in said
    assert said.splitlines()[1:] == [
        "  prefect deployment run mine-negatives/nightly",
        "  prefect deployment run train-student/nightly",
    ]


def test_a_name_that_fits_none_is_told_the_nearest() -> None:
    said = explain("build-shard", KNOWN, server=SERVER)

    assert SERVER in said
    assert said.endswith("the nearest is 'build-shards'. Run `prefect deployment run build-shards/build-shards`")
    assert explain("zzz", KNOWN, server=SERVER).endswith("`prefect deployment ls` lists what is")


def test_where_nothing_is_deployed_the_message_says_how_to_deploy() -> None:
    assert "prefect --no-prompt deploy --all" in explain("build-shards", [], server=SERVER)


def test_prefect_still_has_the_private_function_that_the_plugin_replaces() -> None:
    from prefect.cli import deployment

    assert list(inspect.signature(deployment._get_deployment).parameters) == ["client", "name", "deployment_id"]
    assert inspect.iscoroutinefunction(deployment._get_deployment)
    assert "await _get_deployment(client, name, deployment_id)" in inspect.getsource(deployment.run)


def changed_prefect() -> ModuleType:
    cli = ModuleType("prefect.cli.deployment")

    async def find(client: object, name: str | None) -> None: ...

    vars(cli)["_get_deployment"] = find
    return cli


@pytest.mark.parametrize("cli", [ModuleType("prefect.cli.deployment"), changed_prefect()], ids=["gone", "changed"])
def test_another_prefect_is_told_of_only_where_a_bare_name_is_used(cli: ModuleType) -> None:
    from flows.prefect_plugin import replace

    before = dict(vars(cli))
    for words in (["run", "a/b"], ["run", "--id", "1234"], ["run"]):
        replace(cli, version="9.9", argv=["prefect", "deployment", *words])
        assert vars(cli) == before, words

    with pytest.raises(SystemExit, match=r"error: 'build-shards' is a bare name, and Prefect 9\.9 .* expected prefect"):
        replace(cli, version="9.9", argv=["prefect", "deployment", "run", "build-shards"])


def failing_with(error: Exception) -> ModuleType:
    cli = ModuleType("prefect.cli.deployment")

    async def find(client: object, name: str | None, deployment_id: str | None) -> None:
        raise error

    vars(cli)["_get_deployment"] = find
    return cli


def found_with(cli: ModuleType) -> object:
    from flows.prefect_plugin import replace

    replace(cli, version="3", argv=["prefect", "deployment", "run", "a/b"])
    return asyncio.run(vars(cli)["_get_deployment"](None, "a/b", None))


def status_error(code: int) -> Exception:
    from prefect.exceptions import PrefectHTTPStatusError

    request = httpx.Request("GET", SERVER)
    return cast("Exception", PrefectHTTPStatusError("no", request=request, response=httpx.Response(code)))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("All connection attempts failed"), "no Prefect server answers .All connection"),
        (httpx.ReadTimeout(""), "no Prefect server answers .ReadTimeout"),
        (status_error(401), r"refuses the password \(401\)"),
        (status_error(403), r"refuses the password \(403\)"),
    ],
)
def test_a_server_that_cannot_be_asked_ends_in_one_line_for_full_names_too(error: Exception, said: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: .*{said}"):
        found_with(failing_with(error))


@pytest.mark.parametrize(
    ("url", "said"),
    [(None, "the temporary server (no PREFECT_API_URL is set"), ("http://me:secret@there:1/api", "http://there:1/api")],
)
def test_a_message_names_the_server_without_its_password(url: str | None, said: str) -> None:
    from prefect.settings import PREFECT_API_URL
    from prefect.settings.context import temporary_settings

    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(SystemExit) as stopped:
        found_with(failing_with(httpx.ConnectError("no")))

    assert str(stopped.value).startswith(f"error: {said}")
    assert "secret" not in str(stopped.value)


def test_any_other_failure_stays_as_it_is() -> None:
    for error in (status_error(500), ValueError("a bug")):
        with pytest.raises(type(error)):
            found_with(failing_with(error))


def test_the_installed_distribution_brings_the_entry_point_and_the_line_that_python_reads() -> None:
    distribution = importlib.metadata.distribution("absentia")
    again = "; install again: .venv/bin/pip install --no-deps -e ."

    points = [(point.group, point.name, point.value) for point in distribution.entry_points]
    assert ("prefect.plugins", "absentia", "flows.prefect_plugin") in points, f"{points}{again}"
    installed = Path(str(distribution.locate_file("absentia_prefect.pth")))
    assert [str(path) for path in distribution.files or () if path.name == installed.name] == [installed.name], again
    assert installed.read_bytes() == (ROOT / "flows" / "absentia_prefect.pth").read_bytes(), again


def test_pyproject_names_both_so_that_hatchling_also_puts_them_into_editable_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert project["build-system"]["build-backend"] == "hatchling.build"
    assert project["project"]["entry-points"]["prefect.plugins"] == {"absentia": "flows.prefect_plugin"}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"flows/absentia_prefect.pth": "absentia_prefect.pth"}


def test_the_line_is_one_and_an_import_as_python_wants_it() -> None:
    text = (ROOT / "flows" / "absentia_prefect.pth").read_text(encoding="ascii")

    assert text.startswith("import ")
    assert text.count("\n") == 1


def switches(script: Path, *arguments: str, **environment: str) -> str:
    """What a Python sees that runs `script`, after it has read the installed line."""
    script.write_text('import os\nprint(*[f"{k}={v}" for k, v in os.environ.items() if "PLUGINS" in k])\n')
    kept = {"PATH": os.environ["PATH"], "HOME": str(script.parent), **environment}
    command = [sys.executable, str(script), *arguments]
    result = subprocess.run(command, env=kept, capture_output=True, text=True, check=False, timeout=240)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


@pytest.mark.parametrize("arguments", ["deployment run a", "--no-prompt deployments run a --param b=c"])
def test_plugins_are_switched_on_where_prefect_runs_a_deployment(tmp_path: Path, arguments: str) -> None:
    said = switches(tmp_path / "prefect", *arguments.split())

    assert said == "PREFECT_PLUGINS_ENABLED=true PREFECT_PLUGINS_ALLOW=absentia"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("prefect", "deployment ls"),
        ("prefect", "server start"),
        ("prefect", "worker start"),
        ("prefect", "flow-run ls"),
        ("prefect", ""),
        ("pytest", "deployment run a"),
        ("prefect_like.py", "deployment run a"),
    ],
)
def test_no_other_command_is_touched(tmp_path: Path, script: str, arguments: str) -> None:
    assert switches(tmp_path / script, *arguments.split()) == ""


@pytest.mark.parametrize("given", ["PREFECT_PLUGINS_ENABLED", "PREFECT_PLUGINS_ALLOW"])
def test_who_has_set_a_switch_himself_keeps_it(tmp_path: Path, given: str) -> None:
    assert switches(tmp_path / "prefect", "deployment", "run", "a", **{given: "false"}) == f"{given}=false"
