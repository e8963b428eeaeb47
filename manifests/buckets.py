"""Places in buckets, through fsspec: found, listed, read, put and removed; an upload is held against what was sent."""

import contextlib
import errno
import hashlib
import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from manifests.bucket_reader import BucketReader, require_length
from manifests.errors import StorageError, UnreachableError
from manifests.patience import patiently

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

PART_BYTES = 8 << 20  # of an upload; files of two parts and more are sent in parts
_PARTS_AT_ONCE = 4  # held in memory
_MAX_PARTS = 10_000
_READ_AHEAD_BYTES = 8 << 20
_VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "created")

_GLOB = re.compile(r"[*?\[]")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a bucket says of a file without reading it."""

    num_bytes: int
    version: str  # the ETag, or what else changes with the file


def place_at(uri: str) -> "Place":
    """The place in a bucket that a URL names.

    Raises:
        StorageError: no installed file system opens such URLs.
    """
    from fsspec.core import url_to_fs  # a tenth of a second, which --help and local files need not wait for

    try:  # listings are not remembered: other processes write there, too
        fs, path = url_to_fs(uri, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise StorageError(f"{uri}: cannot be opened: {error}") from error
    return Place(uri=uri, fs=fs, path=path)


def matching(fs: "AbstractFileSystem", path: str) -> list[str]:
    """Paths of the files that `path` names: a pattern, a folder, or a file; in no order."""
    if _GLOB.search(path):
        return [str(name) for name, info in fs.glob(path, detail=True).items() if info["type"] != "directory"]
    if fs.isdir(path):
        return [str(name) for name in fs.find(path)]
    return [path] if fs.exists(path) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file or a folder in a bucket; every method may raise what `patiently` raises."""

    uri: str
    fs: "AbstractFileSystem"
    path: str

    @property
    def is_s3(self) -> bool:
        """Whether S3's own calls are understood."""
        return "s3" in ([self.fs.protocol] if isinstance(self.fs.protocol, str) else self.fs.protocol)

    def find(self) -> Found | None:
        """What the bucket says of it; None where nothing is there."""
        try:
            info = patiently(self.uri, lambda: self.fs.info(self.path))
        except FileNotFoundError:
            return None
        return _found(info)

    def find_below(self) -> dict[str, Found]:
        """All files below this folder by their paths."""
        rows = patiently(self.uri, lambda: self.fs.find(self.path, detail=True))
        return {str(name): _found(info) for name, info in rows.items()}

    def open(self) -> io.BufferedReader:
        """A seekable file over it, read ahead in blocks; one that is replaced meanwhile is an error, not a mixture."""
        reader = patiently(
            self.uri, lambda: BucketReader(self.uri, self.fs.open(self.path, "rb", block_size=_READ_AHEAD_BYTES))
        )
        return io.BufferedReader(reader, 1 << 16)

    def read_range(self, offset: int, num_bytes: int) -> bytes:
        """`num_bytes` bytes from `offset`; fewer only if the file ends before."""
        return patiently(self.uri, lambda: self._read_range(offset, num_bytes)) if num_bytes else b""

    def _read_range(self, offset: int, num_bytes: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start=offset, end=offset + num_bytes)
        if len(data) < num_bytes:
            require_length(data, offset, min(num_bytes, int(self.fs.size(self.path)) - offset))
        return data

    def upload(self, staged: str) -> None:
        """Put the local file `staged` here; it appears whole, and was compared with what was sent.

        Raises:
            StorageError: there is no such bucket.
        """
        sent = _digests(staged)
        self._put(lambda: self._upload(staged, sent))

    def _put(self, call: Callable[[], None]) -> None:
        try:
            patiently(self.uri, call)
        except FileNotFoundError as error:
            raise StorageError(f"{self.uri}: cannot be written: {error}; expected a bucket. Make it first") from error

    def _upload(self, staged: str, sent: "_Digests") -> None:
        options = {"chunksize": sent.part_bytes, "max_concurrency": _PARTS_AT_ONCE} if self.is_s3 else {}
        self.fs.put_file(staged, self.path, **options)
        found = self.find()
        if found is not None and self._is_as_sent(found, sent):
            return
        self.remove()
        told = f"{found.num_bytes} bytes, ETag {found.version}" if found is not None else "nothing"
        raise OSError(errno.EIO, f"{sent.num_bytes} bytes were sent, ETag {sent.etags[0]}, and {told} arrived")

    def _is_as_sent(self, found: Found, sent: "_Digests") -> bool:
        """Whether the bucket holds what was sent; read again where its ETag is no digest (encrypted files)."""
        if found.num_bytes != sent.num_bytes or found.version.strip('"') in sent.etags:
            return found.num_bytes == sent.num_bytes
        with contextlib.suppress(UnreachableError), self.open() as stored:
            return hashlib.file_digest(stored, "sha256").hexdigest() == sent.sha256
        return False

    def create(self, data: bytes) -> None:
        """Put `data` here if nothing is here yet: of several processes one succeeds.

        Raises:
            FileExistsError: something is here; perhaps `data`, where an answer was lost.
            StorageError: there is no such bucket.
        """
        self._put(lambda: self.fs.pipe_file(self.path, data, mode="create"))

    def replace(self, data: bytes, version: str) -> str:
        """The new version, after `data` was put into the place of `version`.

        Raises:
            FileNotFoundError: nothing is here.
            FileExistsError: another version is here; perhaps `data`, where an answer was lost.
        """
        if not self.is_s3:
            self._require(version)
            patiently(self.uri, lambda: self.fs.pipe_file(self.path, data))
            found = self.find()
            return found.version if found is not None else ""
        try:
            told = patiently(self.uri, lambda: self.fs.pipe_file(self.path, data, IfMatch=version))
        except UnreachableError:
            raise
        except StorageError:
            self._require(version)
            raise
        return str(told["ETag"])

    def _require(self, version: str) -> None:
        found = self.find()
        if found is None:
            raise FileNotFoundError(self.uri)
        if found.version != version:
            raise FileExistsError(self.uri)

    def remove(self) -> None:
        """Delete the file if it is here."""
        if self.find() is not None:
            patiently(self.uri, lambda: self.fs.rm_file(self.path))

    def paths(self) -> list[str]:
        """Paths of the files that this pattern or folder names, those below a folder included."""
        return patiently(self.uri, lambda: matching(self.fs, self.path))

    def names(self) -> list[str]:
        """Names of the files in this folder itself, sorted; none where it is not there."""
        try:
            rows = patiently(self.uri, lambda: self.fs.ls(self.path, detail=True))
        except FileNotFoundError:
            return []
        return sorted(str(row["name"]).rpartition("/")[2] for row in rows if row["type"] == "file")

    def abort_uploads(self, below: Sequence[str]) -> None:
        """End the uploads that a killed run left incomplete in this folder itself and in its folders `below`."""
        if not self.is_s3:
            return
        try:
            for upload in self._unfinished_uploads():
                name = upload["Key"].removeprefix(self._key_prefix())
                if "/" not in name or name.partition("/")[0] in below:
                    with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                        self._call_s3("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
        except UnreachableError:
            raise
        except StorageError as error:
            _log.warning("unfinished uploads stay, which a lifecycle rule of the bucket should end: %s", error)

    def _unfinished_uploads(self) -> Iterator[dict[str, str]]:
        marker: dict[str, str] = {}
        while True:
            page = self._call_s3("list_multipart_uploads", Prefix=self._key_prefix(), **marker)
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _call_s3(self, method: str, **arguments: str) -> dict[str, Any]:
        bucket = self.path.partition("/")[0]
        told: dict[str, Any] = patiently(self.uri, partial(self.fs.call_s3, method, Bucket=bucket, **arguments))
        return told

    def _key_prefix(self) -> str:
        key = self.path.partition("/")[2].rstrip("/")
        return f"{key}/" if key else ""


def _found(info: Mapping[str, Any]) -> Found:
    version = next((str(info[name]) for name in _VERSIONS if name in info), "")
    return Found(num_bytes=int(info.get("size") or 0), version=version)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Digests:
    """What a local file must look like once it is in a bucket."""

    num_bytes: int
    part_bytes: int
    etags: tuple[str, ...]  # as S3 makes them of a plain upload, and of one in parts
    sha256: str


def part_bytes_of(num_bytes: int) -> int:
    """How large the parts of an upload are: whole MiB, and as few parts as S3 takes."""
    return max(PART_BYTES, -(-num_bytes // (_MAX_PARTS << 20)) << 20)


def _digests(staged: str) -> _Digests:
    whole, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    parts: list[bytes] = []
    with open(staged, "rb") as file:
        num_bytes = file.seek(0, io.SEEK_END)
        file.seek(0)
        part_bytes = part_bytes_of(num_bytes)
        while part := file.read(part_bytes):
            whole.update(part)
            sha256.update(part)
            parts.append(hashlib.md5(part, usedforsecurity=False).digest())
    joined = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return _Digests(
        num_bytes=num_bytes,
        part_bytes=part_bytes,
        etags=(whole.hexdigest(), f"{joined}-{len(parts)}"),
        sha256=sha256.hexdigest(),
    )
