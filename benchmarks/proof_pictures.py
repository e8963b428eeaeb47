"""Pictures of test whose answers two arms disagree on, each arm judged by the threshold that val chose for it.

    python benchmarks/proof_pictures.py DIR --out FILE.jpg [--arms c,e] [--fold 0] [--num 4]

Above stand absences that the first arm called present and the second did not, below those that it was the other way
round with, and last presences that the second lost: those whose presence changed most, no two of one picture.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.look import read_pictures
from benchmarks.proof_recall import Answers, read_answers

THUMBNAIL = 320  # pixels of the longer side


class Shown(NamedTuple):
    """A prompt that two arms disagree on."""

    key: str
    phrase: str
    first: float  # presence that the first arm gave it
    second: float


def changed(first: Answers, second: Answers, *, present: bool, gained: bool) -> Iterator[int]:
    """Rows of prompts that are `present`, which the second arm calls so and the first not, or the other way round."""
    says = [answers.presence_n >= (answers.threshold or 0.0) for answers in (first, second)]
    row_n = np.flatnonzero((first.present_n == present) & (says[0] != gained) & (says[1] == gained))
    seen: set[int] = set()
    for row in row_n[np.argsort(-np.abs(first.presence_n - second.presence_n)[row_n], kind="stable")].tolist():
        if first.image_n[row] not in seen:
            seen.add(int(first.image_n[row]))
            yield row


def disagreements(first: Answers, second: Answers, arms: tuple[str, str], num: int) -> dict[str, list[Shown]]:
    """At most `num` prompts of each row, by its title."""
    rows = {
        f"absent; called present by {arms[0]} alone": changed(first, second, present=False, gained=False),
        f"absent; called present by {arms[1]} alone": changed(first, second, present=False, gained=True),
        f"present; found by {arms[0]} alone": changed(first, second, present=True, gained=False),
    }
    return {
        title: [
            Shown(*first.prompts[row], float(first.presence_n[row]), float(second.presence_n[row]))
            for row in islice(found, num)
        ]
        for title, found in rows.items()
    }


def draw(fold: Path, arms: tuple[str, str], path: Path, num: int) -> dict[str, list[Shown]]:
    """Draw three rows of at most `num` pictures; what is shown, by row."""
    from matplotlib.figure import Figure as Canvas

    shown = disagreements(read_answers(fold, arms[0]), read_answers(fold, arms[1]), arms, num)
    keys = {one.key for row in shown.values() for one in row}
    pictures = read_pictures(str(fold / "judge"), keys, THUMBNAIL)
    canvas = Canvas(figsize=(2.3 * num, 7.2), layout="constrained")
    for part, (title, row) in zip(canvas.subfigures(len(shown), 1, squeeze=False)[:, 0], shown.items(), strict=True):
        part.suptitle(title, fontsize="small")
        places = part.subplots(1, num, squeeze=False)[0]
        for axes in places:
            axes.axis("off")
        for axes, one in zip(places, row, strict=False):
            axes.set_title(f"{one.phrase}: {one.first:.2f} → {one.second:.2f}", fontsize="x-small")
            axes.imshow(pictures[one.key])
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=100)
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what benchmarks/proof.py wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jpg")
    parser.add_argument("--arms", default="c,e", help="two arms [c,e]")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--num", type=int, default=4, help="pictures a row [4]")
    options = parser.parse_args(argv)
    first, second = options.arms.split(",")
    shown = draw(options.folder / f"fold-{options.fold}", (first, second), options.out, options.num)
    for title, row in shown.items():
        print(f"{title}: {', '.join(f'{one.key} {one.phrase}' for one in row)}")
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
