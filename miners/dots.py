"""Dot products of queries with the stored rows that are named for each: exact, and the same in any order of summation.

A product of two float16 numbers is a multiple of 2^-48, and so is every sum of them. The products of two unit rows sum
to less than 2^5 in magnitude, whichever of them were summed so far (Cauchy and Schwarz), and 53 bits hold every such
number. So a float64 dot product of stored rows rounds nowhere, and comes out the same in any order, with any number of
threads, on any machine: by numpy, and by the loop that a process compiles which asks for many.
"""

# N rows, Q queries, K rows named per query, D width

import numpy as np
from numpy.typing import NDArray

from manifests.compiled import Loop

_NUMPY_PRODUCTS = 1 << 28  # of which half a second passes in numpy
_BLOCK_BYTES = 1 << 20  # of float64 rows at once: they stay in the cache
_LEAST_NORMAL = 2.0**-14


def _by_numpy(
    queries_qd: NDArray[np.float64],
    bits_nd: NDArray[np.uint16],
    rows_qk: NDArray[np.int64],
    dots_qk: NDArray[np.float64],
) -> None:
    """As `_by_loop`."""
    rows_nd = bits_nd.view(np.float16)
    num_queries, num = rows_qk.shape
    across = max(1, _BLOCK_BYTES // (8 * max(1, rows_nd.shape[1])))  # rows at once
    step, wide = max(1, across // max(1, num)), max(1, min(num, across))
    for top in range(0, num_queries, step):
        for left in range(0, num, wide):
            here = slice(top, top + step), slice(left, left + wide)
            rows = rows_qk[here]
            named_qkd = rows_nd[np.maximum(rows, 0)].astype(np.float64)
            found = np.vecdot(named_qkd, queries_qd[here[0], None, :])
            dots_qk[here] = np.where(rows < 0, dots_qk[here], found)


def _by_loop(
    queries_qd: NDArray[np.float64],
    bits_nd: NDArray[np.uint16],
    rows_qk: NDArray[np.int64],
    dots_qk: NDArray[np.float64],
) -> None:
    """Fill `dots_qk` with the product of each query and the rows named for it; nothing where a row is negative.

    A float16 is read by its bits: moved to where float32 keeps them, the exponent raised to float32's offset, they are
    its value, but for a subnormal x, which so becomes (x + 2^-14) / 2.
    """
    width = queries_qd.shape[1]
    raised_d = np.empty(width, np.int32)
    value_d = raised_d.view(np.float32)
    for query in range(rows_qk.shape[0]):
        for place in range(rows_qk.shape[1]):
            row = rows_qk[query, place]
            if row < 0:
                continue
            for d in range(width):
                bits = bits_nd[row, d]
                raised_d[d] = ((bits & 0x8000) << 16) | (((bits & 0x7FFF) << 13) + (112 << 23))
            total = 0.0
            for d in range(width):
                value = float(value_d[d])
                if abs(value) < _LEAST_NORMAL:
                    value = 2.0 * value - (_LEAST_NORMAL if value > 0 else -_LEAST_NORMAL)
                total += queries_qd[query, d] * value
            dots_qk[query, place] = total


named_dots = Loop(_by_loop, plain=_by_numpy, worth=_NUMPY_PRODUCTS, reorders=True)
