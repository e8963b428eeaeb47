"""One run at a time in a folder: the second is refused by name, and a killed one leaves nothing locked."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

from manifests import files
from manifests.errors import BuildError
from shards.lease import leased

_held: set[str] = set()  # by this process, whose own second lock the kernel would grant, and then drop both


@contextlib.contextmanager
def locked(folder: str, what: str) -> Iterator[None]:
    """Keep others that do `what` out of a local folder while this one does it.

    The lock belongs to this process alone: reading processes that it forked and that outlive it for a moment hold none.

    Raises:
        BuildError: another one is at work there.
        StorageError: the folder cannot be written.
    """
    path = os.path.realpath(os.path.join(folder, ".lock"))
    refused = BuildError(f"{folder}: another {what} is running in this folder; wait for it, or choose another")
    if path in _held:
        raise refused
    with contextlib.ExitStack() as stack:
        with files.storage_errors(folder):
            lock = stack.enter_context(open(path, "wb"))
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise refused from error
        _held.add(path)
        stack.callback(_held.discard, path)
        yield


@contextlib.contextmanager
def locked_build(work: str) -> Iterator[Callable[[], None]]:
    """Keep builds and scans out of a build's folder `work`, here or in a bucket; gives what raises once that failed.

    Raises:
        BuildError: another one is at work there.
        StorageError: the folder cannot be written, or the bucket refuses.
    """
    if not files.is_local(work):
        with leased(work) as require_held:
            yield require_held
        return
    with locked(work, "build"):
        yield lambda: None  # the kernel lets nobody in
