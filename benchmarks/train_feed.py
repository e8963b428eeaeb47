"""Train feed: training straight off shards, beside the same steps on batches that lie in memory already.

    python benchmarks/train_feed.py [--samples 192] [--steps 12] [--rounds 3] [--workers N] [--json FILE]

Both sides are the same stepper with the same student, losses and augmentation, and see equal batches. The one reads,
decodes and tokenizes as `student.train` does, in worker processes; the other was handed its batches before the clock
started. Pictures are as large as SA-1B's. Rounds alternate, and the median of their ratios counts.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.read import HEIGHT, WIDTH, photographed
from benchmarks.timing import Claim, Figures, Value, Way, add_options, alternate, machine, median_ratio, report
from shards.batch import Batch
from shards.reader import LoaderOptions, open_loader
from student.config import TrainConfig
from student.distributed import Ranks
from student.learner import Learner
from student.lesson import Tutor
from student.model import STRIDE, Student
from student.schedule import make_schedule
from student.stepping import Stepper
from tests.factories import make_build

BOUND = 0.85
SHARDS, MEMORY = "from shards", "from tensors in memory"


def make_stepper(config: TrainConfig) -> Stepper:
    """A fresh student, ready to learn."""
    torch.manual_seed(config.seed)
    learner = Learner(Student(config.model), None).train()
    learner.student.image.to(memory_format=torch.channels_last)
    return Stepper(learner, Tutor(config=config, device=torch.device("cpu")), Ranks())


def learn(stepper: Stepper, batches: Iterable[Batch], num_steps: int) -> None:
    """As many steps."""
    schedule = make_schedule((2,), (1,), epoch_samples=num_steps, batch_size=1)
    stepper.begin(schedule.at(0), None)
    for step, batch in enumerate(itertools.islice(batches, num_steps)):
        stepper.learn(batch, schedule.at(step), step=step, stop=False)


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
    config = TrainConfig(batch_size=options.batch)
    with tempfile.TemporaryDirectory() as folder:
        made = [photographed(number, seed=0) for number in range(options.samples)]
        build = str(make_build(Path(folder) / "build", made, shard_samples=32))
        held = list(itertools.islice(open_batches(build, config, 0), options.steps))
        stepper = make_stepper(config)
        learn(stepper, held[:2], 2)  # warms up
        ways = [
            Way(SHARDS, lambda: learn(stepper, open_batches(build, config, options.workers), options.steps)),
            Way(MEMORY, lambda: learn(stepper, held, options.steps)),
        ]
        times = alternate(ways, options.rounds)
    num = options.steps * options.batch
    rows: list[dict[str, Value]] = [
        {"way": name, "samples a second": num / statistics.median(found), "best round": num / min(found)}
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
