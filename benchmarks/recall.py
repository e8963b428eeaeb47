"""Recall: how often an encoder ranks what is there before what is not, on the COCO pictures at hand.

    python benchmarks/recall.py [--encoder conse] [--data ../shared/data] [--json FILE]

Pictures: of each, the 80 categories are ranked; recall@k is the share of the present ones within the first k, and the
area is that under the ROC curve of each category over the pictures, averaged (0.5 is chance). Crops: one per picture
and present category, as mining embeds them; recall@k is the share whose own category is within the first k.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import RESULTS, Claim, Figures, Value, add_options, machine, report, shown
from manifests.recipe import CocoSource, Recipe, SourceTable
from manifests.stage import Inline, progress_bar
from manifests.statistics import auc
from miners.embed_rows import Embedded, embed_inventory, embed_phrases
from miners.encoders import choose_encoder
from shards.inventory import Inventory, load_inventory
from shards.labels import load_lexicon
from shards.scanning import prepare_sources, scan_sources
from shards.sources.registry import open_sources

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
KS = (1, 5, 10)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "encoders.md"
START, END = "<!-- recall -->", "<!-- end of recall -->"
FOLDERS = (("coco_train", "train2017"), ("coco_val", "val2017"))
BOUND = 3.5  # times the recall@5 of chance


def scan(data: Path, work: Path, folders: Sequence[tuple[str, str]] = FOLDERS) -> tuple[Inventory, dict[str, str]]:
    """All pictures of the COCO folders below `data`, and where they lie."""
    sources: dict[str, SourceTable] = {
        name: CocoSource(
            images=str(data / name / split),
            annotations=str(data / name / "annotations" / f"instances_{split}.json"),
        )
        for name, split in folders
    }
    opened = open_sources(Recipe(name="recall", mix=dict.fromkeys(sources, "rest"), sources=sources))
    prepared = prepare_sources(opened, str(work))
    with progress_bar() as progress:
        parts = scan_sources(opened, prepared, work=str(work), verify="structure", executor=Inline(), progress=progress)
    inventory = load_inventory(parts, prepared, load_lexicon([], []), vocabulary_files={})
    return inventory, {source.name: source.root for source in opened}


def present_of(inventory: Inventory) -> NDArray[np.bool_]:
    """Which phrases are present in each picture [N, V]."""
    present_nv = np.zeros((inventory.num_images, len(inventory.phrases)), np.bool_)
    rows, owner = inventory.present(np.arange(inventory.num_images))
    present_nv[owner, inventory.labels.phrase_l[rows]] = True
    return present_nv


def ranks_of(scores_nv: NDArray[np.float32]) -> NDArray[np.int64]:
    """The 0-based rank of every phrase in its row [N, V]."""
    ranks: NDArray[np.int64] = (-scores_nv).argsort(axis=1, kind="stable").argsort(axis=1)
    return ranks


def recalls(ranks_p: NDArray[np.int64]) -> dict[str, Value]:
    """The share of pairs whose phrase is within the first k."""
    return {f"recall@{k}": float((ranks_p < k).mean()) for k in KS}


def chance(num_phrases: int) -> dict[str, Value]:
    return {f"recall@{k}": k / num_phrases for k in KS}


def areas(scores_nv: NDArray[np.float32], present_nv: NDArray[np.bool_]) -> float:
    """The mean area over the phrases that stand in three pictures or more."""
    common = np.flatnonzero(present_nv.sum(0) >= 3)
    return float(np.mean([auc(scores_nv[:, v].astype(np.float64), present_nv[:, v]) for v in common]))


def rows_of(inventory: Inventory, found: Embedded, phrases_vd: NDArray[np.float16]) -> list[dict[str, Value]]:
    texts_dv = phrases_vd.astype(np.float32).T
    present_nv = present_of(inventory)
    scores_nv = found.images_nd.astype(np.float32) @ texts_dv
    crop_ranks_cv = ranks_of(found.crops_cd.astype(np.float32) @ texts_dv)
    own_c = crop_ranks_cv[np.arange(len(crop_ranks_cv)), found.crop_phrase_c]
    by_chance = chance(len(inventory.phrases))
    return [
        {"what": "pictures", **recalls(ranks_of(scores_nv)[present_nv]), "area": areas(scores_nv, present_nv)},
        {"what": "crops", **recalls(own_c), "area": ""},
        {"what": "chance", **by_chance, "area": 0.5},
    ]


def measure(encoder_name: str, data: Path) -> Figures:
    """The figures of one encoder."""
    start = time.perf_counter()
    chosen = choose_encoder(encoder_name)
    load_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        inventory, roots = scan(data, Path(folder) / "work")
        with progress_bar() as progress:
            found = embed_inventory(inventory, roots, chosen.encoder, folder=folder, progress=progress)
        phrases_vd = embed_phrases(chosen.encoder, inventory.phrases, folder=str(Path(folder) / "phrases"))
    rows = rows_of(inventory, found, phrases_vd)
    ratio = float(rows[0]["recall@5"]) / float(rows[-1]["recall@5"])
    conditions: dict[str, Value] = {
        "encoder": chosen.encoder.name,
        "digest": chosen.encoder.digest,
        "pictures": inventory.num_images,
        "crops": len(found.crops_cd),
        "phrases": len(inventory.phrases),
        "seconds to load, imports among them": round(load_s, 1),
    }
    return Figures(
        benchmark="recall",
        title=f"Recall of {chosen.encoder.name} on COCO",
        command="python benchmarks/recall.py",
        conditions=conditions | machine("torch", "timm"),
        rows=rows,
        claims=[Claim(name="recall@5 of pictures beside chance", value=ratio, bound=BOUND, at_least=True)],
    )


def table(figures: Figures) -> str:
    """The rows as docs/encoders.md shows them."""
    conditions = figures.conditions
    head = f"{conditions['encoder']}, {conditions['pictures']} pictures, {conditions['crops']} crops"
    lines = [f"| {head} | {' | '.join(f'recall@{k}' for k in KS)} | area |", f"|---{'|---' * (len(KS) + 1)}|"]
    for row in figures.rows:
        cells = [shown(row[name]) for name in (*(f"recall@{k}" for k in KS), "area")]
        lines.append(f"| {row['what']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(figures: Figures) -> None:
    """Put the table into docs/encoders.md."""
    before, _, rest = PAGE.read_text().partition(START)
    _, end, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{table(figures)}\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="conse")
    parser.add_argument("--data", type=Path, default=DATA)
    add_options(parser)
    options = parser.parse_args()
    figures = measure(options.encoder, options.data)
    report(figures, options.json)
    if options.json == RESULTS / "recall.json":
        write_page(figures)


if __name__ == "__main__":
    main()
