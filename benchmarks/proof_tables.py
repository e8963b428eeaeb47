"""The tables of the proof: means over folds with their intervals, and differences between arms."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.proof_arms import ARMS, PHASE_1
from benchmarks.proof_recall import (
    RECALL,
    SHOWN,
    auc_within,
    drawn_alarms,
    drawn_mcc,
    false_alarms,
    mcc_of_val,
    read_answers,
    recall_by_shown,
)
from student.bootstrap import bounds
from student.paired import ImageSums, paired_difference, read_sums
from student.pope import SETTINGS
from student.readings import Evaluation, read_json

_T = TypeVar("_T")

T_975 = {2: 4.303, 3: 3.182, 4: 2.776}  # two-sided 95 % quantiles of Student's t, by degrees of freedom
READINGS = {  # by title, with what stands above each of them
    "Masks and presence": {
        "miou": "mIoU",
        "prompt_sensitivity": "sensitivity",
        "presence_precision": "precision",
        "presence_recall": "recall",
        "presence_f1": "F1",
        "il_mcc": "IL_MCC",
        "ece": "ECE",
    },
    "MCC in POPE's three settings, present from 0.5 on": {
        "pope_random_mcc": "random",
        "pope_popular_mcc": "popular",
        "pope_adversarial_mcc": "adversarial",
    },
    "Hallucination: absent prompts that are called present, from 0.5 on": {
        "hallucination_random": "random",
        "hallucination_popular": "popular",
        "hallucination_co_occurring": "adversarial",
        "hallucination_blank": "blank",
        "hallucination_noise": "noise",
    },
}
ALARMS = f"Absent prompts called present where {RECALL:.0%} of presences are"
MCC = "MCC in POPE's three settings, at the threshold that val chose"
AUC = "AUC within a phrase: pictures that show it against those of each setting that do not"
BY_SHOWN = f"Presences found, {RECALL:.0%} over all, by how often train shows their phrase"
PAIRS = (("d", "c"), ("e", "a"), ("e", "c"), ("i", "c"), ("j", "c"), ("f", "e"), ("d", "h"), ("e", "g"))
DRAWN = {"miou": "mIoU", "il_fpr": "hallucination, all kinds", "presence_recall": "recall"}  # from pictures


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean with its interval; of `num` folds."""

    value: float
    low: float
    high: float
    num: int

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined"
        return f"{self.value:.3f}" if math.isnan(self.low) else f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


UNDEFINED = Figure(math.nan, math.nan, math.nan, 0)


@dataclass(slots=True)
class BySetting:
    """Figures in POPE's three settings, by fold."""

    values: dict[int, dict[str, float]] = field(default_factory=dict)
    drawn: dict[int, NDArray[np.float64]] = field(default_factory=dict)  # [D, 3], of draws of the fold's pictures

    def on(self, folds: Collection[int]) -> "BySetting":
        """The same, of some folds alone."""
        return BySetting(_only(self.values, folds), _only(self.drawn, folds))


@dataclass(slots=True)
class ArmRead:
    """What one arm read, by fold."""

    evaluations: dict[int, Evaluation] = field(default_factory=dict)
    sums: dict[int, dict[str, ImageSums]] = field(default_factory=dict)
    alarms: BySetting = field(default_factory=BySetting)  # at equal recall
    mcc: BySetting = field(default_factory=BySetting)  # at val's threshold
    auc: dict[int, dict[str, float]] = field(default_factory=dict)  # by POPE's setting, within a phrase
    recall: dict[int, dict[str, float]] = field(default_factory=dict)  # by how often train shows the phrase

    def on(self, folds: Collection[int]) -> "ArmRead":
        """The same, of some folds alone."""
        return ArmRead(
            evaluations=_only(self.evaluations, folds),
            sums=_only(self.sums, folds),
            alarms=self.alarms.on(folds),
            mcc=self.mcc.on(folds),
            auc=_only(self.auc, folds),
            recall=_only(self.recall, folds),
        )


def _only(by_fold: Mapping[int, _T], folds: Collection[int]) -> dict[int, _T]:
    return {fold: value for fold, value in by_fold.items() if fold in folds}


def read_all(folder: Path) -> dict[str, ArmRead]:
    """Every finished evaluation, by arm."""
    found: dict[str, ArmRead] = {}
    for path in sorted(folder.glob("fold-*/*/evaluation/evaluation.json")):
        fold, arm = int(path.parts[-4].removeprefix("fold-")), path.parts[-3]
        read = found.setdefault(arm, ArmRead())
        answers = read_answers(path.parents[2], arm)
        read.evaluations[fold] = read_json(str(path), Evaluation)
        read.sums[fold] = read_sums(str(path.parent))
        read.alarms.values[fold], read.alarms.drawn[fold] = false_alarms(answers), drawn_alarms(answers)
        read.mcc.values[fold], read.mcc.drawn[fold] = mcc_of_val(answers), drawn_mcc(answers)
        read.auc[fold], read.recall[fold] = auc_within(answers), recall_by_shown(answers)
    return found


def over_folds(values: Sequence[float]) -> Figure:
    """The mean of the folds; of fewer than three there is no interval worth the name."""
    if len(values) - 1 not in T_975 or any(map(math.isnan, values)):
        return Figure(sum(values) / len(values), math.nan, math.nan, len(values))
    half = T_975[len(values) - 1] * stdev(values) / math.sqrt(len(values))
    return Figure(mean(values), mean(values) - half, mean(values) + half, len(values))


def figure_of(folds: Mapping[int, Evaluation], name: str) -> Figure:
    """One reading of one arm."""
    readings = [one.readings[name] for one in folds.values()]
    known = [(one.value, one.low, one.high) for one in readings if one.value is not None]
    if len(known) == 1:
        value, low, high = known[0]
        return Figure(value, math.nan if low is None else low, math.nan if high is None else high, 1)
    return over_folds([value for value, _, _ in known]) if known else UNDEFINED


def of_settings(ours: BySetting, *, less: BySetting | None = None) -> list[Figure]:
    """The mean over folds in each of POPE's settings; or by how much it is more than that of another arm.

    The interval is Student's t over three folds or more; over fewer, that of the pictures drawn in each of them.
    """
    folds = sorted(ours.values if less is None else ours.values.keys() & less.values.keys())
    value_fs, drawn_ds = _of_folds(ours, folds)
    if less is not None:
        other_fs, other_ds = _of_folds(less, folds)
        value_fs, drawn_ds = value_fs - other_fs, drawn_ds - other_ds
    if len(folds) - 1 in T_975:
        return [over_folds(value_f) for value_f in value_fs.T.tolist()]
    value_s = value_fs.mean(0)
    rows = zip(value_s.tolist(), *(side.tolist() for side in bounds(drawn_ds, value_s)), strict=True)
    return [Figure(value, low, high, len(folds)) for value, low, high in rows]


def _of_folds(read: BySetting, folds: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Figures [F, 3], and the mean over folds of those of each draw [D, 3]."""
    value_fs = np.asarray([[read.values[fold][setting] for setting in SETTINGS] for fold in folds])
    return value_fs, np.mean([read.drawn[fold] for fold in folds], axis=0)


def between_pictures(first: ArmRead, second: ArmRead, metric: str) -> Figure:
    """How much more the first reads, over the pictures of all folds that both have, drawn together."""
    folds = sorted(first.sums.keys() & second.sums.keys())
    if any(metric not in arm.sums[fold] for arm in (first, second) for fold in folds):
        return UNDEFINED
    pooled = (_pooled({fold: arm.sums[fold][metric] for fold in folds}) for arm in (first, second))
    found = paired_difference(*pooled)
    return UNDEFINED if found is None else Figure(found.value, found.low, found.high, len(folds))


def _pooled(sums: Mapping[int, ImageSums]) -> ImageSums:
    """The pictures of several folds as those of one; no picture is in the test of two."""
    rows = sorted(
        (f"{fold}/{key}", float(part), float(whole))
        for fold, one in sums.items()
        for key, part, whole in zip(one.keys, one.part_i, one.whole_i, strict=True)
    )
    keys, parts, wholes = zip(*rows, strict=True)
    return ImageSums(keys=keys, part_i=np.asarray(parts, np.float64), whole_i=np.asarray(wholes, np.float64))


def tables(found: Mapping[str, ArmRead]) -> str:
    """The tables as Markdown."""
    arms = [(f"**{arm.name}** {arm.title}", found[arm.name]) for arm in ARMS if arm.name in found]
    arms += [("the teacher of phase 1, by itself", found[PHASE_1.name])] if PHASE_1.name in found else []
    lines: list[str] = []
    for title, by_setting in ((ALARMS, "alarms"), (MCC, "mcc")):
        rows = [
            [name, str(len(read.evaluations)), *map(str, of_settings(getattr(read, by_setting)))] for name, read in arms
        ]
        lines += table(title, ["arm", "folds", *SETTINGS], rows)
    for title, told, names in ((AUC, "auc", tuple(SETTINGS)), (BY_SHOWN, "recall", tuple(SHOWN))):
        rows = []
        for name, read in arms:
            folds = getattr(read, told)
            rows.append(
                [name, str(len(folds)), *(str(over_folds([one[key] for one in folds.values()])) for key in names)]
            )
        lines += table(title, ["arm", "folds", *names], rows)
    for title, readings in READINGS.items():
        rows = []
        for name, read in arms:
            cells = [str(figure_of(read.evaluations, reading)) for reading in readings]
            rows.append([name, str(len(read.evaluations)), *cells])
        lines += table(title, ["arm", "folds", *readings.values()], rows)
    lines += differences(found)
    return "\n".join(lines)


def differences(found: Mapping[str, ArmRead]) -> list[str]:
    """Pairs of arms: fold by fold, and over pictures."""
    by_fold, by_picture = [], []
    for left, right in PAIRS:
        if left not in found or right not in found:
            continue
        first, second = found[left], found[right]
        common = len(first.evaluations.keys() & second.evaluations.keys())
        if not common:
            continue
        figures = of_settings(first.alarms, less=second.alarms) + of_settings(first.mcc, less=second.mcc)
        by_fold.append([f"{left} − {right}", str(common), *map(str, figures)])
        drawn = [between_pictures(first, second, metric) for metric in DRAWN]
        by_picture.append([f"{left} − {right}", str(common), *(str(one) for one in drawn)])
    headings = [f"{what}, {setting}" for what in ("alarms", "MCC") for setting in SETTINGS]
    return [
        *table("Differences, fold by fold", ["arms", "folds", *headings], by_fold),
        *table(
            "Differences over the pictures of all folds, drawn together", ["arms", "folds", *DRAWN.values()], by_picture
        ),
    ]


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A heading and a table of Markdown, as lines."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, *rows)]
    return [f"### {title}", "", lines[0], "|---" * len(headings) + "|", *lines[1:], ""]
