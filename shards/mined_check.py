"""Mined prompts held against negatives.parquet: each is a row of it, with every number as it stands there.

Rows are compared by 64-bit hashes, eight bytes a mined prompt; what is found wrong is looked up again by name.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import files
from manifests.recipe import MINED_KINDS
from manifests.tables import NEGATIVES, SAMPLES, iterate_table
from shards.faults import Check, Fault
from shards.pair_hash import Hashes, find, hash_keys, hash_phrases, pair

# M mined rows

_KINDS = tuple(map(str, MINED_KINDS))
_TEXTS = ("kind", "evidence", "positive_key")
_NUMBERS = ("score", "standard_score", "rank", "positive_score")
_TOLD = ["phrase", *_TEXTS, *_NUMBERS]
_SAMPLE_COLUMNS = ["key", "image_key", "shard", *_TOLD]


class MinedCheck:
    """Prompts in, shard by shard; what negatives.parquet says of the mined ones at the end."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._mined: list[Hashes] = []

    def add(self, split: str, shard: str, rows: pa.Table) -> Iterator[Fault]:
        """Take in the rows of one shard; mined prompts stand in train alone."""
        mined = rows.filter(pc.is_in(rows["kind"], pa.array(_KINDS)))
        if split != "train":
            for key in mined["key"].unique().to_pylist():
                message = "is asked a mined prompt; those stand in train alone"
                yield Fault(check=Check.KINDS, where=shard, key=key, message=message)
        if mined.num_rows:
            self._mined.append(_row_hashes(mined, "image_key"))

    def finish(self) -> Iterator[Fault]:
        """Read negatives.parquet and say which mined prompts are no rows of it.

        Raises:
            TableError: it cannot be read.
        """
        asked = np.unique(np.concatenate([*self._mined, np.empty(0, np.uint64)]))
        backed = np.zeros(len(asked), np.bool_)
        if len(asked):
            for rows in iterate_table(files.join(self._folder, "negatives.parquet"), NEGATIVES, ["key", *_TOLD]):
                found = find(asked, _row_hashes(rows, "key"))
                backed[found[found >= 0]] = True
        yield from self._name(asked[~backed])

    def _name(self, wrong: Hashes) -> Iterator[Fault]:
        if not len(wrong):
            return
        for rows in iterate_table(files.join(self._folder, "samples.parquet"), SAMPLES, _SAMPLE_COLUMNS):
            mined = rows.filter(pc.is_in(rows["kind"], pa.array(_KINDS)))
            here = pa.array(find(wrong, _row_hashes(mined, "image_key")) >= 0)
            for row in mined.filter(here).to_pylist():
                message = f"{row['phrase']!r} is asked as {row['kind']}, and negatives.parquet has no such row"
                yield Fault(check=Check.ROW, where=row["shard"], key=row["key"], message=message)


def _row_hashes(rows: pa.Table, key: str) -> Hashes:
    """64 bits of each row [M]: of its picture, its phrase and all that mining says of the two."""
    found = pair(hash_keys(rows[key]), hash_phrases(rows["phrase"]))
    for name in _TEXTS:
        found = pair(hash_keys(rows[name]), found)
    for name in _NUMBERS:
        found = pair(np.ascontiguousarray(rows[name].to_numpy()).view(np.uint32).astype(np.uint64), found)
    return found
