"""An executor whose calls run on a Dask cluster, so that the plain stages need not know of Dask.

A call whose worker dies runs again on another one; parts are idempotent, so that costs one part. Everything else that
can go wrong with a cluster ends in one sentence: no scheduler, no worker, other versions, a folder out of sight.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from concurrent.futures import wait as wait_for
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from flows.dask_cluster import connect, no_worker, require_same_versions, require_workers
from manifests import files
from manifests.errors import BuildError

if TYPE_CHECKING:
    import distributed

PATIENCE_S = 60.0  # without any worker
_LOGGERS = ("distributed", "distributed.client", "distributed.comm", "distributed.core", "tornado.application")

A = ParamSpec("A")
T = TypeVar("T")


class DaskExecutor(Executor):
    """Every call that is submitted runs once on some worker, or more often if workers die."""

    def __init__(self, client: "distributed.Client", address: str, *, patience_s: float = PATIENCE_S) -> None:
        self._client = client
        self._address = address
        self._patience_s = patience_s
        self._sent: dict[Future[Any], distributed.Future[Any]] = {}
        self._lock = threading.Lock()  # of `_sent`
        self._left = threading.Event()
        self._num_threads = 1
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def at_once(self) -> int:
        """Parts that a stage keeps in flight: two for each thread that the cluster has now."""
        self._look()
        return 2 * max(1, self._num_threads)

    def submit(self, fn: Callable[A, T], /, *args: A.args, **kwargs: A.kwargs) -> Future[T]:
        """The future of `fn`, which fails with what `fn` raised, or with a BuildError that names what broke."""
        if self._client.status != "running":
            raise self._gone()
        sent = self._client.submit(fn, *args, **kwargs, pure=False)
        found: Future[T] = Future()
        with self._lock:
            self._sent[found] = sent
        label = next((str(arg.name) for arg in args if hasattr(arg, "name")), "a call")
        sent.add_done_callback(partial(self._hand_on, found, label))  # type: ignore[no-untyped-call]
        return found

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was submitted, or take back what has not finished."""
        with self._lock:
            waiting = dict(self._sent)
        if cancel_futures:
            with contextlib.suppress(OSError, RuntimeError, CancelledError):  # the scheduler may be gone
                self._client.cancel(list(waiting.values()), force=True)  # type: ignore[no-untyped-call]
        elif wait:
            wait_for(waiting)
        self._left.set()

    def require_sees(self, folder: str) -> None:
        """Stop unless every worker sees what is written into `folder`, which a cluster without a shared disk does not.

        Raises:
            BuildError: naming the workers, and what to do.
        """
        probe = files.join(folder, f"{files.TEMPORARY}{self._client.id}")
        files.write_bytes(probe, b"")
        try:
            found = self._client.run(files.exists, probe, on_error="return")
        except OSError as error:
            raise self._gone() from error
        finally:
            files.remove(probe)
        blind = sorted(worker for worker, sees in found.items() if sees is not True)
        if blind:
            raise BuildError(
                f"{folder}: not seen by {len(blind)} of {len(found)} Dask workers, first {blind[0]}; expected one "
                "folder for all. Choose an --out on a disk that all machines share, or in a bucket"
            )

    def _hand_on(self, found: Future[T], label: str, done: "distributed.Future[T]") -> None:
        """Let `found` end as `done` ended."""
        from distributed import KilledWorker

        try:
            result = done.result()
        except KilledWorker as killed:
            self._fail(found, _died(self._address, label, killed))
        except CancelledError:  # nobody but the scheduler's end takes back what is asked for
            self._fail(found, self._gone())
        except BaseException as error:  # it is raised again where the result is asked for
            self._fail(found, error)
        else:
            with contextlib.suppress(InvalidStateError):  # given up before
                found.set_result(result)
            self._forget(found)

    def _fail(self, found: Future[Any], error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            found.set_exception(error)
        self._forget(found)

    def _forget(self, found: Future[Any]) -> None:
        with self._lock:
            self._sent.pop(found, None)

    def _gone(self) -> BuildError:
        return BuildError(
            f"{self._address}: the connection to the Dask scheduler was lost; expected it to run until the end. "
            "Start it again and run the same command again to go on; finished parts are kept"
        )

    def _look(self) -> int:
        """How many workers there are, as far as can be told."""
        if self._client.status == "running":
            with contextlib.suppress(OSError, RuntimeError, CancelledError):
                info = self._client.scheduler_info(n_workers=0)
                self._num_threads = int(info["total_threads"])
                return int(info["n_workers"])
        return 1

    def _watch(self) -> None:
        """Give everything up once there has been no worker for so long that none is likely to come."""
        step_s = min(1.0, self._patience_s / 2)
        without_s = 0.0
        while not self._left.wait(step_s):
            without_s = 0.0 if self._look() else without_s + step_s
            if without_s >= self._patience_s:
                without_s = 0.0
                with self._lock:
                    waiting = list(self._sent)
                for found in waiting:
                    self._fail(found, no_worker(self._address, self._patience_s))


def _died(address: str, label: str, killed: "distributed.KilledWorker") -> BuildError:
    return BuildError(
        f"{address}: {label}: {killed.allowed_failures + 1} Dask workers died while they ran it, the last at "
        f"{killed.last_worker.address}; expected one to live. Look into its log (often memory: give workers more, or "
        "fewer threads), then run the same command again to go on"
    )


@contextlib.contextmanager
def dask_executor(address: str, *, patience_s: float = PATIENCE_S) -> Iterator[DaskExecutor]:
    """An executor on the cluster whose scheduler is at `address`; what has not begun is taken back on leaving.

    Raises:
        BuildError: `distributed` is not installed, nothing answers at `address`, no worker comes, or versions differ.
    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise BuildError(f"{address}: needs the package distributed. Install it: pip install absentia[dask]") from error
    with _quiet(), contextlib.closing(connect(address)) as client:
        require_workers(client, address, patience_s)
        require_same_versions(client, address)
        executor = DaskExecutor(client, address, patience_s=patience_s)
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        executor.shutdown()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own log from stderr: what matters in it is raised."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
