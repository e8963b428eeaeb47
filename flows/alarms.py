"""How often a student takes for present what no label calls so: whether a further round has anything to learn from."""

import pyarrow as pa
import pyarrow.compute as pc

from manifests import files
from manifests.tables import LABELS, PREDICTIONS, iterate_table, read_table

CALLED_PRESENT = 0.5


def count_alarms(predictions: str, build: str) -> int:
    """Answers "present" about a picture and a phrase that its labels do not call present, before any guard looks.

    Pictures without labels, as blank ones, are left out.

    Args:
        predictions: Table of a student.
        build: Folder of the build whose pictures it was asked about.

    Raises:
        TableError: a table is damaged.
    """
    labels = read_table(files.join(build, "labels.parquet"), LABELS, ["key", "phrase", "state"])
    known, present = pc.unique(labels["key"]), _pairs(labels.filter(pc.equal(labels["state"], "present")))
    found = 0
    for rows in iterate_table(predictions, PREDICTIONS, ["key", "phrase", "presence"]):
        called = rows.filter(pc.greater_equal(rows["presence"], CALLED_PRESENT))
        called = called.filter(pc.is_in(called["key"], value_set=known))
        found += called.num_rows - (pc.sum(pc.is_in(_pairs(called), value_set=present)).as_py() or 0)
    return found


def _pairs(rows: pa.Table) -> pa.Array:
    """Picture and phrase of each row as one string."""
    joined = pc.binary_join_element_wise(rows["key"], pc.utf8_lower(rows["phrase"]), "\n")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
