"""Keys and phrases as 64-bit numbers, so that tables larger than memory are joined at eight bytes a row."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.labels import phrase_id

# N rows

Hashes = NDArray[np.uint64]
_ODD = np.uint64(0x9E3779B97F4A7C15)


def hash_text(text: str) -> int:
    """64 bits of `text`."""
    return int.from_bytes(_digest(text), "little")


def hash_texts(texts: list[str]) -> Hashes:
    """64 bits of each text [N]."""
    return np.frombuffer(b"".join([_digest(text) for text in texts]), "<u8").astype(np.uint64)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def hash_keys(column: pa.ChunkedArray) -> Hashes:
    """64 bits of each key of a column [N]."""
    encoded = pc.dictionary_encode(column).combine_chunks()
    found: Hashes = hash_texts(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
    return found


def hash_phrases(column: pa.ChunkedArray) -> Hashes:
    """64 bits of each phrase of a column [N], equal where phrases are."""
    encoded = pc.dictionary_encode(column).combine_chunks()
    folded = hash_texts([phrase_id(text) for text in encoded.dictionary.to_pylist()])
    found: Hashes = folded[encoded.indices.to_numpy()]
    return found


def pair(key_n: Hashes, phrase_n: Hashes) -> Hashes:
    """64 bits of each pair [N]."""
    mixed: Hashes = key_n + phrase_n * _ODD
    return mixed


def find(sorted_values: Hashes, wanted_n: Hashes) -> NDArray[np.int64]:
    """Where each wanted value stands in `sorted_values` [N], -1 where it does not."""
    if not len(sorted_values):
        return np.full(len(wanted_n), -1, np.int64)
    place_n = np.minimum(np.searchsorted(sorted_values, wanted_n), len(sorted_values) - 1)
    return np.where(sorted_values[place_n] == wanted_n, place_n, -1)
