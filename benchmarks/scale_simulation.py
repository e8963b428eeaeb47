"""SA-1B whole, simulated: 1,000 tars and 11,000 shards on 1 to 256 workers, with stragglers and workers that die.

    python benchmarks/scale_simulation.py [--seeds 20] [--json FILE]

Nothing of SA-1B's size is run. What a picture costs on one core was measured by other benchmarks and is read from
their JSON; how long a task takes is drawn around that, and tasks are handed out as the executors do it: the next one to
whichever worker is free first, a lost one again at once. Same seed, same figures.
"""

import argparse
import heapq
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.timing import RESULTS, Claim, Figures, Value, add_options, report
from benchmarks.write_docs import read_figures

PICTURES, NUM_BYTES = 11_000_000, 10e12  # SA-1B
NUM_TASKS = {"scan": 1_000, "write": 11_000}  # a tar, and a shard of 1,000 samples
WORKERS = (1, 4, 16, 64, 128, 256)
SPREAD = 0.5  # of the logarithm of a task's time: one task in twenty takes twice the mean
DIES_AFTER_S = 2 * 3600.0  # of work, in the mean
BACK_S = 120.0  # until a worker is there again
BOUND, BOUND_AT = 1.25, 64  # time beside perfect division, and on how many workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one step takes of one core for one picture."""

    stage: str
    step: str
    milliseconds: float
    source: str  # the benchmark that measured it


def costs(folder: Path = RESULTS) -> list[Cost]:
    """Every step, as it was measured; a picture's bytes are SA-1B's, where bytes decide."""
    write, annotations, embed = (read_figures(folder / f"{name}.json") for name in ("write", "annotations", "embed"))
    conditions = write.conditions
    megabytes = float(str(conditions["shards"]).split()[0])
    more_bytes = NUM_BYTES / PICTURES / (1e6 * megabytes / int(conditions["samples"]))
    steps = {str(row["step"]): float(row["ms per picture"]) for row in write.rows if "step" in row}
    labels = max(float(row["ms per file"]) for row in annotations.rows)
    written_s = next(float(row["s"]) for row in write.rows if row.get("way") == "write_shards")
    written = 1000 * written_s * int(conditions["workers"]) / int(conditions["samples"])
    name = "conse: miners.streaming, JPEG files"
    embedded = next(float(row["pictures a second"]) for row in embed.rows if row["way"] == name)
    found = [Cost(stage="scan", step=step, milliseconds=ms, source="write") for step, ms in steps.items()]
    return [
        *(_times(cost, more_bytes) if cost.step == "sha256" else cost for cost in found if '"decode"' not in cost.step),
        Cost(stage="scan", step="labels of 100 masks", milliseconds=labels, source="annotations"),
        Cost(
            stage="embed",
            step="one embedding (conse)",
            milliseconds=1000 * int(embed.conditions["torch threads"]) / embedded,
            source="embed",
        ),
        _times(Cost(stage="write", step="bytes into shards", milliseconds=written, source="write"), more_bytes),
    ]


def _times(cost: Cost, factor: float) -> Cost:
    return Cost(stage=cost.stage, step=cost.step, milliseconds=factor * cost.milliseconds, source=cost.source)


def core_hours(found: Sequence[Cost], stage: str) -> float:
    """What a stage takes of one core for all pictures."""
    return PICTURES * sum(cost.milliseconds for cost in found if cost.stage == stage) / 3_600_000


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated stage."""

    seconds: float
    num_lost: int


def simulate(
    num_tasks: int, task_s: float, num_workers: int, rng: np.random.Generator, *, dies_after_s: float = DIES_AFTER_S
) -> Run:
    """A stage of so many tasks.

    Args:
        num_tasks: Which do not depend on each other.
        task_s: Their mean time in seconds.
        num_workers: Each does one task at a time.
        rng: Of times and deaths.
        dies_after_s: Mean seconds of work until a worker dies.
    """
    free = [0.0] * num_workers  # when each worker is free, as a heap
    waiting = num_tasks
    lost: list[float] = []  # when a task was lost that runs again
    num_lost, ended_s = 0, 0.0
    while waiting or lost:
        now_s = heapq.heappop(free)
        if lost and (lost[0] <= now_s or not waiting):
            now_s = max(now_s, heapq.heappop(lost))
        else:
            waiting -= 1
        taken_s = task_s * float(rng.lognormal(-(SPREAD**2) / 2, SPREAD))
        alive_s = float(rng.exponential(dies_after_s))
        if alive_s < taken_s:
            died_s = now_s + alive_s
            heapq.heappush(lost, died_s)
            heapq.heappush(free, died_s + BACK_S)
            num_lost += 1
        else:
            heapq.heappush(free, now_s + taken_s)
            ended_s = max(ended_s, now_s + taken_s)
    return Run(ended_s, num_lost)


def row(hours: Mapping[str, float], num_workers: int, num_seeds: int) -> dict[str, Value]:
    """The stages one after the other, by the core hours that each takes; the median over the seeds."""
    runs: dict[str, list[Run]] = {}
    for place, (stage, num_tasks) in enumerate(NUM_TASKS.items()):
        rngs = [np.random.default_rng([seed, num_workers, place]) for seed in range(num_seeds)]
        runs[stage] = [simulate(num_tasks, 3600 * hours[stage] / num_tasks, num_workers, rng) for rng in rngs]
    taken = {stage: median(run.seconds for run in found) / 3600 for stage, found in runs.items()}
    return {
        "workers": num_workers,
        **{f"{stage} h": found for stage, found in taken.items()},
        "by perfect division": sum(taken.values()) * num_workers / sum(hours[stage] for stage in NUM_TASKS),
        "tasks lost": sum(mean(run.num_lost for run in found) for found in runs.values()),
    }


def measure(num_seeds: int) -> Figures:
    """The figures of one run."""
    found = costs()
    hours = {stage: core_hours(found, stage) for stage in NUM_TASKS}
    rows = [row(hours, num_workers, num_seeds) for num_workers in WORKERS]
    value = next(float(one["by perfect division"]) for one in rows if one["workers"] == BOUND_AT)
    return Figures(
        benchmark="scale_simulation",
        title="SA-1B whole, simulated",
        command=f"python benchmarks/scale_simulation.py --seeds {num_seeds}",
        conditions={
            "simulated": f"{NUM_TASKS['scan']} tars to scan, then {NUM_TASKS['write']} shards to write",
            "time of a task": f"measured cost x log-normal of mean 1, sigma {SPREAD:g}",
            "workers die": f"after {DIES_AFTER_S / 3600:g} h of work in the mean, and are back after {BACK_S:.0f} s",
            "seeds": num_seeds,
        },
        rows=[*map(_cost_row, found), *rows],
        claims=[
            Claim(
                name=f"time beside perfect division, {BOUND_AT} workers (simulated)",
                value=value,
                bound=BOUND,
                at_least=False,
            )
        ],
    )


def _cost_row(cost: Cost) -> dict[str, Value]:
    return {
        "stage": cost.stage,
        "step, on one core": cost.step,
        "ms a picture": cost.milliseconds,
        "measured by": f"benchmarks/{cost.source}.py",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    report(measure(options.seeds), options.json)


if __name__ == "__main__":
    main()
