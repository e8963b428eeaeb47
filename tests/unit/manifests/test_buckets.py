"""Places in buckets: patience, refusals, short reads and damaged uploads, on file systems that misbehave on purpose."""

import errno
from collections.abc import Iterator
from typing import IO

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from manifests import buckets, files, patience
from manifests.buckets import place_at
from manifests.errors import StorageError, UnreachableError


class Unreliable(MemoryFileSystem):  # type: ignore[misc]
    """A bucket in memory whose next calls fail as they were told to."""

    protocol = "unreliable"
    store: dict[str, object] = {}  # noqa: RUF012  (as in its base)
    pseudo_dirs = [""]  # noqa: RUF012
    errors: list[OSError] = []  # noqa: RUF012
    calls: list[str] = []  # noqa: RUF012
    drops_bytes = 0  # of each upload

    def _meet(self, call: str) -> None:
        self.calls.append(call)
        if self.errors:
            raise self.errors.pop(0)

    def info(self, path: str, **options: object) -> object:
        self._meet("info")
        return super().info(path, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> object:
        self._meet("cat_file")
        return super().cat_file(path, start=start, end=end, **options)

    def put_file(self, lpath: str, rpath: str, **options: object) -> None:
        self._meet("put_file")
        with open(lpath, "rb") as file:
            data = file.read()
        self.pipe_file(rpath, data[: len(data) - self.drops_bytes])


@pytest.fixture(autouse=True)
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Unreliable]]:
    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    monkeypatch.setattr(patience, "DELAYS_S", (0.0, 0.0))
    monkeypatch.setattr(Unreliable, "store", {})
    monkeypatch.setattr(Unreliable, "errors", [])
    monkeypatch.setattr(Unreliable, "calls", [])
    yield Unreliable
    Unreliable.clear_instance_cache()


def test_a_fault_that_passes_is_waited_for_as_long_as_was_said(bucket: type[Unreliable]) -> None:
    files.write_bytes("unreliable://a/b", b"0123")
    bucket.calls.clear()
    bucket.errors[:] = [OSError(errno.EBUSY, "busy"), TimeoutError()]
    assert files.read_range("unreliable://a/b", 1, 2) == b"12"
    assert bucket.calls == ["cat_file"] * 3
    bucket.errors[:] = [OSError(errno.EBUSY, "busy")] * 3
    with pytest.raises(UnreachableError) as caught:
        files.read_range("unreliable://a/b", 1, 2)
    assert str(caught.value) == (
        "unreliable://a/b: out of reach, also after 0 s of trying again: [Errno 16] busy; expected an answer. Run the "
        "same command again once the bucket answers; finished parts are kept"
    )


def test_a_refusal_is_told_at_once(bucket: type[Unreliable]) -> None:
    files.write_bytes("unreliable://a/b", b"0123")
    bucket.calls.clear()
    bucket.errors[:] = [PermissionError("Access Denied")]
    with pytest.raises(StorageError) as caught:
        files.exists("unreliable://a/b")
    assert not isinstance(caught.value, UnreachableError)
    assert str(caught.value) == (
        "unreliable://a/b: refused: Access Denied; expected the right to read, list, write and delete there. Check the "
        "credentials in the environment, and the bucket's policy"
    )
    assert bucket.calls == ["info"]


def test_a_place_without_digests_is_read_again_to_know_that_all_arrived(bucket: type[Unreliable]) -> None:
    opened: list[str] = []
    plain = Unreliable._open

    def noted(self: Unreliable, path: str, mode: str = "rb", **options: object) -> IO[bytes]:
        opened.append(f"{mode} {path}")
        file: IO[bytes] = plain(self, path, mode, **options)
        return file

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bucket, "_open", noted)
        files.write_bytes("unreliable://a/b", b"0123")
    assert [mode for mode in opened if mode.startswith("rb")] == ["rb unreliable://a/b"]


def test_an_upload_of_which_bytes_are_missing_is_taken_away_and_told(
    bucket: type[Unreliable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "drops_bytes", 1)
    with pytest.raises(UnreachableError, match=r"4 bytes were sent, ETag \w{32}, and 3 bytes, ETag .* arrived"):
        files.write_bytes("unreliable://a/b", b"0123")
    assert bucket.calls.count("put_file") == 3
    assert not files.exists("unreliable://a/b")


def test_of_two_creations_the_second_is_told_and_a_version_is_replaced_once() -> None:
    place = place_at("unreliable://a/lease")
    place.create(b"1")
    with pytest.raises(FileExistsError):
        place.create(b"2")
    found = place.find()
    assert found is not None
    version = place.replace(b"3", found.version)
    with pytest.raises(FileExistsError):
        place.replace(b"4", found.version)
    assert files.read_bytes("unreliable://a/lease") == b"3"
    place.remove()
    with pytest.raises(FileNotFoundError):
        place.replace(b"5", version)


def test_a_file_is_read_forwards_backwards_and_past_its_end() -> None:
    data = bytes(range(256)) * 1000
    files.write_bytes("unreliable://a/b", data)
    with files.open_input("unreliable://a/b") as file:
        assert file.seekable()
        assert file.read(10) == data[:10]
        assert file.seek(-5, 2) == len(data) - 5
        assert file.read(100) == data[-5:]
        assert file.read(1) == b""
        assert file.seek(100) == 100
        assert file.seek(50, 1) == 150
        assert file.read() == data[150:]
    with files.open_input("unreliable://a/b") as file:
        assert b"".join(file) == data


@pytest.mark.parametrize(
    ("num_bytes", "part_bytes"),
    [(0, buckets.PART_BYTES), (80_000 << 20, buckets.PART_BYTES), ((80_000 << 20) + 1, 9 << 20)],
)
def test_no_upload_has_more_parts_than_s3_takes(num_bytes: int, part_bytes: int) -> None:
    assert buckets.part_bytes_of(num_bytes) == part_bytes
    assert -(-num_bytes // part_bytes) <= 10_000
