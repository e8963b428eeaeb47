"""Demo: what `make demo` has to show, read from what it left: a student that knows absence, beside one that cannot.

    python benchmarks/demo.py [demo] [--seconds S] [--json FILE]

Both students learn the same pictures; the second is shown presences alone. All figures are of the held-out split, whose
cut-outs and backgrounds no training has seen, at a presence of one half. `--seconds` is how long `make demo` took in an
installed environment, as `time make demo` tells.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.timing import Claim, Figures, Value, add_options, machine, report
from student.readings import Evaluation, read_json

STUDENT, POSITIVES = "student", "positives"  # folders of the two runs
HALLUCINATION, IL_MCC, TIMES, CHANCE, SECONDS = 5.0, 0.5, 1.5, 0.1, 600.0
SHOWN = (
    "il_mcc",
    "presence_f1",
    "il_fpr",
    "hallucination_blank",
    "hallucination_noise",
    "miou",
    "miou_everything",
    "blind_phrase_mcc",
)


def value(found: Evaluation, name: str) -> float:
    """A reading that must be defined.

    Raises:
        RuntimeError: it is not.
    """
    reading = found.readings[name]
    if reading.value is None:
        raise RuntimeError(f"{found.name}: {name} is undefined, because {reading.undefined}; run make demo again")
    return reading.value


def reported(markdown: str, found: Evaluation) -> bool:
    """Whether the report has a column of this run with its IL_MCC."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    head = next((line for line in lines if found.name in line), "")
    row = next((line for line in lines if line.startswith("| IL_MCC |")), "")
    cells = [cell.strip() for cell in head.split("|")]
    place = cells.index(found.name) if found.name in cells else 0
    written = f"{value(found, 'il_mcc'):.4f}".replace("-", "\u2212")
    return written in row.split("|")[place] if place else False


def figures_of(folder: Path, seconds: float | None) -> Figures:
    """The figures of the demo in `folder`."""
    student, positives = (
        read_json(str(folder / run / "evaluation" / "evaluation.json"), Evaluation) for run in (STUDENT, POSITIVES)
    )
    markdown = (folder / "report" / "report.md").read_text(encoding="utf-8")
    at_most = {
        f"hallucination on {kind} pictures": 100 * value(student, f"hallucination_{kind}")
        for kind in ("blank", "noise")
    }
    claims = [
        Claim(name=name, value=found, bound=HALLUCINATION, at_least=False, unit="%") for name, found in at_most.items()
    ]
    claims += [
        Claim(
            name="IL_MCC on the held-out split", value=value(student, "il_mcc"), bound=IL_MCC, at_least=True, unit=""
        ),
        Claim(
            name="mIoU by that of a mask over everything",
            value=value(student, "miou") / value(student, "miou_everything"),
            bound=TIMES,
            at_least=True,
        ),
        Claim(
            name="IL_MCC of the student of presences alone, off 0",
            value=abs(value(positives, "il_mcc")),
            bound=CHANCE,
            at_least=False,
            unit="",
        ),
        Claim(
            name="students whose IL_MCC stands on the report",
            value=sum(reported(markdown, found) for found in (student, positives)),
            bound=2,
            at_least=True,
            unit="",
        ),
    ]
    if seconds is not None:
        claims.append(Claim(name="make demo, installed", value=seconds, bound=SECONDS, at_least=False, unit="s"))
    rows: list[dict[str, Value]] = [
        {"figure": name, **{one.name: _cell(one, name) for one in (student, positives)}} for name in SHOWN
    ]
    return Figures(
        benchmark="demo",
        title="The demo: absence learnt, and absence never shown",
        command="make demo && python benchmarks/demo.py",
        conditions=machine("torch", "timm") | {"pictures": student.num_images, "split": student.split},
        rows=rows,
        claims=claims,
    )


def _cell(found: Evaluation, name: str) -> Value:
    reading = found.readings[name]
    return reading.value if reading.value is not None else "undefined"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"))
    parser.add_argument("--seconds", type=float, help="how long make demo took")
    add_options(parser)
    options = parser.parse_args()
    report(figures_of(options.folder, options.seconds), options.json)


if __name__ == "__main__":
    main()
