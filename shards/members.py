"""The members of a tar as stock readers meet them: one after another, names from the 100 bytes of ustar alone.

`tarfile` forgives much of what breaks other readers (a missing end, long names in extra headers), so the blocks are
walked here, and everything that passes is hashed on the way.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from shards.tar import BLOCK, END, padding

_DRAIN_BYTES = 1 << 20


class TarFault(ValueError):
    """The tar cannot be walked any further; `str()` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member with its bytes."""

    name: str
    is_file: bool
    offset: int  # of its first byte
    data: bytes


class HashedFile:
    """A file that is read once from start to end, counted and hashed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def read(self, num_bytes: int) -> bytes:
        """The next `num_bytes` bytes, fewer only at the end."""
        data = self._file.read(num_bytes)
        self._hash.update(data)
        self.num_bytes += len(data)
        return data

    def drain(self) -> str:
        """Read what is left; the sha256 of everything, in hex."""
        while self.read(_DRAIN_BYTES):
            pass
        return self._hash.hexdigest()


def walk(file: HashedFile, num_bytes: int) -> Iterator[Member]:
    """Every member of the tar in `file`, which is `num_bytes` long.

    Raises:
        TarFault: it is damaged, cut short, not closed by two empty blocks, or goes on after them.
    """
    while True:
        start = file.num_bytes
        header = file.read(BLOCK)
        if not header.strip(b"\0"):
            _require_end(file, header)
            return
        info = _read_header(header, start)
        offset = file.num_bytes
        if info.size < 0 or offset + info.size > num_bytes:
            raise TarFault(
                f"member {info.name!r} at byte {start} claims {info.size} bytes, {num_bytes - offset} are left; the "
                "tar is cut short"
            )
        data = file.read(info.size)
        file.read(padding(info.size))
        yield Member(name=info.name, is_file=info.type in (tarfile.REGTYPE, tarfile.AREGTYPE), offset=offset, data=data)


def _read_header(header: bytes, start: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise TarFault(f"no tar header at byte {start}: {error}; the tar is damaged") from error


def _require_end(file: HashedFile, header: bytes) -> None:
    end = header + file.read(BLOCK)
    if len(end) < len(END) or end.strip(b"\0"):
        raise TarFault("the tar is not closed by two empty blocks; it was cut short while it was written")
    if file.read(1):
        raise TarFault(f"the tar goes on after its end at byte {file.num_bytes - 1}")
