"""The rows of samples.parquet, shard by shard in written order, with no more than a few shards' rows in memory."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import files
from manifests.errors import TableError
from manifests.tables import SAMPLES, iterate_table
from shards.faults import Check, Fault

SAMPLES_NAME = "samples.parquet"


class ShardRows:
    """Takes the rows of one shard after another; what stands elsewhere is a fault."""

    def __init__(self, folder: str, urls: Sequence[str]) -> None:
        self._runs = _runs(files.join(folder, SAMPLES_NAME))
        self._awaited = dict.fromkeys(urls)
        self._next: tuple[str, pa.Table] | None = None
        self._is_over = False
        self.faults: list[Fault] = []

    def take(self, url: str) -> pa.Table | None:
        """The rows of the shard `url`; None where they do not come next."""
        del self._awaited[url]
        self._skip_strangers(url)
        if self._next is not None and self._next[0] == url:
            rows, self._next = self._next[1], None
            return rows
        self._add(f"has no rows of {url} where they should stand")
        return None

    def finish(self) -> None:
        """Look at what is left after the last shard."""
        self._skip_strangers("")

    def _skip_strangers(self, url: str) -> None:
        """Pass over rows of shards that were taken before or that nothing names."""
        while (found := self._peek()) is not None and found != url and found not in self._awaited:
            self._add(f"has rows of {found!r}, out of order or of no shard that the manifest names")
            self._next = None

    def _peek(self) -> str | None:
        if self._next is None and not self._is_over:
            try:
                self._next = next(self._runs, None)
            except (TableError, pa.ArrowException, OSError) as error:
                self.faults.append(Fault(check=Check.TABLE, where=SAMPLES_NAME, message=f"cannot be read: {error}"))
            self._is_over = self._next is None
        return None if self._next is None else self._next[0]

    def _add(self, message: str) -> None:
        self.faults.append(Fault(check=Check.ROW, where=SAMPLES_NAME, message=message))


def _runs(uri: str) -> Iterator[tuple[str, pa.Table]]:
    """Rows that stand together and name one shard, with its name."""
    name, pieces = "", list[pa.Table]()
    for rows in iterate_table(uri, SAMPLES):
        codes = pc.dictionary_encode(rows["shard"]).combine_chunks().indices.to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        for start, end in pairwise(starts):
            here = rows["shard"][start].as_py()
            if pieces and here != name:
                yield name, pa.concat_tables(pieces)
                pieces = []
            name = here
            pieces.append(rows.slice(start, end - start))
    if pieces:
        yield name, pa.concat_tables(pieces)
