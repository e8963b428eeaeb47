"""Metrics: IoUs off run lengths beside pycocotools, and all figures with intervals beside plain loops.

    python benchmarks/metrics.py [--pairs 1024] [--images 400] [--draws 50] [--rounds 5] [--json FILE]

Masks are ragged blobs beside themselves moved by some pixels, as a student's beside the truth. pycocotools is given the
dictionaries that it takes; pair by pair is how the IoU of one prompt is usually read, picture by picture compares all
masks of a picture with each other and keeps the diagonal. `overlaps` also checks every string and gives areas. The
loops resample pictures and read the same figures from the rows of each draw (without AUC, quadratic in plain loops).
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from benchmarks.sa1b_like import soft_noise
from benchmarks.timing import Claim, Figures, Value, Way, add_options, alternate, machine, median_ratio, report
from manifests.sample import Mask, NegativeKind
from shards.masks import mask_from_array
from student.calibration import calibration
from student.mask_metrics import mask_metrics
from student.overlaps import Overlaps, overlaps, paired_ious
from student.pope import pope
from student.presence_metrics import hallucination, presence_metrics, says_present
from student.saco_metrics import saco_metrics
from tests import naive_metrics as naive
from tests.naive_metrics import Row

SIZES = ((480, 640), (1500, 2250))  # height, width: COCO's, SA-1B's
PROMPTS = 6  # masks of a picture
PAIR_BOUND, LOOP_BOUND = 1.0, 10.0
ASKED = ("", "", "", "", "random", "popular", "co_occurring", "random", "popular", "co_occurring", "near_text", "blank")


def blobs(rng: np.random.Generator, height: int, width: int) -> tuple[Mask, Mask]:
    """An object with a ragged edge, and nearly the same."""
    rows, columns = np.ogrid[:height, :width]
    away = np.hypot(
        rows - rng.integers(height // 4, 3 * height // 4), columns - rng.integers(width // 4, 3 * width // 4)
    )
    here = away / (height * rng.uniform(0.1, 0.4)) + 0.6 * soft_noise(rng, width, height, 24) < 1.1
    return mask_from_array(here), mask_from_array(np.roll(here, (3, 5), (0, 1)))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Predictions and truths of one size, as each side takes them."""

    predicted: list[Mask]
    truth: list[Mask]

    def taken(self, masks: list[Mask]) -> list[dict[str, object]]:
        """The masks as pycocotools takes them."""
        return [{"size": list(mask.size), "counts": mask.counts} for mask in masks]

    def ways(self) -> list[Way]:
        """What is timed; each gives the IoUs."""
        ours, theirs = self.taken(self.predicted), self.taken(self.truth)
        heights, widths = ([mask.size[side] for mask in self.truth] for side in (0, 1))
        instances = [(mask,) for mask in self.truth]

        def pair_by_pair() -> NDArray[np.float64]:
            return np.array([coco.iou([a], [b], [0])[0, 0] for a, b in zip(ours, theirs, strict=True)])

        def picture_by_picture() -> NDArray[np.float64]:
            starts = range(0, len(ours), PROMPTS)
            ious = [
                coco.iou(ours[s : s + PROMPTS], theirs[s : s + PROMPTS], [0] * len(ours[s : s + PROMPTS]))
                for s in starts
            ]
            return np.concatenate([np.diagonal(found) for found in ious])

        return [
            Way("pycocotools, pair by pair", pair_by_pair),
            Way("pycocotools, picture by picture", picture_by_picture),
            Way("student.overlaps.paired_ious", lambda: paired_ious(self.predicted, self.truth)),
            Way("student.overlaps.overlaps", lambda: overlaps(self.predicted, instances, heights, widths).iou_n),
        ]


def time_pairs(num: int, rounds: int) -> tuple[list[dict[str, Value]], list[Claim]]:
    """µs a pair of each way at each size, all ways giving the same IoUs."""
    rows: list[dict[str, Value]] = []
    claims = []
    for height, width in SIZES:
        rng = np.random.default_rng(0)
        drawn = [blobs(rng, height, width) for _ in range(num)]
        ways = Pairs([mask for mask, _ in drawn], [mask for _, mask in drawn]).ways()
        found = [np.asarray(way.run()) for way in ways]
        if not all(np.array_equal(found[0], other) for other in found[1:]):
            raise RuntimeError(f"{height} x {width}: the ways differ in the IoUs they give; no time compares them")
        times = alternate(ways, rounds)
        size = f"{width} x {height}"
        rows += [
            {"way": way.name, "masks of": size, "µs a pair": 1e6 * float(np.median(times[way.name])) / num}
            for way in ways
        ]
        peers = [median_ratio(times, ways[peer].name, ways[2].name) for peer in (0, 1)]
        claims.append(
            Claim(
                name=f"IoU of {size} beside the faster pycocotools", value=min(peers), bound=PAIR_BOUND, at_least=True
            )
        )
    return rows, claims


def make_rows(num_images: int) -> list[Row]:
    """An evaluation as a build's test split gives it: four presences an image, and two absences of each setting."""
    rng = np.random.default_rng(0)
    rows = []
    for image in range(num_images):
        for kind in ASKED:
            present = not kind
            truth, predicted = int(rng.integers(1, 90_000)) * present, int(rng.integers(0, 90_000))
            rows.append(
                Row(
                    image=image,
                    present=present,
                    presence=float(np.clip(rng.normal(0.6 if present else 0.4, 0.2), 0, 1)),
                    kind=kind,
                    intersection=int(rng.integers(0, min(truth, predicted) + 1)),
                    predicted=predicted,
                    truth=truth,
                    pixels=480 * 640,
                    best_iou=float(rng.random()),
                    num_instances=int(rng.integers(1, 3)) * present,
                )
            )
    return rows


def in_arrays(rows: list[Row]) -> Callable[[int], int]:
    """All figures by ours, as a function of the number of draws."""
    image, present = np.array([row.image for row in rows]), np.array([row.present for row in rows])
    presence, kinds = np.array([row.presence for row in rows]), np.array([row.kind for row in rows])
    areas = {
        f"{name}_n": np.array([getattr(row, name) for row in rows])
        for name in ("intersection", "predicted", "truth", "pixels")
    }
    best, num = np.array([row.best_iou for row in rows]), np.array([row.num_instances for row in rows])

    def figures(num_draws: int) -> int:
        rng = np.random.default_rng(0)
        said = says_present(presence, 0.5)
        found = presence_metrics(said, present, image, rng=rng, num_draws=num_draws)
        found |= hallucination(said, present, kinds, image, rng=rng, num_draws=num_draws)
        found |= mask_metrics(
            Overlaps(**areas),
            present_n=present,
            complete_n=present,
            said_n=said,
            image_n=image,
            rng=rng,
            num_draws=num_draws,
        )
        found |= calibration(presence, present, image, rng=rng, num_draws=num_draws)
        found |= pope(said, present, kinds, image, rng=rng, num_draws=num_draws)
        found |= saco_metrics(best, num, said, image, rng=rng, num_draws=num_draws)
        return len(found)

    return figures


def in_loops(rows: list[Row], num_draws: int) -> int:
    """The same by plain loops over the rows of each draw."""
    images: list[list[Row]] = [[] for _ in range(rows[-1].image + 1)]
    for row in rows:
        images[row.image].append(row)
    draws = [
        naive.all_sums([replace(row, image=place) for place, i in enumerate(drawn) for row in images[i]])
        for drawn in np.random.default_rng(0).integers(0, len(images), (num_draws, len(images)))
    ]
    values = naive.all_sums(rows)
    for name in values:
        known = [value for draw in draws if (value := draw[name]) is not None]
        if known:
            np.quantile(known, [0.025, 0.975])
    return len(values)


def time_figures(num_images: int, num_draws: int, rounds: int) -> tuple[list[dict[str, Value]], list[Claim]]:
    """All figures, with intervals and (one draw) nearly without, in ms."""
    rows = make_rows(num_images)
    figures = in_arrays(rows)
    with_draws = [Way("plain loops", lambda: in_loops(rows, num_draws)), Way("student", lambda: figures(num_draws))]
    one_draw = [Way("plain loops", lambda: in_loops(rows, 1)), Way("student", lambda: figures(1))]
    told: list[dict[str, Value]] = []
    claims = []
    for ways, draws, name in ((with_draws, num_draws, "all figures with intervals"), (one_draw, 1, "one draw")):
        times = alternate(ways, rounds)
        told += [{"way": way.name, "draws": draws, "ms": 1e3 * float(np.median(times[way.name]))} for way in ways]
        speed = median_ratio(times, ways[0].name, ways[1].name)
        if draws > 1:
            claims.append(Claim(name=name, value=speed, bound=LOOP_BOUND, at_least=True))
    thousand = alternate([Way("student", lambda: figures(1000))], rounds)["student"]
    return [*told, {"way": "student", "draws": 1000, "ms": 1e3 * float(np.median(thousand))}], claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    options = parser.parse_args()
    conditions = machine("pycocotools") | {
        "prompts": f"{options.images} images with {len(ASKED)} prompts each",
        "kinds": ", ".join(sorted({str(NegativeKind(kind)) for kind in ASKED if kind})),
        "pairs": options.pairs,
        "rounds": options.rounds,
    }
    pair_rows, pair_claims = time_pairs(options.pairs, options.rounds)
    figure_rows, figure_claims = time_figures(options.images, options.draws, options.rounds)
    figures = Figures(
        benchmark="metrics",
        title="Metrics: run lengths beside pycocotools, figures with intervals beside plain loops",
        command="python benchmarks/metrics.py",
        conditions=conditions,
        rows=[*pair_rows, *figure_rows],
        claims=[*pair_claims, *figure_claims],
    )
    report(figures, options.json)


if __name__ == "__main__":
    main()
