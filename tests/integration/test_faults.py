"""A disk that is full for a Dask worker alone, and clocks that jump back: one clear line, or the same bytes."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manifests.errors import BuildError
from tests.crash_driver import leftovers
from tests.dask_service import dask_cluster, start_build
from tests.disks import small_disks
from tests.worlds import (
    REPOSITORY,
    build_bytes,
    build_command,
    build_world,
    error_line,
    finished_bytes,
    run_command_line,
    undisturbed_bytes,
    write_world,
)

LIMIT_S = 400
JUMPING_CLOCK = """
import time

real, real_ns, calls = time.time, time.time_ns, [0]


def jumped_s():
    calls[0] += 1
    return 86_400 * calls[0]


time.time = lambda: real() - jumped_s()
time.time_ns = lambda: real_ns() - 1_000_000_000 * jumped_s()
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    with small_disks(tmp_path / "disk") as mount:
        yield mount


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), samples=120, shard_samples=2)


@pytest.fixture(scope="module")
def expected(recipe: Path) -> dict[str, bytes]:
    return undisturbed_bytes(recipe)


def test_a_disk_that_is_full_for_a_dask_worker_is_one_line_and_a_run_with_space_goes_on(
    small_disk: Callable[[int], Path], recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    disk = small_disk(64 << 10)
    out = Path(shutil.copytree(recipe.parent / "undisturbed", disk / "out"))
    (out / "manifest.json").unlink()
    for folder in (out / "shards", out / "work" / "shards"):  # all that is left to do is the workers'
        shutil.rmtree(folder)
    used = shutil.disk_usage(disk).used
    subprocess.run(["mount", "-o", f"remount,size={used + (200 << 10)}", str(disk)], check=True)
    with dask_cluster(tmp_path / "dask") as cluster:
        build = start_build(recipe, out, cluster.address)
        stderr = build.communicate(timeout=LIMIT_S)[1]
    assert build.returncode == 1
    line = error_line(stderr)
    assert line.startswith(f"error: {out}/")
    assert line.endswith(
        ": cannot be written: the disk is full; free some space and run the same command again, finished parts are kept"
    )
    assert not (out / "manifest.json").exists()
    left = finished_bytes(out)
    assert left.items() < expected.items()
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    build_world(recipe, out)
    assert build_bytes(out) == expected
    assert leftovers(out) == []


def test_a_clock_that_jumps_back_and_files_from_other_times_change_no_byte(
    recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Every look at the clock is a day earlier than the last one, in all processes of the build."""
    out = tmp_path / "out"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(JUMPING_CLOCK)
    clock = {"PYTHONPATH": str(tmp_path / "site")}
    told = subprocess.run(
        [build_command(recipe, out)[0], "-c", "import time; a = time.time(); print(time.time() < a - 80_000)"],
        env={**os.environ, **clock},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "True\n"
    build = subprocess.Popen(
        build_command(recipe, out, num_workers=2),
        cwd=REPOSITORY,
        env={**os.environ, **clock},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until_s = time.monotonic() + LIMIT_S
    while len(list(out.glob("work/shards/*.json"))) < 10:
        assert build.poll() is None
        assert time.monotonic() < until_s
        time.sleep(0.005)
    os.killpg(build.pid, signal.SIGKILL)
    build.communicate()
    kept = {path.name: path.stat().st_ino for path in out.glob("work/shards/[!.]*.json")}
    for number, path in enumerate(sorted(out.rglob("*"))):  # some long ago, some to come
        os.utime(path, (4e9, 4e9) if number % 2 else (0, 0))
    done = run_command_line(recipe, out, num_workers=2, env=clock)
    assert done.returncode == 0, done.stderr
    assert build_bytes(out) == expected
    assert kept.items() <= {path.name: path.stat().st_ino for path in out.glob("work/shards/*.json")}.items()


def test_a_source_that_changed_though_its_time_went_back_is_noticed(tmp_path: Path) -> None:
    recipe = write_world(tmp_path / "world")
    build_world(recipe, tmp_path / "out")
    picture = next((tmp_path / "world" / "coco" / "pictures").iterdir())
    other = next(path for path in sorted(picture.parent.iterdir(), reverse=True) if path != picture)
    picture.write_bytes(other.read_bytes())
    os.utime(picture, (1, 1))
    with pytest.raises(BuildError, match="holds a finished build of the same recipe from other inputs"):
        build_world(recipe, tmp_path / "out")
