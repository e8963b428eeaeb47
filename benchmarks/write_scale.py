"""The page docs/scale.md: a plan for SA-1B whole, and what an index of 11 M images or 110 M crops takes.

    python benchmarks/write_scale.py

The plan's figures are those of scale_simulation.json, the index's follow from the points that search.json holds.
Sizes follow from the formats (`miners.index.index_bytes`). Build and query times are carried on from the largest
measured point: to build, every row is compared with every list; to search, a query looks into as many lists, each as
long as rows by lists.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.scale_simulation import NUM_BYTES, PICTURES, Cost, core_hours, costs
from benchmarks.timing import RESULTS, Figures, Value
from benchmarks.write_docs import read_figures, table
from miners.index import IndexKind, choose_kind, index_bytes
from miners.inverted_lists import num_lists

PAGE = RESULTS.parent.parent / "docs" / "scale.md"
SOURCE = RESULTS / "search.json"
SIMULATION = RESULTS / "scale_simulation.json"
POOLS = {"11 M images": 11_000_000, "110 M crops": 110_000_000}
GIGABYTES_A_SECOND = (0.2, 1.0, 10.0)  # of the disk or bucket, reading and writing together
PASSES = {"scan": 1, "write": 2}  # over all bytes; to write is to read them and to write them
_HEAD = """# Scale

`python benchmarks/write_scale.py` makes this page of the JSON that benchmarks left in `benchmarks/results/`. What is
simulated or extrapolated is called so.

## SA-1B whole: a plan

1,000 tars, 11 M images, some 10 TB. **Nobody has run this; it was simulated.** The plan:

1. Put tars and `--out` where every machine sees them under one name: a shared disk, or a bucket.
2. Start a scheduler (`dask scheduler`), and on every machine, in the same environment (`constraints.txt`), a worker a
   core (`dask worker tcp://HOST:8786 --nworkers auto --nthreads 1`).
3. Anywhere: `python -m flows.build_shards RECIPE.toml --out DIR --runner dask --scheduler tcp://HOST:8786`. A tar is a
   task of the scan, a shard one of writing. Workers may come and go; a lost one costs its task. If the command itself
   is stopped, run it again: finished parts are kept.

{costs}

For pictures of SA-1B's size (2250 x 1500); what bytes decide is carried on to SA-1B's {kilobytes:.0f} kB a picture,
json and all. Embedding is that of the embedded encoder on a CPU. Only recipes with `[mine]` ask for it, and it runs in
the command itself, not on the workers: {embedding:.0f} core hours for the pictures, and {crops:.0f} more for a crop of
each of {num_crops:.0f} M presences (`phrases = "retrieve"` looks at up to 32 masks a picture, each twice). So put a GPU
beside the command.

**Simulated** (`benchmarks/scale_simulation.py`, medians of {seeds} seeds): {simulated}.
A task takes {time}.
Workers die {deaths}.
The next task goes to whichever worker is free first, a lost one again at once.

{runs}

Left out: planning between the two stages, which is one process, and the disk. **Scan and write move {terabytes:.0f}
TB**: by arithmetic, a disk or bucket of so many GB/s allows no fewer hours than these, and keeps no more workers busy:

{disk}

## An index of 11 M images and 110 M crops

Measured points come from `benchmarks/results/search.json`, which
`python benchmarks/search.py --json benchmarks/results/search.json` writes.

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


def disk_rows(alone: Mapping[str, Value]) -> list[dict[str, Value]]:
    """What each bandwidth allows at best, beside the simulated hours of one worker alone."""
    needed = sum(float(alone[f"{stage} h"]) for stage in PASSES)
    rows: list[dict[str, Value]] = []
    for rate in GIGABYTES_A_SECOND:
        hours = {f"{stage} h": passes * NUM_BYTES / (1e9 * rate) / 3600 for stage, passes in PASSES.items()}
        rows.append({"GB/s": rate, **hours, "workers": needed / sum(hours.values())})
    return rows


def plan(simulation: Figures, found: Sequence[Cost]) -> str:
    """The page's head: the plan, its costs, and what was simulated."""
    steps = [row for row in simulation.rows if "step, on one core" in row]
    runs = [row for row in simulation.rows if "workers" in row]
    conditions = simulation.conditions
    return _HEAD.format(
        costs=table(steps),
        kilobytes=NUM_BYTES / PICTURES / 1e3,
        embedding=core_hours(found, "embed"),
        crops=core_hours(found, "embed") * POOLS["110 M crops"] / PICTURES,
        num_crops=POOLS["110 M crops"] / 1e6,
        simulated=conditions["simulated"],
        time=conditions["time of a task"],
        deaths=conditions["workers die"],
        seeds=conditions["seeds"],
        runs=table(runs),
        terabytes=sum(PASSES.values()) * NUM_BYTES / 1e12,
        disk=table(disk_rows(runs[0])),
    )


def page(figures: Figures, simulation: Figures) -> str:
    """The whole page."""
    conditions = figures.conditions
    machine = (
        f"Measured on {conditions['cores']} cores (load before: {conditions['load before']}), "
        f"width {conditions['width']}, {conditions['neighbours']} neighbours:"
    )
    beyond = extrapolated(figures)
    largest = f"{float(beyond[-1]['index in GB']):.1f} GB"
    parts = [plan(simulation, costs()), machine, table(measured(figures)), table(beyond)]
    return "\n\n".join(part.rstrip("\n") for part in [*parts, _NOTES.format(largest=largest)]) + "\n"


def main() -> None:
    PAGE.write_text(page(read_figures(SOURCE), read_figures(SIMULATION)))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
