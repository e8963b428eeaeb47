"""Embedding files: rows of one encoder with the keys, phrases and boxes that they belong to, written and checked.

The metadata names the encoder, so that rows of two spaces are never compared by mistake, and what the rows were made
of: weights, preprocessing and input.
"""

# R stored rows, D width

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.errors import TableError
from manifests.tables import EMBEDDINGS, TableWriter, read_metadata, read_table, table_writer
from miners.encoders import Encoder

_LENGTH_TOLERANCE = 0.01  # of a unit row in float16
_CHUNK = 1024  # rows that are checked at once: they stay in the cache


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embeddings:
    """The rows of one file."""

    keys: pa.ChunkedArray
    phrases: pa.ChunkedArray
    box_r4: NDArray[np.float32]  # zeros where a row is no crop
    rows_rd: NDArray[np.float16]
    encoder: str
    encoder_digest: str


@contextmanager
def embedding_writer(uri: str, encoder: Encoder, *, input_digest: str) -> Iterator[TableWriter]:
    """A writer of the EMBEDDINGS table at `uri`, stamped with `encoder` and with the digest of what it is asked."""
    metadata = {
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "weights_digest": encoder.weights_digest,
        "preprocessing_digest": encoder.preprocessing_digest,
        "input_digest": input_digest,
        "width": str(encoder.dim),
    }
    with table_writer(uri, EMBEDDINGS, metadata) as writer:
        yield writer


def read_embeddings(uri: str, encoder: Encoder | None = None, *, keys: pa.Array | None = None) -> Embeddings:
    """The rows at `uri`, checked.

    Args:
        uri: One file of the EMBEDDINGS table.
        encoder: The encoder that they must be of; None takes any.
        keys: The keys of the catalog; a row of another key is an error. None takes any.

    Raises:
        TableError: the file is no such table or is cut short; its rows are of another encoder or width, are zero, not
            finite or no unit vectors; or a key is not in the catalog.
    """
    metadata = read_metadata(uri, EMBEDDINGS)
    table = read_table(uri, EMBEDDINGS)
    if encoder is not None and metadata.get("encoder_digest") != encoder.digest:
        found = f"{metadata.get('encoder', 'an unnamed encoder')} ({metadata.get('encoder_digest', 'no digest')})"
        raise TableError(
            f"{uri}: rows of the encoder {found}, expected {encoder.name} ({encoder.digest}); rows of two encoders "
            "cannot be compared. Embed with this encoder, or name the other"
        )
    rows_rd = _matrix(table["row"], uri, encoder.dim if encoder is not None else _stated_width(metadata))
    _require_unit(rows_rd, table, uri)
    if keys is not None:
        _require_known(table["key"], keys, uri)
    return Embeddings(
        keys=table["key"],
        phrases=table["phrase"],
        box_r4=_boxes(table["box"], uri),
        rows_rd=rows_rd,
        encoder=metadata.get("encoder", ""),
        encoder_digest=metadata.get("encoder_digest", ""),
    )


def _stated_width(metadata: dict[str, str]) -> int | None:
    stated = metadata.get("width", "")
    return int(stated) if stated.isdecimal() else None


def _matrix(column: pa.ChunkedArray, uri: str, width: int | None) -> NDArray[np.float16]:
    lengths = pc.list_value_length(column)
    found = pc.unique(pc.fill_null(lengths, 0)).to_pylist()
    expected = width if width is not None else max([*found, 1])
    wrong = next((length for length in found if length != expected), None)
    if wrong is not None:
        row = pc.index(pc.fill_null(lengths, 0), wrong).as_py()
        raise TableError(f"{uri}: row {row} holds {wrong} numbers, expected the encoder's width of {expected}")
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.float16), *chunks]).astype(np.float16, copy=False).reshape(-1, expected)


def _require_unit(rows_rd: NDArray[np.float16], table: pa.Table, uri: str) -> None:
    for start in range(0, len(rows_rd), _CHUNK):
        exact_rd = rows_rd[start : start + _CHUNK].astype(np.float64)
        length_r = np.sqrt(np.vecdot(exact_rd, exact_rd))
        wrong = np.flatnonzero(~(np.abs(length_r - 1) <= _LENGTH_TOLERANCE))
        if wrong.size:
            row = start + int(wrong[0])
            found = f"a row of length {length_r[wrong[0]]:.4g}"
            if not np.isfinite(length_r[wrong[0]]):
                found = "numbers that are not finite"
            elif length_r[wrong[0]] == 0:
                found = "only zeros"
            name = table["key"][row].as_py() or table["phrase"][row].as_py()
            raise TableError(
                f"{uri}: row {row} ({name}) holds {found}; expected a unit vector. Delete the file and embed again"
            )


def _require_known(column: pa.ChunkedArray, keys: pa.Array, uri: str) -> None:
    unknown = pc.invert(pc.is_in(column, value_set=keys))
    num = pc.sum(unknown).as_py() or 0
    if num:
        first = column[pc.index(unknown, True).as_py()].as_py()
        raise TableError(
            f"{uri}: {num} of {len(column)} rows are of keys that the catalog does not hold, {first!r} first; expected "
            "embeddings of the same pictures. Embed this build"
        )


def _boxes(column: pa.ChunkedArray, uri: str) -> NDArray[np.float32]:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    if np.any((lengths != 0) & (lengths != 4)):
        row = int(np.flatnonzero((lengths != 0) & (lengths != 4))[0])
        raise TableError(f"{uri}: the box of row {row} holds {lengths[row]} numbers, expected 4 (x, y, width, height)")
    box_r4 = np.zeros((len(column), 4), np.float32)
    box_r4[lengths == 4] = np.concatenate(
        [np.empty(0, np.float32), *(chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks)]
    ).reshape(-1, 4)
    return box_r4
