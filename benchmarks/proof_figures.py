"""The pictures of the proof: one plot for each question, with intervals, in colours that everybody can tell apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from benchmarks.proof_arms import ARMS
from benchmarks.proof_recall import RECALL
from benchmarks.proof_sweep_tables import on_common_folds
from benchmarks.proof_sweeps import SWEEPS, Sweep
from benchmarks.proof_tables import ArmRead, Figure, figure_of, of_settings
from benchmarks.proof_world import FOLDS
from student.pope import SETTINGS

MARKS = {"random": ("#0072B2", "o"), "popular": ("#E69F00", "s"), "adversarial": ("#D55E00", "^")}  # Okabe and Ito
QUESTIONS = {  # by the figures of an arm: the name of the picture and what its axis shows
    "alarms": ("proof-alarms.png", f"absences called present\nat {RECALL:.0%} recall (less is better)"),
    "mcc": ("proof-mcc.png", "MCC of presence at val's\nthreshold (more is better)"),
}


def draw(found: Mapping[str, ArmRead], folder: Path) -> list[Path]:
    """The plots of every question; error bars are 95 % intervals, over folds where there are three."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw_one(found, told, folder / name, label) for told, (name, label) in QUESTIONS.items()]


def _draw_one(found: Mapping[str, ArmRead], told: str, path: Path, label: str) -> Path:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(9, 3.8), layout="constrained")
    axes = canvas.subplots()
    arms = [arm for arm in ARMS if arm.name in found]
    for number, setting in enumerate(SETTINGS):
        colour, marker = MARKS[setting]
        figures = [of_settings(getattr(found[arm.name], told))[number] for arm in arms]
        places = [place + 0.18 * (number - 1) for place in range(len(arms))]
        values = [figure.value for figure in figures]
        axes.errorbar(places, values, bars(figures), fmt=marker, color=colour, capsize=3, label=setting)
    names = [f"{arm.name}\n{fill(arm.title, 13)}\n({len(found[arm.name].evaluations)} of {FOLDS})" for arm in arms]
    axes.set_xticks(range(len(arms)), names, fontsize="x-small")
    axes.set_xlabel("arm (folds of it that are judged)", fontsize="x-small")
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.0)
    axes.set_ylabel(label)
    axes.legend(title="absences asked", fontsize="small")
    axes.grid(visible=True, axis="y", alpha=0.3)
    canvas.savefig(path, dpi=120, metadata={"Software": None})
    return path


def draw_sweeps(found: Mapping[str, ArmRead], folder: Path) -> list[Path]:
    """A plot for every sweep of which two points were judged on a common fold: presence, and masks beside it."""
    judged = [(sweep, points) for sweep in SWEEPS if (points := on_common_folds(sweep, found))]
    return [_draw_sweep(sweep, points, folder / f"proof-sweep-{sweep.name}.png") for sweep, points in judged]


def _draw_sweep(sweep: Sweep, points: Mapping[str, ArmRead], path: Path) -> Path:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 2.8), layout="constrained")
    presence, masks = canvas.subplots(1, 2, width_ratios=(3, 2))
    for number, setting in enumerate(SETTINGS):
        colour, marker = MARKS[setting]
        figures = [of_settings(read.alarms)[number] for read in points.values()]
        places = [place + 0.12 * (number - 1) for place in range(len(points))]
        values = [figure.value for figure in figures]
        presence.errorbar(places, values, bars(figures), fmt=marker, color=colour, capsize=3, label=setting)
    ious = [figure_of(read.evaluations, "miou") for read in points.values()]
    masks.errorbar(range(len(points)), [one.value for one in ious], bars(ious), fmt="o", color="black", capsize=3)
    for axes, label in ((presence, QUESTIONS["alarms"][1]), (masks, "mIoU (more is better)")):
        axes.set_xticks(range(len(points)), [fill(label, 12) for label in points], fontsize="x-small")
        axes.set_ylim(0, 1 if axes is presence else None)
        axes.set_ylabel(label, fontsize="small")
        axes.grid(visible=True, axis="y", alpha=0.3)
    presence.legend(fontsize="x-small")
    canvas.suptitle(fill(sweep.question, 90), fontsize="small")
    canvas.savefig(path, dpi=120, metadata={"Software": None})
    return path


def bars(figures: Sequence[Figure]) -> list[list[float]]:
    """How far the intervals reach below and above their values."""
    return [[one.value - one.low for one in figures], [one.high - one.value for one in figures]]
