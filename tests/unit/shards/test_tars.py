"""Walking a tar: every member found where it lies, and each way in which a tar can be bad told apart."""

import io
import tarfile
from collections.abc import Callable

import pytest

from manifests.errors import Reason, SourceError
from shards.sources.source import Reject
from shards.sources.tars import Lost, Member, walk


def some_tar(*names: str, tar_format: int = tarfile.USTAR_FORMAT, size: int = 700) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes([number]) * size))
    return out.getvalue()


def special_tar(change: Callable[[tarfile.TarInfo], None]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("sa_1.jpg")
        change(info)
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo("after.json"))
    return out.getvalue()


def walked(data: bytes) -> list[Member | Lost]:
    return list(walk(io.BytesIO(data), "a.tar"))


def names(found: list[Member | Lost]) -> list[str]:
    return [one.name for one in found if isinstance(one, Member)]


def rejects(found: list[Member | Lost]) -> list[Reject]:
    return [one.reject for one in found if isinstance(one, Lost)]


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_where_their_bytes_lie(tar_format: int) -> None:
    data = some_tar("./sa_1.jpg", "sa_1.json", "folder/sa_2.jpg", tar_format=tar_format)
    found = walked(data)
    assert names(found) == ["sa_1.jpg", "sa_1.json", "folder/sa_2.jpg"]
    for number, member in enumerate(found):
        assert isinstance(member, Member)
        assert data[member.offset : member.offset + member.num_bytes] == bytes([number]) * 700


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_read_from_extended_headers(tar_format: int) -> None:
    long = "f" * 150 + "/" + "개" * 60 + ".jpg"
    found = walked(some_tar(long, "short.jpg", tar_format=tar_format))
    assert names(found) == [long, "short.jpg"]


def test_folders_are_passed_over() -> None:
    def make_folder(info: tarfile.TarInfo) -> None:
        info.name, info.type = "folder", tarfile.DIRTYPE

    found = walked(special_tar(make_folder))
    assert names(found) == ["after.json"]
    assert not rejects(found)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "pipe"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
    ],
)
def test_what_is_no_file_is_rejected_and_the_walk_goes_on(kind: bytes, word: str) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = kind, "/etc/passwd"

    found = walked(special_tar(change))
    (reject,) = rejects(found)
    assert reject.reason is Reason.NOT_A_FILE
    assert word in reject.detail
    assert reject.where == "a.tar: sa_1.jpg"
    assert names(found) == ["after.json"]


@pytest.mark.parametrize("name", ["../sa_1.jpg", "/sa_1.jpg", "a/../../b.jpg", "a\\b.jpg", "C:/a.jpg", "\udcff.jpg"])
def test_a_name_that_leaves_its_folder_is_rejected(name: str) -> None:
    found = walked(some_tar(name, "good.jpg"))
    assert [reject.reason for reject in rejects(found)] == [Reason.UNSAFE_NAME]
    assert names(found) == ["good.jpg"]


@pytest.mark.parametrize("cut", [1, 511, 512, 700, 1000, 1023])
def test_a_tar_cut_short_inside_a_member_keeps_what_was_before(cut: int) -> None:
    whole = some_tar("sa_1.jpg", "sa_1.json")
    second = 512 + 1024
    found = walked(whole[: second + cut])
    (reject,) = rejects(found)
    assert reject.reason is Reason.TAR_CUT_SHORT
    assert reject.image
    assert names(found) == ["sa_1.jpg"]


def test_a_tar_without_its_closing_blocks_is_told_and_loses_nothing() -> None:
    whole = some_tar("sa_1.jpg", "sa_1.json")
    found = walked(whole[: 2 * (512 + 1024)])
    (reject,) = rejects(found)
    assert reject.reason is Reason.TAR_CUT_SHORT
    assert not reject.image
    assert names(found) == ["sa_1.jpg", "sa_1.json"]


def test_a_broken_header_ends_the_walk_and_says_where() -> None:
    data = bytearray(some_tar("sa_1.jpg", "sa_1.json"))
    data[512 + 1024 + 148] ^= 1
    found = walked(bytes(data))
    (reject,) = rejects(found)
    assert reject.reason is Reason.UNREADABLE
    assert "byte 1536" in reject.detail
    assert names(found) == ["sa_1.jpg"]


def test_what_is_no_tar_at_all_is_one_reject() -> None:
    assert [reject.reason for reject in rejects(walked(b"no tar" * 500))] == [Reason.UNREADABLE]


def test_a_pax_header_of_nonsense_or_of_any_size_is_refused() -> None:
    def pax(content: bytes, size: int) -> bytes:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, size
        return info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(size, b"\0") + bytes(1024)

    for data in (pax(b"9999 path=a\n", 512), pax(b"x path=a\n", 512), pax(b"", 2 << 20)):
        assert [reject.reason for reject in rejects(walked(data))] == [Reason.UNREADABLE]


def test_a_compressed_tar_stops_with_the_cure() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("sa_1.jpg"))
    with pytest.raises(SourceError, match=r"a\.tar: is compressed with gzip; byte ranges need an uncompressed.*gunzip"):
        walked(out.getvalue())


def test_the_file_may_be_read_between_two_members() -> None:
    file = io.BytesIO(some_tar("a.jpg", "b.jpg", "c.jpg"))
    seen = []
    for found in walk(file, "a.tar"):
        file.seek(0)
        seen.append(found.name)
    assert seen == ["a.jpg", "b.jpg", "c.jpg"]
