"""Texts as numbers, which take a tenth of their memory and can be sorted and compared at once."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class Numbers:
    """Numbers for texts, counted up from 0 in the order of first use."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def number(self, text: str) -> int:
        """The number of `text`."""
        return self.of.setdefault(text, len(self.of))

    def column(self, column: pa.ChunkedArray) -> NDArray[np.int64]:
        """The number of each value."""
        encoded = encode_as_dictionary(column)
        known = np.array([self.number(text) for text in encoded.dictionary.to_pylist()], np.int64)
        numbers: NDArray[np.int64] = known[encoded.indices.to_numpy()]
        return numbers


def encode_as_dictionary(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """The values of `column` as places among its distinct ones."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pc.dictionary_encode(whole)
