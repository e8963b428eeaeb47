"""Flows on a real Prefect server with a real worker: the same bytes as the plain command, whatever is killed."""

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prefect_service import Service, served, until
from tests.worlds import build_bytes, build_world, write_world


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), coco_images=80, sa1b_images=300, shard_samples=1)


@pytest.fixture(scope="module")
def expected(recipe: Path) -> dict[str, bytes]:
    out = recipe.parent / "plain"
    build_world(recipe, out)
    return build_bytes(out)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("service") / "home") as running:
        yield running


def begun(service: Service, out: Path, *, shards: int = 2) -> int:
    """The process that builds into `out`, once some shards are there and others are not."""
    until(lambda: len(list(out.glob("shards/*.tar"))) >= shards, 120, service.tail)
    assert not (out / "manifest.json").exists()
    process = service.flow_process(out)
    assert process is not None
    return process


def test_a_deployment_builds_the_bytes_of_the_plain_command_and_shows_what_it_built(
    service: Service, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for name in ("build-shards", "build-shards/build-shards"):
        shutil.rmtree(out, ignore_errors=True)
        run = service.run(name, recipe=str(recipe), out=str(out), workers=2)
        assert service.finished(run) == ("COMPLETED", "")
        assert build_bytes(out) == expected
    shown = service.artifacts(run)
    assert {
        "summary",
        "mix",
        "shortcut-audit",
        "rejects",
        "contact-sheet",
        "progress-scan",
        "progress-write",
    } <= shown.keys()
    assert shown["progress-write"] == 100.0
    page = next((out / "work").glob("page-*.html"))
    assert str(page) in str(shown["contact-sheet"])


def test_a_flow_that_was_killed_goes_on_in_the_next_run(
    service: Service, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    service.run("build-shards", recipe=str(recipe), out=str(out), workers=2)
    os.kill(begun(service, out), signal.SIGKILL)
    kept = {path.name: path.stat().st_ino for path in out.glob("shards/*.tar")}
    until(lambda: service.flow_process(out) is None, 30, service.tail)
    run = service.run("build-shards", recipe=str(recipe), out=str(out), workers=2)
    assert service.finished(run) == ("COMPLETED", "")
    assert build_bytes(out) == expected
    assert kept.items() <= {path.name: path.stat().st_ino for path in out.glob("shards/*.tar")}.items()


def test_a_killed_process_of_a_part_costs_that_part_alone(
    service: Service, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = service.run("build-shards", recipe=str(recipe), out=str(out), workers=2)
    flow = begun(service, out)
    parts = [
        int(pid) for task in Path(f"/proc/{flow}/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    os.kill(max(parts), signal.SIGKILL)
    assert service.finished(run) == ("COMPLETED", "")
    assert build_bytes(out) == expected
    body = {"flow_runs": {"id": {"any_": [run]}}, "task_runs": {"run_count": {"gt_": 1}}, "limit": 50}
    tasks = service.ask("POST", "/task_runs/filter", {key: body[key] for key in ("flow_runs", "limit")})
    assert isinstance(tasks, list)
    assert sum(task["run_count"] > 1 for task in tasks) == 1


def test_a_second_build_into_one_folder_is_refused_by_name(service: Service, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "work").mkdir(parents=True)
    with (out / "work" / ".lock").open("wb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        state, message = service.finished(service.run("build-shards", recipe=str(recipe), out=str(out), workers=1))
    assert state == "FAILED"
    assert message == f"error: {out}/work: another build is running in this folder; wait for it, or choose another"


def test_a_cancelled_run_stops_within_seconds_and_the_next_goes_on(
    service: Service, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = service.run("build-shards", recipe=str(recipe), out=str(out), workers=1)
    begun(service, out, shards=1)
    service.type("prefect", "flow-run", "cancel", run)
    until(lambda: service.flow_process(out) is None, 15, service.tail)
    assert service.finished(run, limit_s=60)[0] == "CANCELLED"  # Prefect waits half a minute before it says so
    assert not (out / "manifest.json").exists()
    again = service.run("build-shards", recipe=str(recipe), out=str(out), workers=2)
    assert service.finished(again) == ("COMPLETED", "")
    assert build_bytes(out) == expected


def test_a_mistake_ends_in_one_line_and_no_part_is_tried_twice(service: Service, recipe: Path, tmp_path: Path) -> None:
    run = service.run("build-shards", recipe=str(tmp_path / "none.toml"), out=str(tmp_path / "out"))
    state, message = service.finished(run)
    assert state == "FAILED"
    assert message.startswith(f"error: {tmp_path}/none.toml: ")
    assert "\n" not in message
