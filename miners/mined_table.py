"""The mined table and its rejects, as files."""

# C rows

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from manifests.sample import Evidence
from manifests.tables import NEGATIVES, REJECTS, TableWriter, table_writer
from miners.judging import GUARDS
from miners.mining import KindMined
from miners.pool import Pool
from miners.positives import nearest_crops
from miners.record import MiningRecord, encode_record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MinedTable:
    """What a run found."""

    pool: Pool
    kinds: Sequence[KindMined]
    record: MiningRecord


def write_mined(mined: MinedTable, out: str, *, inputs_sha256: str, build: str = "") -> None:
    """Write the rows to `out` and what the guards took to `<out stem>.rejects.parquet`.

    Args:
        mined: What a run found.
        out: Where the table goes.
        inputs_sha256: Of the catalog and labels that were mined, as the manifest of their build gives it.
        build: The way from the table to the finished build that was mined, so that pages find its pictures; "" where
            there is none yet.
    """
    record = mined.record
    metadata = {"mining": encode_record(record), "encoder": record.encoder, "inputs_sha256": inputs_sha256}
    if build:
        metadata["build"] = build
    with table_writer(rejects_uri(out), REJECTS, metadata) as writer:
        for found in mined.kinds:
            _write_rejects(writer, mined.pool, found)
    with table_writer(out, NEGATIVES, metadata) as writer:
        for found in mined.kinds:
            writer.add_table(_rows(mined.pool, found, mined.record.encoder))


def rejects_uri(out: str) -> str:
    """Where the rejects of the table at `out` lie."""
    return f"{out.removesuffix('.parquet')}.rejects.parquet"


def _rows(pool: Pool, found: KindMined, miner: str) -> pa.Table:
    """NEGATIVES rows of one kind, by picture and then by rank and phrase."""
    rows = found.rows.taken(np.lexsort((found.rows.column_c, found.rows.rank_c, found.rows.row_c)))
    near = nearest_crops(pool, rows.row_c, rows.column_c)
    evidences = pa.array([str(Evidence.MINED), str(Evidence.ANNOTATED), str(Evidence.VERIFIED)])
    evidence_c = np.where(rows.verified_c, 2, np.where(rows.annotated_c, 1, 0))
    phrases = pa.array(pool.inventory.phrases, pa.string())
    num = len(rows)
    columns = {
        "key": pool.keys.take(pa.array(rows.row_c)),
        "phrase": phrases.take(pa.array(pool.phrase_v[rows.column_c])),
        "kind": pa.array([str(found.kind)] * num, pa.string()),
        "evidence": evidences.take(pa.array(evidence_c)),
        "score": pa.array(rows.score_c.astype(np.float32)),
        "standard_score": pa.array(rows.standard_c.astype(np.float32)),
        "rank": pa.array(rows.rank_c),
        "positive_key": near.keys,
        "positive_box": near.boxes,
        "positive_score": pa.array(np.nan_to_num(rows.positive_score_c).astype(np.float32)),
        "miner": pa.array([miner] * num, pa.string()),
    }
    return pa.table({name: columns[name] for name in NEGATIVES.names})


def _write_rejects(writer: TableWriter, pool: Pool, found: KindMined) -> None:
    rows = found.rejects
    keys = pool.keys.take(pa.array(rows.row_c)).to_pylist()
    for number, key in enumerate(keys):
        detail = f"standard score {rows.standard_c[number]:.3f}, rank {rows.rank_c[number]}"
        if np.isfinite(rows.gap_c[number]):
            detail += f", {rows.gap_c[number]:.3f} to be compared with the margin"
        phrase = pool.inventory.phrases[int(pool.phrase_v[rows.column_c[number]])]
        writer.add(str(found.kind), "", key, phrase, str(GUARDS[rows.verdict_c[number]]), detail)
