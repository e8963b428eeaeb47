"""Files on disk and in buckets: byte ranges in, atomic commits out, and no name that escapes its folder.

Every location is a string: a path, or any URL that fsspec opens. A plain path takes the short way through `os`.
A file is written under a temporary name, flushed to the disk and renamed, so that a finished name holds a finished
file; in a bucket the upload is completed last, which is the same promise.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn

import msgspec

from manifests.buckets import Found, matching, place_at
from manifests.errors import Reason, Rejected, SourceError, StorageError, UnreachableError
from manifests.transient import is_transient

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
TEMPORARY = ".part-"  # a name that holds this is unfinished and may be deleted

FULL = {  # what writing alone raises where there is no room, each with its cure
    errno.ENOSPC: "the disk is full; free some space and run the same command again, finished parts are kept",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "the file grew past the limit set for this process; raise it (ulimit -f) and run again",
}


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What changes when a file changes, without reading it: a cache key, never part of a build."""

    uri: str
    num_bytes: int
    version: str  # mtime in nanoseconds, or the bucket's ETag


def is_local(uri: str) -> bool:
    """Whether `uri` is a path on this machine."""
    return not _URL.match(uri)


def absolute(uri: str) -> str:
    """The same place for a process that stands in another folder."""
    return os.path.abspath(uri) if is_local(uri) else uri


def join(base: str, *names: str) -> str:
    """`base` with `names` below it, for paths and URLs alike."""
    if is_local(base):
        return os.path.join(base, *names)
    return "/".join([base.rstrip("/"), *names])


def resolve(base: str, uri: str) -> str:
    """`uri` as seen from the folder `base`: absolute paths and URLs stay as they are."""
    if not is_local(uri) or os.path.isabs(uri):
        return uri
    return os.path.normpath(os.path.join(base, uri)) if is_local(base) else join(base, uri)


def safe_member(name: str) -> str:
    """`name` without a leading `./`.

    Raises:
        Rejected: the name is absolute, climbs with `..`, or holds a backslash or NUL: UNSAFE_NAME.
    """
    plain = name.removeprefix("./")
    parts = plain.split("/")
    if not plain or plain.startswith("/") or ".." in parts or "\\" in plain or "\0" in plain or ":" in parts[0]:
        raise Rejected(Reason.UNSAFE_NAME, f"{name!r} would leave its folder; expected a relative name without '..'")
    return plain


def open_input(uri: str) -> IO[bytes]:
    """A seekable binary file over `uri`; remote ones are read ahead in blocks of 8 MiB.

    Raises:
        FileNotFoundError: there is nothing at `uri`.
        StorageError: a bucket refuses, or stays out of reach; so for all that follows.
    """
    if is_local(uri):
        return open(uri, "rb")
    return place_at(uri).open()


def read_bytes(uri: str) -> bytes:
    """Everything at `uri`."""
    with open_input(uri) as file:
        return file.read()


def read_text(uri: str) -> str:
    """All text at `uri`, in UTF-8; the byte order mark that some editors put before it is left out.

    Raises:
        UnicodeDecodeError: it is in another encoding, or no text.
    """
    return read_bytes(uri).decode("utf-8-sig")


def read_range(uri: str, offset: int, num_bytes: int) -> bytes:
    """`num_bytes` bytes of `uri` from `offset`; fewer only if the file ends before."""
    if is_local(uri):
        descriptor = os.open(uri, os.O_RDONLY)
        try:
            return os.pread(descriptor, num_bytes, offset)
        finally:
            os.close(descriptor)
    return place_at(uri).read_range(offset, num_bytes)


def exists(uri: str) -> bool:
    """Whether a file or folder is at `uri`."""
    if is_local(uri):
        return os.path.exists(uri)
    return place_at(uri).find() is not None


def num_bytes(uri: str) -> int:
    """Size of the file at `uri`."""
    if is_local(uri):
        return os.stat(uri).st_size
    return _found(uri).num_bytes


def _found(uri: str) -> Found:
    found = place_at(uri).find()
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "nothing is there", uri)
    return found


def fingerprint(uri: str) -> Fingerprint:
    """Size and version of `uri`.

    Raises:
        FileNotFoundError: there is nothing at `uri`.
    """
    if is_local(uri):
        status = os.stat(uri)
        return Fingerprint(uri=uri, num_bytes=status.st_size, version=str(status.st_mtime_ns))
    found = _found(uri)
    return Fingerprint(uri=uri, num_bytes=found.num_bytes, version=found.version)


def list_files(pattern: str) -> list[str]:
    """The finished files that `pattern` (a path or URL, with `*`, `?`, `[]`, `**`) names; all below it for a folder."""
    if is_local(pattern):
        from fsspec.core import url_to_fs

        found = sorted(matching(*url_to_fs(pattern)))
        return [path for path in found if not os.path.basename(path).startswith(TEMPORARY)]
    names = sorted(place_at(pattern).paths())
    scheme = pattern[: pattern.index("://") + 3]
    rooted = pattern.startswith(f"{scheme}/")  # file:///a, but memory://a and s3://bucket/a
    return [f"{scheme}{name if rooted else name.lstrip('/')}" for name in names]


def relative(uri: str, root: str) -> str:
    """`uri` below `root` as a relative name with forward slashes, or its last name where it is not below."""
    if is_local(uri):
        below = os.path.relpath(uri, root)
        return os.path.basename(uri) if below.startswith("..") else below.replace(os.sep, "/")
    prefix = root.rstrip("/") + "/"
    return uri.removeprefix(prefix) if uri.startswith(prefix) else uri.rpartition("/")[2]


def make_folder(uri: str) -> None:
    """Make the folder `uri` and those above it.

    Raises:
        StorageError: no folder can be made there.
    """
    if not is_local(uri):
        return
    try:
        os.makedirs(uri, exist_ok=True)
    except OSError as error:
        _refuse(uri, error)


def names_in(folder: str) -> list[str]:
    """The names of the finished files in `folder` itself, sorted; none where it is not there."""
    if is_local(folder):
        entries = os.scandir(folder) if os.path.isdir(folder) else ()
        return sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith(TEMPORARY))
    return place_at(folder).names()


def remove(uri: str) -> None:
    """Delete the file at `uri` if it is there."""
    if is_local(uri):
        with storage_errors(uri):
            Path(uri).unlink(missing_ok=True)
        return
    place_at(uri).remove()


def _refuse(uri: str, error: OSError) -> NoReturn:
    cures = FULL | {
        errno.EROFS: "the file system is read-only; choose another --out",
        errno.EACCES: "permission denied; choose a folder that you may write, or change its owner",
        errno.EPERM: "permission denied; choose a folder that you may write, or change its owner",
        errno.ENOTDIR: "a file stands where a folder is needed; choose another --out",
    }
    kind = UnreachableError if is_transient(error) else StorageError
    raise kind(f"{uri}: cannot be written: {cures.get(error.errno or 0, error)}") from error


@contextlib.contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turn an `OSError` of writing below `uri` into one clear `StorageError`."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        _refuse(uri, error)


@contextlib.contextmanager
def commit(uri: str) -> Iterator[IO[bytes]]:
    """A binary file that appears at `uri` whole when the block ends, and not at all when it raises.

    A file for a bucket is staged in the temporary folder.

    Raises:
        StorageError: the disk is full, the folder read-only, the bucket refuses.
    """
    if is_local(uri):
        with storage_errors(uri), _commit_local(uri) as file:
            yield file
        return
    with storage_errors(f"{tempfile.gettempdir()}, where {uri} is staged"), tempfile.NamedTemporaryFile() as staged:
        yield staged.file
        staged.flush()
        place_at(uri).upload(staged.name)


@contextlib.contextmanager
def _commit_local(uri: str) -> Iterator[IO[bytes]]:
    folder = os.path.dirname(uri) or "."
    os.makedirs(folder, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, suffix=f"-{os.path.basename(uri)}", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, uri)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Make a rename in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(uri: str, data: bytes) -> None:
    """Put `data` at `uri`, whole or not at all."""
    with commit(uri) as file:
        file.write(data)


def remove_unfinished(folder: str, *, below: Sequence[str]) -> None:
    """Delete what a killed run left behind in `folder` itself, and anywhere in its folders `below`."""
    if not is_local(folder):
        place_at(folder).abort_uploads(below)
    if not is_local(folder) or not os.path.isdir(folder):
        return
    with storage_errors(folder):
        deep = [path for name in below for path in Path(folder, name).rglob(f"{TEMPORARY}*")]
        for path in [*Path(folder).glob(f"{TEMPORARY}*"), *deep]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def sha256_file(uri: str) -> str:
    """Hex digest of the file at `uri`, read in blocks."""
    with open_input(uri) as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def require_file(uri: str, *, named_by: str) -> None:
    """Stop with one line if nothing is at `uri`.

    Raises:
        SourceError: it names what asked for the file.
    """
    if not exists(uri):
        raise SourceError(f"{named_by}: {uri} does not exist; expected it there. Check the path in the recipe")
