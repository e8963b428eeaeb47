"""A stage over parts: what is finished is skipped, the rest runs on any executor, and the user sees how long it takes.

A part has a name that holds the digest of all that decides its output. Its function writes files of that name into
the stage's folder and returns a small record; the record is written last, so a record says that the part is finished.
Files are the cache: nothing else remembers what was done.
"""

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, ParamSpec, Protocol, TypeVar, runtime_checkable

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from manifests import files
from manifests.errors import AbsentiaError
from manifests.transient import unreachable

_PACKAGES = ("manifests", "shards", "miners", "student", "flows")


class Part(Protocol):
    """The unit of work and of resuming."""

    @property
    def name(self) -> str:
        """A file name that holds the digest of everything that decides this part's output."""

    @property
    def weight(self) -> int:
        """How much work it is, in images or bytes; only its share of the total matters."""


P = TypeVar("P", bound=Part)
R = TypeVar("R", bound=msgspec.Struct)
T = TypeVar("T")
A = ParamSpec("A")
E = TypeVar("E", bound=Executor)


@runtime_checkable
class Wide(Protocol):
    """An executor that says how many parts it wants in flight, as one on many machines must."""

    @property
    def at_once(self) -> int:
        """Parts that are submitted and not finished; 1 or more."""


class Inline(Executor):
    """Runs each task at once, in this process."""

    at_once = 1

    def submit(self, fn: Callable[A, T], /, *args: A.args, **kwargs: A.kwargs) -> Future[T]:
        """A finished future of `fn`."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Processes(ProcessPoolExecutor):
    """Fresh processes that leave the keyboard to this one, and end when it ends, however it ends."""

    def __init__(self, num_workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        super().__init__(num_workers, mp_context=context, initializer=end_with_parent)

    def submit(self, fn: Callable[A, T], /, *args: A.args, **kwargs: A.kwargs) -> Future[T]:
        """The future of `fn`; a process that this starts inherits that SIGINT is blocked."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def kill(self) -> None:
        """End its processes now, whatever they are at."""
        for process in list((self._processes or {}).values()):
            process.kill()
        self.shutdown(wait=False, cancel_futures=True)


def end_with_parent() -> None:
    """Let this process end as soon as its parent is gone; else it would wait for work for ever."""
    threading.Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def local_executor(num_workers: int) -> Iterator[Executor]:
    """An executor of `num_workers` fresh processes, or this one for 1."""
    if num_workers <= 1:
        yield Inline()
        return
    with ended(Processes(num_workers)) as executor:
        yield executor


@contextlib.contextmanager
def ended(executor: E) -> Iterator[E]:
    """The executor, which is waited for; where the block raises, what has not begun is taken back."""
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


@contextlib.contextmanager
def progress_bar(*, quiet: bool = False, by_hand: bool = False) -> Iterator[Progress]:
    """A bar with ETA on stderr, or none where `quiet` is asked.

    `by_hand`: it is drawn where `refresh` is called, and by no thread beside what is timed.
    """
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet, auto_refresh=not by_hand) as progress:
        yield progress


def _record_uri(folder: str, name: str) -> str:
    return files.join(folder, f"{name}.json")


@dataclass(frozen=True, slots=True)
class Step(Generic[P, R]):
    """What a stage does to each of its parts; an executor may show the title."""

    title: str
    function: Callable[[P], R]
    folder: str

    def __call__(self, part: P) -> R:
        """The record of the part, which is finished."""
        record = self.function(part)
        files.write_bytes(_record_uri(self.folder, part.name), msgspec.json.encode(record))
        return record


def read_record(folder: str, name: str, record_type: type[R]) -> R | None:
    """The record of the part `name`; None where it is not finished, or the record is damaged."""
    try:
        return msgspec.json.decode(files.read_bytes(_record_uri(folder, name)), type=record_type)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _at_once(executor: Executor) -> int:
    """How many parts to keep in flight; asked anew whenever parts end, because a cluster may grow."""
    return executor.at_once if isinstance(executor, Wide) else 4 * (os.cpu_count() or 1)


def run_stage(
    title: str,
    parts: Sequence[P],
    function: Callable[[P], R],
    record_type: type[R],
    *,
    folder: str,
    executor: Executor,
    progress: Progress,
) -> list[R]:
    """The record of every part, in the order of `parts`; parts whose record lies in `folder` are not run again.

    Raises:
        AbsentiaError: the first that a part raised; the other running parts are finished, so that a rerun keeps them.
    """
    files.make_folder(folder)
    records: dict[int, R] = {}
    for index, part in enumerate(parts):
        if (found := read_record(folder, part.name, record_type)) is not None:
            records[index] = found
    bar = progress.add_task(title, total=sum(part.weight for part in parts))
    progress.advance(bar, sum(parts[i].weight for i in records))
    todo = iter([i for i in range(len(parts)) if i not in records])
    running: dict[Future[R], int] = {}
    run = Step(title, function, folder)
    while True:
        at_once = _at_once(executor)
        for index in todo:
            running[executor.submit(run, parts[index])] = index
            if len(running) >= at_once:
                break
        if not running:
            break
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            index = running.pop(future)
            records[index] = future.result()
            progress.advance(bar, parts[index].weight)
    return [records[i] for i in range(len(parts))]


def run_command(main: Callable[[], int]) -> int:
    """The exit code of a command: 1 and one `error:` line on stderr for the user's mistakes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a phrase that the terminal cannot show is no failure
    try:
        return main()
    except AbsentiaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("error: stopped by the keyboard; run the same command again to go on\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except unreachable() as error:
        said = " ".join(str(error).split())
        sys.stderr.write(f"error: {said}; {_cure(error)}\n")
        return 1


def _cure(error: Exception) -> str:
    """What to do about a place that could not be read or, where `error` says that there is no room, written."""
    read = "check that the place is right, can be reached, and that you may read it"
    return files.FULL.get(error.errno or 0, read) if isinstance(error, OSError) else read


class _Stderr(logging.Handler):
    """Writes to what stderr is by then: a live bar puts itself in its place, and writes lines above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:
            self.handleError(record)


def log_to_stderr() -> None:
    """Send the log of a command to stderr, so that stdout carries its result alone; of libraries, warnings only."""
    logging.basicConfig(handlers=[_Stderr()], level=logging.WARNING, format="%(message)s")
    for package in _PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
