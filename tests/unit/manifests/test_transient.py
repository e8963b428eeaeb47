"""Faults that pass and faults that do not, told from the real exceptions of disks, networks and buckets' clients."""

import errno
import pickle
import socket
import ssl
from concurrent.futures import Future

import aiohttp
import botocore.exceptions as boto
import pytest
from s3fs.errors import translate_boto_error
from s3fs.utils import FileExpired

from manifests.errors import BuildError, RecipeError, StorageError, TableError, UnreachableError
from manifests.transient import is_transient, unreachable


def answered(status: int, code: str) -> boto.ClientError:
    """What botocore raises for an answer of S3."""
    told = {"Error": {"Code": code, "Message": "as S3 says"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(told, "GetObject")


def caused(error: Exception, cause: Exception) -> Exception:
    """`error` as it is raised from `cause`."""
    try:
        raise error from cause
    except type(error) as found:
        return found


def while_handling(error: Exception, earlier: Exception, *, hidden: bool) -> Exception:
    """`error` as it is raised where `earlier` was caught; `hidden`: from None."""
    try:
        try:
            raise earlier
        except type(earlier):
            if hidden:
                raise error from None
            raise error  # noqa: B904  (this is the case)
    except type(error) as found:
        return found


PASSING = [
    answered(503, "SlowDown"),
    answered(503, "ServiceUnavailable"),
    answered(500, "InternalError"),
    answered(429, "TooManyRequests"),
    translate_boto_error(answered(503, "503")),  # of a HEAD request, which has no body
    translate_boto_error(answered(502, "502")),  # s3fs knows no such code
    translate_boto_error(answered(500, "InternalError")),
    boto.EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
    boto.ReadTimeoutError(endpoint_url="http://127.0.0.1:1"),
    boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    boto.FlexibleChecksumError(error_msg="Expected checksum a did not match calculated checksum: b"),
    caused(aiohttp.ClientPayloadError("not completed"), aiohttp.http_exceptions.ContentLengthError("2 of 5 bytes")),
    aiohttp.ServerDisconnectedError(),
    ConnectionResetError(errno.ECONNRESET, "reset by peer"),
    BrokenPipeError(errno.EPIPE, "broken pipe"),
    TimeoutError(),
    TimeoutError(errno.ETIMEDOUT, "timed out"),
    OSError(errno.EIO, "an I/O error"),
    OSError(errno.ESTALE, "stale file handle"),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    caused(StorageError("cannot be read"), OSError(errno.EIO, "an I/O error")),
    caused(BuildError("a part failed"), caused(StorageError("cannot be read"), answered(503, "SlowDown"))),
    while_handling(BuildError("a part failed"), OSError(errno.EIO, "an I/O error"), hidden=False),
    UnreachableError("out of reach"),
]
LASTING = [
    answered(403, "AccessDenied"),
    answered(400, "InvalidRequest"),
    answered(404, "NoSuchBucket"),
    translate_boto_error(answered(403, "403")),
    translate_boto_error(answered(403, "SignatureDoesNotMatch")),
    translate_boto_error(answered(404, "NoSuchKey")),
    translate_boto_error(answered(412, "PreconditionFailed")),
    translate_boto_error(answered(400, "UnknownToUs")),  # s3fs makes EIO of it, which passes on a disk
    boto.NoCredentialsError(),
    boto.ProfileNotFound(profile="none"),
    FileExpired("bucket/a", "etag"),
    PermissionError(errno.EACCES, "permission denied"),
    PermissionError("Access Denied"),
    FileNotFoundError(errno.ENOENT, "no such file"),
    OSError(errno.ENOSPC, "no space left"),
    OSError(errno.EROFS, "read-only"),
    ssl.SSLCertVerificationError(1, "certificate verify failed"),
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    RecipeError("no such key"),
    ValueError("not a number"),
    KeyError("a bug"),
    caused(TableError("cannot be read"), ValueError("no Parquet")),
    caused(ValueError("a bug"), OSError(errno.EIO, "an I/O error")),
    caused(StorageError("refused"), translate_boto_error(answered(403, "AccessDenied"))),
    while_handling(BuildError("a mistake"), OSError(errno.EIO, "an I/O error"), hidden=True),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes_by_itself_is_tried_again(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_is_refused_or_mistaken_is_not(error: Exception) -> None:
    assert not is_transient(error)


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = StorageError("a"), StorageError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_transient(first)


def test_what_passes_is_still_known_after_its_way_from_another_process() -> None:
    told = pickle.loads(pickle.dumps(caused(UnreachableError("out of reach"), answered(503, "SlowDown"))))  # noqa: S301
    told.__cause__ = None  # as plain pickle leaves it; a process that knows Dask has tblib keep it
    assert is_transient(told)
    sent: Future[None] = Future()
    sent.set_exception(told)
    assert is_transient(sent.exception() or ValueError())


def test_every_fault_of_a_clients_own_is_known_as_one_of_a_place_out_of_reach() -> None:
    for error in [boto.NoCredentialsError(), aiohttp.ServerDisconnectedError(), OSError(errno.EIO, "an I/O error")]:
        assert isinstance(error, unreachable())
    assert not isinstance(StorageError("said already"), unreachable())
