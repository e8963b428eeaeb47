"""Rows of an embeddings table, joined to the samples of a build by key.

Any table fits that has a column `key` and one column of equally long lists of numbers (or several, of which one is
called `row`), as one Parquet file or a folder of parts. A repeated sample takes the row of its image.
"""

# N samples of a split, R stored rows, D width

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests import files
from manifests.errors import TableError
from manifests.tables import list_tables
from shards.blocks import SampleIndex, read_image_keys

_Float16 = NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """A row for every sample of a split."""

    rows_rd: _Float16
    row_n: NDArray[np.int64]  # which of the stored rows is a sample's

    def of(self, sample: int) -> _Float16:
        """The row [D] of the sample at a place of the written order."""
        row: _Float16 = self.rows_rd[self.row_n[sample]]
        return row


def read_features(uris: Sequence[str], indexes: Sequence[SampleIndex]) -> list[Features]:
    """For each of `indexes`, the rows of its samples in the tables at `uris` (files, or folders of parts) together.

    Raises:
        TableError: there is no such table, rows differ in width, or a sample's key is in none.
    """
    parts = [name for uri in uris for name in _parts(uri)]
    tables = [_read_part(part) for part in parts]
    widths = {rows_rd.shape[1] for _, rows_rd in tables}
    if len(widths) != 1:
        raise TableError(f"{', '.join(uris)}: rows of {sorted(widths)} numbers, expected one width")
    keys = pa.concat_arrays([keys for keys, _ in tables])
    rows_rd = np.concatenate([rows_rd for _, rows_rd in tables])
    return [Features(rows_rd=rows_rd, row_n=_rows_of(index, keys, uris)) for index in indexes]


def _parts(uri: str) -> list[str]:
    parts = list_tables(uri)
    if not parts:
        raise TableError(f"{uri}: no Parquet file there; expected an embeddings table with a column 'key'")
    return parts


def _rows_of(index: SampleIndex, keys: pa.Array, uris: Sequence[str]) -> NDArray[np.int64]:
    """Which of the rows that `keys` name is each sample's [N]."""
    wanted = read_image_keys(index)
    row_n: NDArray[np.int64] = pc.fill_null(pc.index_in(wanted, value_set=keys), -1).to_numpy().astype(np.int64)
    missing = np.flatnonzero(row_n < 0)
    if missing.size:
        raise TableError(
            f"{', '.join(uris)}: no row for {missing.size} of {len(index)} samples of {index.folder} ({index.split}), "
            f"{wanted[int(missing[0])]} first; embed that build"
        )
    return row_n


def _read_part(uri: str) -> tuple[pa.Array, _Float16]:
    """The keys [R] and rows [R, D] of one file."""
    try:
        with files.open_input(uri) as file:
            table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{uri}: cannot be read as Parquet: {error}") from error
    found = [field.name for field in table.schema if _is_list_of_numbers(field.type)]
    lists = ["row"] if "row" in found else found  # an embeddings table holds boxes, too
    if "key" not in table.schema.names or len(lists) != 1:
        raise TableError(
            f"{uri}: columns {', '.join(table.schema.names)}; expected 'key' and one column of lists of numbers"
        )
    rows = table[lists[0]].combine_chunks()
    with np.errstate(over="ignore"):
        values = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float16, copy=False)
    lengths = pc.unique(pc.list_value_length(rows)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise TableError(f"{uri}: {lists[0]} holds lists of {lengths} numbers, expected one length above 0")
    keys, rows_rd = table["key"].combine_chunks().cast(pa.string()), values.reshape(-1, lengths[0])
    if not (finite_r := np.isfinite(rows_rd).all(1)).all():
        raise TableError(
            f"{uri}: the row of key {keys[int(np.argmin(finite_r))].as_py()!r} holds a number that float16 cannot; "
            "expected finite ones up to 65504"
        )
    return keys, rows_rd


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))
