"""Which failures pass by themselves: a disk or a bucket that was out of reach, not one that refuses."""

import errno
from collections.abc import Iterator

from manifests.errors import AbsentiaError

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
        "IncompleteReadError",
        "ResponseStreamingError",
        "HTTPClientError",
        "ClientConnectionError",
        "ClientOSError",
        "ServerDisconnectedError",
        "ClientPayloadError",
    }
)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later: an I/O error that passes, anywhere in the chain of causes.

    A refusal (no permission, no such file, a full disk) and a mistake of the user are none; the first error of the
    chain that is clearly the one or the other decides.
    """
    for found in _chain(error):
        if isinstance(found, PermissionError | FileNotFoundError | FileExistsError | IsADirectoryError):
            return False
        status = _status(found)
        if status is not None:
            return status in _STATUSES
        if isinstance(found, OSError) and found.errno is not None:
            return found.errno in _ERRNOS
        if isinstance(found, ConnectionError | TimeoutError) or type(found).__name__ in _NAMES:
            return True
        if not isinstance(found, AbsentiaError | OSError):
            return False
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and so on."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that a bucket's client tells in its error, of botocore or of Google."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        metadata = response.get("ResponseMetadata", {})
        status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    else:
        status = getattr(error, "code", None)
    return status if isinstance(status, int) else None
