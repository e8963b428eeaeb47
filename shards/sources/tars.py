"""A tar's members walked safely: where each one's bytes lie, and why a member cannot be used.

Only headers are read, one after another, so memory does not grow with the tar; the caller reads what it wants at the
offsets. The headers are taken apart here and not by `tarfile.open`, which keeps every member, stops in silence at a
broken header, and reads extended headers of any size.
"""

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from manifests.errors import Reason, Rejected, SourceError
from manifests.files import safe_member
from shards.sources.source import Reject
from shards.tar import BLOCK, padding

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip it"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd it"),
    b"BZh": ("bzip2", "bunzip2 it"),
    b"\xfd7zXZ": ("xz", "unxz it"),
}
_MAX_EXTENSION_BYTES = 1 << 20  # of a long name or of pax records
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a pipe",
}
_SHOWN = 80  # characters of a bad name that a message quotes


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A regular file in a tar; its bytes are all there."""

    name: str  # safe, without a leading `./`
    offset: int  # of its first byte
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A member that cannot be used, or all members after some place."""

    name: str  # as the tar says it; "" where it has none
    reject: Reject


def walk(file: IO[bytes], where: str) -> Iterator[Member | Lost]:
    """Every regular file of the uncompressed tar `file`, in order; folders are passed over.

    The file may be read elsewhere between two members. `where` names the tar in rejects: a link, a device or a sparse
    file is NOT_A_FILE, a name that leaves its folder UNSAFE_NAME, a member or a header past the end TAR_CUT_SHORT, a
    broken header UNREADABLE; after the last two there is nothing more.

    Raises:
        SourceError: the tar is compressed.
    """
    _require_uncompressed(file, where)
    end = file.seek(0, 2)
    place = 0
    extended: dict[str, str] = {}  # what extended headers say of the next member
    while True:
        name = ""
        try:
            info = _read_header(file, place)
            if info is None:
                return
            name = extended.get("path", info.name)
            data, num_bytes = place + BLOCK, _size(info, extended)
            _require_inside(name, data, num_bytes, end)
            if info.type in _EXTENSIONS:
                extended |= _read_extension(file, info, data)
            elif not info.isdir():
                yield _judge(name, info, data, num_bytes, where, extended)
        except Rejected as rejected:
            yield _lost(name, where, rejected, image=place < end)
            return
        if info.type not in _EXTENSIONS:
            extended = {}
        place = data + num_bytes + padding(num_bytes)


def _judge(
    name: str, info: tarfile.TarInfo, data: int, num_bytes: int, where: str, extended: Mapping[str, str]
) -> Member | Lost:
    """The member, or why it cannot be used."""
    try:
        _require_regular(info, sparse=any(key.startswith("GNU.sparse") for key in extended))
        return Member(name=_safe_name(name), offset=data, num_bytes=num_bytes)
    except Rejected as rejected:
        return _lost(name, where, rejected, image=True)


def _require_regular(info: tarfile.TarInfo, *, sparse: bool) -> None:
    if not info.isreg() or sparse or info.type == tarfile.GNUTYPE_SPARSE:
        kind = _KINDS.get(info.type, "a sparse file" if info.isreg() else f"of type {info.type!r}")
        raise Rejected(Reason.NOT_A_FILE, f"the member is {kind}; expected a regular file")


def _safe_name(name: str) -> str:
    if not is_utf8(name):
        raise Rejected(Reason.UNSAFE_NAME, "the name is not UTF-8; expected a name that every system can write")
    return safe_member(name)


def is_utf8(text: str) -> bool:
    """Whether `text` can be written as UTF-8: no byte of it had to be escaped as a lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _lost(name: str, where: str, rejected: Rejected, *, image: bool) -> Lost:
    place = f"{where}: {quoted(name)}" if name else where
    plain = name.removeprefix("./")
    return Lost(name=plain, reject=Reject(where=place, reason=rejected.reason, detail=rejected.detail, image=image))


def quoted(name: str) -> str:
    """`name` as a message may show it: shortened, and every byte that is no UTF-8 escaped."""
    return name[:_SHOWN].encode("utf-8", "backslashreplace").decode("utf-8")


def _require_uncompressed(file: IO[bytes], where: str) -> None:
    file.seek(0)
    head = file.read(8)
    for magic, (name, cure) in _COMPRESSED.items():
        if head.startswith(magic):
            raise SourceError(f"{where}: is compressed with {name}; byte ranges need an uncompressed tar; {cure}")


def _read_header(file: IO[bytes], place: int) -> tarfile.TarInfo | None:
    """The header at `place`; None where a zero block closes the tar.

    Raises:
        Rejected: TAR_CUT_SHORT, UNREADABLE.
    """
    file.seek(place)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        cure = "fetch it again, or close it with two empty blocks"
        raise Rejected(Reason.TAR_CUT_SHORT, f"the tar ends at byte {place} without its closing blocks; {cure}")
    if not any(block):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        raise Rejected(Reason.UNREADABLE, f"no tar header at byte {place}: {error}; what follows it is lost") from error


def _size(info: tarfile.TarInfo, extended: Mapping[str, str]) -> int:
    """Bytes of the member's data, by its extended header where that says so; links and devices have none.

    Raises:
        Rejected: UNREADABLE.
    """
    said = extended.get("size", "") if info.type not in _EXTENSIONS else ""
    size = int(said) if said.isascii() and said.isdigit() and len(said) < 19 else info.size
    if info.islnk() or info.issym() or info.isdev() or info.isdir():
        return 0
    if not 0 <= size < 1 << 62:
        raise Rejected(Reason.UNREADABLE, f"member {quoted(info.name)} has the size {size}; what follows it is lost")
    return size


def _require_inside(name: str, data: int, num_bytes: int, end: int) -> None:
    if data + num_bytes > end:
        raise Rejected(
            Reason.TAR_CUT_SHORT,
            f"the tar ends at byte {end}, inside the member {quoted(name)}, which goes to byte "
            f"{data + num_bytes}; fetch it again",
        )


def _read_extension(file: IO[bytes], info: tarfile.TarInfo, data: int) -> dict[str, str]:
    """What the extended header says of the next member: `path`, `size`, and whether it is sparse.

    Raises:
        Rejected: UNREADABLE.
    """
    if info.size > _MAX_EXTENSION_BYTES:
        raise Rejected(
            Reason.UNREADABLE,
            f"extended header at byte {data - BLOCK} has {info.size} bytes; expected at most {_MAX_EXTENSION_BYTES}",
        )
    file.seek(data)
    content = file.read(info.size)
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    if info.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
        return {}
    return _pax_records(content, data)


def _pax_records(content: bytes, data: int) -> dict[str, str]:
    """The records of a pax header, each a length, a space, `key=value` and a line feed."""
    records: dict[str, str] = {}
    at = 0
    while at < len(content) and content[at] != 0:
        length, space, _ = content[at : at + 20].partition(b" ")
        size = int(length) if length.isdigit() else 0
        record = content[at + len(length) + 1 : at + size]
        key, equals, value = record.partition(b"=")
        if not space or not equals or not record.endswith(b"\n") or at + size > len(content):
            raise Rejected(Reason.UNREADABLE, f"pax header at byte {data - BLOCK} is broken at its byte {at}")
        records[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        at += size
    return records
