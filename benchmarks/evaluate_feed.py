"""Evaluate: a split predicted off its shards, beside the same model, masks and tables fed with pixels in memory.

    python benchmarks/evaluate_feed.py [--pictures 192] [--rounds 3] [--threads N] [--json FILE]

Both sides answer the prompts of a default test split (7 present and 21 absent a picture) with the default student and
write the tables that an evaluation reads; one reads and decodes JPEGs of 640 pixels while the model is busy, the other
finds every batch decoded. The student's weights are random, which run as fast. Rounds alternate.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.embed import HEIGHT, WIDTH, photograph
from benchmarks.timing import Claim, Figures, Value, Way, add_options, alternate, machine, median_ratio, report
from manifests.stage import progress_bar
from shards.blocks import read_index
from student import predict_parts
from student.asking import Picture, read_shelves
from student.config import ModelConfig
from student.model import Student
from student.pictures import Seen, open_samples, read_batches
from student.predict import BATCH, predict_split
from student.torch_predictor import TorchPredictor
from tests.factories import absent, make_build, make_mask, make_sample, present

PRESENT, ABSENT, PHRASES = 7, 21, 80
BOUND = 0.85
SHARDS, MEMORY = "off the shards", "pixels in memory"


def make_pictures(folder: Path, num: int) -> str:
    samples = []
    for number in range(num):
        phrases = [f"thing {(number + step) % PHRASES}" for step in range(PRESENT + ABSENT)]
        mask = make_mask(WIDTH, HEIGHT, left=number, top=40, right=300 + number, bottom=400)
        prompts = [present(phrase, mask) for phrase in phrases[:PRESENT]] + [absent(p) for p in phrases[PRESENT:]]
        jpeg = photograph(number)
        samples.append(make_sample(f"photos-{number}", *prompts, split="test", jpeg=jpeg, width=WIDTH, height=HEIGHT))
    return str(make_build(folder / "build", samples, shard_samples=64))


def decoded(build: str, size: int) -> dict[str, Seen]:
    """Every batch, by the key of its first picture."""
    index = read_index(build, "test")
    with open_samples(index) as samples:
        return {
            seen.pictures[0].key: seen
            for shelf in read_shelves(index)
            for seen in read_batches(shelf.pictures, samples, index, size=size, stretch=False, batch_size=BATCH)
        }


def measure(num_pictures: int, rounds: int) -> Figures:
    torch.manual_seed(0)
    predictor = TorchPredictor(Student(ModelConfig(pretrained=False)).eval())
    with tempfile.TemporaryDirectory() as name, progress_bar(quiet=True) as progress:
        build = make_pictures(Path(name), num_pictures)
        ready = decoded(build, predictor.size)

        def from_memory(pictures: Sequence[Picture], *_: object, **__: object) -> Generator[Seen]:
            for start in range(0, len(pictures), BATCH):
                yield ready[pictures[start].key]

        def predict() -> None:
            with tempfile.TemporaryDirectory() as out:
                predict_split(predictor, build, "test", f"{out}/predictions.parquet", progress=progress)

        def predict_memory() -> None:
            with mock.patch.object(predict_parts, "read_batches", from_memory):
                predict()

        predict()  # caches phrases and warms the model
        times = alternate([Way(SHARDS, predict), Way(MEMORY, predict_memory)], rounds)
    rows: list[dict[str, Value]] = [
        {"way": way, "pictures a second": num_pictures / sorted(found)[len(found) // 2]} for way, found in times.items()
    ]
    conditions = machine("torch") | {
        "pictures": f"{num_pictures} of {WIDTH} x {HEIGHT}",
        "prompts": f"{PRESENT} present and {ABSENT} absent a picture",
        "threads": torch.get_num_threads(),
        "batch": BATCH,
    }
    return Figures(
        benchmark="evaluate_feed",
        title="Evaluating off shards",
        command="python benchmarks/evaluate_feed.py",
        conditions=conditions,
        rows=rows,
        claims=[
            Claim(
                name="throughput off the shards ÷ from memory",
                value=median_ratio(times, MEMORY, SHARDS),
                bound=BOUND,
                at_least=True,
            )
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report(measure(options.pictures, options.rounds), options.json)


if __name__ == "__main__":
    main()
