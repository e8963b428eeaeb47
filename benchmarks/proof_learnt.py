"""How far presence had been learnt when a run ended, against what the student then knows of pictures of test."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.proof_tables import ArmRead
from student.history import LossLine, read_history
from student.schedule import REFINEMENT

NAME = "proof-learnt.png"
FAMILIES = {  # arms that met absences of pictures, but for the naive mix; colours of Okabe and Ito
    "c": ("#0072B2", "o"),
    "d": ("#D55E00", "s"),
    "e": ("#E69F00", "^"),
    "f": ("#CC79A7", "v"),
    "h": ("#000000", "D"),
    "i": ("#009E73", "P"),
    "j": ("#56B4E9", "X"),
}


def left_of_presence(run: str) -> float:
    """The loss of presence on train in the last epoch of phase 2, mean over its lines; NaN where none was logged."""
    lines = [line for line in read_history(run) if isinstance(line, LossLine) and line.phase == REFINEMENT]
    last = max((line.epoch for line in lines), default=0)
    found = [line.losses["presence"] for line in lines if line.epoch == last and "presence" in line.losses]
    return float(np.mean(found)) if found else math.nan


def learnt(folder: Path, found: Mapping[str, ArmRead]) -> dict[tuple[str, int], tuple[float, float]]:
    """By arm and fold, what was left of the loss and IL_MCC on test; arms of FAMILIES and what was made from them."""
    pairs = {}
    for arm, read in found.items():
        for fold, evaluation in read.evaluations.items():
            left = left_of_presence(str(folder / f"fold-{fold}" / arm / "run"))
            reached = evaluation.readings["il_mcc"].value
            if arm[0] in FAMILIES and reached is not None and not math.isnan(left):
                pairs[arm, fold] = left, reached
    return pairs


def draw_learnt(pairs: Mapping[tuple[str, int], tuple[float, float]], folder: Path) -> Path:
    """A point for every run."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7, 3.8), layout="constrained")
    axes = canvas.subplots()
    for family, (colour, marker) in FAMILIES.items():
        here = [pair for (arm, _), pair in pairs.items() if arm[0] == family]
        if here:
            axes.plot(*zip(*here, strict=True), marker, color=colour, markerfacecolor="none", label=family)
    axes.set_xlabel("presence loss on train, last epoch")
    axes.set_ylabel("IL_MCC on test")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(title="arm, and what is made from it", fontsize="x-small", title_fontsize="x-small")
    path = folder / NAME
    canvas.savefig(path, dpi=120, metadata={"Software": None})
    return path


def tell(pairs: Mapping[tuple[str, int], tuple[float, float]]) -> str:
    """The correlation in a sentence of Markdown."""
    left_n, reached_n = np.asarray(list(pairs.values()), np.float64).T
    correlation = float(np.corrcoef(left_n, reached_n)[0, 1])
    return (
        "### How far presence had been learnt\n\nPresence loss on train in the last epoch against IL_MCC on test: "
        f"r = {correlation:.2f} over {len(pairs)} runs.\n"
    )
