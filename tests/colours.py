"""An encoder for tests that needs no weights: it knows the things of `tests.worlds` by their colours."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miners.views import Geometry
from shards.labels import phrase_id
from tests.worlds import CATEGORIES

_WIDTH = 64


class Stopped(Exception):
    """What a killed run looks like from within."""


class Colours:
    """An encoder that knows the colours of the tiny world's things; `stop_after` batches it is killed."""

    name = "colours"
    digest = "c0105500c0105500"
    weights_digest = preprocessing_digest = "c0105500c0105501"
    dim = _WIDTH
    geometry = Geometry(height=8, width=8, resize="squash")

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.num_batches = 0
        self.num_crops = 0
        self._stop_after = stop_after

    def encode_images(self, pixels_bshw3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The row of the phrase whose colour is in the middle."""
        if self.num_batches == self._stop_after:
            raise Stopped
        self.num_batches += 1
        self.num_crops += len(pixels_bshw3)
        middle_b3 = pixels_bshw3[:, 0, 4, 4].astype(np.float64)
        numbers = list(CATEGORIES)
        colours_c3 = np.array([(29 * n % 256, 71 * n % 256, 113 * n % 256) for n in numbers], np.float64)
        nearest_b = np.abs(middle_b3[:, None] - colours_c3).sum(2).argmin(1)
        return self.encode_texts([CATEGORIES[numbers[place]] for place in nearest_b.tolist()])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A direction of its own for every phrase."""
        rows = [_direction(text) for text in texts]
        return np.array(rows, np.float32).reshape(-1, _WIDTH)


def _direction(text: str) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(phrase_id(text).encode()).digest()[:8], "big")
    row = np.random.default_rng(seed).standard_normal(_WIDTH)
    unit: NDArray[np.float64] = row / np.linalg.norm(row)
    return unit
