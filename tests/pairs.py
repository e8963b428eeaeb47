"""Tables of mined and of rejected pairs for tests of the gallery, row by row with defaults."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path

from manifests import tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """A row of a negatives table."""

    key: str = "photos-val_00"
    phrase: str = "owl"
    kind: str = "near_image"
    evidence: str = "mined"
    score: float | None = 0.25
    standard_score: float | None = 2.5
    rank: int = 3
    positive_key: str = ""
    positive_box: list[float] | None = field(default_factory=list)
    positive_score: float | None = 0.5
    miner: str = "absentia"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A row of a rejects table."""

    stage: str = "mine"
    source: str = "photos"
    where: str = "photos-val_00"
    phrase: str = "owl"
    reason: str = "score"
    detail: str = "0.25 is above 0.2"


def _point(margin: float, false_share: float, hardness: float) -> dict[str, object]:
    ends = {"low": false_share / 2, "high": 2 * false_share}
    return {"margin": margin, "num_rows": 90, "false_share": false_share, **ends, "hardness": hardness}


MINING: dict[str, object] = {
    "encoder": "conse",
    "encoder_why": "no other weights are here",
    "kinds": [
        {"kind": "near_image", "candidates": 1000, "rejected": {"score": 600, "semantic": 50}, "spare": 50, "rows": 300}
    ],
    "audit": {
        "hidden_share": 0.5,
        "assumption": "audited and mined pictures are exchangeable",
        "kinds": [
            {
                "kind": "near_image",
                "margin": 0.25,
                "at_margin": _point(0.25, 0.04, 2.0),
                "leak": 0.1,
                "curve": [_point(0.5, 0.02, 1.5), _point(0.25, 0.04, 2.0), _point(0.0, 0.1, 2.5), _point(-1e9, 0.3, 3)],
            },
            {"kind": "near_text", "margin": None, "at_margin": None, "leak": None, "curve": [_point(0.1, 0.3, 1.0)]},
        ],
    },
}


def write_pairs(
    path: Path, rows: Iterable[Mined | Taken], *, mining: Mapping[str, object] | None = None, build: str = ""
) -> str:
    """The path of a table of these rows, which are all of one kind."""
    rows = list(rows)
    schema = tables.NEGATIVES if isinstance(rows[0], Mined) else tables.REJECTS
    metadata = {"mining": json.dumps(mining)} if mining is not None else {}
    with tables.table_writer(str(path), schema, metadata | ({"build": build} if build else {})) as writer:
        for row in rows:
            writer.add(*astuple(row))
    return str(path)
