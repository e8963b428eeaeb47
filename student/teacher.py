"""The teacher of phase 1: rows of pictures and of phrases from an embeddings table, of whatever encoder.

Phrases are looked up as strings, so that the teacher keeps its tokenizer and the student has its own. A folder that
`miners.embed` wrote is read without its crops.
"""

# B pictures, U phrases asked, K phrases matched, V phrases of the table, D width of the teacher's rows

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from manifests import files, tables
from manifests.errors import TableError
from shards.labels import phrase_id
from student.model import PRIOR_LOGIT

SPREAD = 2.0  # logits of presence for one standard deviation of the cosines

_SEEN = 1024  # pictures and phrases that tell where cosines lie
_PASSED_OVER = ("crops", "work")  # folders that hold rows of neither pictures nor phrases


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Where rows of pictures lie, and the rows of phrases."""

    parts: list[str]  # files; `LoaderOptions.features` joins those of pictures
    row_of: dict[str, int]  # by casefolded phrase
    rows_vd: Tensor  # float16
    mean: float  # of the cosines between pictures and phrases
    deviation: float

    @property
    def width(self) -> int:
        """D."""
        return self.rows_vd.shape[1]

    def phrase_rows(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Rows [U, D], and which of them the table has [U]; the others are zeros."""
        found_u = torch.tensor([self.row_of.get(phrase_id(phrase), -1) for phrase in phrases], dtype=torch.int64)
        known_u = found_u >= 0
        return torch.where(known_u[:, None], self.rows_vd[found_u.clamp(min=0)], 0), known_u

    def draw_phrases(self, num: int, *, seed: int, step: int) -> list[str]:
        """At most `num` phrases; other ones in each step where there are more."""
        phrases = list(self.row_of)
        if len(phrases) <= num:
            return phrases
        drawn = np.random.default_rng((seed, step)).choice(len(phrases), num, replace=False)
        return [phrases[row] for row in drawn.tolist()]

    def match(self, features_bd: Tensor, phrases: Sequence[str]) -> Tensor:
        """Presence logits [B, K] of phrases that the table has: their cosines with pictures' rows, standardised.

        Where cosines lie is an encoder's own affair, so they are told in standard deviations.
        """
        rows_kd = self.phrase_rows(phrases)[0]
        cosine_bk = _unit(features_bd) @ _unit(rows_kd).T
        return SPREAD * (cosine_bk - self.mean) / self.deviation + PRIOR_LOGIT

    def num_unknown(self, phrases: Sequence[str]) -> int:
        """How many of `phrases` the table lacks."""
        return sum(phrase_id(phrase) not in self.row_of for phrase in phrases)


def read_teacher(uris: Sequence[str]) -> Teacher:
    """The teacher in the embeddings tables at `uris` (files, or folders of parts) together.

    Raises:
        TableError: there is no such table, it has no row of a phrase, rows differ in width, or hold what is not finite.
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
    values = _numbers(found["row"], ", ".join(uris))
    row_of: dict[str, int] = {}
    for row, phrase in enumerate(found["phrase"].to_pylist()):
        row_of.setdefault(phrase_id(phrase), row)
    rows_vd = torch.from_numpy(values.reshape(-1, lengths[0]))
    mean, deviation = _moments(_some_pictures(parts, lengths[0]), rows_vd)
    return Teacher(parts=parts, row_of=row_of, rows_vd=rows_vd, mean=mean, deviation=deviation)


def _some_pictures(parts: Sequence[str], width: int) -> Tensor:
    """The first rows of pictures [N, D], enough to tell where cosines lie."""
    groups, num = [torch.zeros((0, width))], 0
    for part in parts:
        table = tables.read_table(part, tables.EMBEDDINGS, ["key", "phrase", "row"])
        table = table.filter(pc.and_(pc.not_equal(table["key"], ""), pc.equal(table["phrase"], "")))[: _SEEN - num]
        if found := set(pc.unique(pc.list_value_length(table["row"])).to_pylist()) - {width}:
            raise TableError(
                f"{part}: rows of pictures of {sorted(found)} numbers, expected {width} as those of phrases"
            )
        groups.append(torch.from_numpy(_numbers(table["row"], part).reshape(-1, width)).float())
        num += table.num_rows
        if num == _SEEN:
            break
    return torch.cat(groups)


def _numbers(row: pa.ChunkedArray, where: str) -> NDArray[np.float16]:
    """The numbers of some rows, one row after another."""
    values: NDArray[np.float16] = row.combine_chunks().flatten().to_numpy(zero_copy_only=False).copy()
    if not np.isfinite(values).all():
        raise TableError(f"{where}: a row holds a number that is not finite; expected what has a cosine. Embed again")
    return values


def _moments(pictures_nd: Tensor, phrases_vd: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the cosines; 0 and 1 where there are none, or they are all one."""
    cosine_nv = _unit(pictures_nd) @ _unit(phrases_vd[:: max(1, len(phrases_vd) // _SEEN)]).T
    deviation = cosine_nv.std(correction=0).item() if cosine_nv.numel() else 0.0
    return (cosine_nv.mean().item(), deviation) if deviation > 0 else (0.0, 1.0)


def _unit(rows_nd: Tensor) -> Tensor:
    return functional.normalize(rows_nd.float(), dim=-1)


def _parts(uri: str) -> list[str]:
    """The tables at `uri`."""
    found = tables.list_tables(uri)
    parts = [name for name in found if files.relative(name, uri).partition("/")[0] not in _PASSED_OVER]
    if not parts:
        raise TableError(f"{uri}: no Parquet file there; expected an embeddings table, or a folder of its parts")
    return parts


def _phrases(uri: str) -> pa.Table:
    """The rows of phrases in one file."""
    table = tables.read_table(uri, tables.EMBEDDINGS, ["key", "phrase", "row"])
    return table.filter(pc.and_(pc.equal(table["key"], ""), pc.not_equal(table["phrase"], ""))).drop_columns("key")
