"""Annotations: SA-1B json and its phrases become label rows, beside `json.loads` alone on the same files.

    python benchmarks/annotations.py [--files 2000] [--rounds 5] [--json FILE]

Our side is what a scan does with annotations: read the file, decode it, look its phrases up in the spilled sidecar,
check the masks that carry one, merge them into labels, and write the label table and the masks to the disk. The other
side is `json.loads(path.read_bytes())` and keeps nothing. Few masks with phrases are the usual case (`miners.phrases`
names 1 to 3 of 100, docs/phrases.md); all of them, the worst.

Each way runs once unmeasured: a process that reads much compiles its loop over the masks' characters on the way
(docs/decisions/0008). What that takes stands among the conditions.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import mean, median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow.parquet as pq

from benchmarks.sa1b_like import HEIGHT, MASKS, PHRASES, WIDTH, World
from benchmarks.timing import Claim, Figures, Value, Way, add_options, alternate, machine, median_ratio, report
from manifests import files
from manifests.tables import LABEL_RANGES, table_writer
from shards import rle
from shards.scan import LabelFiles
from shards.sources.sa1b_labels import Floors, decode_file, label_image
from shards.sources.sidecar import SidecarReader, spill

BOUND = 1.3
LOADS = "json.loads"
_FLOORS = Floors(predicted_iou=0.0, stability_score=0.0, area=0.0, phrase_score=0.0)


def write_labels(paths: Sequence[Path], spilled: str, out: Path) -> int:
    """How many label rows were written of the jsons at `paths`."""
    reader = SidecarReader(spilled)
    with table_writer(str(out / "labels.parquet"), LABEL_RANGES) as rows, files.commit(str(out / "masks")) as masks:
        labels = LabelFiles(rows, masks)
        for path in paths:
            file = decode_file(path.read_bytes())
            found = label_image(file, reader.rows_of(file.image.image_id), _FLOORS, path.name, exhaustive=False)
            labels.add(path.name, found.labels)
    return rows.num_rows


def load_all(paths: Sequence[Path]) -> None:
    for path in paths:
        json.loads(path.read_bytes())


def measure(num_files: int, rounds: int) -> Figures:
    """The figures of one run."""
    conditions = machine("numba")
    import_s, load_s = load_compiled()
    world = World(seed=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"sa_{number}.json" for number in range(num_files)]
        for number, path in enumerate(paths):
            path.write_bytes(world.annotations(number))
        ways = [Way(LOADS, partial(load_all, paths))]
        for num_phrases in (PHRASES, MASKS // 2, MASKS):
            sidecar, spilled = folder / f"{num_phrases}.parquet", str(folder / f"{num_phrases}")
            pq.write_table(world.sidecar(range(num_files), num_phrases), sidecar)
            spill([str(sidecar)], spilled)
            ways.append(Way(way_name(num_phrases), partial(write_labels, paths, spilled, folder)))
        num_bytes = mean(path.stat().st_size for path in paths)
        alternate(ways, 1)  # once unmeasured
        times = alternate(ways, rounds)
    rows: list[dict[str, Value]] = [
        {"way": name, "ms per file": 1000 * median(found) / num_files} for name, found in times.items()
    ]
    return Figures(
        benchmark="annotations",
        title="Annotations: SA-1B json to label rows",
        command=f"python benchmarks/annotations.py --files {num_files} --rounds {rounds}",
        conditions={
            **conditions,
            "files": f"{num_files} of {num_bytes / 1000:.0f} kB, {MASKS} masks of {WIDTH} x {HEIGHT} pixels each",
            "processes": 1,
            "rounds": rounds,
            "once a process, before": f"importing numba {import_s:.2f} s, loading or compiling the loop {load_s:.2f} s",
        },
        rows=rows,
        claims=[
            Claim(name=way, value=median_ratio(times, way, LOADS), bound=BOUND, at_least=False)
            for way in times
            if way != LOADS
        ],
    )


def load_compiled() -> tuple[float, float]:
    """Seconds that numba takes to be imported, and to load the loop or, where it was never kept, to compile it."""
    start = time.perf_counter()
    import_module("numba")
    imported = time.perf_counter()
    rle.reading.compiled()(
        b"0`U1",
        np.array([4]),
        np.array([1200]),
        np.empty(0, np.int32),
        np.zeros(2, np.int64),
        np.zeros(1, np.int64),
        np.zeros(1, np.int8),
    )
    return imported - start, time.perf_counter() - imported


def way_name(num_phrases: int) -> str:
    return f"label rows, {num_phrases} of {MASKS} masks with a phrase"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report(measure(options.files, options.rounds), options.json)


if __name__ == "__main__":
    main()
