"""Flows on a real Prefect server with a real worker: the same bytes as the plain command, whatever is killed."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dask_service import dask_cluster
from tests.prefect_service import Service, served, until
from tests.students import tiny_config, write_config
from tests.worlds import build_bytes, build_world, finished_bytes, undisturbed_bytes, write_world


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty shards of one sample, so that there is something to kill."""
    return write_world(tmp_path_factory.mktemp("world"), samples=60, shard_samples=1)


@pytest.fixture(scope="module")
def expected(recipe: Path) -> dict[str, bytes]:
    return undisturbed_bytes(recipe)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("service") / "home") as running:
        yield running


def begun(service: Service, out: Path, *, shards: int = 2) -> int:
    """The process that builds into `out`, once some shards are there and others are not."""
    until(lambda: len(list(out.glob("shards/[!.]*.tar"))) >= shards, 400, service.tail)
    assert not (out / "manifest.json").exists()
    process = service.flow_process(out)
    assert process is not None
    return process


def test_a_deployment_builds_the_bytes_of_the_plain_command_and_shows_what_it_built(
    service: Service, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = service.run("build-shards", recipe=str(recipe), out=str(out), workers=2)
    assert service.finished(run) == ("COMPLETED", ""), service.tail()
    assert build_bytes(out) == expected
    shown = service.artifacts(run)
    tables = {"summary", "mix", "shortcut-audit", "rejects", "contact-sheet"}
    assert tables | {"progress-scan", "progress-write"} <= shown.keys()
    assert shown["progress-write"] == 100.0
    page = next((out / "work").glob("page-*.html"))
    assert str(page) in str(shown["contact-sheet"])


def test_a_flow_that_was_killed_goes_on_in_the_next_run(
    service: Service, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    service.run("build-shards", recipe=str(recipe), out=str(out), workers=2)
    os.kill(begun(service, out), signal.SIGKILL)
    kept = {path.name: path.stat().st_ino for path in out.glob("work/shards/[!.]*.json")}  # of finished shards
    until(lambda: service.flow_process(out) is None, 120, service.tail)
    run = service.run("build-shards/build-shards", recipe=str(recipe), out=str(out), workers=2)
    assert service.finished(run) == ("COMPLETED", ""), service.tail()
    assert build_bytes(out) == expected
    assert kept.items() <= {path.name: path.stat().st_ino for path in out.glob("work/shards/*.json")}.items()


def test_retry_in_the_ui_goes_on_with_a_run_that_was_killed(
    service: Service, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = service.run("build-shards", recipe=str(recipe), out=str(out), workers=2)
    os.kill(begun(service, out), signal.SIGKILL)
    assert service.finished(run)[0] == "CRASHED"
    time.sleep(5.0)  # until a person presses it; the worker tells of a crash twice, some two seconds apart
    kept = {path.name: path.stat().st_ino for path in out.glob("work/shards/[!.]*.json")}
    service.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})
    until(lambda: service.state(run)[0] not in {"CRASHED", "SCHEDULED"}, 120, service.tail)
    assert service.finished(run) == ("COMPLETED", ""), service.tail()
    assert build_bytes(out) == expected
    assert kept.items() <= {path.name: path.stat().st_ino for path in out.glob("work/shards/*.json")}.items()


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
    assert service.finished(run) == ("COMPLETED", ""), service.tail()
    assert finished_bytes(out) == expected  # it may leave what it had begun, which the next run takes away
    num_shards = len([name for name in expected if name.endswith(".tar")])
    until(lambda: len(task_runs(service, run)) > num_shards, 60, service.tail)  # the server hears of the last ones late
    assert sum(task["run_count"] > 1 for task in task_runs(service, run)) <= 1  # none, if killed between two parts


def task_runs(service: Service, run: str) -> list[dict[str, int]]:
    found = service.ask("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "limit": 200})
    assert isinstance(found, list)
    return found


def test_a_second_build_into_one_folder_is_refused_by_name(service: Service, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "work").mkdir(parents=True)
    with (out / "work" / ".lock").open("wb") as first:
        fcntl.lockf(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state, message = service.finished(service.run("build-shards", recipe=str(recipe), out=str(out), workers=1))
    assert state == "FAILED"
    assert message == f"error: {out}/work: another build is running in this folder; wait for it, or choose another"


def test_a_cancelled_run_stops_within_seconds_and_the_next_goes_on(service: Service, tmp_path: Path) -> None:
    """As the button in the UI cancels it."""
    recipe, out = write_world(tmp_path / "world", samples=120, shard_samples=1), tmp_path / "out"
    build_world(recipe, tmp_path / "plain")
    run = service.run("build-shards", recipe=str(recipe), out=str(out), workers=1)
    begun(service, out, shards=1)
    service.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    until(lambda: service.flow_process(out) is None, 30, service.tail)
    assert not (out / "manifest.json").exists()
    again = service.run("build-shards", recipe=str(recipe), out=str(out), workers=2)
    assert service.finished(again) == ("COMPLETED", "")
    assert build_bytes(out) == build_bytes(tmp_path / "plain")
    assert service.state(run)[0] in {"CANCELLING", "CANCELLED"}  # Prefect waits half a minute before it says the latter


def test_parts_run_on_a_dask_cluster_where_one_is_named(
    service: Service, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with dask_cluster(tmp_path / "dask") as cluster:
        run = service.run("build-shards", recipe=str(recipe), out=str(out), scheduler=cluster.address)
        assert service.finished(run) == ("COMPLETED", ""), service.tail()
    assert build_bytes(out) == expected


def test_a_mistake_ends_in_one_line_and_no_part_is_tried_twice(service: Service, tmp_path: Path) -> None:
    run = service.run("build-shards", recipe=str(tmp_path / "none.toml"), out=str(tmp_path / "out"))
    state, message = service.finished(run)
    assert state == "FAILED"
    assert message.startswith(f"error: {tmp_path}/none.toml: ")
    assert "\n" not in message


def test_a_build_is_mined_a_student_trained_on_it_and_both_leave_their_pages(service: Service, tmp_path: Path) -> None:
    recipe = write_world(tmp_path / "world", shard_samples=35)
    build = tmp_path / "build"
    build_world(recipe, build)
    mined, student = tmp_path / "mined.parquet", tmp_path / "student"
    config = write_config(tmp_path, tiny_config())
    mining = service.run("mine-negatives", build=str(build), out=str(mined), workers=1, max_false_negative_rate=0.9)
    training = service.run("train-student", build=str(build), out=str(student), config=config, epochs=1)
    assert service.finished(mining) == ("COMPLETED", ""), service.tail()
    shown = service.artifacts(mining)
    assert {"mining", "mining-rejects", "gallery", "progress-embed"} <= shown.keys()
    assert str(tmp_path / "mined.html") in str(shown["gallery"])
    assert mined.exists()
    assert service.finished(training) == ("COMPLETED", ""), service.tail()
    shown = service.artifacts(training)
    assert {"evaluation", "failures", "progress-train"} <= shown.keys()
    assert json.loads((student / "run.json").read_text())["finished"] is True
    assert (student / "evaluation" / "evaluation.json").exists()


def test_the_loop_is_closed_and_says_so_round_by_round(service: Service, tmp_path: Path) -> None:
    recipe = write_world(tmp_path / "world", shard_samples=35)
    out = tmp_path / "loop"
    config = write_config(tmp_path, tiny_config())
    run = service.run("close-the-loop", recipe=str(recipe), out=str(out), rounds=1, config=config, epochs=1, workers=1)
    assert service.finished(run) == ("COMPLETED", ""), service.tail()
    assert {"rounds", "report", "summary", "mix", "contact-sheet"} <= service.artifacts(run).keys()
    assert (out / "report" / "report.html").exists()
    tasks = service.ask("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "limit": 200})
    assert isinstance(tasks, list)
    assert {"train round 1", "evaluate round 1"} <= {task["name"] for task in tasks}
