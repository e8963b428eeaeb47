"""docker-compose.yml and the Dockerfile, without an engine: the specification's schema, and what must never be lost."""

import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tests.compose_file import COMPOSE, MissingError, put_in, services, whole
from tests.doors import ROOT

SECRETS = {
    "POSTGRES_PASSWORD": "x",
    "PREFECT_API_AUTH_STRING": "admin:y",
    "PREFECT_API_URL": "http://127.0.0.1:4200/api",
}
SERVICES = ("database", "server", "worker", "worker-gpu")
PINNED = re.compile(r"^[\w./-]+:\d+\.\d+(\.\d+)?(-[\w.]+)?$")  # a release, not a branch as `17` or `latest`

Service = dict[str, Any]


def dockerfile() -> list[list[str]]:
    """The Dockerfile's instructions: each one's name and the rest of its line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line.split(None, 1) for line in joined.splitlines() if line.strip()]


def stages() -> Iterator[tuple[str, str, list[list[str]]]]:
    """Name, base and instructions of each stage."""
    found: list[tuple[str, str, list[list[str]]]] = []
    for name, rest in dockerfile():
        if name == "FROM":
            base, _, stage = rest.split()
            found.append((stage, base, []))
        else:
            found[-1][2].append([name, rest])
    yield from found


def schema_check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, str(path)], capture_output=True, text=True, check=False, timeout=120)


def test_the_file_keeps_to_the_compose_specification(tmp_path: Path) -> None:
    assert schema_check(COMPOSE).returncode == 0
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text(encoding="utf-8").replace("cap_drop: [ALL]", "cap_drop: ALL"))
    assert schema_check(broken).returncode == 1


def test_there_are_a_database_a_server_and_a_worker_and_with_the_profile_gpu_one_that_sees_gpus() -> None:
    found = services()

    assert tuple(found) == SERVICES
    assert {name: each.get("profiles") for name, each in found.items() if "profiles" in each} == {"worker-gpu": ["gpu"]}
    [device] = found["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    alike = {key for key in found["worker"] if found["worker"][key] == found["worker-gpu"].get(key)}
    assert set(found["worker-gpu"]) - alike == {"profiles", "deploy"}


def test_what_is_published_is_published_to_this_machine_alone() -> None:
    assert {name: each["ports"] for name, each in services(SECRETS).items() if "ports" in each} == {
        "server": ["127.0.0.1:4200:4200"]
    }
    assert not any("network_mode" in each or "expose" in each for each in services().values())


@pytest.mark.parametrize("missing", sorted(SECRETS))
@pytest.mark.parametrize("value", [None, ""])
def test_without_env_nothing_starts(missing: str, value: str | None) -> None:
    given = {name: text for name, text in SECRETS.items() if name != missing} | (
        {missing: value} if value == "" else {}
    )

    with pytest.raises(MissingError, match=f"{missing}: run make env"):
        services(given)


def test_no_password_stands_in_the_file() -> None:
    """Whatever is called a password or holds one comes from a variable that has a message and no default."""
    for name, service in services().items():
        for variable, value in service["environment"].items():
            if re.search("PASSWORD|AUTH_STRING|SECRET|TOKEN|KEY", variable):
                assert value is None or re.fullmatch(r"\$\{\w+:\?run make env\}", value), f"{name}: {variable}"
    assert not re.search(r"\b\w+://\w+:[^@\s]+@", COMPOSE.read_text(encoding="utf-8"))


def test_the_server_demands_the_password_that_the_worker_gives() -> None:
    found = services(SECRETS)

    server, worker, database = (found[name]["environment"] for name in ("server", "worker", "database"))
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == worker["PREFECT_API_AUTH_STRING"] == "admin:y"
    assert (server["PREFECT_SERVER_DATABASE_PASSWORD"], database["POSTGRES_PASSWORD"]) == ("x", "x")


def test_images_are_pinned_to_a_release() -> None:
    images = {name: each["image"] for name, each in services().items()}

    assert [name for name, image in images.items() if not PINNED.match(image)] == []
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    ours = {name: image.partition(":")[2] for name, image in images.items() if image.startswith("absentia")}
    assert ours == dict.fromkeys(("server", "worker", "worker-gpu"), version[1])


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_watched_restarted_bounded_and_has_no_rights_to_spare(name: str) -> None:
    service = services(SECRETS)[name]

    assert service["restart"] == "unless-stopped"
    assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries", "start_period"}
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not service.get("privileged")
    assert any(place.startswith("/tmp:") for place in service["tmpfs"])  # noqa: S108
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert "stop_grace_period" in service


def test_what_lasts_lies_in_named_volumes() -> None:
    file, found = whole(), services(SECRETS)
    used = {place.split(":")[0] for each in found.values() for place in each.get("volumes", [])}

    assert used == set(file["volumes"]) == {"database", "demo", "data"}
    assert found["database"]["volumes"] == ["database:/var/lib/postgresql/data"]
    assert not any("docker.sock" in place for each in found.values() for place in each.get("volumes", []))


def test_what_is_written_besides_lies_in_memory() -> None:
    """Prefect's server lays out the UI's files when it starts, beside its own code if it is not told otherwise."""
    server, worker = (services(SECRETS)[name]["environment"] for name in ("server", "worker"))

    for folder in (server["PREFECT_HOME"], server["PREFECT_SERVER_UI_STATIC_DIRECTORY"], worker["PREFECT_HOME"]):
        assert folder.startswith("/tmp/")  # noqa: S108


def test_a_folder_of_the_machine_can_stand_in_for_the_volume_of_data() -> None:
    assert "/mnt/sa1b:/data" in services({**SECRETS, "ABSENTIA_DATA": "/mnt/sa1b"})["worker"]["volumes"]


def test_the_worker_cannot_reach_the_database() -> None:
    found = services()
    networks = {name: set(each["networks"]) for name, each in found.items()}

    assert networks["database"] == {"storage"}
    assert [name for name, each in networks.items() if "storage" in each] == ["database", "server"]
    assert whole()["networks"]["storage"] == {"internal": True}


def test_each_starts_after_what_it_needs_is_healthy() -> None:
    healthy = {"condition": "service_healthy"}

    assert {name: each["depends_on"] for name, each in services().items() if "depends_on" in each} == {
        "server": {"database": healthy},
        "worker": {"server": healthy},
        "worker-gpu": {"server": healthy},
    }


def test_the_file_says_what_serve_says() -> None:
    """One pool, the same kind of worker, on Compose and with `make serve`."""
    from flows.serve import POOL

    *_, script = services()["worker"]["command"]

    assert f"work-pool create {POOL} --type process" in script
    assert f"worker start --pool {POOL} --type process" in script
    assert "prefect --no-prompt deploy --all" in script


def test_variables_are_read_as_compose_reads_them() -> None:
    assert put_in(["$$HOME ${A:-b}", {"c": "${A:?why}"}, 1, None], {"A": "x"}) == ["$HOME x", {"c": "x"}, 1, None]
    assert put_in("${A:-b}${C:-}", {"A": ""}) == "b"


def test_images_start_from_a_pinned_slim_python_of_the_release_that_constraints_were_made_with() -> None:
    bases = {name: base for name, base, _ in stages()}

    assert list(bases) == ["base", "server", "worker"]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", bases["base"])
    assert "Python 3.11" in (ROOT / "constraints.txt").read_text(encoding="utf-8").replace("\n# ", " ")
    assert bases["server"] == bases["worker"] == "base"
    targets = {name: each["build"]["target"] for name, each in services().items() if "build" in each}
    assert targets == {"server": "server", "worker": "worker", "worker-gpu": "worker"}


@pytest.mark.parametrize("stage", ["server", "worker"])
def test_images_do_not_run_as_root_and_hold_what_constraints_pin(stage: str) -> None:
    [made] = [instructions for name, _, instructions in stages() if name == stage]

    assert [rest for name, rest in made if name == "USER"] == ["absentia"]
    assert [name for name, _ in made if name in {"USER", "RUN", "COPY", "ADD"}][-1] == "USER"
    installs = [rest for name, rest in made if name == "RUN" and "pip install" in rest]
    assert len(installs) == 1
    assert "--constraint constraints.txt" in installs[0]
    assert not any(name == "ADD" for name, _ in made)
    [base] = [instructions for name, _, instructions in stages() if name == "base"]
    assert any("useradd --uid 1000" in rest for name, rest in base if name == "RUN")


def test_the_worker_image_holds_every_package_and_no_more_than_the_build_context_lets_in() -> None:
    copied = {word for _, _, made in stages() for name, rest in made if name == "COPY" for word in rest.split()[:-1]}
    packages = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert packages
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")

    assert set(re.findall(r'"(\w+)"', packages[1])) < copied
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert ignored[1] == "*", "all is left out that is not named"
    assert not any(fnmatch(".env", line[1:]) for line in ignored if line.startswith("!"))


def test_health_checks_and_scripts_are_sound_programs() -> None:
    for service in services(SECRETS).values():
        kind, program, *arguments = service["healthcheck"]["test"]
        assert kind == "CMD"
        if program == "python":
            assert arguments[0] == "-c"
            compile(arguments[1], "health check", "exec")
    shell, flags, script = services(SECRETS)["worker"]["command"]
    assert (shell, flags) == ("sh", "-euc")
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    assert all(shlex.split(line) for line in script.splitlines())


def test_the_page_of_operations_names_only_what_the_file_holds() -> None:
    """Without Docker its commands cannot run; that services, profile and volumes are there can be looked at."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    commands = re.findall(r"docker compose ([^#`\n|]+)", page)
    named = {word for each in commands for word in re.findall(r"\b(?:database|server|worker(?:-gpu)?)\b", each)}

    assert len(commands) > 10
    assert {"database", "server", "worker"} <= named <= set(services())
    assert re.findall(r"--profile (\S+)", page) == ["gpu"]
    assert re.findall(r"docker volume rm absentia_(\w+)", page) == ["database"]
    assert whole()["name"] == "absentia"
    variables = set(re.findall(r"`(ABSENTIA_\w+|AWS_\w+)`", page))
    text = COMPOSE.read_text(encoding="utf-8")
    assert variables
    assert [name for name in variables if name not in text] == []


def make_env(folder: Path, *more: str) -> str:
    shutil.copy(ROOT / "Makefile", folder)
    command = ["make", "env", f"PYTHON={sys.executable}", *more]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, umask=0o022).stdout


def variables(folder: Path) -> dict[str, str]:
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_make_env_writes_random_passwords_for_the_owner_alone(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_env(tmp_path / name, "PORT=4300")
        found.append(variables(tmp_path / name))
        assert stat.S_IMODE((tmp_path / name / ".env").stat().st_mode) == 0o600

    for name in ("POSTGRES_PASSWORD", "PREFECT_API_AUTH_STRING"):
        assert found[0][name] != found[1][name]
        assert re.fullmatch(r"(admin:)?[0-9a-f]{48}", found[0][name])
    assert services(found[0])["server"]["ports"] == ["127.0.0.1:4300:4200"]
    assert found[0]["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"


def test_make_env_writes_over_nothing(tmp_path: Path) -> None:
    make_env(tmp_path)
    before = (tmp_path / ".env").read_bytes()

    assert ".env is there already" in make_env(tmp_path)
    assert (tmp_path / ".env").read_bytes() == before


def test_env_is_not_committed() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
