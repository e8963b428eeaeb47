"""Dies at one call of `os.replace` or `os.fsync`, counted from the start: the fault points of a build.

Each run is a forked child of the test, so that nothing is imported twice and the dead process is a real one.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

DIED = 9
Moment = Literal["before", "after"]


@dataclass(slots=True, kw_only=True)
class FaultPoints:
    """Counts the calls, dies at one of them, and notes what each call was for."""

    fatal: int | None = None  # number of the call, from 1
    moment: Moment = "before"
    calls: list[tuple[str, str]] = field(default_factory=list)  # function, and the file or folder that it was for

    def install(self) -> None:
        """Put this in the place of `os.replace` and `os.fsync`."""
        replace, fsync = os.replace, os.fsync

        def counted_replace(src: str, dst: str) -> None:
            self._count("replace", f"{src} -> {dst}", lambda: replace(src, dst))

        def counted_fsync(descriptor: int) -> None:
            kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
            place = os.readlink(f"/proc/self/fd/{descriptor}")
            self._count(f"fsync {kind}", place, lambda: fsync(descriptor))

        os.replace = counted_replace  # type: ignore[assignment]
        os.fsync = counted_fsync  # type: ignore[assignment]

    def _count(self, function: str, place: str, call: Callable[[], None]) -> None:
        self.calls.append((function, place))
        fatal = len(self.calls) == self.fatal
        if fatal and self.moment == "before":
            os._exit(DIED)
        call()
        if fatal:
            os._exit(DIED)


def run_forked(work: Callable[[], None], points: FaultPoints | None = None, log: Path | None = None) -> int:
    """Exit status of a child that did `work`: 0, DIED at the fault point, or 1 with its traceback on stderr.

    The calls are written to `log`, a line each, where the child lived to its end.
    """
    child = os.fork()
    if child == 0:
        try:
            if points is not None:
                points.install()
            work()
            if points is not None and log is not None:
                log.write_text("".join(f"{function}\t{place}\n" for function, place in points.calls))
        except BaseException:
            import traceback  # noqa: PLC0415

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
