"""Dask: a CPU-bound stage on a real cluster of two workers beside one of one, and beside processes of this machine.

    python benchmarks/dask_scaling.py [--gigabytes 0.5] [--rounds 3] [--json FILE]

The stage is the scan with `verify = "decode"`: every picture decoded whole and hashed, its labels set down. Clusters
are up and have scanned once before anything is timed; each run scans into an empty folder. Workers are processes of
this machine with one thread each, so at most as many as it has cores can help.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
from concurrent.futures import Executor
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sa1b_like import HEIGHT, RECIPE, WIDTH, write_world
from benchmarks.timing import Claim, Figures, Way, add_options, alternate, machine, median_ratio, report
from flows.dask_executor import dask_executor
from manifests.recipe_file import load_recipe
from manifests.stage import Inline, local_executor, progress_bar
from shards.scanning import prepare_sources, scan_sources
from shards.sources.registry import open_sources
from tests.dask_service import dask_cluster

ONE, TWO = "Dask, one worker", "Dask, two workers"
HERE_ONE, HERE_TWO = "this process", "two processes"
BOUND = 1.6
_TAR_BYTES = 16_000_000  # so that there are enough parts for two


class Scan:
    """The stage, over one world."""

    def __init__(self, recipe: Path, work: Path) -> None:
        self._sources = open_sources(load_recipe(str(recipe)))
        self._work = work
        self._prepared = prepare_sources(self._sources, str(work))
        self.num_parts = sum(len(holds.parts) for holds in self._prepared.values())

    def way(self, name: str, executor: Executor) -> Way:
        """The scan on `executor`, into an empty folder."""
        return Way(name, lambda: self._run(executor), self._clear)

    def _run(self, executor: Executor) -> None:
        with progress_bar(quiet=True) as progress:
            scan_sources(
                self._sources,
                self._prepared,
                work=str(self._work),
                verify="decode",
                executor=executor,
                progress=progress,
            )

    def _clear(self) -> None:
        shutil.rmtree(self._work / "catalog", ignore_errors=True)


def measure(gigabytes: float, rounds: int) -> Figures:
    """The figures of one run."""
    conditions = machine("distributed")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        num_pictures = write_world(folder / "world", round(gigabytes * 1e9), tar_bytes=_TAR_BYTES)
        scan = Scan(folder / "world" / RECIPE, folder / "work")
        executors: dict[str, Executor] = {HERE_ONE: Inline(), HERE_TWO: stack.enter_context(local_executor(2))}
        for way, num_workers in ((ONE, 1), (TWO, 2)):
            cluster = stack.enter_context(dask_cluster(folder / f"dask-{num_workers}", num_workers=num_workers))
            executors[way] = stack.enter_context(dask_executor(cluster.address))
        ways = [scan.way(way, executor) for way, executor in executors.items()]
        alternate(ways[1:], 1)  # once unmeasured: workers import, caches fill
        times = alternate(ways, rounds, settle=True)
    return Figures(
        benchmark="dask_scaling",
        title="Dask: two workers beside one",
        command=f"python benchmarks/dask_scaling.py --gigabytes {gigabytes:g} --rounds {rounds}",
        conditions={
            **conditions,
            "stage": 'scan, verify = "decode"',
            "pictures": f"{num_pictures} of {WIDTH} x {HEIGHT}",
            "parts": scan.num_parts,
            "rounds": rounds,
        },
        rows=[
            {"way": way, "s": median(found), "ms a picture": 1000 * median(found) / num_pictures}
            for way, found in times.items()
        ],
        claims=[Claim(name="two workers beside one", value=median_ratio(times, ONE, TWO), bound=BOUND, at_least=True)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--gigabytes", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report(measure(options.gigabytes, options.rounds), options.json)


if __name__ == "__main__":
    main()
