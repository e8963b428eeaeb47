"""The bytes of scanned pictures, read once more: one that changed since the scan stops the build."""

import hashlib

import msgspec

from manifests import files
from manifests.errors import BuildError


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """Where the bytes of a scanned picture lie, and what they were."""

    key: str
    uri: str
    offset: int
    num_bytes: int
    sha256: str

    def read(self) -> bytes:
        """The bytes that were scanned.

        Raises:
            BuildError: they are gone or changed.
        """
        try:
            data = files.read_range(self.uri, self.offset, self.num_bytes)
        except OSError as error:
            raise BuildError(
                f"{self.uri}: {self.key} can no longer be read: {error}. Restore it, then run again"
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.sha256:
            raise BuildError(
                f"{self.uri}: the bytes of {self.key} changed since they were scanned: expected sha256 "
                f"{self.sha256[:16]}…, found {digest[:16]}…. Restore the file, or delete the build's work folder and "
                "build again"
            )
        return data
