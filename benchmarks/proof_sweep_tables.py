"""The tables of the sweeps: what each point reads, and by how much that is more than the arm it was made from."""

from collections.abc import Mapping, Sequence

from benchmarks.proof_recall import RECALL
from benchmarks.proof_sweeps import SWEEPS, Sweep
from benchmarks.proof_tables import ArmRead, Figure, between_pictures, figure_of, of_settings, table

HEADINGS = (
    "",
    "folds",
    f"alarms at {RECALL:.0%} recall, random / popular / adversarial",
    "MCC at val's threshold, likewise",
    "IL_MCC",
    "recall",
    "blank, noise called present",
    "mIoU",
)
DIFFERENCES = ("", "alarms, random", "alarms, adversarial", "MCC, random", "MCC, adversarial", "mIoU")


def sweep_tables(found: Mapping[str, ArmRead]) -> str:
    """A table for every sweep of which two points were judged, as Markdown."""
    return "\n".join(line for sweep in SWEEPS for line in _one(sweep, on_common_folds(sweep, found)))


def on_common_folds(sweep: Sweep, found: Mapping[str, ArmRead]) -> dict[str, ArmRead]:
    """The points of a sweep that were judged, by their labels, on the folds that all of these have."""
    judged = {label: found[arm.name] for label, arm in sweep.points.items() if arm.name in found}
    if len(judged) < 2:
        return {}
    folds = set.intersection(*(set(read.evaluations) for read in judged.values()))
    return {label: read.on(folds) for label, read in judged.items()} if folds else {}


def _one(sweep: Sweep, points: Mapping[str, ArmRead]) -> list[str]:
    if not points:
        return []
    base_label = sweep.base_label
    rows = [[f"**{label}**" if label == base_label else label, *_cells(read)] for label, read in points.items()]
    lines = table(sweep.question, HEADINGS, rows)
    if base_label in points:
        others = [label for label in points if label != base_label]
        more = [[label, *_more(points[label], points[base_label])] for label in others]
        lines += table(f"{sweep.question}: more than {base_label}", DIFFERENCES, more)
    return lines


def _more(read: ArmRead, base: ArmRead) -> list[str]:
    """By how much a point reads more than the base, in the order of DIFFERENCES."""
    alarms, mcc = of_settings(read.alarms, less=base.alarms), of_settings(read.mcc, less=base.mcc)
    miou = between_pictures(read, base, "miou")
    return [str(one) for one in (alarms[0], alarms[2], mcc[0], mcc[2], miou)]


def _cells(read: ArmRead) -> list[str]:
    return [
        str(len(read.evaluations)),
        _short(of_settings(read.alarms)),
        _short(of_settings(read.mcc)),
        str(figure_of(read.evaluations, "il_mcc")),
        str(figure_of(read.evaluations, "presence_recall")),
        _short([figure_of(read.evaluations, f"hallucination_{kind}") for kind in ("blank", "noise")]),
        str(figure_of(read.evaluations, "miou")),
    ]


def _short(figures: Sequence[Figure]) -> str:
    return " / ".join("undefined" if one.num == 0 else f"{one.value:.2f}" for one in figures)
