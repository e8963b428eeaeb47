"""Sources and builds in a bucket of a real S3 server: the same bytes as on disk, whatever the network and kills do."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from flows.build_shards import main
from flows.building import build
from flows.tasks import passes
from manifests import buckets, files, patience
from manifests.errors import BuildError, StorageError, UnreachableError
from manifests.recipe_file import load_recipe
from manifests.stage import Inline, Processes, progress_bar
from shards import lease
from shards.reader import open_pass
from shards.verify import verify
from tests.disks import small_disks
from tests.s3_service import BUCKET, S3, SECRET, Fault, read_without_patience, s3_server
from tests.worlds import (
    build_bytes,
    build_command,
    build_world,
    error_line,
    make_coco,
    make_sa1b,
    start,
    write_recipe,
)

LIMIT_S = 400
PADDING_BYTES = 2_200_000  # of each large picture, so that a shard is sent in several parts
NUM_LARGE = 12
NUM_FOLLOWERS = 5

A = ParamSpec("A")
T = TypeVar("T")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as found, pytest.MonkeyPatch.context() as patched:
        for name, value in found.environment.items():
            patched.setenv(name, value)
        yield found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    with small_disks(tmp_path / "disk") as mount:
        yield mount


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "DELAYS_S", (0.01, 0.01))


def padded(jpeg: bytes) -> bytes:
    """The same picture with comments in it, which decoders pass over."""
    comment = b"\xff\xfe\xff\xff" + bytes(65_533)
    return jpeg[:2] + comment * (PADDING_BYTES // len(comment)) + jpeg[2:]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, the larger one above two parts of an upload."""
    folder = tmp_path_factory.mktemp("world")
    make_coco(10).write(folder / "coco")
    sa1b = make_sa1b(NUM_LARGE)
    for number in range(1, NUM_LARGE + 1):
        sa1b.replace(f"sa_{number}.jpg", padded(sa1b.data(f"sa_{number}.jpg")))
    sa1b.write(folder / "sa1b")
    splits, mix = {"train": 1.0}, {"sa1b": "rest", "coco": 0.4, "blank": 0.1}
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
    return write_recipe(folder, samples=20, shard_samples=16, splits=splits, mix=mix, sources=sources)


@pytest.fixture(scope="module")
def expected(recipe: Path) -> dict[str, bytes]:
    out = recipe.parent / "on-disk"
    build_world(recipe, out)
    found = build_bytes(out)
    assert max(map(len, found.values())) > 2 * buckets.PART_BYTES
    return found


@pytest.fixture(scope="module")
def remote_recipe(recipe: Path, s3: S3) -> Path:
    """The same recipe, its sources in the bucket."""
    url = "s3://" + BUCKET + "/world"
    for name in ("coco", "sa1b"):
        s3.upload(recipe.parent / name, f"world/{name}")
    text = recipe.read_text()
    for name in ("sa1b/", "coco/"):
        text = text.replace(f'"{name}', f'"{url}/{name}')
    path = recipe.parent / "remote.toml"
    path.write_text(text)
    return path


def start_there(recipe: Path, prefix: str, *, num_workers: int = 1) -> "subprocess.Popen[str]":
    """The real command into the bucket, running."""
    return start(build_command(recipe, f"s3://{BUCKET}/{prefix}", num_workers=num_workers))


def run_here(recipe: Path, out: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr of the command in this process."""
    status = main([str(recipe), "--out", out, "--workers", "1", "--json"])
    return status, capfd.readouterr().err


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    stderr = process.communicate(timeout=LIMIT_S)[1]
    return process.returncode, stderr


def built(s3: S3, prefix: str) -> dict[str, bytes]:
    """What is visible of a build in the bucket, without its `work/`."""
    return {name: data for name, data in s3.objects(prefix).items() if not name.startswith("work/")}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_sources_and_build_in_a_bucket_give_the_bytes_of_the_disk_and_are_read_from_there(
    s3: S3, recipe: Path, remote_recipe: Path, expected: dict[str, bytes]
) -> None:
    url = f"s3://{BUCKET}/plain"
    status, stderr = finished(start_there(remote_recipe, "plain", num_workers=2))
    assert status == 0, stderr
    assert built(s3, "plain") == expected
    assert s3.unfinished() == []
    in_parts = [name for name in expected if "-" in (buckets.place_at(f"{url}/{name}").find() or NOTHING).version]
    assert in_parts == ["shards/train-000000.tar"]
    assert not any(SECRET.encode() in data for data in s3.objects("plain").values())
    assert ".lease" not in {name.rpartition("/")[2] for name in s3.objects("plain")}
    assert verify(url, deep=True) == []
    disk = [
        (b.keys, b.images.sum().item()) for b in open_pass(str(recipe.parent / "on-disk"), split="train", batch_size=4)
    ]
    assert [(b.keys, b.images.sum().item()) for b in open_pass(url, split="train", batch_size=4)] == disk


NOTHING = buckets.Found(num_bytes=0, version="")


def test_a_build_killed_while_it_sends_a_shard_leaves_nothing_half_written_and_the_next_goes_on(
    s3: S3, recipe: Path, expected: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    part = Fault(request="PUT .*train-000000.tar.*partNumber=2", times=1, waits=threading.Event())
    with s3.spoiled(part):
        build = start_there(recipe, "killed")
        assert part.met.wait(LIMIT_S)
        os.killpg(build.pid, signal.SIGKILL)
        build.communicate()
    left = built(s3, "killed")
    assert left.items() < expected.items()
    assert not {"manifest.json", "shards/train-000000.tar"} & left.keys()
    assert s3.unfinished() == ["killed/shards/train-000000.tar"]
    elsewhere = s3.direct().call_s3("create_multipart_upload", Bucket=BUCKET, Key="killed/other-build/shards/train.tar")
    status, stderr = run_here(recipe, f"s3://{BUCKET}/killed", capfd)
    assert status == 0, stderr
    assert "looking for" not in stderr  # its lease was seen to be dead: no waiting
    assert built(s3, "killed") == expected
    assert s3.unfinished() == [elsewhere["Key"]]
    s3.direct().abort_mpu(BUCKET, elsewhere["Key"], elsewhere["UploadId"])


def test_a_bucket_that_is_busy_for_a_while_is_waited_for(
    s3: S3, remote_recipe: Path, expected: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    requests = (
        "HEAD .*/busy/manifest.json",
        "GET .*/world/sa1b/sa_000000.tar",
        "GET .*/world/coco/pictures/",
        "PUT .*/busy/work/catalog/",
        "PUT .*/busy/shards/train-000000.tar.*partNumber=1",
        "POST .*/busy/shards/train-000000.tar.*uploadId=",
    )
    faults = [Fault(request=request, times=1, status=503) for request in requests]
    cut = Fault(request="GET .*/world/sa1b/sa_000000.tar", times=2, half_body=True)
    with s3.spoiled(*faults, cut):
        status, stderr = run_here(remote_recipe, f"s3://{BUCKET}/busy", capfd)
    assert status == 0, stderr
    assert [fault.request for fault in [*faults, cut] if len(fault.seen) != fault.times] == []
    assert built(s3, "busy") == expected
    assert s3.unfinished() == []


@pytest.mark.parametrize(
    ("request_", "place"),
    [("(PUT|POST) .*/refused/shards/", "refused/shards/"), ("GET .*/world/coco/pictures/", "world/coco/pictures/")],
    ids=["writing", "reading"],
)
def test_a_bucket_that_refuses_stops_the_build_at_once_with_one_line(
    s3: S3, remote_recipe: Path, request_: str, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    refusal = Fault(request=request_, status=403)
    with s3.spoiled(refusal):
        status, stderr = run_here(remote_recipe, f"s3://{BUCKET}/refused", capfd)
    assert status == 1
    line = error_line(stderr)
    assert line.startswith(f"error: s3://{BUCKET}/{place}")
    assert ": refused: as the test asks; expected the right to read, list, write and delete there." in line
    assert len(refusal.seen) == 1
    assert "manifest.json" not in s3.objects("refused")


def test_a_second_build_into_one_place_is_refused_by_name_while_the_first_lives(
    s3: S3, recipe: Path, expected: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    held = Fault(request="PUT .*/twice/shards/train-000001.tar", times=1, waits=threading.Event())
    with s3.spoiled(held):
        first = start_there(recipe, "twice")
        assert held.met.wait(LIMIT_S)
        status, stderr = run_here(recipe, f"s3://{BUCKET}/twice", capfd)
    assert status == 1
    assert (
        f"error: s3://{BUCKET}/twice/work: another build is running in this folder (process {first.pid} of " in stderr
    )
    assert "wait for it, or choose another" in stderr
    assert finished(first)[0] == 0
    assert built(s3, "twice") == expected


def test_what_a_worker_meets_in_a_bucket_says_whether_a_task_is_worth_trying_again(s3: S3) -> None:
    uri = f"s3://{BUCKET}/judged/a"
    files.write_bytes(uri, b"a")
    with Processes(1) as executor:
        with s3.spoiled(Fault(request=".*/judged/a", status=503)):
            busy = executor.submit(read_without_patience, uri).exception(LIMIT_S)
        with s3.spoiled(Fault(request=".*/judged/a", status=403)):
            refused = executor.submit(read_without_patience, uri).exception(LIMIT_S)
        assert executor.submit(read_without_patience, uri).result(LIMIT_S) == b"a"
    assert isinstance(busy, UnreachableError)
    assert passes(busy)
    assert isinstance(refused, StorageError)
    assert not passes(refused)


class Retrying(Inline):
    """Makes a call again as a flow makes its tasks again: where `passes` says so."""

    num_retried = 0

    def submit(self, fn: Callable[A, T], /, *args: A.args, **kwargs: A.kwargs) -> Future[T]:
        future = super().submit(fn, *args, **kwargs)
        if not passes(future.exception()):
            return future
        self.num_retried += 1
        return self.submit(fn, *args, **kwargs)


def test_a_part_that_outlasted_the_patience_is_finished_by_the_next_try_of_its_task(
    s3: S3, recipe: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "DELAYS_S", ())
    requests = ("PUT .*/tasks/work/catalog/", "PUT .*/tasks/shards/train-000001.tar", "PUT .*/tasks/work/shards/")
    faults = [Fault(request=request, times=1, status=503) for request in requests]
    executor = Retrying()
    with s3.spoiled(*faults), progress_bar(quiet=True) as progress:
        build(load_recipe(str(recipe)), f"s3://{BUCKET}/tasks", executor=executor, progress=progress)
    assert executor.num_retried == len(faults)
    assert built(s3, "tasks") == expected


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", [Fault(request="", half_body=True), Fault(request="", body=lambda body: body[:1000])])
def test_a_body_that_ends_early_is_noticed_and_read_again(s3: S3, fault: Fault) -> None:
    uri = f"s3://{BUCKET}/cut/a"
    data = os.urandom(5000)
    files.write_bytes(uri, data)
    fault.request, fault.times = "GET .*/cut/a", 2
    with s3.spoiled(fault):
        assert files.read_bytes(uri) == data
        assert len(fault.seen) == 2
        fault.seen.clear()
        assert files.read_range(uri, 10, 4000) == data[10:4010]
        assert len(fault.seen) == 2
        fault.times = 1 << 30
        with pytest.raises(UnreachableError, match=rf"^{uri}: out of reach, also after 0 s of trying again: "):
            files.read_bytes(uri)
    assert files.read_range(uri, 4990, 4000) == data[4990:]  # the end of the file is no fault


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("num_bytes", [5000, 2 * buckets.PART_BYTES + 1], ids=["whole", "in parts"])
def test_an_upload_that_arrives_damaged_is_noticed_and_sent_again(s3: S3, num_bytes: int) -> None:
    uri = f"s3://{BUCKET}/damaged/{num_bytes}"
    data = os.urandom(num_bytes)
    damage = Fault(request="PUT .*/damaged/", times=1, sent=lambda body: body[:-1] + bytes([body[-1] ^ 1]))
    with s3.spoiled(damage):
        files.write_bytes(uri, data)
        assert len(damage.seen) == 1
        assert files.read_bytes(uri) == data
        damage.times = 1 << 30
        with pytest.raises(UnreachableError, match=rf"{num_bytes} bytes were sent, ETag \w+, and {num_bytes} bytes"):
            files.write_bytes(uri, data)
    assert not files.exists(uri)
    assert s3.unfinished() == []


def test_a_file_that_is_replaced_while_it_is_read_is_no_mixture(s3: S3) -> None:
    uri = f"s3://{BUCKET}/replaced/a"
    files.write_bytes(uri, bytes(20 << 20))
    with files.open_input(uri) as file:
        assert file.read(10) == bytes(10)
        s3.direct().pipe_file(f"{BUCKET}/replaced/a", b"\x01" * (20 << 20))
        file.seek(15 << 20)
        with pytest.raises(
            StorageError, match=r": refused: .* no longer exists.*; expected it to be there and to stay as it is"
        ) as caught:
            file.read(10)
    assert not isinstance(caught.value, UnreachableError)


def test_what_others_write_after_a_listing_is_seen(s3: S3) -> None:
    folder = f"s3://{BUCKET}/listed"
    files.write_bytes(f"{folder}/a", b"a")
    assert files.list_files(folder) == [f"{folder}/a"]
    s3.direct().pipe_file(f"{BUCKET}/listed/b", b"b")
    assert files.exists(f"{folder}/b")
    assert files.names_in(folder) == ["a", "b"]
    assert files.list_files(f"{folder}/*") == [f"{folder}/a", f"{folder}/b"]
    s3.direct().pipe_file(f"{BUCKET}/listed/a", b"other")
    assert files.num_bytes(f"{folder}/a") == 5
    files.remove(f"{folder}/a")
    assert not files.exists(f"{folder}/a")


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_one_line(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, stderr = run_here(recipe, "s3://no-such-bucket/out", capfd)
    assert status == 1
    assert error_line(stderr) == (
        "error: s3://no-such-bucket/out/work/.lease: cannot be written: The specified bucket does not exist; expected "
        "a bucket. Make it first"
    )


def test_a_lease_that_nobody_renews_is_taken_over_by_one_of_many(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "PATIENCE_S", 4.0)
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    monkeypatch.setattr(lease, "_machine", str)  # as if every holder were on another machine
    folder = f"s3://{BUCKET}/leases"
    first = lease._Holder(buckets.place_at(f"{folder}/.lease"), folder)
    first.take()
    refused: list[BuildError] = []

    def follow() -> bool:
        try:
            with lease.leased(folder) as require_held:
                until_s = time.monotonic() + LIMIT_S
                while len(refused) < NUM_FOLLOWERS - 1 and time.monotonic() < until_s:
                    time.sleep(0.05)
                    require_held()  # moto looks and writes in two steps, so that two may believe it for a moment
                return True
        except BuildError as error:
            refused.append(error)
            return False

    with ThreadPoolExecutor(NUM_FOLLOWERS) as pool:
        held = [future.result() for future in [pool.submit(follow) for _ in range(NUM_FOLLOWERS)]]
    assert sorted(held) == [False] * (NUM_FOLLOWERS - 1) + [True]
    assert any("another build is running in this folder" in str(error) for error in refused)
    assert s3.objects("leases") == {}
    first.require_held()  # it does not know yet
    first.renew_on()  # returns, since it finds that its lease is gone
    with pytest.raises(BuildError, match="another build took this folder over, since nothing was heard of this one"):
        first.require_held()


def test_a_full_temporary_folder_is_named(
    s3: S3,
    recipe: Path,
    small_disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    disk = small_disk(256)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    status, stderr = run_here(recipe, f"s3://{BUCKET}/staged", capfd)
    assert status == 1
    place = f"{disk}, where s3://{BUCKET}/staged/shards/train-000000.tar is staged"
    assert error_line(stderr) == (
        f"error: {place}: cannot be written: the disk is full; free some space and run the same command again, "
        "finished parts are kept"
    )
    assert not [name for name in s3.objects("staged") if name.startswith("shards/") or "manifest" in name]
    assert os.listdir(disk) == []
