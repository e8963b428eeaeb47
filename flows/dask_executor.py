"""An executor whose calls run on a Dask cluster, so that the plain stages need not know of Dask.

A call whose worker dies runs again on another one; parts are idempotent, so that costs one part. Everything else that
can go wrong with a cluster ends in one sentence: no scheduler, no worker, other versions, a folder out of sight, a part
that hangs. Workers may come at any time, so each call looks at its own before it begins.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar
from uuid import uuid4

from flows.dask_cluster import (
    CONNECT_S,
    connect,
    differences,
    no_worker,
    other_versions,
    require_same_versions,
    require_workers,
    versions,
)
from manifests import files
from manifests.errors import BuildError
from manifests.stage import Step, ended

if TYPE_CHECKING:
    import distributed

LIMIT_S = 3600.0  # without the end of any part: a tar of SA-1B takes minutes
_LOGGERS = ("distributed", "distributed.client", "distributed.comm", "distributed.core", "tornado.application")

A = ParamSpec("A")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long is waited, in seconds, before a cluster is given up."""

    worker_s: float = 60.0  # for any worker
    answer_s: float = 60.0  # for the scheduler to say anything
    part_s: float = LIMIT_S  # for any part to end


@dataclass(frozen=True, slots=True, eq=False)
class Call(Generic[T]):
    """A call that runs only where it runs as it would here: with these versions, and where its folder is seen."""

    function: Callable[[], T]
    folder: str  # of the stage; empty: none
    versions: Mapping[str, str | None]

    def __call__(self) -> T:
        """What the function returns.

        Raises:
            BuildError: this worker is not fit for it.
        """
        if wrong := differences(self.versions, versions()):
            raise other_versions(f"the Dask worker at {_worker()}", wrong)
        if self.folder and files.is_local(self.folder) and not files.exists(self.folder):
            raise out_of_sight(self.folder, f"the Dask worker at {_worker()}")
        return self.function()


class DaskExecutor(Executor):
    """Every call that is submitted runs once on some worker, or more often if workers die."""

    def __init__(self, client: "distributed.Client", address: str, *, patience: Patience) -> None:
        self._client = client
        self._address = address
        self._patience = patience
        self._versions = versions()
        self._sent: dict[Future[Any], tuple[str, distributed.Future[Any]]] = {}  # with what each is called
        self._lock = threading.Lock()  # of `_sent`
        self._left = threading.Event()
        self._num_threads = 1
        self._ended_s = time.monotonic()  # when a call ended, or began to be waited for
        self._look()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def at_once(self) -> int:
        """Parts that a stage keeps in flight: two for each thread that the cluster has now."""
        return 2 * max(1, self._num_threads)

    def submit(self, fn: Callable[A, T], /, *args: A.args, **kwargs: A.kwargs) -> Future[T]:
        """The future of `fn`, which fails with what `fn` raised, or with a BuildError that names what broke."""
        from distributed.client import ClosedClientError

        if self._client.status != "running":
            raise self._gone()
        folder, title = (fn.folder, fn.title) if isinstance(fn, Step) else ("", "call")
        label = next((str(arg.name) for arg in args if hasattr(arg, "name")), "a call")
        call = Call(partial(fn, *args, **kwargs), folder, self._versions)
        try:
            sent = self._client.submit(call, pure=False, key=f"{title}-{uuid4().hex}")
        except ClosedClientError as error:  # since it was asked for its status
            raise self._gone() from error
        found: Future[T] = Future()
        with self._lock:
            if not self._sent:
                self._ended_s = time.monotonic()
            self._sent[found] = label, sent
        self._client.loop.add_callback(self._hand_on, found, label, sent)  # type: ignore[union-attr]
        return found

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was submitted, or take back what has not finished."""
        with self._lock:
            waiting = dict(self._sent)
        if cancel_futures:
            with contextlib.suppress(Exception):  # the scheduler may be gone, or go now
                self._client.cancel([sent for _, sent in waiting.values()], force=True)  # type: ignore[no-untyped-call]
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
            raise out_of_sight(folder, f"{len(blind)} of {len(found)} Dask workers, first {blind[0]}")

    async def _hand_on(self, found: Future[T], label: str, sent: "distributed.Future[T]") -> None:
        """Let `found` end as `sent` ends.

        It runs on the client's loop, whose end ends it; a thread that asked a closed client would wait for ever.
        """
        from distributed import KilledWorker

        try:
            result = await sent
        except KilledWorker as killed:
            self._fail(found, _died(self._address, label, killed))
        except (CancelledError, asyncio.CancelledError):  # nothing but a lost scheduler takes back what is asked for
            self._fail(found, self._gone())
        except BaseException as error:  # it is raised again where the result is asked for
            fetching = isinstance(error, OSError) and sent.status != "error"  # the call did not fail, its way here did
            self._fail(found, self._gone() if fetching else error)
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
            self._ended_s = time.monotonic()

    def _gone(self) -> BuildError:
        return BuildError(
            f"{self._address}: the connection to the Dask scheduler was lost; expected it to run until the end. "
            "Start it again and run the same command again to go on; finished parts are kept"
        )

    def _look(self) -> int | None:
        """How many workers there are; None if the scheduler does not say."""
        if self._client.status != "running":
            return None
        try:
            ask = self._client.scheduler.identity  # type: ignore[union-attr]
            info = self._client.sync(ask, n_workers=0, callback_timeout=self._patience.answer_s / 2)  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError, AttributeError, CancelledError):  # a TimeoutError is an OSError
            return None
        self._num_threads = int(info["total_threads"])
        return int(info["n_workers"])

    def _watch(self) -> None:
        """Give everything up once a cluster has been of no use for so long that it is not likely to be again."""
        patience = self._patience
        told_s = seen_s = time.monotonic()  # when the scheduler said something, and that there is a worker
        while not self._left.wait(min(1.0, min(patience.worker_s, patience.answer_s, patience.part_s) / 2)):
            num_workers, now_s = self._look(), time.monotonic()
            told_s = told_s if num_workers is None else now_s
            seen_s = seen_s if num_workers == 0 else now_s
            if now_s - told_s >= patience.answer_s:
                self._give_up(self._gone())
            elif now_s - seen_s >= patience.worker_s:
                self._give_up(no_worker(self._address, patience.worker_s))
            elif now_s - self._ended_s >= patience.part_s:
                self._give_up(self._hangs())

    def _give_up(self, error: BuildError) -> None:
        with self._lock:
            waiting = list(self._sent)
        for found in waiting:
            self._fail(found, error)

    def _hangs(self) -> BuildError:
        with self._lock:
            labels = sorted(label for label, _ in self._sent.values())
        return BuildError(
            f"{self._address}: no part has ended for {self._patience.part_s:g} s, and {len(labels)} are waited for, "
            f"first {next(iter(labels), 'none')}; expected minutes. Look at the workers' logs and at the disk that "
            "they read, restart the workers, and run the same command again to go on"
        )


def out_of_sight(folder: str, who: str) -> BuildError:
    """What to say where `who` does not see the folder."""
    return BuildError(
        f"{folder}: not seen by {who}; expected one folder for all. Choose an --out on a disk that all machines share, "
        "or in a bucket"
    )


def _worker() -> str:
    """The address of the worker that this runs on."""
    from distributed import get_worker

    address: str = get_worker().address
    return address


def _died(address: str, label: str, killed: "distributed.KilledWorker") -> BuildError:
    return BuildError(
        f"{address}: {label}: {killed.allowed_failures + 1} Dask workers died while they ran it, the last at "
        f"{killed.last_worker.address}; expected one to live. Look into its log (often memory: give workers more, or "
        "fewer threads), then run the same command again to go on"
    )


@contextlib.contextmanager
def dask_executor(address: str, *, patience: Patience | None = None) -> Iterator[DaskExecutor]:
    """An executor on the cluster whose scheduler is at `address`; what has not begun is taken back on leaving.

    Raises:
        BuildError: `distributed` is not installed, nothing answers at `address`, no worker comes, or versions differ.
    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise BuildError(
            f"{address}: needs the package distributed. In Absentia's folder: pip install -e '.[dask]'"
        ) from error
    patience = patience or Patience()
    with _quiet(), _closing(connect(address)) as client:
        require_workers(client, address, patience.worker_s)
        require_same_versions(client, address)
        with ended(DaskExecutor(client, address, patience=patience)) as executor:
            yield executor


@contextlib.contextmanager
def _closing(client: "distributed.Client") -> Iterator["distributed.Client"]:
    """The client, closed in the end; a scheduler that does not say goodbye is not waited for."""
    try:
        yield client
    finally:
        with contextlib.suppress(OSError):
            client.close(timeout=CONNECT_S)  # type: ignore[no-untyped-call]


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
