"""A call in a fresh process of its own, whose progress is seen here: for work that forks readers and hears signals.

A flow runs among threads of Prefect, and a process that is forked among threads may hang or die. So training begins
in a fresh process; where this one is stopped, that one is asked to end and gets the time to save.
"""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

from rich.progress import Progress, TaskID

from manifests.errors import AbsentiaError, BuildError
from manifests.stage import end_with_parent, log_to_stderr

GRACE_S = 20.0  # a trainer writes its checkpoint after the step at hand

T = TypeVar("T")


def run_apart(call: Callable[[Progress], T], progress: Progress) -> T:
    """What `call` returns, which is given a progress whose bars are drawn on `progress`.

    Raises:
        AbsentiaError: what `call` raised.
        BuildError: its process was killed.
        RuntimeError: anything else was raised there; the text is its traceback.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, call))
    process.start()
    there.close()
    try:
        return cast(T, _result(here, progress))
    except EOFError:
        process.join()
        raise BuildError(
            f"the process that worked was ended by signal {-(process.exitcode or 0)}; expected it to finish. Often "
            "that is for memory: look at the system's log. Do the same again, and it goes on"
        ) from None
    finally:
        _end(process)


def _result(here: Connection, progress: Progress) -> object:
    """What the call returned, told of by its last message."""
    bars: dict[TaskID, TaskID] = {}
    while True:
        what, task, given = here.recv()
        match what:
            case "add":
                bars[task] = progress.add_task(**given)
            case "update":
                progress.update(bars[task], **given)
            case "returned":
                return given
            case "raised":
                raise given
            case "broke":
                raise RuntimeError(given)


def _end(process: BaseProcess) -> None:
    if process.is_alive():
        process.join(1.0)  # it has said its last word, and ends by itself
    if process.is_alive():
        process.terminate()
        process.join(GRACE_S)
    if process.is_alive():
        process.kill()
        process.join()


class Relay(Progress):
    """Shows nothing here, and tells another process of every bar."""

    def __init__(self, there: Connection) -> None:
        super().__init__(disable=True)
        self._there = there

    def add_task(self, description: str, *args: Any, **kwargs: Any) -> TaskID:  # noqa: ANN401  (rich's own)
        """A further bar."""
        added = super().add_task(description, *args, **kwargs)
        shown = self._tasks[added]
        given = {"description": description, "total": shown.total, "completed": shown.completed}
        self._there.send(("add", added, given))
        return added

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """So much further."""
        self.update(task_id, advance=advance)

    def update(self, task_id: TaskID, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  (rich's own)
        """What rich's `update` does, told on."""
        super().update(task_id, *args, **kwargs)
        self._there.send(("update", task_id, kwargs))


def _work(there: Connection, call: Callable[[Progress], object]) -> None:
    """The other process."""
    end_with_parent()
    log_to_stderr()
    try:
        there.send(("returned", TaskID(0), call(Relay(there))))
    except AbsentiaError as error:
        there.send(("raised", TaskID(0), error))
    except Exception:
        there.send(("broke", TaskID(0), traceback.format_exc()))
