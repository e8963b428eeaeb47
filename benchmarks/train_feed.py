"""Train feed: training straight off shards, beside the same steps on batches that lie in memory already.

    python benchmarks/train_feed.py [--samples 192] [--steps 12] [--rounds 3] [--workers N] [--json FILE]

Both sides are the same stepper with the same student, losses and augmentation, and see equal batches. The one reads,
decodes and tokenizes as `student.train` does, in worker processes; the other was handed its batches before the clock
started. The clock starts after two steps on each side, so the start of the workers, once a run, is not in it but in a
row of its own. Pictures are as large as SA-1B's. Rounds alternate, and the median of their ratios counts.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.read import HEIGHT, WIDTH, photographed
from benchmarks.timing import Claim, Figures, Value, add_options, machine, median_ratio, report
from shards.batch import Batch
from shards.reader import LoaderOptions, open_loader
from student.config import TrainConfig
from student.distributed import Ranks
from student.heap import keep_freed_memory
from student.learner import Learner
from student.lesson import Tutor
from student.model import STRIDE, Student
from student.schedule import make_schedule
from student.stepping import Stepper
from tests.factories import make_build

BOUND = 0.85
WARM = 2  # steps before the clock starts
SHARDS, MEMORY = "from shards", "from tensors in memory"


def make_stepper(config: TrainConfig) -> Stepper:
    """A fresh student, ready to learn."""
    torch.manual_seed(config.seed)
    learner = Learner(Student(config.model), None).train()
    learner.student.image.to(memory_format=torch.channels_last)
    return Stepper(learner, Tutor(config=config, device=torch.device("cpu")), Ranks())


def learn(stepper: Stepper, batches: Iterable[Batch], num_steps: int) -> tuple[float, float]:
    """Seconds of the first steps, and of as many steps after them."""
    schedule = make_schedule((2,), (1,), epoch_samples=WARM + num_steps, batch_size=1)
    stepper.begin(schedule.at(0), None)
    began_s = warm_s = time.perf_counter()
    for step, batch in enumerate(itertools.islice(batches, WARM + num_steps)):
        stepper.learn(batch, schedule.at(step), step=step, stop=False)
        if step == WARM - 1:
            warm_s = time.perf_counter()
    return warm_s - began_s, time.perf_counter() - warm_s


def open_batches(build: str, config: TrainConfig, num_workers: int) -> Iterable[Batch]:
    """What training reads."""
    size = config.model.size
    return open_loader(
        build,
        batch_size=config.batch_size,
        size=size,
        num_workers=num_workers,
        options=LoaderOptions(mask_size=size // STRIDE),
    )


def measure(options: argparse.Namespace) -> Figures:
    """The figures of one run."""
    keep_freed_memory()  # as student.train does
    config = TrainConfig(batch_size=options.batch)
    with tempfile.TemporaryDirectory() as folder:
        made = [photographed(number, seed=0) for number in range(options.samples)]
        build = str(make_build(Path(folder) / "build", made, shard_samples=32))
        held = list(itertools.islice(open_batches(build, config, 0), WARM + options.steps))
        stepper = make_stepper(config)
        learn(stepper, held, 0)
        firsts: dict[str, list[float]] = {SHARDS: [], MEMORY: []}
        times: dict[str, list[float]] = {SHARDS: [], MEMORY: []}
        for _ in range(options.rounds):
            for name in (SHARDS, MEMORY):
                batches = held if name == MEMORY else open_batches(build, config, options.workers)
                first_s, rest_s = learn(stepper, batches, options.steps)
                firsts[name].append(first_s)
                times[name].append(rest_s)
    num = options.steps * options.batch
    rows: list[dict[str, Value]] = [
        {
            "way": name,
            "samples a second": num / statistics.median(found),
            "best round": num / min(found),
            f"first {WARM} steps, s": statistics.median(firsts[name]),
        }
        for name, found in times.items()
    ]
    conditions: dict[str, Value] = {
        **machine("torch"),
        "picture": f"{WIDTH} x {HEIGHT}",
        "samples": options.samples,
        "batch": options.batch,
        "steps": options.steps,
        "rounds": options.rounds,
        "workers": options.workers,
        "torch threads": torch.get_num_threads(),
    }
    ratio = median_ratio(times, MEMORY, SHARDS)
    return Figures(
        benchmark="train_feed",
        title="Training off shards",
        command="python benchmarks/train_feed.py",
        conditions=conditions,
        rows=rows,
        claims=[Claim(name="throughput off shards by that in memory", value=ratio, bound=BOUND, at_least=True)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=192)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    add_options(parser)
    options = parser.parse_args()
    report(measure(options), options.json)


if __name__ == "__main__":
    main()
