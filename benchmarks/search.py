"""Search: the index beside bare FAISS and sentence-transformers, lists beside exact search, memory as rows grow.

    python benchmarks/search.py [--rows 100000] [--queries 10000] [--large 1000000] [--rounds 3] [--mining] [--small]

Every way runs in a process of its own and reads the same rows from a file. Rows are mixtures of concepts that lie as
real embeddings do (`benchmarks/concept_rows.py`); no two are alike.

- Mining: embedding files in, the written table out, 100 neighbours a query looked at, guards included (`ours`), beside
  `IndexFlatIP.search` alone on float32 rows that are ready (`bare`) and `mine_hard_negatives` at its defaults with
  100 negatives (`theirs`; its model hands out the same rows, so that nothing is encoded, and its pairs are numbers).
  Of ours, the index alone is timed too: from stored rows to exact neighbours, with all checks (`ours, index alone`).
- Lists of float16 rows and of product codes, built and searched, beside bare FAISS on the same queries.
- Peak memory: of the whole process for the first; of what a process holds itself, without the pages of the mapped row
  file, for the last, where every size is searched with one memory setting.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.concept_rows import concept_rows, intrinsic_dimension
from benchmarks.timing import Claim, Figures, Value, add_options, machine, median_ratio, report

# N rows, Q queries, K neighbours, D width
NEIGHBOURS = 100
NEGATIVES = 10  # taken at most of the neighbours of a query
WIDTH = 512
LARGE_QUERIES = 1000
LARGE_SETTING = 4 << 30
FLAT_SETTING = 256 << 20
MINING_CLAIMS = ("time by", "peak memory by")
Rows = NDArray[np.float16]
Found = dict[str, float]


def bare(folder: Path) -> Found:
    """FAISS alone, on rows that are ready."""
    import faiss

    rows_nd, queries_qd = (_load(folder, name).astype(np.float32) for name in ("rows", "queries"))
    index = faiss.IndexFlatIP(rows_nd.shape[1])
    index.add(rows_nd)
    return {"s": _seconds(lambda: index.search(queries_qd, NEIGHBOURS))}


def ours(folder: Path) -> Found:
    """Mining, from embedding files to the written table; labels and what guards know lie ready."""
    import faiss  # noqa: F401 (imported before the clock starts, as in the other ways)

    from benchmarks.mining_world import make_inventory, make_knowledge, mine_files, write_embeddings
    from manifests.recipe import Mine

    rows_nd, queries_qd = _load(folder, "rows"), _load(folder, "queries")
    num, num_phrases = len(rows_nd), min(len(queries_qd), len(rows_nd))
    write_embeddings(folder, rows_nd, queries_qd[:num_phrases])
    del rows_nd, queries_qd
    inventory, knowledge = make_inventory(num, num_phrases), make_knowledge(num, num_phrases)
    settings = Mine(absolute_margin=0.0, margin_space="raw", num_negatives=NEGATIVES, range_max=NEIGHBOURS)
    return {"s": _seconds(lambda: mine_files(folder, inventory, knowledge, settings, folder / "negatives.parquet"))}


def index_alone(folder: Path) -> Found:
    """The index, from the file of rows to exact neighbours."""
    import faiss  # noqa: F401 (imported before the clock starts, as in the other ways)
    import pyarrow as pa

    from miners.index import open_index

    queries_qd = _load(folder, "queries")

    def run() -> None:
        rows_nd = _load(folder, "rows")
        keys = pa.array([f"{row:09d}" for row in range(len(rows_nd))])
        index = open_index(rows_nd, keys, folder=str(folder), memory_bytes=LARGE_SETTING)
        index.search(queries_qd, NEIGHBOURS)

    return {"s": _seconds(run)}


def theirs(folder: Path) -> Found:
    """sentence-transformers' miner with a model that hands out the rows."""
    import torch
    from datasets import Dataset
    from sentence_transformers.util import cos_sim, mine_hard_negatives, pairwise_cos_sim

    rows_nd, queries_qd = (_load(folder, name).astype(np.float32) for name in ("rows", "queries"))

    class Ready:
        device = torch.device("cpu")
        similarity = staticmethod(cos_sim)
        similarity_pairwise = staticmethod(pairwise_cos_sim)

        def encode_document(self, texts: list[str], **_: object) -> NDArray[np.float32]:
            return rows_nd[[int(text) for text in texts]]

        def encode_query(self, texts: list[str], **_: object) -> NDArray[np.float32]:
            return queries_qd[[int(text[1:]) for text in texts]]

    pairs = {
        "anchor": [f"q{query}" for query in range(len(queries_qd))],
        "positive": [str(query) for query in range(len(queries_qd))],
    }
    corpus = [str(row) for row in range(len(rows_nd))]

    def run() -> None:
        mine_hard_negatives(
            Dataset.from_dict(pairs),
            Ready(),  # type: ignore[arg-type]
            corpus=corpus,
            num_negatives=NEIGHBOURS,
            output_format="n-tuple",
            verbose=False,
        )

    return {"s": _seconds(run)}


def lists(folder: Path, kind_name: str) -> Found:
    """Lists of one kind: built, opened, searched beside bare FAISS."""
    import faiss
    import pyarrow as pa

    from miners.exact_search import make_pool, search_exactly
    from miners.index import IndexKind, open_index
    from miners.inverted_lists import recall_by_score

    rows_nd, queries_qd = _load(folder, "rows"), _load(folder, "queries")
    keys = pa.array([f"{row:09d}" for row in range(len(rows_nd))])
    index = open_index(
        rows_nd, keys, folder=str(folder / "index"), memory_bytes=LARGE_SETTING, kind=IndexKind(kind_name)
    )
    index.search(queries_qd, NEIGHBOURS)  # pages of the file are read once
    times = [_seconds(lambda: index.search(queries_qd, NEIGHBOURS)) for _ in range(3)]
    found = index.search(queries_qd, NEIGHBOURS)
    threads = index.num_threads
    exact = search_exactly(
        make_pool(rows_nd, keys, num_threads=threads), queries_qd, NEIGHBOURS, block_rows=1 << 16, num_threads=threads
    )
    flat = faiss.IndexFlatIP(rows_nd.shape[1])
    flat.add(rows_nd.astype(np.float32))
    asked_qd = queries_qd.astype(np.float32)
    bare_times = [_seconds(lambda: flat.search(asked_qd, NEIGHBOURS)) for _ in range(3)]
    return {
        "build s": index.record.seconds,
        "MB": index.record.num_bytes / 1e6,
        "lists": index.record.lists,
        "probes": index.record.probes,
        "ms a query": 1000 * median(times) / len(queries_qd),
        "exact ms a query": 1000 * median(bare_times) / len(queries_qd),
        "recall by score": recall_by_score(found.scores_qk, exact.scores_qk),
    }


def memory(folder: Path) -> Found:
    """The most that a flat search holds itself under one setting."""
    import pyarrow as pa

    from miners.index import IndexKind, open_index

    rows_nd = np.load(folder / "rows.npy", mmap_mode="r")
    queries_qd = _load(folder, "queries")
    keys = pa.array(np.char.zfill(np.arange(len(rows_nd)).astype(str), 9))
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], _held_megabytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    index = open_index(rows_nd, keys, folder="", memory_bytes=FLAT_SETTING, kind=IndexKind.FLAT)
    index.search(queries_qd, NEIGHBOURS)
    done.set()
    watcher.join()
    return {"held MB": peak[0]}


def _held_megabytes() -> float:
    """Resident memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1.024 / 1000


def _load(folder: Path, name: str) -> Rows:
    rows: Rows = np.load(folder / f"{name}.npy")
    return rows


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


WAYS: dict[str, Callable[[Path], Found]] = {
    "bare": bare,
    "ours": ours,
    "ours, index alone": index_alone,
    "theirs": theirs,
    "ivf_sq": lambda folder: lists(folder, "ivf_sq"),
    "ivf_pq": lambda folder: lists(folder, "ivf_pq"),
    "memory": memory,
}


def alone(way: str, folder: Path) -> Found:
    """What a way finds in a process of its own, and that process's peak memory."""
    out = folder / f"{way}.json"
    command = [sys.executable, str(Path(__file__).resolve()), "--way", way, "--folder", str(folder), "--json", str(out)]
    with open(os.devnull, "wb") as nowhere:
        child = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {child.returncode}")
    found: Found = json.loads(out.read_bytes())
    return {**found, "peak MB": usage.ru_maxrss * 1.024 / 1000}


def write_world(folder: Path, num_rows: int, num_queries: int) -> None:
    """Rows and queries in files; queries are other rows of the same concepts."""
    np.save(folder / "rows.npy", concept_rows(num_rows, WIDTH, seed=0))
    np.save(folder / "queries.npy", concept_rows(num_queries, WIDTH, seed=1))


def measure_mining(num_rows: int, num_queries: int, rounds: int) -> tuple[list[dict[str, Value]], list[Claim]]:
    """Ours beside bare FAISS and sentence-transformers, alternating."""
    ways = ("bare", "ours", "ours, index alone", "theirs")
    with tempfile.TemporaryDirectory() as name:
        write_world(Path(name), num_rows, num_queries)
        found = [{way: alone(way, Path(name)) for way in ways} for _ in range(rounds)]
    times = {way: [one[way]["s"] for one in found] for way in ways}
    peaks = {way: max(one[way]["peak MB"] for one in found) for way in ways}
    rows: list[dict[str, Value]] = [{"way": way, "s": median(times[way]), "peak MB": peaks[way]} for way in ways]
    claims = [
        _claim("time by bare IndexFlatIP", median_ratio(times, "ours", "bare"), 1.25),
        _claim("time by bare IndexFlatIP, index alone", median_ratio(times, "ours, index alone", "bare"), 1.25),
        _claim("time by mine_hard_negatives", median_ratio(times, "ours", "theirs"), 1.0),
        _claim("peak memory by mine_hard_negatives", peaks["ours"] / peaks["theirs"], 0.2),
    ]
    return rows, claims


def measure_lists(sizes: list[int]) -> tuple[list[dict[str, Value]], list[Claim]]:
    """Both kinds of lists at growing sizes; the claims are on the largest."""
    rows: list[dict[str, Value]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            write_world(Path(name), size, LARGE_QUERIES)
            rows += [{"kind": kind, "rows": size, **alone(kind, Path(name))} for kind in ("ivf_sq", "ivf_pq")]
    last = rows[-2]
    faster = float(last["exact ms a query"]) / float(last["ms a query"])
    return rows, [
        Claim(
            name="recall by score of lists", value=float(last["recall by score"]), bound=0.95, at_least=True, unit=""
        ),
        Claim(name="lists faster than exact", value=faster, bound=5.0, at_least=True),
    ]


def measure_memory(sizes: list[int]) -> tuple[list[dict[str, Value]], list[Claim]]:
    """Memory of flat search at growing sizes under one setting."""
    rows: list[dict[str, Value]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            write_world(Path(name), size, LARGE_QUERIES)
            held = alone("memory", Path(name))["held MB"]
        rows.append({"rows searched": size, "setting MB": FLAT_SETTING / 1e6, "held MB": held})
    held_all = [float(row["held MB"]) for row in rows]
    return rows, [_claim("memory of the most rows by that of the fewest", held_all[-1] / held_all[0], 1.25)]


def _claim(name: str, value: float, bound: float) -> Claim:
    return Claim(name=name, value=value, bound=bound, at_least=False)


def measure(num_rows: int, num_queries: int, large: int, rounds: int, *, kept: Figures | None) -> Figures:
    """The figures of one run; with `kept`, mining is measured anew and lists and memory stay as they were."""
    conditions = machine("faiss-cpu", "sentence-transformers", "torch")
    sizes = [large // 10, large * 3 // 10, large] if large >= 10_000 else [large]
    parts = [measure_mining(num_rows, num_queries, rounds)]
    if kept is None:
        parts += [measure_lists(sizes), measure_memory(sizes)]
    else:
        parts.append(
            (
                [row for row in kept.rows if "way" not in row],
                [claim for claim in kept.claims if not claim.name.startswith(MINING_CLAIMS)],
            )
        )
    return Figures(
        benchmark="search",
        title="Search: the index beside bare FAISS and sentence-transformers",
        command=f"python benchmarks/search.py --rows {num_rows} --queries {num_queries} --large {large} "
        f"--rounds {rounds}",
        conditions={
            **conditions,
            "rows": num_rows,
            "queries": num_queries,
            "width": WIDTH,
            "neighbours": NEIGHBOURS,
            "queries of lists and memory": LARGE_QUERIES,
            "intrinsic dimension of 2,000 rows": intrinsic_dimension(concept_rows(2000, WIDTH, seed=2)),
            "rounds": rounds,
        },
        rows=[row for rows, _ in parts for row in rows],
        claims=[claim for _, claims in parts for claim in claims],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mining", action="store_true", help="that alone anew; the rest is kept as --json has it")
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes: says that it runs, no more")
    parser.add_argument("--way", choices=sorted(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        options.json.write_text(json.dumps(WAYS[options.way](options.folder)))
        return
    sizes: tuple[int, int, int, int]
    sizes = (2000, 50, 1000, 1) if options.small else (options.rows, options.queries, options.large, options.rounds)
    kept = msgspec.json.decode(options.json.read_bytes(), type=Figures) if options.mining else None
    report(measure(*sizes, kept=kept), options.json)


if __name__ == "__main__":
    main()
