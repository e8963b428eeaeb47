"""A 64-bit fingerprint of a picture's coarse structure, for finding near-duplicates.

The DCT hash: a 32 x 32 grey grid, the 8 x 8 lowest frequencies of its cosine transform, one bit each for "above the
median". All arithmetic is on integers, so the hash is the same on every machine and does not depend on a BLAS.

Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2.1; bits in the
order of `imagehash.phash`.
"""

import math

import numpy as np
from numpy.typing import NDArray

GRID_SIDE = 32

_NUM_FREQUENCIES = 8
_SCALE_BITS = 14
_NOISE = 16 << 2 * _SCALE_BITS  # one grey level after an orthonormal transform; photographs have 15 and more

_Int64 = NDArray[np.int64]


def _cosines() -> _Int64:
    """Rows 0 to 7 of the cosine transform [8, 32] as integers of `_SCALE_BITS` fractional bits."""
    angles = [
        [math.pi * frequency * (2 * place + 1) / (2 * GRID_SIDE) for place in range(GRID_SIDE)]
        for frequency in range(_NUM_FREQUENCIES)
    ]
    return np.array([[round(math.cos(angle) * (1 << _SCALE_BITS)) for angle in row] for row in angles], np.int64)


_COSINES = _cosines()


def hash_grid(grey: NDArray[np.uint8]) -> int | None:
    """The hash, in 0 to 2**64 - 1, of a grey grid [32, 32]; None where half of it is rounding noise.

    Flat pictures and plain gradients would otherwise all look alike, or differ by noise alone.
    """
    frequencies = (_COSINES @ grey.astype(np.int64) @ _COSINES.T).ravel()
    if np.median(np.abs(frequencies[1:])) < _NOISE:
        return None
    ordered = np.sort(frequencies)
    middle = len(ordered) // 2
    above = 2 * frequencies > ordered[middle - 1] + ordered[middle]
    return int.from_bytes(np.packbits(above).tobytes(), "big")
