"""Train memory: what a training run holds, its readers and all, epoch by epoch.

    python benchmarks/train_memory.py [--samples 128] [--epochs 8] [--workers 2] [--json FILE]

`student.train` runs as a user's does, with the default student on pictures of 640 x 480. Twice a second the
memory of all its processes is summed, shared pages once (PSS), and the peak of every epoch is kept, its look at val
included. The first epoch fills caches and heaps, so the second is what later ones are held against. Linux alone tells.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.embed import HEIGHT, WIDTH, photograph
from benchmarks.timing import Claim, Figures, Value, add_options, machine, report
from flows.process_tree import below, running
from student.config import TrainConfig, encode_config
from tests.factories import Made, absent, make_build, make_mask, make_sample, present

HERE = Path(__file__).resolve().parent
BOUND = 1.05  # of the second epoch's peak
VAL = 32  # samples
PHRASES = 80
PRESENT, ABSENT = 4, 5
EVERY_S = 0.5


def make_pictures(split: str, num: int) -> list[Made]:
    """Pictures that are asked as the default recipe asks them."""
    made = []
    for number in range(num):
        phrases = [f"thing {(number + step) % PHRASES}" for step in range(PRESENT + ABSENT)]
        mask = make_mask(WIDTH, HEIGHT, left=number, top=40, right=300 + number, bottom=400)
        prompts = [present(phrase, mask) for phrase in phrases[:PRESENT]] + [absent(p) for p in phrases[PRESENT:]]
        jpeg = photograph(number if split == "train" else 10_000 + number)
        key = f"photos-{split}_{number}"
        made.append(make_sample(key, *prompts, split=split, jpeg=jpeg, width=WIDTH, height=HEIGHT))
    return made


def held_megabytes(root: int) -> float:
    """What `root` and every process below it hold."""
    return sum(_pss(pid) for pid in (root, *below(root, running()))) / 1000


def _pss(pid: int) -> int:
    """Kilobytes of one process, pages that it shares in equal parts; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def peaks(command: list[str], history: Path, num_epochs: int) -> list[float]:
    """The most that `command` and all below it hold within each epoch, in MB."""
    peak_e = [0.0] * num_epochs
    with subprocess.Popen(
        command, cwd=HERE.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        while run.poll() is None:
            epoch = history.read_bytes().count(b'"val"') if history.exists() else 0
            if epoch < num_epochs:
                peak_e[epoch] = max(peak_e[epoch], held_megabytes(run.pid))
            time.sleep(EVERY_S)
        if run.returncode:
            raise RuntimeError(f"training ended with {run.returncode}: {shlex.join(command)}")
    return peak_e


def measure(options: argparse.Namespace) -> Figures:
    """The figures of one run."""
    config = TrainConfig(batch_size=options.batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [*make_pictures("train", options.samples), *make_pictures("val", VAL)]
        build = make_build(folder / "build", made, shard_samples=32)
        (folder / "config.toml").write_bytes(encode_config(config))
        command = [sys.executable, "-m", "student.train", str(build), "--out", str(folder / "run"), "--quiet"]
        command += ["--config", str(folder / "config.toml"), "--epochs", str(options.epochs)]
        command += ["--workers", str(options.workers), "--device", "cpu"]
        peak_e = peaks(command, folder / "run" / "history.jsonl", options.epochs)
    rows: list[dict[str, Value]] = [{"epoch": epoch + 1, "peak MB": peak} for epoch, peak in enumerate(peak_e)]
    conditions = machine("torch") | {
        "picture": f"{WIDTH} x {HEIGHT}",
        "samples": f"{options.samples} of train and {VAL} of val",
        "prompts": f"{PRESENT} present and {ABSENT} absent a picture",
        "batch": options.batch,
        "workers": options.workers,
    }
    return Figures(
        benchmark="train_memory",
        title="The memory of training, epoch by epoch",
        command="python benchmarks/train_memory.py",
        conditions=conditions,
        rows=rows,
        claims=[
            Claim(
                name="largest peak after the second epoch by the second's",
                value=max(peak_e[2:]) / peak_e[1],
                bound=BOUND,
                at_least=False,
            )
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    add_options(parser)
    options = parser.parse_args()
    if options.epochs < 3:
        parser.error(f"--epochs {options.epochs}: expected 3 or more, as the third is held against the second")
    report(measure(options), options.json)


if __name__ == "__main__":
    main()
