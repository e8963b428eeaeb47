"""A file in a bucket as a file: asked again after a passing fault, and never coming up short."""

import errno
import io
from typing import IO, TYPE_CHECKING

from manifests.patience import patiently

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def require_length(data: bytes, offset: int, expected: int) -> None:
    """Raise a fault that passes by itself where a read came up short."""
    if len(data) != expected:
        raise OSError(errno.EIO, f"{len(data)} bytes came from offset {offset}, expected {expected}")


class BucketReader(io.RawIOBase):
    """A file in a bucket that is asked again after a passing fault, and never comes up short."""

    def __init__(self, uri: str, handle: IO[bytes]) -> None:
        self._uri, self._handle = uri, handle
        self._size = handle.seek(0, io.SEEK_END)
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there without asking the bucket."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill `buffer`, as far as the file goes."""
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._at))
        data = patiently(self._uri, lambda: self._read(wanted)) if wanted else b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        """The rest of the file at once."""
        rest = bytearray(max(0, self._size - self._at))
        self.readinto(rest)
        return bytes(rest)

    def _read(self, wanted: int) -> bytes:
        self._handle.seek(self._at)
        data = self._handle.read(wanted)
        require_length(data, self._at, wanted)
        return data

    def close(self) -> None:
        """Let go of it."""
        self._handle.close()
        super().close()
