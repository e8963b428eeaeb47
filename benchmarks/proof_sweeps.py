"""The sweeps of the proof: one thing is changed in an arm, on the same pictures, and judged by the same prompts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks.proof_arms import ARMS, HALF_HARD, Arm
from manifests.sample import NegativeKind

_ARM = {arm.name: arm for arm in ARMS}
_HARD: dict[NegativeKind, float] = {kind: share for kind, share in HALF_HARD.items() if kind is not NegativeKind.RANDOM}
_ALL_HARD = {kind: 2 * share for kind, share in _HARD.items()}
_TENTH_HARD = {NegativeKind.RANDOM: 0.9} | {kind: round(share / 5, 3) for kind, share in _HARD.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One question, answered by several arms."""

    name: str
    question: str
    base: Arm  # that the others are compared with
    points: Mapping[str, Arm]  # by what stands on the axis; the proof's own arms among them

    @property
    def base_label(self) -> str:
        """What stands on the axis for the base."""
        return next(label for label, arm in self.points.items() if arm is self.base)


def _point(name: str, arm: Arm) -> Arm:
    """An arm with something changed, named after it."""
    return replace(arm, name=f"{arm.name}-{name}", title=f"{arm.title}: {name}")


_STRICT = _point("strictness-3", replace(_ARM["d"], mine={"max_false_negative_rate": 0.03}))
SWEEPS = (
    Sweep(
        name="seed",
        question="The seed of the student and nothing else: what a difference of two runs is worth",
        base=_ARM["c"],
        points={
            "0": _ARM["c"],
            "1": _point("seed-1", replace(_ARM["c"], student={"seed": 1})),
            "2": _point("seed-2", replace(_ARM["c"], student={"seed": 2})),
        },
    ),
    Sweep(
        name="generated",
        question="Blank and noise pictures, share of all (random absences besides)",
        base=_ARM["c"],
        points={
            "0 %": _point("generated-0", replace(_ARM["c"], generated=0.0)),
            "2.5 %": _point("generated-2.5", replace(_ARM["c"], generated=0.025)),
            "5 %": _ARM["c"],
            "10 %": _point("generated-10", replace(_ARM["c"], generated=0.1)),
            "20 %": _point("generated-20", replace(_ARM["c"], generated=0.2)),
        },
    ),
    Sweep(
        name="absent",
        question="Random absences a picture",
        base=_ARM["c"],
        points={
            "0": _ARM["b"],
            "2": _point("absent-2", replace(_ARM["c"], absent=2.0)),
            "5": _point("absent-5", replace(_ARM["c"], absent=5.0)),
            "10": _ARM["c"],
            "20": _point("absent-20", replace(_ARM["c"], absent=20.0)),
        },
    ),
    Sweep(
        name="hard",
        question="Share of hard absences among ten a picture, all kinds",
        base=_ARM["c"],
        points={
            "0 %": _ARM["c"],
            "10 %": _point("hard-10", replace(_ARM["e"], kinds=_TENTH_HARD)),
            "25 %, the default": _ARM["e"],
            "50 %": _ARM["i"],
            "100 %": _point("hard-100", replace(_ARM["e"], kinds=_ALL_HARD)),
        },
    ),
    Sweep(
        name="strictness",
        question="False negatives that the guard on scores may let through, mined absences alone",
        base=_ARM["d"],
        points={
            "3 %": _STRICT,
            "5 %": _ARM["d"],
            "15 %": _point("strictness-15", replace(_ARM["d"], mine={"max_false_negative_rate": 0.15})),
            "40 %": _point("strictness-40", replace(_ARM["d"], mine={"max_false_negative_rate": 0.4})),
            "no guard": _ARM["h"],
        },
    ),
    Sweep(
        name="strictness-mined",
        question="The strictest guard that can be kept, the default and none, mined absences alone",
        base=_ARM["d"],
        points={"3 %": _STRICT, "5 %": _ARM["d"], "no guard": _ARM["h"]},
    ),
    Sweep(
        name="strictness-default",
        question="The strictest guard and the default in the default recipe, where 15 % of all absences are mined",
        base=_ARM["e"],
        points={
            "3 %": _point("strictness-3", replace(_ARM["e"], mine={"max_false_negative_rate": 0.03})),
            "5 %": _ARM["e"],
        },
    ),
    Sweep(
        name="epochs",
        question="Epochs of phase 2",
        base=_ARM["c"],
        points={
            "2": _point("epochs-2", replace(_ARM["c"], epochs=2)),
            "5": _point("epochs-5", replace(_ARM["c"], epochs=5)),
            "the arms' own": _ARM["c"],
            "20": _point("epochs-20", replace(_ARM["c"], epochs=20)),
        },
    ),
    Sweep(
        name="presence",
        question="Weight of presence beside masks in the loss",
        base=_ARM["c"],
        points={
            "0.25": _point("presence-0.25", replace(_ARM["c"], student={"losses": {"presence": 0.25}})),
            "1": _ARM["c"],
            "4": _point("presence-4", replace(_ARM["c"], student={"losses": {"presence": 4.0}})),
        },
    ),
    Sweep(
        name="masks",
        question="Weight of cross entropy beside Dice in the loss of masks",
        base=_ARM["c"],
        points={
            "0": _point("masks-0", replace(_ARM["c"], student={"losses": {"mask_bce": 0.0}})),
            "1": _ARM["c"],
            "5": _point("masks-5", replace(_ARM["c"], student={"losses": {"mask_bce": 5.0}})),
        },
    ),
    Sweep(
        name="begin",
        question="From the weights that all arms begin with, or from a student that met presences alone",
        base=_ARM["c"],
        points={
            "the arms' own": _ARM["c"],
            "a, then 2 epochs": _point("begin-a-2", replace(_ARM["c"], begins_with="a", epochs=2)),
            "a, then as many as the arms": _point("begin-a", replace(_ARM["c"], begins_with="a")),
        },
    ),
)
