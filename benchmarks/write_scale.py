"""The page docs/scale.md: what an index of 11 M images or 110 M crops takes, from the points that search.json holds.

    python benchmarks/write_scale.py

Sizes follow from the formats (`miners.index.index_bytes`). Build and query times are carried on from the largest
measured point: to build, every row is compared with every list; to search, a query looks into as many lists, each as
long as rows by lists.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.timing import RESULTS, Figures, Value
from benchmarks.write_docs import read_figures, table
from miners.index import IndexKind, choose_kind, index_bytes
from miners.inverted_lists import num_lists

PAGE = RESULTS.parent.parent / "docs" / "scale.md"
SOURCE = RESULTS / "search.json"
POOLS = {"11 M images": 11_000_000, "110 M crops": 110_000_000}
_HEAD = """# Scale

What an index takes as pools grow. Measured points come from `benchmarks/results/search.json`, which
`python benchmarks/search.py --json benchmarks/results/search.json` writes; `python benchmarks/write_scale.py` makes
this page of them.

Which kind is built is decided by rows, width and the recipe's `memory_gb` (4 by default): every row is compared,
exactly, while rows fit there in float32; lists of float16 rows (`ivf_sq`) while they fit in float16; product codes
(`ivf_pq`) beyond. Whatever proposes, what is found is scored exactly from the stored float16 rows, which stay on disk:
2 bytes a dimension and row. Index files are memory-mapped, so a search holds the lists that it looks into, and the
operating system keeps as much of the rest as it likes.
"""
_NOTES = """Extrapolated on the same machine and with as many lists looked into as at the largest measured point; recall
is measured on the pool's own rows when an index is built, and stands in the record beside it. More cores divide both
times. While it is built, an index is in memory whole: {largest} for product codes of 110 M crops.
"""


def measured(figures: Figures) -> list[Mapping[str, Value]]:
    """The rows that tell of lists."""
    return [row for row in figures.rows if "kind" in row]


def extrapolated(figures: Figures) -> list[dict[str, Value]]:
    """Every pool in both kinds of lists."""
    width = int(figures.conditions["width"])
    rows: list[dict[str, Value]] = []
    for name, num_rows in POOLS.items():
        for kind in (IndexKind.IVF_SQ, IndexKind.IVF_PQ):
            base = max((row for row in measured(figures) if row["kind"] == kind), key=lambda row: row["rows"])
            more_rows, more_lists = num_rows / int(base["rows"]), num_lists(num_rows) / int(base["lists"])
            rows.append(
                {
                    "pool": name,
                    "kind": str(kind),
                    "by default": "yes" if choose_kind(num_rows, width, 4 << 30) is kind else "no",
                    "lists": num_lists(num_rows),
                    "index in GB": index_bytes(kind, num_rows, width) / 1e9,
                    "stored rows in GB": 2 * num_rows * width / 1e9,
                    "build in hours (extrapolated)": float(base["build s"]) * more_rows * more_lists / 3600,
                    "ms a query (extrapolated)": float(base["ms a query"]) * max(1.0, more_rows / more_lists),
                }
            )
    return rows


def page(figures: Figures) -> str:
    """The whole page."""
    conditions = figures.conditions
    machine = (
        f"Measured on {conditions['cores']} cores (load before: {conditions['load before']}), "
        f"width {conditions['width']}, {conditions['neighbours']} neighbours:"
    )
    beyond = extrapolated(figures)
    largest = f"{float(beyond[-1]['index in GB']):.1f} GB"
    parts = [_HEAD, machine, table(measured(figures)), "## 11 M images and 110 M crops", table(beyond)]
    return "\n\n".join(part.rstrip("\n") for part in [*parts, _NOTES.format(largest=largest)]) + "\n"


def main() -> None:
    PAGE.write_text(page(read_figures(SOURCE)))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
