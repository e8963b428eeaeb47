"""Samples to tar members and back: `<key>.jpg` then `<key>.json`, side by side, with nothing of the machine in them.

Plain ustar headers with fixed time, owner and mode, written without `tarfile`'s bookkeeping, so that a shard is a
function of its samples alone and its member offsets are known while it is written.
"""

import hashlib
import tarfile
from dataclasses import dataclass
from typing import IO

BLOCK = 512
END = b"\0" * (2 * BLOCK)  # two empty blocks close a tar
MAX_NAME_BYTES = 95  # a key of 90 bytes and `.json`; ustar has room for 100


def padding(num_bytes: int) -> int:
    """How many zero bytes follow a member of `num_bytes`."""
    return -num_bytes % BLOCK


def member_header(name: str, num_bytes: int) -> bytes:
    """The 512 bytes before a member's data."""
    info = tarfile.TarInfo(name)
    info.size = num_bytes
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Where one sample lies in its shard."""

    offset: int  # of the JPEG's first byte
    num_bytes: int  # of the JPEG


class ShardWriter:
    """Samples in, one tar out, hashed on the way; call `close` once at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def add(self, key: str, jpeg: bytes, sample_json: bytes) -> Written:
        """Append one sample."""
        place = Written(offset=self.num_bytes + BLOCK, num_bytes=len(jpeg))
        self._member(f"{key}.jpg", jpeg)
        self._member(f"{key}.json", sample_json)
        return place

    def _member(self, name: str, data: bytes) -> None:
        self._write(member_header(name, len(data)))
        self._write(data)
        self._write(b"\0" * padding(len(data)))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.num_bytes += len(data)

    def close(self) -> str:
        """Close the tar (not the file); the sha256 of all of it, in hex."""
        self._write(END)
        return self._hash.hexdigest()


def json_after(data: bytes, jpeg_bytes: int) -> bytes:
    """The sample's JSON in `data`, which starts at the JPEG's first byte and reaches past the JSON's last.

    Raises:
        ValueError: no JSON member follows the JPEG.
    """
    start = jpeg_bytes + padding(jpeg_bytes)
    header = data[start : start + BLOCK]
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ValueError(f"no tar header after the JPEG: {error}") from error
    if not info.name.endswith(".json"):
        raise ValueError(f"member {info.name!r} follows the JPEG; expected its .json")
    return data[start + BLOCK : start + BLOCK + info.size]
