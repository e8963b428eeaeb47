"""A build that is killed, starved of disk or stopped loses nothing, repeats nothing and never looks finished."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from manifests.stage import local_executor
from tests.crash_driver import leftovers
from tests.disks import small_disks
from tests.worlds import (
    REPOSITORY,
    build_bytes,
    build_command,
    build_world,
    error_line,
    finished_bytes,
    run_command_line,
    start,
    undisturbed_bytes,
    write_recipe,
    write_world,
)

NUM_KILLS = 20
PATIENCE_S = 60


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many small shards: one per two samples."""
    return write_world(tmp_path_factory.mktemp("world"), samples=240, shard_samples=2)


@pytest.fixture(scope="module")
def expected(recipe: Path) -> dict[str, bytes]:
    return undisturbed_bytes(recipe)


def num_shards(out: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return sum(
            entry.name.endswith(".tar") and not entry.name.startswith(".") for entry in os.scandir(out / "shards")
        )
    return 0


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Return as soon as the condition holds or the process has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and (process is None or process.poll() is None):
        if time.monotonic() > deadline:
            raise TimeoutError("the build did not come this far")
        time.sleep(0.002)


def kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def finished_shards(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every shard whose record says that it is finished."""
    records = [path.name.rsplit("-", 1)[0] for path in (out / "work" / "shards").glob("[!.]*.json")]
    paths = [out / "shards" / f"{name}.tar" for name in records]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def test_a_death_at_any_rename_or_sync_is_made_good_by_a_second_run(tmp_path: Path) -> None:
    write_world(tmp_path, coco_images=10, sa1b_images=12)
    sources = {
        "sa1b": {
            "format": "sa1b",
            "data": "sa1b/sa_*.tar",
            "phrases": "sa1b/phrases.jsonl",
            "exhaustive_over": ["coco"],
        },
        "coco": {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"},
        "blank": {"format": "blank"},
    }
    mix = {"sa1b": "rest", "coco": 0.3, "blank": 0.2}
    splits = {"train": 0.7, "test": 0.3}
    recipe = write_recipe(tmp_path, samples=12, shard_samples=4, splits=splits, mix=mix, sources=sources)
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash_driver", str(recipe), str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert {point: faults for point, faults in report["faults"].items() if faults} == {}
    assert len(report["faults"]) > 60
    _require_synced_renames(report["calls"], tmp_path / "undisturbed")


def _require_synced_renames(calls: list[str], out: Path) -> None:
    """What is renamed was synced just before, its folder just after; the manifest comes after all that it names."""
    renamed = []
    for number, call in enumerate(calls):
        function, source, *target = call.split("\t")
        if function == "replace":
            assert calls[number - 1] == f"fsync file\t{source}"
            assert calls[number + 1] == f"fsync folder\t{Path(source).parent}"
            renamed.append(target[0])
    at = renamed.index(str(out / "manifest.json"))
    named = {str(out / name) for name in build_bytes(out)}
    assert set(renamed[:at]) >= named - {str(out / "manifest.json")}
    assert not named & set(renamed[at + 1 :])


def test_twenty_random_kills_cost_no_finished_shard_and_no_byte(
    recipe: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    rng = np.random.default_rng(20)
    out = tmp_path / "out"
    total = sum(name.startswith("shards/") for name in expected)
    num_partial = 0
    for kill in range(NUM_KILLS):
        before = finished_shards(out)
        process = start(build_command(recipe, out, num_workers=2))
        if kill % 5 == 4:  # some at any time: while it starts, resumes or writes
            time.sleep(float(rng.uniform(0.1, 2.0)))
        else:
            aim = num_shards(out) + int(rng.integers(0 if kill else 1, max(2, total // NUM_KILLS)))
            wait_until(lambda aim=aim: num_shards(out) > aim, process)  # type: ignore[misc]
        kill_group(process)
        after = finished_shards(out)
        assert {name: after.get(name) for name in before} == before
        assert finished_bytes(out).items() <= expected.items()
        assert not (out / "manifest.json").exists() or num_shards(out) == total
        num_partial += 0 < num_shards(out) < total
    assert num_partial >= NUM_KILLS // 2
    before = finished_shards(out)
    done = run_command_line(recipe, out, num_workers=2)
    assert done.returncode == 0, done.stderr
    found, after = build_bytes(out), finished_shards(out)
    assert {name: after[name] for name in before} == before
    assert sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name)) == []
    assert leftovers(out) == []


def test_workers_end_when_the_command_alone_is_killed(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(build_command(recipe, out, num_workers=2))
    wait_until(lambda: num_shards(out) > 0, process)
    workers = _children(process.pid)
    assert workers
    process.kill()
    process.wait()
    try:
        wait_until(lambda: not any(_is_alive(pid) for pid in workers))
    finally:
        kill_group(process)


def test_worker_processes_leave_the_keyboard_to_the_command() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with local_executor(2) as executor:
        assert signal.SIGINT in executor.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("when", ["while it scans", "while it writes"])
def test_ctrl_c_ends_in_one_line_and_the_next_run_goes_on(
    recipe: Path, expected: dict[str, bytes], tmp_path: Path, when: str
) -> None:
    out = tmp_path / "out"
    process = start(build_command(recipe, out, num_workers=2))
    if when == "while it scans":
        wait_until((out / "work" / "catalog").exists, process)
    else:
        wait_until(lambda: num_shards(out) > 3, process)
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 130
    assert error_line(stderr) == "error: stopped by the keyboard; run the same command again to go on"
    assert leftovers(out) == []
    assert not (out / "manifest.json").exists()
    before = finished_shards(out)
    build_world(recipe, out)
    assert {name: finished_shards(out)[name] for name in before} == before
    assert build_bytes(out) == expected


def test_a_second_build_in_the_same_folder_is_refused(recipe: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start(build_command(recipe, out, num_workers=1))
    wait_until((out / "work" / "catalog").exists, first)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = run_command_line(recipe, out)
        assert second.returncode == 1
        line = error_line(second.stderr)
        assert line == f"error: {out}/work: another build is running in this folder; wait for it, or choose another"
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 0
    assert build_bytes(out) == expected


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("max_bytes", [300, 8_000, 20_000], ids=["spill", "scan", "write"])
def test_a_file_that_cannot_grow_is_one_line_and_leaves_nothing_that_looks_finished(
    tmp_path: Path, num_workers: int, max_bytes: int
) -> None:
    recipe = write_world(tmp_path)
    out = tmp_path / "out"
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({max_bytes}, {max_bytes})); "
        "sys.argv = sys.argv[1:]; runpy.run_module('flows.build_shards', run_name='__main__', alter_sys=True)"
    )
    command = build_command(recipe, out, num_workers=num_workers)
    done = subprocess.run(
        [sys.executable, "-c", code, *command[2:]], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    line = error_line(done.stderr)
    assert str(out) in line
    assert "cannot be written: the file grew past the limit set for this process; raise it (ulimit -f)" in line
    _require_unfinished(out)
    left = finished_bytes(out)
    build_world(recipe, out)
    build_world(recipe, tmp_path / "fresh")
    assert build_bytes(out) == build_bytes(tmp_path / "fresh")
    assert left.items() <= build_bytes(out).items()


def _require_unfinished(out: Path) -> None:
    assert not (out / "manifest.json").exists()
    assert leftovers(out) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    with small_disks(tmp_path / "disk") as mount:
        yield mount


@pytest.mark.parametrize("num_kilobytes", [40, 160, 400])
def test_a_full_disk_is_one_line_and_a_run_with_space_goes_on(
    small_disk: Callable[[int], Path], tmp_path: Path, num_kilobytes: int
) -> None:
    recipe = write_world(tmp_path / "world")
    disk = small_disk(num_kilobytes)
    out = disk / "out"
    done = run_command_line(recipe, out, num_workers=2)
    assert done.returncode == 1
    assert "the disk is full; free some space and run the same command again" in error_line(done.stderr)
    _require_unfinished(out)
    left = finished_bytes(out)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    build_world(recipe, out)
    build_world(recipe, tmp_path / "fresh")
    assert build_bytes(out) == build_bytes(tmp_path / "fresh")
    assert left.items() <= build_bytes(out).items()


def test_a_folder_below_a_file_is_one_line(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    done = run_command_line(recipe, tmp_path / "file" / "out")
    assert done.returncode == 1
    assert "a file stands where a folder is needed; choose another --out" in error_line(done.stderr)


def test_a_file_in_the_place_of_the_folder_is_one_line(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("here")
    done = run_command_line(recipe, tmp_path / "out")
    assert done.returncode == 1
    assert str(tmp_path / "out") in error_line(done.stderr)


def test_a_read_only_folder_is_one_line(recipe: Path, small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    if os.geteuid():
        disk = tmp_path / "disk"
        disk.mkdir()
        disk.chmod(0o555)
    else:  # permissions do not bind root
        disk = small_disk(64)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = run_command_line(recipe, disk / "out")
    assert done.returncode == 1
    line = error_line(done.stderr)
    assert "cannot be written: " in line
    assert "choose another --out" in line or "choose a folder that you may write" in line


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_byte_that_changed_between_scan_and_writing_stops_the_build(tmp_path: Path, num_workers: int) -> None:
    recipe = write_world(tmp_path)
    out = tmp_path / "out"
    build_world(recipe, out)
    tar = tmp_path / "sa1b" / "sa_000000.tar"
    status = tar.stat()
    data = bytearray(tar.read_bytes())
    data[700:703] = b"\x01\x02\x03"  # inside the first picture
    tar.write_bytes(bytes(data))
    os.utime(tar, ns=(status.st_atime_ns, status.st_mtime_ns))  # the scan is taken for fresh
    for name in ("manifest.json", "shards", "work/shards"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = run_command_line(recipe, out, num_workers=num_workers)
    assert done.returncode == 1
    line = error_line(done.stderr)
    assert f"{tar}: the bytes of sa1b-1 changed since they were scanned: expected sha256" in line
    assert "Restore the file, or delete the build's work folder" in line
    _require_unfinished(out)


@pytest.mark.parametrize("part", ["spill", "coco-coco", "catalog", "generated", "plan", "shards"])
def test_any_folder_of_work_may_be_deleted_between_runs(
    recipe: Path, expected: dict[str, bytes], tmp_path: Path, part: str
) -> None:
    out = Path(shutil.copytree(recipe.parent / "undisturbed", tmp_path / "out"))
    (out / "manifest.json").unlink()
    shutil.rmtree(out / "work" / part)
    build_world(recipe, out)
    assert build_bytes(out) == expected
