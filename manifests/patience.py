"""Patience with a bucket: a fault that passes by itself is waited for, a refusal stops at once, in one wording."""

import time
from collections.abc import Callable
from typing import TypeVar

from manifests.errors import StorageError, UnreachableError
from manifests.transient import is_transient, unreachable

DELAYS_S: tuple[float, ...] = (1.0, 4.0, 15.0)  # before each further try; a bucket's client has tried several times

T = TypeVar("T")


def patiently(uri: str, call: Callable[[], T]) -> T:
    """What `call` returns; it is made again after a while where a fault passes by itself.

    Raises:
        FileNotFoundError, FileExistsError: as `call` raised them.
        UnreachableError: the fault did not pass.
        StorageError: the bucket refuses; nothing was tried again.
    """
    delays_s = iter(DELAYS_S)
    while True:
        try:
            return call()
        except (FileNotFoundError, FileExistsError):
            raise
        except unreachable() as error:
            said = " ".join(str(error).split()) or type(error).__name__
            if not is_transient(error):
                raise StorageError(f"{uri}: refused: {said}; {_cure(error)}") from error
            delay_s = next(delays_s, None)
            if delay_s is None:
                raise UnreachableError(
                    f"{uri}: out of reach, also after {sum(DELAYS_S):.0f} s of trying again: {said}; expected an "
                    "answer. Run the same command again once the bucket answers; finished parts are kept"
                ) from error
        time.sleep(delay_s)


def _cure(error: Exception) -> str:
    """What was expected of a bucket that refuses, and what to do."""
    if isinstance(error, OSError) and not isinstance(error, PermissionError):
        return "expected it to be there and to stay as it is. Look at what it says, then run the same command again"
    return (
        "expected the right to read, list, write and delete there. Check the credentials in the environment, and the "
        "bucket's policy"
    )
