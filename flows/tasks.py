"""An executor each of whose calls is one Prefect task run, so that the plain stages need not know of Prefect.

A part that fails on a passing fault of a disk, a bucket or a process is tried again after a while; every other failure
stops the flow at once, as it stops the plain command. No result is stored: files tell what a part finished.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from rich.progress import Progress

from flows.apart import run_apart
from flows.dask_cluster import versions
from flows.dask_executor import Call, dask_executor
from flows.places import LIMIT_S, Runner, open_places
from manifests import files
from manifests.stage import Step
from manifests.transient import is_transient

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.futures import PrefectFuture

DELAYS_S = (2.0, 10.0, 30.0)  # before each further try
HAND_ON_S = 60.0  # for a small record that is there; a thread that asks a closed Dask client would wait for ever

A = ParamSpec("A")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Work(Generic[T]):
    """A call that Prefect hands on without looking into its arguments; without `place` it runs where it lands."""

    call: Callable[[], T]
    label: str  # what the task run is called
    place: Runner | None = None

    def __call__(self) -> T:
        """What the call returns."""
        return self.call() if self.place is None else self.place(self.call)


def passes(error: object) -> bool:
    """Whether the same call may succeed a little later: a passing fault, or a process that was killed."""
    return isinstance(error, BrokenExecutor) or (isinstance(error, BaseException) and is_transient(error))


def _worth_retrying(_task: "Task[..., Any]", _run: "TaskRun", state: "State[Any]") -> bool:
    return passes(state.result(raise_on_failure=False))


@task(
    name="part",
    task_run_name="{work.label}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(DELAYS_S),
    retry_delay_seconds=list(DELAYS_S),
    retry_jitter_factor=0.5,
    retry_condition_fn=_worth_retrying,
)
def run_part(work: Work[T]) -> T:
    """One part of one stage."""
    return work()


def run_as_task(label: str, call: Callable[[Progress], T], progress: Progress, /) -> T:
    """What `call` returns, done in a process of its own and shown as one task run of the flow."""
    return run_part(Work(partial(run_apart, call, progress), label))


class TaskExecutor(Executor):
    """Every call that is submitted is a task run of the flow that submits it."""

    def __init__(self, runner: TaskRunner[Any], *, at_once: int, tag: str, place: Runner | None = None) -> None:
        self.at_once = at_once  # parts that a stage keeps in flight
        self._runner = runner
        self._place = place  # None: where the runner puts it, on a cluster
        self._versions = versions() if place is None else {}  # of a cluster's package, which few install
        self._task = run_part.with_options(tags=[tag], timeout_seconds=None if place else LIMIT_S)

    def submit(self, fn: Callable[A, T], /, *args: A.args, **kwargs: A.kwargs) -> Future[T]:
        """The future of `fn`, which fails as the last try of its task run failed."""
        call: Callable[[], T] = partial(fn, *args, **kwargs)
        if self._place is None:
            call = Call(call, fn.folder if isinstance(fn, Step) else "", self._versions)
        work = Work(call, _label(fn, *args), self._place)
        found: Future[T] = Future()
        running = self._runner.submit(self._task, {"work": work})
        running.add_done_callback(partial(_hand_on, found))
        return found


def _label(fn: object, *args: object) -> str:
    """What a part is called: its stage and its name; any other call by its function's name."""
    title = fn.title if isinstance(fn, Step) else getattr(fn, "__name__", "call")
    return " ".join([title, *[str(part.name) for part in args if hasattr(part, "name")]])


def _hand_on(found: Future[T], done: "PrefectFuture[T]") -> None:
    try:
        found.set_result(done.result(timeout=HAND_ON_S))
    except BaseException as error:  # it is raised again where the result is asked for
        found.set_exception(error)


@contextlib.contextmanager
def open_tasks(out: str, num_workers: int = 0, scheduler: str = "") -> Iterator[TaskExecutor]:
    """Task runs that write into `out`: in processes of this machine, or on a Dask cluster.

    Args:
        out: Where parts write; each is tagged by it, so that a limit can spare a disk or a bucket.
        num_workers: Processes of this machine; 0 takes one per core.
        scheduler: Address of the cluster's scheduler; empty for this machine.

    Raises:
        BuildError: the cluster cannot be used, or does not see `out`.
    """
    tag = "storage-disk" if files.is_local(out) else f"storage-{out.partition('://')[0]}"
    with _told_of_failures_alone():
        if scheduler:
            with dask_executor(scheduler) as cluster:
                cluster.require_sees(out)
            from prefect_dask.task_runners import DaskTaskRunner

            with DaskTaskRunner(address=scheduler) as dask:
                num_threads = sum(worker["nthreads"] for worker in dask.client.scheduler_info()["workers"].values())
                yield TaskExecutor(dask, at_once=max(2, 2 * num_threads), tag=tag)
            return
        num = num_workers or os.cpu_count() or 1
        # twice as many threads as places: while Prefect begins or ends a task in one, another's part runs
        threads: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=2 * num)
        with open_places(num) as place, threads as runner:
            yield TaskExecutor(runner, at_once=2 * num, tag=tag, place=place)


@contextlib.contextmanager
def _told_of_failures_alone() -> Iterator[None]:
    """Keep a line for every finished part out of the run's log; the UI lists task runs and their states anyway."""
    log = logging.getLogger("prefect.task_runs")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
