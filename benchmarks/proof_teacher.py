"""What the teacher of phase 1 knows of presence by itself: its answers to the prompts that judge its students.

It draws no masks. Its presence of a phrase in a picture is the logistic of the cosine of their rows, standardised over
the prompts of val: the threshold comes from val, as every student's does, so that its scale decides nothing.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests.tables import EMBEDDINGS, PREDICTIONS, read_table, write_table


def write_answers(judge: Path, rows: Path, out: Path) -> None:
    """Write the teacher's answers to val and test of the build `judge` at `out`; `rows` is what miners.embed wrote."""
    filters = pc.is_in(pc.field("split"), value_set=pa.array(["val", "test"]))
    columns = ["image_key", "phrase", "split"]
    asked = pq.read_table(judge / "samples.parquet", columns=columns, filters=filters)
    asked = asked.group_by(columns).aggregate([])  # a phrase may be asked of a picture for several reasons
    pictures_nd = _rows(rows / "images", "key", asked["image_key"])
    phrases_nd = _rows(rows / "phrases", "phrase", asked["phrase"])
    cosine_n = (pictures_nd * phrases_nd).sum(1)
    of_val_n = cosine_n[pc.equal(asked["split"], "val").to_numpy()]
    presence_n = 1 / (1 + np.exp(-(cosine_n - of_val_n.mean()) / of_val_n.std()))
    mask = pa.nulls(len(asked), PREDICTIONS.field("mask").type)
    table = pa.table([asked["image_key"], asked["phrase"], presence_n, mask], names=PREDICTIONS.names)
    write_table(str(out), table.cast(PREDICTIONS).sort_by([("key", "ascending"), ("phrase", "ascending")]), PREDICTIONS)


def _rows(folder: Path, column: str, wanted: pa.ChunkedArray) -> NDArray[np.float32]:
    """The unit row of each value [N, D]."""
    found = pa.concat_tables([read_table(str(part), EMBEDDINGS) for part in sorted(folder.glob("*.parquet"))])
    place_n = pc.index_in(wanted, value_set=found[column].combine_chunks()).to_numpy()
    flat = pc.list_flatten(found["row"].combine_chunks()).to_numpy().astype(np.float32)
    rows_nd: NDArray[np.float32] = flat.reshape(len(found), -1)[place_n]
    return rows_nd
