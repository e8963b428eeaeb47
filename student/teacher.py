"""The teacher of phase 1: rows of pictures and of phrases from an embeddings table, of whatever encoder.

Phrases are looked up as strings, so that the teacher keeps its tokenizer and the student has its own. A folder that
`miners.embed` wrote is read without its crops.
"""

# U phrases asked, V phrases of the table, D width of the teacher's rows

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from manifests import files, tables
from manifests.errors import TableError
from shards.labels import phrase_id

_PASSED_OVER = ("crops", "work")  # folders that hold rows of neither pictures nor phrases


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Where rows of pictures lie, and the rows of phrases."""

    parts: list[str]  # files; `LoaderOptions.features` joins those of pictures
    row_of: dict[str, int]  # by casefolded phrase
    rows_vd: Tensor  # float16

    @property
    def width(self) -> int:
        """D."""
        return self.rows_vd.shape[1]

    def phrase_rows(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Rows [U, D], and which of them the table has [U]; the others are zeros."""
        found_u = torch.tensor([self.row_of.get(phrase_id(phrase), -1) for phrase in phrases], dtype=torch.int64)
        known_u = found_u >= 0
        return torch.where(known_u[:, None], self.rows_vd[found_u.clamp(min=0)], 0), known_u

    def num_unknown(self, phrases: Sequence[str]) -> int:
        """How many of `phrases` the table lacks."""
        return sum(phrase_id(phrase) not in self.row_of for phrase in phrases)


def read_teacher(uris: Sequence[str]) -> Teacher:
    """The teacher in the embeddings tables at `uris` (files, or folders of parts) together.

    Raises:
        TableError: there is no such table, it has no row of a phrase, or rows differ in width.
    """
    parts = [part for uri in uris for part in _parts(uri)]
    groups = [_phrases(part) for part in parts]
    found = pa.concat_tables(groups)
    if not found.num_rows:
        raise TableError(
            f"{', '.join(uris)}: no row of a phrase (an empty key beside a phrase); expected rows of pictures and of "
            "phrases, as miners.embed and student.predict --features write them"
        )
    lengths = pc.unique(pc.list_value_length(found["row"])).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise TableError(f"{', '.join(uris)}: rows of {sorted(lengths)} numbers, expected one width above 0")
    values = found["row"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float16)
    row_of: dict[str, int] = {}
    for row, phrase in enumerate(found["phrase"].to_pylist()):
        row_of.setdefault(phrase_id(phrase), row)
    return Teacher(parts=parts, row_of=row_of, rows_vd=torch.from_numpy(values.reshape(-1, lengths[0])))


def _parts(uri: str) -> list[str]:
    """The tables at `uri`."""
    found = [name for name in files.list_files(uri) if name.endswith(".parquet")]
    parts = [name for name in found if files.relative(name, uri).partition("/")[0] not in _PASSED_OVER]
    if not parts:
        raise TableError(f"{uri}: no Parquet file there; expected an embeddings table, or a folder of its parts")
    return parts


def _phrases(uri: str) -> pa.Table:
    """The rows of phrases in one file."""
    table = tables.read_table(uri, tables.EMBEDDINGS, ["key", "phrase", "row"])
    return table.filter(pc.and_(pc.equal(table["key"], ""), pc.not_equal(table["phrase"], ""))).drop_columns("key")
