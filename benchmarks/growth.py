"""Growth: how the time and the memory of a whole build grow with its input, from 1 to 4 GB of SA-1B-like tars.

    python benchmarks/growth.py [--gigabytes 1 2 4] [--rounds 1] [--workers 2] [--json FILE]

Every size is built in a process of its own, `python -m flows.build_shards`, with its workers below it. Memory is the
largest resident size that any one of these processes reached; time is from the command to its end. Nothing heavy is
imported here: what this process holds would count as its children's.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.timing import Claim, Figures, add_options, machine, report

HERE = Path(__file__).resolve().parent
BOUND = 10.0  # percent


@dataclass(frozen=True, slots=True)
class Built:
    """What one build took."""

    gigabytes: float
    pictures: int
    seconds: float
    megabytes: float  # peak resident size of the largest process


def build(gigabytes: float, rounds: int, num_workers: int) -> Built:
    """Make the input, build it some times, and take all away: the median time, the largest memory."""
    with tempfile.TemporaryDirectory() as name:
        world, out = Path(name) / "world", Path(name) / "build"
        make = [sys.executable, str(HERE / "sa1b_like.py"), "--out", str(world), "--gigabytes", str(gigabytes)]
        pictures = int(subprocess.run(make, check=True, capture_output=True, text=True).stdout)
        command = [sys.executable, "-m", "flows.build_shards", str(world / "like.toml"), "--out", str(out)]
        seconds, kilobytes = [], []
        for _ in range(rounds):
            rmtree(out, ignore_errors=True)
            subprocess.run(["sync"], check=True)
            start = time.perf_counter()
            kilobytes.append(peak_kilobytes([*command, "--workers", str(num_workers)]))
            seconds.append(time.perf_counter() - start)
    return Built(gigabytes, pictures, median(seconds), max(kilobytes) / 1000)


def peak_kilobytes(command: Sequence[str]) -> int:
    """Largest resident size of `command` or of any process that it waited for."""
    with open(os.devnull, "wb") as nowhere:
        child = subprocess.Popen(command, cwd=HERE.parent, stdout=nowhere, stderr=nowhere)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {child.returncode}")
    return int(usage.ru_maxrss * 1.024)


def straight_line(built: Sequence[Built]) -> tuple[float, float]:
    """Seconds at no input, and seconds per GB: the least squares through all sizes."""
    count = len(built)
    mean_x, mean_y = sum(one.gigabytes for one in built) / count, sum(one.seconds for one in built) / count
    above = sum((one.gigabytes - mean_x) * (one.seconds - mean_y) for one in built)
    slope = above / sum((one.gigabytes - mean_x) ** 2 for one in built)
    return mean_y - slope * mean_x, slope


def measure(sizes: Sequence[float], rounds: int, num_workers: int) -> Figures:
    """The figures of one run."""
    conditions, listed = machine(), " ".join(f"{size:g}" for size in sizes)
    built = [build(size, rounds, num_workers) for size in sizes]
    base, slope = straight_line(built)
    off_line = max(abs(one.seconds / (base + slope * one.gigabytes) - 1) for one in built)
    middle = sum(one.megabytes for one in built) / len(built)
    spread = max(abs(one.megabytes / middle - 1) for one in built)
    return Figures(
        benchmark="growth",
        title="Growth: a whole build of more input",
        command=f"python benchmarks/growth.py --gigabytes {listed} --rounds {rounds} --workers {num_workers}",
        conditions={
            **conditions,
            "workers": num_workers,
            "rounds": rounds,
            "line": f"{base:.1f} s + {slope:.1f} s per GB",
        },
        rows=[
            {
                "input in GB": one.gigabytes,
                "pictures": one.pictures,
                "s": one.seconds,
                "s per GB": one.seconds / one.gigabytes,
                "peak memory in MB": one.megabytes,
            }
            for one in built
        ],
        claims=[_at_most("time off a straight line", off_line), _at_most("peak memory off its mean", spread)],
    )


def _at_most(name: str, share: float) -> Claim:
    return Claim(name=name, value=100 * share, bound=BOUND, at_least=False, unit="%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    report(measure(options.gigabytes, options.rounds, options.workers), options.json)


if __name__ == "__main__":
    main()
