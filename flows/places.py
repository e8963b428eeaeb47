"""Processes in which parts run, one part each, so that a process that is killed costs one part and no other."""

import contextlib
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, wait
from typing import Protocol, TypeVar

from manifests.errors import BuildError
from manifests.stage import Processes

LIMIT_S = 3600.0  # of one part: a tar of SA-1B takes minutes

T = TypeVar("T")


class Runner(Protocol):
    """Runs a call somewhere and waits for what it returns."""

    def __call__(self, call: Callable[[], T]) -> T:
        """What `call` returns."""


@contextlib.contextmanager
def open_places(num: int, *, limit_s: float = LIMIT_S) -> Iterator[Runner]:
    """Runs calls in `num` processes; a caller waits for a free one.

    A call raises what it raised; besides, `BrokenExecutor` if its process died, and `BuildError` after `limit_s`.
    Where the body is left by a signal, the processes are ended at once.
    """
    free: queue.SimpleQueue[Processes] = queue.SimpleQueue()
    places = [Processes(1) for _ in range(num)]
    for place in places:
        free.put(place)

    def run(call: Callable[[], T]) -> T:
        place = free.get()
        try:
            future = place.submit(call)  # raises, too, if the process died while nothing was asked of it
            if wait([future], timeout=limit_s).done:
                return future.result()
        except BrokenExecutor:
            place = _another(places, place)
            raise
        else:
            place = _another(places, place)
        finally:
            free.put(place)
        raise BuildError(
            f"a part ran for more than {limit_s:.0f} s; expected minutes. Look at its input, or at its disk"
        )

    try:
        yield run
    except BaseException as error:
        if not isinstance(error, Exception):
            for place in places:
                place.kill()
        raise
    finally:
        for place in places:
            place.shutdown(wait=False, cancel_futures=True)


def _another(places: list[Processes], broken: Processes) -> Processes:
    broken.kill()
    places.append(Processes(1))
    return places[-1]
