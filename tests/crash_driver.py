"""Kills a build at every call of `os.replace` and `os.fsync`, each time in a forked child, and resumes it.

`python -m tests.crash_driver RECIPE FOLDER` prints a JSON report. It is a process of its own, so that it forks before
any thread runs. Nothing is really synced: a killed process loses nothing that it wrote, and this way it is quick. What
a build imports on its way is imported before the others fork: that is two thirds of the time of so small a build.
"""

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import shutil
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.worlds import build_bytes, build_world

DIED = 9
Moment = Literal["before", "after"]


@dataclass(slots=True, kw_only=True)
class FaultPoints:
    """Counts the calls, dies at one of them, and notes what each was for."""

    fatal: int = 0  # number of the call, from 1
    moment: Moment = "before"
    calls: list[str] = field(default_factory=list)  # function, a tab, and the path that it was for

    def install(self) -> None:
        """Put this in the place of `os.replace` and `os.fsync`."""
        replace = os.replace

        def counted_replace(src: str, dst: str) -> None:
            self._count(f"replace\t{src}\t{dst}", lambda: replace(src, dst))

        def counted_fsync(descriptor: int) -> None:
            kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
            self._count(f"fsync {kind}\t{os.readlink(f'/proc/self/fd/{descriptor}')}", lambda: None)

        os.replace = counted_replace  # type: ignore[assignment]
        os.fsync = counted_fsync  # type: ignore[assignment]

    def _count(self, what: str, call: Callable[[], None]) -> None:
        self.calls.append(what)
        is_fatal = len(self.calls) == self.fatal
        if is_fatal and self.moment == "before":
            os._exit(DIED)
        call()
        if is_fatal:
            os._exit(DIED)


def build_forked(recipe: Path, out: Path, points: FaultPoints, log: Path | None = None) -> int:
    """Exit status of a child that builds: 0, DIED at the fault point, or 1 with its traceback on stderr.

    A child that lives writes its calls and what it has imported to `log`, as JSON.
    """
    child = os.fork()
    if child == 0:
        try:
            points.install()
            build_world(recipe, out)
            if log is not None:
                log.write_text(json.dumps({"calls": points.calls, "modules": sorted(sys.modules)}))
        except BaseException:  # a child must never return into its parent's code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def leftovers(out: Path) -> list[str]:
    """Unfinished files below `out`."""
    return sorted(str(path.relative_to(out)) for path in out.rglob(".part-*"))


def faults_at(recipe: Path, folder: Path, number: int, moment: Moment, expected: dict[str, bytes]) -> list[str]:
    """What is wrong after a death at one point and a second run."""
    out = folder / f"{moment}-{number}"
    status = build_forked(recipe, out, FaultPoints(fatal=number, moment=moment))
    left = {name: data for name, data in build_bytes(out).items() if ".part-" not in name}
    faults = [f"died with {status}"] if status != DIED else []
    faults += [f"{name} stood there in part" for name, data in left.items() if data != expected.get(name)]
    if "manifest.json" in left and left.keys() != expected.keys():
        faults.append(f"a manifest without {sorted(expected.keys() - left.keys())}")
    status = build_forked(recipe, out, FaultPoints())
    found = build_bytes(out)
    faults += [f"the second run ended with {status}"] if status else []
    faults += [f"{name} differs" for name in sorted(found.keys() | expected) if found.get(name) != expected.get(name)]
    faults += [f"{name} was left" for name in leftovers(out)]
    shutil.rmtree(out)
    return faults


def main(recipe: Path, folder: Path) -> None:
    """Print the report: the calls of an undisturbed build, and the faults by point."""
    log = folder / "calls"
    status = build_forked(recipe, folder / "undisturbed", FaultPoints(), log)
    undisturbed = json.loads(log.read_text()) if status == 0 else {"calls": [], "modules": []}
    calls = undisturbed["calls"]
    import_all(undisturbed["modules"])
    expected = build_bytes(folder / "undisturbed")
    gc.freeze()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        found = {
            f"{moment} call {number} ({calls[number - 1]})": pool.submit(
                faults_at, recipe, folder, number, moment, expected
            )
            for number, moment in fault_points(calls)
        }
        faults = {point: future.result() for point, future in found.items()}
    sys.stdout.write(json.dumps({"calls": calls, "faults": faults}))


def import_all(names: Sequence[str]) -> None:
    """Import what can be imported by its name."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(ImportError):  # Cython's own modules, for one
                importlib.import_module(name)


def fault_points(calls: Sequence[str]) -> Iterator[tuple[int, Moment]]:
    """The points at which the disk looks different: around each rename, and at each sync that no rename follows."""
    for number, call in enumerate(calls, start=1):
        follows = calls[number] if number < len(calls) else ""
        if call.startswith("replace"):
            yield number, "before"
            yield number, "after"
        elif call.startswith("fsync file") and not follows.startswith("replace"):
            yield number, "before"
    yield len(calls), "after"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
