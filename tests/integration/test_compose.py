"""docker-compose.yml's services, each run as the file says but without Docker, and what happens when one of them fails.

Whatever is stopped, the bytes in the end are those of the plain command. The tests stand in the order in which they
run, on one PostgreSQL; each leaves all services up.
"""

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose_file import services
from tests.compose_service import LOGIN, Composed, composed
from tests.postgres import MISSING, find_programs
from tests.prefect_service import until
from tests.worlds import REPOSITORY, build_bytes, build_world, undisturbed_bytes, write_recipe, write_world

pytestmark = pytest.mark.skipif(find_programs() is None, reason=MISSING)

LIMIT_S = 900.0
SLOTS = """
import time
from pathlib import Path
from prefect import flow, task
from flows.news import outlasting

@task(tags=["storage-test"], persist_result=False)
def part():
    with Path("begun").open("a") as file:
        file.write("x")
    while not Path("gone").exists():
        time.sleep(0.1)

@flow
@outlasting
def work():
    part.submit().result()

work()
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), coco_images=60, sa1b_images=160, shard_samples=1)


@pytest.fixture(scope="module")
def expected(recipe: Path) -> dict[str, bytes]:
    return undisturbed_bytes(recipe)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    with composed(tmp_path_factory.mktemp("compose") / "home") as running:
        yield running


def asked(service: Composed, recipe: Path, out: Path) -> str:
    """A run that builds the recipe into `out`."""
    return service.run("build-shards", recipe=str(recipe), out=str(out), workers=2)


def begun(service: Composed, recipe: Path, out: Path) -> str:
    """The same, once some of its shards are there and others are not."""
    run = asked(service, recipe, out)
    until(lambda: len(list(out.glob("shards/[!.]*.tar"))) >= 3, LIMIT_S, service.tail)
    assert not (out / "manifest.json").exists()
    return run


def completed(service: Composed, run: str) -> bool:
    """Whether a run ended well; a server that is out of reach is asked again."""

    def ended() -> bool:
        try:
            return service.state(run)[0] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        except OSError:
            return False

    until(ended, LIMIT_S, service.tail)
    assert service.state(run) == ("COMPLETED", ""), service.tail()
    return True


def documented(start: str) -> list[str]:
    """The lines of docs/operations.md that begin so, without that and without their comments."""
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = [line.partition("  #")[0].strip() for line in page.splitlines() if line.startswith(start)]
    return [line.removeprefix(start) for line in lines]


def test_the_services_build_what_the_plain_command_builds(
    service: Composed, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    run = asked(service, recipe, tmp_path / "out")

    assert completed(service, run)
    assert build_bytes(tmp_path / "out") == expected
    assert {"summary", "mix", "shortcut-audit", "rejects", "progress-write"} <= set(service.artifacts(run))
    until(lambda: int(service.database.ask("SELECT count(*) FROM task_run")) >= 70, 60, service.tail)
    assert "database is locked" not in service.log("server").read_text()


def test_every_health_check_passes(service: Composed) -> None:
    """The worker's and the server's passed before they were used; the database's is PostgreSQL's own program."""
    kind, *check = services()["database"]["healthcheck"]["test"]

    assert kind == "CMD"
    assert service.database.client(check) == ""
    assert service.is_healthy("server")
    assert service.is_healthy("worker")


def test_nothing_but_its_health_is_told_without_the_password(service: Composed) -> None:
    with urllib.request.urlopen(service.url, timeout=30) as page:  # noqa: S310
        assert b"<html" in page.read().lower(), "the UI, which asks for the password"
    for way in ("/flow_runs/count", "/admin/settings", "/deployments/filter"):
        request = urllib.request.Request(f"{service.url}/api{way}", b"{}", {"Content-Type": "application/json"})  # noqa: S310
        with pytest.raises(urllib.error.HTTPError) as told:
            urllib.request.urlopen(request, timeout=30)  # noqa: S310
        told.value.close()
        assert told.value.code == 401


def test_a_dump_holds_every_run_and_can_be_restored(service: Composed, tmp_path: Path) -> None:
    """The commands of docs/operations.md, without `docker compose exec`."""
    dump, restore = documented("docker compose exec -T database ")
    saved = tmp_path / "prefect.sql"
    saved.write_text(service.database.client(dump.partition(" > ")[0].split()))
    service.database.ask("CREATE DATABASE restored")
    with saved.open() as file:
        service.database.client([*restore.partition(" < ")[0].split()[:-1], "restored"], given=file)

    held = "SELECT (SELECT count(*) FROM deployment), string_agg(id::text, ' ' ORDER BY id) FROM flow_run"
    assert service.database.ask(held, database="restored") == service.database.ask(held)
    assert not service.database.ask(held).startswith("0")


def test_the_documented_commands_of_prefect_are_taken(service: Composed) -> None:
    later = service.type("prefect", "deployment", "run", "mine-negatives", "--start-in", "in 1 hour").stdout
    run = later.partition("UUID: ")[2].split()[0]
    lines = [line.replace("ID", run) for line in documented("prefect ") if not line.startswith("deployment run")]

    assert len(lines) == 7
    for line in lines:
        service.type("prefect", *line.split())


def test_env_in_the_folder_is_login_enough(service: Composed) -> None:
    folder = service.home / "clone"
    folder.mkdir()
    (folder / ".env").write_text(f"PREFECT_API_AUTH_STRING={LOGIN}\nPREFECT_API_URL={service.url}/api\n")
    bare = {name: value for name, value in service.environment().items() if not name.startswith("PREFECT")}
    line = ["prefect", "deployment", "inspect", "build-shards/build-shards"]
    done = subprocess.run(line, env=bare, cwd=folder, capture_output=True, text=True, check=False, timeout=LIMIT_S)

    assert done.returncode == 0, done.stderr


def test_a_wrong_password_ends_in_one_line(service: Composed) -> None:
    wrong = {**service.environment(), "PREFECT_API_AUTH_STRING": "admin:wrong"}
    line = ["prefect", "deployment", "run", "build-shards"]
    done = subprocess.run(line, env=wrong, cwd=service.home, capture_output=True, text=True, check=False, timeout=400)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"error: {service.url}/api: the server refuses the password (401); PREFECT_API_AUTH_STRING is wrong. Set it to "
        "the server's own PREFECT_SERVER_API_AUTH_STRING, as user:password\n"
    )


def test_a_recipe_that_changed_since_the_deployment_is_read_when_the_run_starts(
    service: Composed, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Nothing of a recipe is kept by the server; a folder that holds another build is refused by name."""
    folder, out = tmp_path / "world", tmp_path / "out"
    folder.mkdir()
    for name in ("coco", "sa1b"):
        (folder / name).symlink_to(recipe.parent / name)
    ours = write_recipe(folder, seed=4, samples=40)
    assert completed(service, asked(service, ours, out))
    first = build_bytes(out)
    build_world(ours, tmp_path / "plain")
    assert first == build_bytes(tmp_path / "plain")
    write_recipe(folder, seed=5, samples=40)

    state, message = service.finished(asked(service, ours, out), limit_s=LIMIT_S)

    assert state == "FAILED"
    assert message.startswith(f"error: {out}")
    assert "\n" not in message
    assert build_bytes(out) == first


def test_the_database_is_restarted_in_mid_run(
    service: Composed, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = begun(service, recipe, out)
    service.database.stop()
    time.sleep(3)
    service.database.start()

    assert completed(service, run)
    assert build_bytes(out) == expected


def test_the_server_is_killed_and_started_again_in_mid_run(
    service: Composed, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """The worker stays; whoever asks meanwhile is told in one line."""
    limits = service.type("prefect", "concurrency-limit", "delete", "storage-disk", check=False)
    assert "deleted" in limits.stdout.lower() or limits.returncode, limits.stdout  # else its slots are lost for minutes
    out = tmp_path / "out"
    run = begun(service, recipe, out)
    service.stop("server", signal.SIGKILL)
    asking = service.type("prefect", "deployment", "run", "build-shards", check=False)
    service.start("server")

    assert asking.returncode == 1
    assert asking.stderr.count("\n") == 1
    assert asking.stderr.startswith(f"error: {service.url}/api: no Prefect server answers (")
    assert completed(service, run)
    assert build_bytes(out) == expected
    assert service.running["worker"].poll() is None


def test_a_part_that_cannot_give_its_slot_back_does_not_end_the_run(service: Composed, tmp_path: Path) -> None:
    """Prefect waits for the server with some of its clients and gives up at once with others: the run outlasts both."""
    service.ask("POST", "/concurrency_limits/", {"tag": "storage-test", "concurrency_limit": 4})
    (tmp_path / "slots.py").write_text(SLOTS)
    command = [sys.executable, str(tmp_path / "slots.py")]
    environment = {**service.plans["worker"].environment, "PYTHONPATH": str(REPOSITORY)}
    with (tmp_path / "log").open("wb") as log:
        flow = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    until((tmp_path / "begun").exists, LIMIT_S, (tmp_path / "log").read_text)
    service.stop("server", signal.SIGKILL)
    (tmp_path / "gone").touch()
    time.sleep(5)
    service.start("server")

    assert flow.wait(LIMIT_S) == 0, (tmp_path / "log").read_text()


def test_the_server_is_away_when_a_run_ends(
    service: Composed, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """The run waits to tell that it is finished; what was told before is still there."""
    before = service.ask("POST", "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}})
    out = tmp_path / "out"
    run = asked(service, recipe, out)
    until((out / "manifest.json").exists, LIMIT_S, service.tail)
    service.stop("server", signal.SIGKILL)
    assert build_bytes(out) == expected
    service.start("server")

    assert completed(service, run)
    assert isinstance(before, list)
    assert {service.state(each["id"]) for each in before} == {("COMPLETED", "")}


def test_a_worker_is_killed_with_its_run_and_the_next_one_goes_on(
    service: Composed, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """The shards that were finished are kept as they are. The lost run stays, until somebody cancels it."""
    out = tmp_path / "out"
    lost = begun(service, recipe, out)
    service.stop("worker", signal.SIGKILL)
    finished = list(out.glob("work/shards/[!.]*.json"))
    kept = {path: path.stat().st_mtime_ns for path in out.glob("shards/[!.]*.tar")}
    assert service.state(lost)[0] == "RUNNING", "nobody was left to say that it died"
    service.start("worker")
    service.type("prefect", "flow-run", "cancel", lost)

    assert completed(service, asked(service, recipe, out))
    assert build_bytes(out) == expected
    assert service.finished(lost, limit_s=LIMIT_S)[0] == "CANCELLED"
    changed = [path for path, time_ns in kept.items() if path.stat().st_mtime_ns != time_ns]
    assert len(finished) >= len(kept) - 2 >= 1
    assert len(changed) <= 2, "a shard that was written, but not yet recorded, in either process"
