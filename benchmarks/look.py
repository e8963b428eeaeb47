"""Look: rows of a mined table, drawn by seed, as contact sheets on which a person sees what is in truth there.

    python benchmarks/look.py NEGATIVES.parquet BUILD --out DIR [--num 100] [--seed 0]

Writes `rows.json` (number, key, phrase, kind, rank) and `sheet-0.png` and so on: every picture under its number, its
phrase and its kind. docs/looked-at.md says what was seen on COCO.
"""

# R rows drawn

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from manifests.manifest import read_manifest
from shards.build_pictures import decode_at, find_pictures, open_sample, open_splits

ACROSS, DOWN = 5, 4
WIDTH, HEIGHT, CAPTION = 400, 300, 26


def draw_rows(table: pa.Table, num: int, seed: int) -> list[dict[str, object]]:
    """`num` rows of the table, in its order."""
    chosen = np.random.default_rng(seed).choice(table.num_rows, min(num, table.num_rows), replace=False)
    rows = table.select(["key", "phrase", "kind", "rank"]).take(pa.array(np.sort(chosen))).to_pylist()
    return [{"number": number, **row} for number, row in enumerate(rows)]


def read_pictures(build: str, keys: set[str], side: int) -> dict[str, Image.Image]:
    """The pictures of some keys, none of them wider or higher than `side`."""
    splits = open_splits(build, read_manifest(build), None)
    found: dict[str, Image.Image] = {}
    for drawn, numbers in zip(splits, find_pictures(pa.array(sorted(keys)), splits), strict=True):
        for key, number in numbers.items():
            with open_sample(drawn.index, number) as (sample, jpeg):
                found[key] = decode_at(jpeg, sample, side)
    return found


def sheet(rows: list[dict[str, object]], pictures: dict[str, Image.Image]) -> Image.Image:
    """One page of rows."""
    page = Image.new("RGB", (ACROSS * WIDTH, DOWN * (HEIGHT + CAPTION)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(18)
    for place, row in enumerate(rows):
        left, top = place % ACROSS * WIDTH, place // ACROSS * (HEIGHT + CAPTION)
        picture = pictures[str(row["key"])].copy()
        picture.thumbnail((WIDTH - 8, HEIGHT - 4))
        page.paste(picture, (left, top + CAPTION))
        pen.text((left + 2, top + 2), f"{row['number']}: {row['phrase']} ({row['kind']})", fill="black", font=font)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("negatives", type=Path)
    parser.add_argument("build")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = draw_rows(pq.read_table(options.negatives), options.num, options.seed)
    pictures = read_pictures(options.build, {str(row["key"]) for row in rows}, WIDTH - 8)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rows.json").write_text(json.dumps(rows, indent=1))
    for first in range(0, len(rows), ACROSS * DOWN):
        page = sheet(rows[first : first + ACROSS * DOWN], pictures)
        page.save(options.out / f"sheet-{first // (ACROSS * DOWN)}.png")


if __name__ == "__main__":
    main()
