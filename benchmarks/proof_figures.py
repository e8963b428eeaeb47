"""The pictures of the proof: one plot for each question, with intervals, in colours that everybody can tell apart."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

from benchmarks.proof_arms import ARMS
from benchmarks.proof_recall import RECALL
from benchmarks.proof_tables import ArmRead, by_setting
from student.pope import SETTINGS

MARKS = {"random": ("#0072B2", "o"), "popular": ("#E69F00", "s"), "adversarial": ("#D55E00", "^")}  # Okabe and Ito
QUESTIONS = {  # by the figures of an arm: the name of the picture and what its axis shows
    "alarms": ("proof-alarms.png", f"absences called present\nat {RECALL:.0%} recall (less is better)"),
    "mcc": ("proof-mcc.png", "MCC of presence at val's\nthreshold (more is better)"),
}


def draw(found: Mapping[str, ArmRead], folder: Path) -> list[Path]:
    """The plots of every question; error bars are 95 % intervals over folds."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw_one(found, told, folder / name, label) for told, (name, label) in QUESTIONS.items()]


def _draw_one(found: Mapping[str, ArmRead], told: str, path: Path, label: str) -> Path:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 3.6), layout="constrained")
    axes = canvas.subplots()
    arms = [arm for arm in ARMS if arm.name in found]
    for number, setting in enumerate(SETTINGS):
        colour, marker = MARKS[setting]
        figures = [by_setting(getattr(found[arm.name], told), setting) for arm in arms]
        places = [place + 0.18 * (number - 1) for place in range(len(arms))]
        halves = [figure.high - figure.value for figure in figures]  # NaN where there are too few folds: no bar
        values = [figure.value for figure in figures]
        axes.errorbar(places, values, halves, fmt=marker, color=colour, capsize=3, label=setting)
    names = [f"{arm.name} ({len(found[arm.name].alarms)} folds)\n{fill(arm.title, 17)}" for arm in arms]
    axes.set_xticks(range(len(arms)), names, fontsize="x-small")
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.0)
    axes.set_ylabel(label)
    axes.legend(title="absences asked", fontsize="small")
    axes.grid(visible=True, axis="y", alpha=0.3)
    canvas.savefig(path, dpi=120, metadata={"Software": None})
    return path
