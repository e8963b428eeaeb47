"""Files: atomic commits, byte ranges, names that stay in their folder, on disk and in buckets alike."""

import errno
import os
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import files
from manifests.errors import Reason, Rejected, SourceError, StorageError


def places(tmp_path: Path) -> list[str]:
    return [str(tmp_path / "folder"), f"memory://{tmp_path.name}"]


def interrupted_commit(uri: str, error: BaseException) -> None:
    with files.commit(uri) as file:
        file.write(b"half")
        raise error


def test_a_path_is_made_absolute_and_a_url_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.absolute("build") == str(tmp_path / "build")
    assert files.absolute("s3://bucket/build") == "s3://bucket/build"


def test_a_commit_appears_whole_or_not_at_all_on_disk_and_in_memory(tmp_path: Path) -> None:
    for place in places(tmp_path):
        uri = files.join(place, "a.bin")
        with pytest.raises(ZeroDivisionError):
            interrupted_commit(uri, ZeroDivisionError())
        assert not files.exists(uri)
        assert files.list_files(place) == []
        files.write_bytes(uri, b"0123456789")
        assert files.read_bytes(uri) == b"0123456789"
        assert files.read_range(uri, 3, 4) == b"3456"
        assert files.num_bytes(uri) == 10


def test_commits_may_stand_inside_each_other(tmp_path: Path) -> None:
    for place in places(tmp_path):
        with files.commit(files.join(place, "a")) as outer:
            with files.commit(files.join(place, "b")) as inner:
                inner.write(b"bb")
            outer.write(b"aa")
            files.write_bytes(files.join(place, "c"), b"cc")
        assert [files.read_bytes(files.join(place, name)) for name in "abc"] == [b"aa", b"bb", b"cc"]


def test_a_failed_commit_leaves_the_old_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.bin")
    files.write_bytes(uri, b"old")
    with pytest.raises(KeyboardInterrupt):
        interrupted_commit(uri, KeyboardInterrupt())
    assert files.read_bytes(uri) == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EFBIG, "grew past the limit"),
        (errno.ENOTDIR, "a file stands where a folder is needed"),
    ],
)
def test_errors_of_the_disk_say_where_and_what_to_do(number: int, words: str) -> None:
    with pytest.raises(StorageError, match=words) as caught, files.storage_errors("out/x.tar"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith("out/x.tar: cannot be written")


def test_a_folder_below_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        files.make_folder(str(tmp_path / "file" / "sub"))


def test_names_in_a_folder_are_those_of_its_own_files(tmp_path: Path) -> None:
    for place in places(tmp_path):
        assert files.names_in(place) == []
        for name in ("b", "a", "sub/c"):
            files.write_bytes(files.join(place, name), b"")
        assert files.names_in(place) == ["a", "b"]


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "a\\b", "", "c:/x", "a\0b"])
def test_names_that_leave_their_folder_are_rejected(name: str) -> None:
    with pytest.raises(Rejected, match="would leave its folder") as caught:
        files.safe_member(name)
    assert caught.value.reason is Reason.UNSAFE_NAME


@given(st.text(max_size=30))
def test_a_safe_name_never_resolves_outside(name: str) -> None:
    try:
        plain = files.safe_member(name)
    except Rejected:
        return
    inside = os.path.normpath(os.path.join("/base", plain))
    assert inside == "/base" or inside.startswith("/base/")


def test_leading_dot_slash_is_dropped() -> None:
    assert files.safe_member("./sa_1.jpg") == "sa_1.jpg"


def test_patterns_list_files_sorted_and_folders_list_all_below(tmp_path: Path) -> None:
    for place in places(tmp_path):
        for name in ("b.tar", "a.tar", "sub/c.tar"):
            files.write_bytes(files.join(place, name), b"x")
        names = [files.relative(uri, place) for uri in files.list_files(files.join(place, "*.tar"))]
        assert names == ["a.tar", "b.tar"]
        assert len(files.list_files(place)) == 3
        assert files.list_files(files.join(place, "a.tar"))[0].endswith("a.tar")
        assert files.list_files(files.join(place, "none*")) == []
        assert files.list_files(place)[0] == files.join(place, "a.tar")


def test_relative_and_resolve_are_inverse_below_a_root() -> None:
    assert files.resolve("/data", "x/a.jpg") == "/data/x/a.jpg"
    assert files.resolve("/data", "../b") == "/b"
    assert files.resolve("/data", "s3://bucket/a") == "s3://bucket/a"
    assert files.resolve("s3://bucket/p", "a.jpg") == "s3://bucket/p/a.jpg"
    assert files.relative("/data/x/a.jpg", "/data") == "x/a.jpg"
    assert files.relative("s3://bucket/p/a.jpg", "s3://bucket/p") == "a.jpg"
    assert files.relative("/elsewhere/a.jpg", "/data") == "a.jpg"


def test_a_fingerprint_changes_with_the_file_and_not_without(tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    files.write_bytes(uri, b"1")
    first = files.fingerprint(uri)
    assert files.fingerprint(uri) == first
    os.utime(uri, ns=(1, 1))
    assert files.fingerprint(uri) != first
    files.write_bytes(f"memory://{tmp_path.name}/a", b"12")
    assert files.fingerprint(f"memory://{tmp_path.name}/a").num_bytes == 2


def test_what_a_killed_run_left_behind_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "own" / "deep", tmp_path / "other"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{files.TEMPORARY}x-a.tar").write_bytes(b"")
        (folder / "a.tar").write_bytes(b"")
    files.remove_unfinished(str(tmp_path), below=["own", "none"])
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "other", "own"]
    assert os.listdir(tmp_path / "own" / "deep") == ["a.tar"]
    assert len(os.listdir(tmp_path / "other")) == 2


def test_a_missing_file_is_named_with_what_asked_for_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"sources\.coco: .*none\.json does not exist"):
        files.require_file(str(tmp_path / "none.json"), named_by="sources.coco")


def test_an_unknown_protocol_is_one_clear_error() -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        files.read_bytes("nosuch://bucket/a")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    files.write_bytes(str(tmp_path / "a"), b"abc")
    assert files.sha256_file(str(tmp_path / "a")).startswith("ba7816bf")
    assert "memory" in fsspec.available_protocols()


def test_what_a_killed_write_left_is_no_file_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("whole")
    (tmp_path / f"{files.TEMPORARY}x7-b.parquet").write_text("half")
    assert files.names_in(str(tmp_path)) == ["a.parquet"]
    for pattern in (str(tmp_path), str(tmp_path / "*.parquet")):
        assert files.list_files(pattern) == [str(tmp_path / "a.parquet")]
