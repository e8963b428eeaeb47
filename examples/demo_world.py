"""Write the demo world: a small data set with known truth, as true SA-1B tars and a true COCO folder.

    python examples/demo_world.py --out DIR [--images 2400] [--seed 7] [--workers 2]

Objects cut out of the real photographs that scikit-image ships are composed on real backgrounds. Cut-outs and
backgrounds are held out whole between train, val and test, so that nothing is learnt by heart, and the labels are
exhaustive over the phrases, so that absence is known. The same arguments give the same bytes in any folder with any
number of workers. Everything is written beside DIR and renamed in one step: a folder that exists is complete.

    DIR/demo.toml                                  a recipe over all of it
    DIR/student.toml                               a training config for it
    DIR/<split>/sa1b/sa_000000.tar                 sa_<id>.jpg, sa_<id>.json
    DIR/<split>/sa1b/phrases.parquet               image_id, annotation_id, phrase, score
    DIR/<split>/coco/images/<12 digits>.jpg
    DIR/<split>/coco/annotations/instances.json
    DIR/demo_world.json                            what was asked for, and what is in it

Sources and licences of the photographs stand in demo_cutouts.toml.
"""

import argparse
import hashlib
import multiprocessing
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
from demo_cutouts import SPLITS
from demo_split import FORMAT_VERSION, Job, Made, make_picture, write_split
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

MIN_IMAGES = 40  # so that each split has pictures of both kinds
COCO_EVERY = 4
MARKER = "demo_world.json"

RECIPE = """\
# The demo world, written by examples/demo_world.py. Cut-outs and backgrounds are held out whole between splits, so
# each source stands in one split. The phrases' truth is known: SA-1B labels are exhaustive over COCO's categories.
name = "demo-world"
seed = 7

[mix]                     # shares are read per split, among the sources that stand in it
sa1b = "rest"
coco = 0.2
sa1b_val = "rest"
coco_val = 0.2
sa1b_test = "rest"
coco_test = 0.2
blank = 0.025
noise = 0.025

[prompts]                 # things stand out in this world, so that hard absences can be learnt as well as random ones
kinds = { random = 0.25, co_occurring = 0.25, near_text = 0.25, near_image = 0.25 }
"""
RECIPE_SOURCES = """
[sources.sa1b{suffix}]
format = "sa1b"
data = "{split}/sa1b/sa_*.tar"
phrases = "{split}/sa1b/phrases.parquet"
licence = "scikit-image samples"
exhaustive_over = ["coco"]
split = "{split}"

[sources.coco{suffix}]
format = "coco"
images = "{split}/coco/images"
annotations = "{split}/coco/annotations/instances.json"
licence = "scikit-image samples"
split = "{split}"
"""
RECIPE_GENERATED = """
[sources.blank]
format = "blank"

[sources.noise]
format = "noise"

[mine]                    # near_text and near_image: absences that look like presences
"""


class WorldError(Exception):
    """The user asked for something that cannot be done; the message says what to do instead."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that decides the bytes."""

    format_version: int
    images: int
    seed: int
    cutouts_sha256: str


class Marker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`demo_world.json`: what was asked for, and how many pictures show each phrase, by split."""

    asked: Asked
    pictures: dict[str, int]
    presences: dict[str, dict[str, int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0, or 1 with one `error:` line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must be new, empty or finished")
    parser.add_argument("--images", type=int, default=2400, help="pictures in all splits together (2400)")
    parser.add_argument("--seed", type=int, default=7, help="another seed gives another world (7)")
    parser.add_argument("--workers", type=int, default=2, help="processes; the bytes do not depend on it (2)")
    arguments = parser.parse_args(argv)
    try:
        marker = write_world(
            arguments.out, num_images=arguments.images, seed=arguments.seed, num_workers=arguments.workers
        )
    except (WorldError, ModuleNotFoundError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for split in SPLITS:
        sys.stdout.write(f"{split}: {marker.pictures[split]} pictures, {len(marker.presences[split])} phrases\n")
    sys.stdout.write(f"{arguments.out / 'demo.toml'} is the recipe over them\n")
    return 0


def write_world(out: Path, *, num_images: int = 2400, seed: int = 7, num_workers: int = 1) -> Marker:
    """The marker of the finished folder; returns at once if the same world already lies there.

    Raises:
        WorldError: too few images, a wrong number of workers or seed, or `out` holds something else.
    """
    _check_numbers(num_images, seed, num_workers)
    cutouts = Path(__file__).with_name("demo_cutouts.toml").read_bytes()
    digest = hashlib.sha256(cutouts).hexdigest()
    asked = Asked(format_version=FORMAT_VERSION, images=num_images, seed=seed, cutouts_sha256=digest)
    finished = _finished(out, asked)
    if finished:
        return finished
    partial = out.absolute().with_name(out.absolute().name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    jobs = _plan(num_images, seed)
    presences: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    with _results(jobs, num_workers) as results:
        for split in SPLITS:
            num_pictures = sum(job.split == split for job in jobs)
            write_split(partial / split, (next(results) for _ in range(num_pictures)), presences[split])
    (partial / "demo.toml").write_text(_recipe(), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("demo_student.toml"), partial / "student.toml")
    marker = Marker(
        asked=asked,
        pictures={split: sum(job.split == split for job in jobs) for split in SPLITS},
        presences={split: dict(sorted(presences[split].items())) for split in SPLITS},
    )
    (partial / MARKER).write_bytes(_pretty(marker))
    os.sync()
    partial.replace(out)
    return marker


def _check_numbers(num_images: int, seed: int, num_workers: int) -> None:
    """Refuse numbers that make no world."""
    if num_images < MIN_IMAGES:
        raise WorldError(f"--images: expected {MIN_IMAGES} or more, both formats in each split, got {num_images}")
    if num_workers < 1:
        raise WorldError(f"--workers: expected 1 or more, got {num_workers}")
    if seed < 0:
        raise WorldError(f"--seed: expected 0 or more, got {seed}")


def _finished(out: Path, asked: Asked) -> Marker | None:
    """The marker of an equal world that lies there; none if the place is free."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        marker = msgspec.json.decode((out / MARKER).read_bytes(), type=Marker)
    except (OSError, msgspec.DecodeError):
        raise WorldError(f"{out}: expected a new or empty folder, found something else; choose another --out") from None
    if marker.asked != asked:
        raise WorldError(
            f"{out}: holds another demo world ({marker.asked.images} images, seed {marker.asked.seed}, format "
            f"{marker.asked.format_version}); remove it or choose another --out"
        )
    return marker


def _plan(num_images: int, seed: int) -> list[Job]:
    """Every picture of the world in the order of writing: train, val, test."""
    held_out = round(num_images / 10)
    splits = ["train"] * (num_images - 2 * held_out) + ["val"] * held_out + ["test"] * held_out
    return [
        Job(seed=seed, split=split, number=number, coco=number % COCO_EVERY == 0)
        for number, split in enumerate(splits, start=1)
    ]


@contextmanager
def _results(jobs: list[Job], num_workers: int) -> Iterator[Iterator[Made]]:
    """The pictures in the order of the jobs, with a progress bar on standard error."""
    bar = Progress(
        TextColumn("composing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    )
    task = bar.add_task("", total=len(jobs))

    def counted(results: Iterable[Made]) -> Iterator[Made]:
        for made in results:
            bar.advance(task)
            yield made

    with bar:
        if num_workers == 1:
            yield counted(map(make_picture, jobs))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_workers, mp_context=context) as executor:
            yield counted(executor.map(make_picture, jobs, chunksize=8))


def _recipe() -> str:
    """The recipe over the whole world."""
    suffixes = {"train": "", "val": "_val", "test": "_test"}
    sources = "".join(RECIPE_SOURCES.format(split=split, suffix=suffix) for split, suffix in suffixes.items())
    return RECIPE + sources + RECIPE_GENERATED


def _pretty(marker: Marker) -> bytes:
    """The marker as json that a person can read."""
    return msgspec.json.format(msgspec.json.encode(marker), indent=2) + b"\n"


if __name__ == "__main__":
    sys.exit(main())
