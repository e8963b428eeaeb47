"""Negatives tables made by hand, for tests of planning and of whole builds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.tables import NEGATIVES, write_table

Row = dict[str, object]


def make_row(key: str, phrase: str, **changes: object) -> Row:
    """A sound row, changed as asked."""
    row: Row = {
        "key": key,
        "phrase": phrase,
        "kind": "near_text",
        "evidence": "mined",
        "score": 0.3,
        "standard_score": 1.5,
        "rank": 0,
        "positive_key": "",
        "positive_box": [],
        "positive_score": 0.4,
        "miner": "test",
    }
    return row | changes


def write_negatives(path: Path, rows: Sequence[Row], metadata: Mapping[str, str] | None = None) -> str:
    """A negatives table of `rows`."""
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in NEGATIVES]
    write_table(str(path), pa.Table.from_arrays(columns, schema=NEGATIVES), NEGATIVES, metadata)
    return str(path)


def mine_at_random(
    build: Path, *, per_image: int = 4, seed: int = 0, num_favourites: int = 3, kinds: Sequence[str] = ()
) -> list[Row]:
    """Rows as a miner might give them for every picture of a finished build: each phrase that no label names.

    Half of each picture's rows are of a few favourite phrases, as a miner's are.
    """
    rng = np.random.default_rng(seed)
    labels = pq.read_table(build / "labels.parquet", columns=["key", "phrase"])
    named: dict[str, set[str]] = {}
    for key, phrase in zip(labels["key"].to_pylist(), labels["phrase"].to_pylist(), strict=True):
        named.setdefault(key, set()).add(phrase)
    phrases = sorted(pc.unique(labels["phrase"]).to_pylist())
    images = pq.read_table(build / "images.parquet", columns=["key", "source", "exhaustive_over"])
    rows: list[Row] = []
    for key, source, over in zip(*(images[name].to_pylist() for name in images.column_names), strict=True):
        if source in ("blank", "noise"):
            continue
        free = [phrase for phrase in phrases if phrase not in named.get(key, set()) and phrase not in ABOVE]
        weight = np.array([4.0 if place < num_favourites else 1.0 for place in range(len(free))])
        chosen = rng.choice(len(free), min(per_image, len(free)), replace=False, p=weight / weight.sum())
        for rank, place in enumerate(chosen.tolist()):
            kind = (kinds or ("near_text", "near_image"))[rank % len(kinds or (0, 0))]
            rows.append(
                make_row(
                    key,
                    free[place],
                    kind=kind,
                    evidence="annotated" if over else "mined",
                    rank=rank,
                    score=float(rng.random()),
                    standard_score=float(rng.normal()),
                    positive_key=key,
                    positive_score=float(rng.random()),
                )
            )
    return rows


ABOVE = ("animal",)  # hypernyms of the small world's phrases: never safe to call absent without looking
