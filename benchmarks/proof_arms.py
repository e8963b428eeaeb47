"""The arms of the proof: recipes that differ in what a student is told to be absent, and in nothing else."""

from dataclasses import dataclass, field
from math import floor
from pathlib import Path
from typing import Any

import msgspec

from flows.next_recipe import FALSE_ALARM_SHARE, with_false_alarms
from manifests.recipe import Prompts, default_mined_kinds
from manifests.sample import NegativeKind

SEED = 7
SHARD_SAMPLES = 200
GENERATED = 0.05  # blank and noise together, where an arm has them
ABSENT = 10.0  # prompts a picture
RANDOM = {NegativeKind.RANDOM: 1.0}
DEFAULT = dict(default_mined_kinds())
UNMINED = Prompts().kinds
HALF_HARD = {
    NegativeKind.RANDOM: 0.5,
    NegativeKind.CO_OCCURRING: 0.15,
    NegativeKind.NEAR_TEXT: 0.15,
    NegativeKind.NEAR_IMAGE: 0.2,
}
MINED_KINDS = {NegativeKind.NEAR_TEXT: 0.5, NegativeKind.NEAR_IMAGE: 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What one student is shown."""

    name: str
    title: str
    kinds: dict[NegativeKind, float] = field(default_factory=dict)  # of absent prompts of real pictures; empty: none
    absent: float = ABSENT  # absent prompts a real picture
    generated: float = GENERATED  # share of blank and noise pictures
    mine: dict[str, Any] | None = None
    denied: bool = False  # COCO's pictures are asked what is absent alone
    alarms_of: str = ""  # the arm whose student's false alarms are mined besides
    train: tuple[str, ...] = ()  # options of student.train
    student: dict[str, Any] = field(default_factory=dict)  # what the student's config says otherwise
    epochs: int | None = None  # where not as many as the others
    begins_with: str = ""  # the arm whose student's weights are the first


ARMS = (
    Arm(
        name="a",
        title="positives only",
        kinds=RANDOM,
        generated=0.0,
        train=("--positives-only", "--allow-one-class"),
    ),
    Arm(name="b", title="a, blank and noise", kinds=RANDOM, absent=0.0),
    Arm(name="c", title="b, random absences of COCO", kinds=RANDOM),
    Arm(name="d", title="b, mined absences alone", kinds=MINED_KINDS, mine={}),
    Arm(name="e", title="the default recipe, a quarter hard", kinds=DEFAULT, mine={}),
    Arm(name="f", title="e, one round of false alarms", kinds=DEFAULT, mine={}, alarms_of="e"),
    Arm(name="g", title="the naive mix", kinds=RANDOM, denied=True),
    Arm(name="h", title="d without guards", kinds=MINED_KINDS, mine={"absolute_margin": -100.0}),
    Arm(name="i", title="e, half of all absences hard", kinds=HALF_HARD, mine={}),
    Arm(name="j", title="the default recipe without mining, half co-occurring", kinds=UNMINED),
)
PHASE_1 = Arm(name="phase-1", title="all real pictures, for what the arms share", kinds=RANDOM, generated=0.0)


def recipe(arm: Arm, world: Path, counts: dict[str, int], *, predictions: str = "") -> dict[str, Any]:
    """The recipe of an arm, as TOML has it; every arm has as many samples of train.

    Args:
        arm: Which.
        world: The fold's sources.
        counts: Pictures by part.
        predictions: What the student of `alarms_of` says of train.
    """
    real = counts["sa1b"] + counts["coco"]
    coco = floor(1000 * counts["coco"] / real) / 1000
    train = floor(0.98 * min(counts["coco"] / coco, counts["sa1b"] / (1 - coco)))
    val = floor(0.95 * counts["val"])
    train_share = round(train / (train + val), 6)
    share = 1.0 - arm.generated
    mix: dict[str, Any] = {"sa1b": "rest", "coco": round(share * coco, 6), "val": "rest"}
    sources: dict[str, Any] = {
        "sa1b": {
            "format": "sa1b",
            "data": str(world / "sa_*.tar"),
            "phrases": str(world / "phrases.parquet"),
            "split": "train",
        },
        "coco": coco_source(world, "denied" if arm.denied else "coco", "train"),
        "val": coco_source(world, "val", "val"),
    }
    for name in ("blank", "noise") if arm.generated else ():
        mix[name] = arm.generated / 2
        sources[name] = {"format": name}
    kinds = dict(arm.kinds)
    mine = dict(arm.mine) if arm.mine is not None else None
    if predictions:
        kinds = with_false_alarms(kinds, FALSE_ALARM_SHARE)
        mine = (mine or {}) | {"predictions": [predictions]}
    found: dict[str, Any] = {
        "name": f"proof-{arm.name}",
        "seed": SEED,
        "samples": train + val,
        "shard_samples": SHARD_SAMPLES,
        "when_short": "shrink",  # a fold may lack a picture or two of what an arm without generated ones asks
        "splits": {"train": train_share, "val": round(1 - train_share, 6)},
        "mix": mix,
        "prompts": {
            "absent_per_image": arm.absent,
            "kinds": {str(kind): share for kind, share in kinds.items()},
            "vocabulary": str(world / "categories.txt"),
        },
        "sources": sources,
    }
    return found if mine is None else found | {"mine": mine}


def judge(world: Path) -> dict[str, Any]:
    """The recipe whose val and test judge every arm of a fold; its train says which phrases are frequent together."""
    return {
        "name": "proof-judge",
        "seed": SEED,
        "shard_samples": SHARD_SAMPLES,
        "splits": {"train": 0.7, "val": 0.1, "test": 0.2},
        "mix": {"coco": "rest", "val": "rest", "test": "rest", "blank": GENERATED / 2, "noise": GENERATED / 2},
        "prompts": {"vocabulary": str(world / "categories.txt")},
        "sources": {
            "coco": coco_source(world, "coco", "train"),
            "val": coco_source(world, "val", "val"),
            "test": coco_source(world, "test", "test"),
            "blank": {"format": "blank"},
            "noise": {"format": "noise"},
        },
    }


def coco_source(world: Path, part: str, split: str) -> dict[str, Any]:
    """One part of a fold as a source of COCO's format, whole in one split."""
    images = (world / "images.txt").read_text(encoding="utf-8")
    return {"format": "coco", "images": images, "annotations": str(world / f"{part}.json"), "split": split}


def write(path: Path, told: dict[str, Any]) -> None:
    """The recipe as a file."""
    path.write_bytes(msgspec.toml.encode(told))
