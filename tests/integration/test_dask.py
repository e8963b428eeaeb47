"""A build on a real Dask cluster is the plain command's, byte for byte, whatever dies meanwhile."""

import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dask_service import LIMIT_S, Cluster, dask_cluster, run_module, start_build
from tests.servers import free_port
from tests.worlds import (
    build_bytes,
    build_world,
    error_line,
    finished_bytes,
    run_command_line,
    undisturbed_bytes,
    write_world,
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty small shards: one per two samples."""
    return write_world(tmp_path_factory.mktemp("world"), samples=240, shard_samples=2)


@pytest.fixture(scope="module")
def expected(recipe: Path) -> dict[str, bytes]:
    return undisturbed_bytes(recipe)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two workers that a test may kill."""
    with dask_cluster(tmp_path / "dask") as found:
        yield found


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers that nobody harms."""
    with dask_cluster(tmp_path_factory.mktemp("calm") / "dask") as found:
        yield found


def num_shards(out: Path) -> int:
    return len(list((out / "work" / "shards").glob("[!.]*.json")))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline_s, "the build did not come this far"
        time.sleep(0.002)


def test_a_worker_killed_in_mid_build_costs_nothing_but_its_part(
    cluster: Cluster, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build = start_build(recipe, out, cluster.address)
    wait_until(lambda: num_shards(out) > 5, build)
    os.kill(cluster.workers[0].pid, signal.SIGKILL)
    before = num_shards(out)
    stderr = build.communicate(timeout=LIMIT_S)[1]
    assert build.returncode == 0, stderr
    assert "error" not in stderr.lower()
    assert before < num_shards(out)
    assert finished_bytes(out) == expected
    again = run_command_line(recipe, out)  # which also takes away what the killed worker left unfinished
    assert again.returncode == 0, again.stderr
    assert build_bytes(out) == expected


def test_a_scheduler_that_is_gone_is_one_line_and_the_plain_command_finishes(
    cluster: Cluster, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build = start_build(recipe, out, cluster.address)
    wait_until(lambda: num_shards(out) > 5, build)
    assert cluster.scheduler is not None
    os.kill(cluster.scheduler.pid, signal.SIGKILL)
    stderr = build.communicate(timeout=LIMIT_S)[1]
    assert build.returncode == 1, stderr
    assert error_line(stderr) == (
        f"error: {cluster.address}: the connection to the Dask scheduler was lost; expected it to run until the end. "
        "Start it again and run the same command again to go on; finished parts are kept"
    )
    assert 5 < num_shards(out) < 120
    done = run_command_line(recipe, out)
    assert done.returncode == 0, done.stderr
    assert build_bytes(out) == expected


def test_a_command_stopped_by_the_keyboard_goes_on_when_it_is_run_again(
    calm: Cluster, recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build = start_build(recipe, out, calm.address)
    wait_until(lambda: num_shards(out) > 5, build)
    build.send_signal(signal.SIGINT)
    stderr = build.communicate(timeout=LIMIT_S)[1]
    assert build.returncode == 130, stderr
    assert error_line(stderr) == "error: stopped by the keyboard; run the same command again to go on"
    again = start_build(recipe, out, calm.address)  # while the workers may still write what had begun
    stderr = again.communicate(timeout=LIMIT_S)[1]
    assert again.returncode == 0, stderr
    assert finished_bytes(out) == expected


def test_a_relative_folder_is_the_commands_and_not_the_workers(calm: Cluster, tmp_path: Path) -> None:
    recipe = write_world(tmp_path / "world", samples=20)
    options = ("--runner", "dask", "--scheduler", calm.address)
    done = run_module("flows.build_shards", "world/recipe.toml", "--out", "out", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    build_world(recipe, tmp_path / "plain")
    assert build_bytes(tmp_path / "out") == build_bytes(tmp_path / "plain")


def test_a_fault_in_a_part_is_the_plain_commands_line(calm: Cluster, tmp_path: Path) -> None:
    recipe = write_world(tmp_path / "world", samples=20)
    build_world(recipe, tmp_path / "out")
    tar = tmp_path / "world" / "sa1b" / "sa_000000.tar"
    status = tar.stat()
    data = bytearray(tar.read_bytes())
    with tarfile.open(tar) as members:
        for picture in (member for member in members if member.name.endswith(".jpg")):
            data[picture.offset_data + 200] ^= 255
    tar.write_bytes(data)
    os.utime(tar, ns=(status.st_atime_ns, status.st_mtime_ns))  # the scan is taken for fresh
    (tmp_path / "out" / "manifest.json").unlink()
    for path in [*(tmp_path / "out" / "shards").iterdir(), *(tmp_path / "out" / "work" / "shards").iterdir()]:
        path.unlink()
    options = ("--runner", "dask", "--scheduler", calm.address)
    done = run_module("flows.build_shards", str(recipe), "--out", str(tmp_path / "out"), *options)
    assert done.returncode == 1
    assert re.search(rf"{tar}: the bytes of sa1b-\d+ changed since they were scanned", error_line(done.stderr))


def test_no_scheduler_at_the_address_is_one_line_within_seconds(recipe: Path, tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    options = ("--runner", "dask", "--scheduler", address)
    done = run_module("flows.build_shards", str(recipe), "--out", str(tmp_path / "out"), *options)
    assert done.returncode == 1
    line = error_line(done.stderr)
    assert line.startswith(f"error: {address}: no Dask scheduler answers within 5 s; expected one at tcp://HOST:PORT (")
    assert line.endswith("Start one (dask scheduler), or check the address and that this machine may reach it")
    assert not (tmp_path / "out").exists()
