"""The page of the proof: what every arm read on pictures that it never saw, and a figure with its intervals.

    python benchmarks/proof_page.py DIR [--page FILE.md] [--figure FILE.png]

What the page says above its tables stays as people wrote it. A figure is the mean over the folds that are finished; its
interval is Student's t over folds, or where there is one fold, that of the fold's own bootstrap over pictures. A
difference between two arms is taken fold by fold.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.proof_arms import ARMS
from benchmarks.proof_recall import KINDS, RECALL, false_alarms
from student.readings import Evaluation, read_json

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # two-sided 95 % quantiles of Student's t, by degrees of freedom
SHOWN = {
    "miou": "mIoU",
    "prompt_sensitivity": "sensitivity",
    "presence_precision": "precision",
    "presence_recall": "recall",
    "presence_f1": "F1",
    "il_mcc": "IL_MCC",
    "ece": "ECE",
    "pope_random_mcc": "random",
    "pope_popular_mcc": "popular",
    "pope_adversarial_mcc": "adversarial",
    "hallucination_random": "random",
    "hallucination_popular": "popular",
    "hallucination_co_occurring": "adversarial",
    "hallucination_blank": "blank",
    "hallucination_noise": "noise",
}
TABLES = {
    "Masks and presence": (
        "miou",
        "prompt_sensitivity",
        "presence_precision",
        "presence_recall",
        "presence_f1",
        "il_mcc",
        "ece",
    ),
    "MCC in POPE's three settings": ("pope_random_mcc", "pope_popular_mcc", "pope_adversarial_mcc"),
    "Hallucination: absent prompts that are called present": (
        "hallucination_random",
        "hallucination_popular",
        "hallucination_co_occurring",
        "hallucination_blank",
        "hallucination_noise",
    ),
}
PAIRS = (("d", "c"), ("e", "a"), ("e", "c"), ("f", "e"), ("d", "h"), ("e", "g"))
MARKS = (  # colours of Okabe and Ito
    ("pope_random_mcc", "#0072B2", "o"),
    ("pope_popular_mcc", "#E69F00", "s"),
    ("pope_adversarial_mcc", "#D55E00", "^"),
)
BELOW = "<!-- written by benchmarks/proof_page.py from here on -->"
COMPARED = ("pope_random_mcc", "pope_adversarial_mcc", "hallucination_co_occurring", "miou")


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean with its interval; of `num` folds."""

    value: float
    low: float
    high: float
    num: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def read_all(folder: Path) -> dict[str, dict[int, Evaluation]]:
    """Every finished evaluation by arm and fold."""
    found: dict[str, dict[int, Evaluation]] = {}
    for path in sorted(folder.glob("fold-*/*/evaluation/evaluation.json")):
        fold, arm = int(path.parts[-4].removeprefix("fold-")), path.parts[-3]
        found.setdefault(arm, {})[fold] = read_json(str(path), Evaluation)
    return found


def over_folds(values: Sequence[float]) -> Figure:
    """The mean of two or more folds."""
    half = T_975[len(values) - 1] * stdev(values) / math.sqrt(len(values))
    return Figure(mean(values), mean(values) - half, mean(values) + half, len(values))


def figure_of(folds: dict[int, Evaluation], name: str) -> Figure | None:
    """One reading of one arm; None where it is undefined."""
    readings = [one.readings[name] for one in folds.values()]
    values = [reading.value for reading in readings if reading.value is not None]
    if len(values) > 1:
        return over_folds(values)
    if values and readings[0].low is not None and readings[0].high is not None:
        return Figure(values[0], readings[0].low, readings[0].high, 1)
    return None


def difference(first: dict[int, Evaluation], second: dict[int, Evaluation], name: str) -> Figure | None:
    """How much more the first reads, fold by fold; None with fewer than two folds in common."""
    values = []
    for fold in sorted(first.keys() & second.keys()):
        left, right = first[fold].readings[name].value, second[fold].readings[name].value
        if left is not None and right is not None:
            values.append(left - right)
    return over_folds(values) if len(values) > 1 else None


def tables(folder: Path, found: dict[str, dict[int, Evaluation]]) -> str:
    """The tables as Markdown."""
    lines = []
    for title, names in TABLES.items():
        lines += [f"### {title}", "", "| arm | folds | " + " | ".join(SHOWN[name] for name in names) + " |"]
        lines.append("|---" * (len(names) + 2) + "|")
        for arm in ARMS:
            folds = found.get(arm.name)
            if folds:
                cells = [str(figure_of(folds, name) or "undefined") for name in names]
                lines.append(f"| **{arm.name}** {arm.title} | {len(folds)} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [f"### Absent prompts called present where {RECALL:.0%} of presences are", ""]
    lines += ["| arm | folds | random | popular | adversarial |", "|---" * (len(KINDS) + 2) + "|"]
    for arm in ARMS:
        read = [false_alarms(folder / f"fold-{fold}", arm.name) for fold in found.get(arm.name, {})]
        if read:
            shares = [[one[kind] for one in read] for kind in KINDS]
            cells = [str(over_folds(share)) if len(read) > 1 else f"{share[0]:.3f}" for share in shares]
            lines.append(f"| **{arm.name}** {arm.title} | {len(read)} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += ["### Differences, fold by fold", "", "| arms | " + " | ".join(COMPARED) + " |"]
    lines.append("|---" * (len(COMPARED) + 1) + "|")
    for left, right in PAIRS:
        if left in found and right in found:
            cells = [str(difference(found[left], found[right], name) or "one fold") for name in COMPARED]
            lines.append(f"| {left} − {right} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(found: dict[str, dict[int, Evaluation]], path: Path) -> None:
    """MCC of every arm in POPE's three settings, with intervals, in colours that everybody can tell apart."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 3.6), layout="constrained")
    axes = canvas.subplots()
    arms = [arm for arm in ARMS if arm.name in found]
    for number, (name, colour, marker) in enumerate(MARKS):
        for place, arm in enumerate(arms):
            figure = figure_of(found[arm.name], name)
            if figure is not None:
                ends = [[max(0.0, figure.value - figure.low)], [max(0.0, figure.high - figure.value)]]
                label = SHOWN[name] if place == 0 else None
                axes.errorbar(
                    [place + 0.15 * (number - 1)],
                    [figure.value],
                    ends,
                    fmt=marker,
                    color=colour,
                    capsize=3,
                    label=label,
                )
    axes.set_xticks(range(len(arms)), [f"{arm.name}\n{arm.title}" for arm in arms], fontsize="x-small")
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_ylabel("MCC of presence")
    axes.legend(title="absences asked", fontsize="small")
    axes.grid(visible=True, axis="y", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=120, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what benchmarks/proof.py wrote")
    parser.add_argument("--page", type=Path, help="where the tables go [DIR/results.md]")
    parser.add_argument("--figure", type=Path, help="where the figure goes [DIR/proof.png]")
    options = parser.parse_args(argv)
    found = read_all(options.folder)
    if not found:
        raise SystemExit(f"error: {options.folder}: no evaluation; run benchmarks/proof.py first")
    written: Path = options.page or options.folder / "results.md"
    figure: Path = options.figure or options.folder / "proof.png"
    draw(found, figure)
    head = written.read_text(encoding="utf-8").partition(BELOW)[0] if written.exists() else ""
    written.write_text(head + BELOW + "\n\n" + tables(options.folder, found), encoding="utf-8")
    print(f"wrote {written} and {figure}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
