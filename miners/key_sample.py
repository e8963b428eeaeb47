"""The rows that stand for a pool, chosen by a hash of their keys: the same ones whatever the order or the chunks."""

# N rows of the pool, S rows of the sample

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shards.pair_hash import hash_texts
from shards.splits import seeded_hash


def sample_rows(keys: pa.Array, num: int, salt: str) -> NDArray[np.int64]:
    """The `num` rows [S] whose keys hash lowest, in the order of their hashes; all of them where there are fewer.

    Args:
        keys: One key for each row; rows of one key keep their order among themselves.
        num: How many rows at most.
        salt: Another word, another sample.
    """
    hash_n = seeded_hash(hash_texts(keys.to_pylist()), salt)
    few = np.arange(len(hash_n))
    if num < len(hash_n):
        few = np.flatnonzero(hash_n <= np.partition(hash_n, num)[num])
    chosen: NDArray[np.int64] = few[np.argsort(hash_n[few], kind="stable")][:num]
    return chosen
