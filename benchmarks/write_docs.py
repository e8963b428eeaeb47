"""The page docs/benchmarks.md, written from the JSON that each benchmark left in benchmarks/results.

    python benchmarks/write_docs.py

Nobody types a figure: a test compares the page with what this makes of the same files.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec

from benchmarks.timing import RESULTS, Claim, Figures, Value, shown

PAGE = RESULTS.parent.parent / "docs" / "benchmarks.md"
ORDER = (
    "write",
    "annotations",
    "read",
    "growth",
    "recall",
    "embed",
    "search",
    "hardness",
    "train_feed",
    "train_memory",
    "evaluate_feed",
    "metrics",
    "demo",
    "prefect_server",
    "flow_overhead",
    "dask_scaling",
    "scale_simulation",
)
_HEAD = """# Benchmarks

Every figure here was measured by a script in `benchmarks/` and written by `python benchmarks/write_docs.py` from the
JSON that it left in `benchmarks/results/`. Ratios are medians over rounds in which the ways alternate, in one run on
one machine; compare ratios, not seconds. To measure anew, run the command of a section with
`--json benchmarks/results/NAME.json`, then write this page again.
"""


class _OneRatio(msgspec.Struct, frozen=True, kw_only=True):
    """The shape in which a benchmark of a single ratio tells it."""

    benchmark: str
    conditions: dict[str, Value]
    rows: list[dict[str, Value]]
    ratio: float
    bound: float
    agreement: dict[str, float] = {}


def read_figures(path: Path) -> Figures:
    """The figures in the JSON at `path`."""
    data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=Figures)
    except msgspec.ValidationError:
        found = msgspec.json.decode(data, type=_OneRatio)
    agreement: list[dict[str, Value]] = [{"agreement": name, "value": value} for name, value in found.agreement.items()]
    name = found.benchmark
    return Figures(
        benchmark=name,
        title=f"{name.capitalize()}: {found.rows[-1]['way']} beside {found.rows[0]['way']}",
        command=f"python benchmarks/{name}.py",
        conditions=found.conditions,
        rows=[*found.rows, *agreement],
        claims=[Claim(name="ratio", value=found.ratio, bound=found.bound, at_least=True)],
    )


def all_figures(folder: Path = RESULTS) -> list[Figures]:
    """The figures of every benchmark, in the order of the page."""
    found = [read_figures(path) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda figures: ORDER.index(figures.benchmark))


def page(found: Sequence[Figures]) -> str:
    """The whole page."""
    return "\n".join([_HEAD, *map(section, found)])


def section(figures: Figures) -> str:
    """One benchmark: its bounds first, then what was measured, then the conditions."""
    claims = [
        {
            "figure": claim.name,
            "measured": f"{shown(claim.value)} {claim.unit}",
            "expected": claim.expectation,
            "holds": "yes" if claim.holds else "**no**",
        }
        for claim in figures.claims
    ]
    tables = [table(list(rows)) for _, rows in groupby(figures.rows, key=tuple)]
    conditions = "\n".join(f"- {name.replace('_', ' ')}: {shown(value)}" for name, value in figures.conditions.items())
    return "\n\n".join([f"## {figures.title}", table(claims), *tables, f"`{figures.command}`", conditions]) + "\n"


def table(rows: Sequence[Mapping[str, Value]]) -> str:
    """Rows of the same columns as Markdown."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([shown(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    PAGE.write_text(page(all_figures()))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
