"""Which failures pass by themselves: a disk or a bucket that was out of reach, not one that refuses."""

import errno
import socket
import sys
from collections.abc import Iterator

from manifests.errors import AbsentiaError, UnreachableError

_ERRNOS = frozenset(
    {
        errno.EIO,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.ESTALE,
        errno.EREMOTEIO,
        socket.EAI_AGAIN,  # of a name that could not be resolved for now
    }
)
_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_NAMES = frozenset(  # of the clients of buckets, which need not be installed
    {
        "ConnectionError",
        "EndpointConnectionError",
        "ConnectionClosedError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "FlexibleChecksumError",
        "IncompleteReadError",
        "ResponseStreamingError",
        "HTTPClientError",
        "ClientConnectionError",
        "ClientOSError",
        "ServerDisconnectedError",
        "ClientPayloadError",
    }
)
_REFUSALS = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError)
_FINAL = frozenset({"FileExpired"})  # s3fs: the object was replaced while it was read


def unreachable() -> tuple[type[Exception], ...]:
    """What is raised where a place cannot be read: `OSError`, and what the clients of buckets in use raise besides."""
    bases = (
        ("botocore.exceptions", "BotoCoreError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("aiohttp.client_exceptions", "ClientError"),
    )
    return (OSError, *(getattr(sys.modules[module], name) for module, name in bases if module in sys.modules))


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later: an I/O error that passes, anywhere in the chain of causes.

    A refusal (no permission, no such file, a full disk) and a mistake of the user are none; the first error of the
    chain that is clearly the one or the other decides. What a bucket's client makes of an answer is less clear than the
    answer's own status, which stands in the cause.
    """
    return next((passes for found in _chain(error) if (passes := _passes(found)) is not None), False)


def _passes(error: BaseException) -> bool | None:
    """Whether this one error of a chain passes by itself; None where another one has to tell."""
    if isinstance(error, UnreachableError) or type(error).__name__ in _NAMES:
        return True
    if isinstance(error, _REFUSALS) or type(error).__name__ in _FINAL:
        return False
    status = _status(error) or (_status(error.__cause__) if error.__cause__ is not None else None)
    if status is not None:
        return status in _STATUSES
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _ERRNOS
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return None if isinstance(error, AbsentiaError | OSError) else False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and so on."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _status(error: BaseException) -> int | None:
    """The HTTP status that a bucket's client tells in its error, of botocore or of Google."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        metadata = response.get("ResponseMetadata", {})
        status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    else:
        status = next((getattr(error, name) for name in ("status", "code") if hasattr(error, name)), None)
    return status if isinstance(status, int) else None
