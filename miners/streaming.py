"""Pictures and their crops through an encoder: decoded in threads ahead of the model, rows out in the order asked.

At most a few batches of pixels are in memory, however many pictures are asked for.
"""

# S views of a picture, K crops of it, D width

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.errors import BuildError, Rejected
from miners.encoders import Encoder
from miners.views import Box, Geometry, Views, make_views
from shards.originals import Original

BATCH = 32  # pictures (or crops) that the model sees at once
_AHEAD = 2  # batches of pictures that are decoded ahead of the model


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of one picture."""

    original: Original
    whole: bool = True
    boxes: Sequence[Box] = ()  # crops, in pixels of the picture
    phrases: Sequence[str] = ()  # what the crops show; only handed on


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureRows:
    """The rows of one picture, float16 of unit length."""

    wanted: Wanted
    whole_d: NDArray[np.float16] | None  # None where it was not asked for
    crops_kd: NDArray[np.float16]


def encode_pictures(wanted: Iterable[Wanted], encoder: Encoder, *, batch: int = BATCH) -> Iterator[PictureRows]:
    """The rows of every picture of `wanted`, in its order.

    Raises:
        BuildError: a picture is gone, changed or does not decode, or the encoder gives a row that is no direction.
    """
    pending: list[tuple[Wanted, Views]] = []
    for found in _decoded(wanted, encoder.geometry, ahead=_AHEAD * batch):
        pending.append(found)
        if len(pending) == batch:
            yield from _encode(pending, encoder, batch)
            pending = []
    if pending:
        yield from _encode(pending, encoder, batch)


def _decoded(wanted: Iterable[Wanted], geometry: Geometry, *, ahead: int) -> Iterator[tuple[Wanted, Views]]:
    """Every picture with its views; `ahead` of them are being decoded while one is used."""
    running: deque[tuple[Wanted, Future[Views]]] = deque()
    executor = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for one in wanted:
            running.append((one, executor.submit(_views, one, geometry)))
            if len(running) > ahead:
                first, future = running.popleft()
                yield first, future.result()
        while running:
            first, future = running.popleft()
            yield first, future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _views(wanted: Wanted, geometry: Geometry) -> Views:
    data = wanted.original.read()
    try:
        return make_views(data, geometry, whole=wanted.whole, boxes=wanted.boxes)
    except Rejected as error:
        raise BuildError(
            f"{wanted.original.uri}: {wanted.original.key} does not decode: {error}; "
            'scan with verify = "decode" in the recipe, which rejects such pictures'
        ) from error


def _encode(pending: Sequence[tuple[Wanted, Views]], encoder: Encoder, batch: int) -> list[PictureRows]:
    whole = [(one.original.key, views.whole_shw3) for one, views in pending if one.whole]
    crops = [(one.original.key, crop[None]) for one, views in pending for crop in views.crops_khw3]
    whole_rows = _rows(whole, encoder, batch, "the picture")
    crop_rows = _rows(crops, encoder, batch, "a crop of the picture")
    found, next_whole, next_crop = [], 0, 0
    for one, views in pending:
        num = len(views.crops_khw3)
        row = whole_rows[next_whole] if one.whole else None
        found.append(PictureRows(wanted=one, whole_d=row, crops_kd=crop_rows[next_crop : next_crop + num]))
        next_whole, next_crop = next_whole + one.whole, next_crop + num
    return found


def _rows(
    named: Sequence[tuple[str, NDArray[np.uint8]]], encoder: Encoder, batch: int, what: str
) -> NDArray[np.float16]:
    rows = [np.empty((0, encoder.dim), np.float16)]
    for start in range(0, len(named), batch):
        here = named[start : start + batch]
        found = encoder.encode_images(np.stack([pixels for _, pixels in here]))
        rows.append(require_directions(found, [f"{what} {key}" for key, _ in here], encoder))
    return np.concatenate(rows)


def require_directions(rows_nd: NDArray[np.float32], names: Sequence[str], encoder: Encoder) -> NDArray[np.float16]:
    """Unit rows as they are stored [N, D].

    Raises:
        BuildError: a row is zero or not finite; it says which.
    """
    length_n = np.linalg.norm(rows_nd.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~np.isfinite(length_n) | (length_n == 0))
    if wrong.size:
        row = int(wrong[0])
        found = "only zeros" if length_n[row] == 0 else "numbers that are not finite"
        raise BuildError(
            f"encoder {encoder.name}: the row of {names[row]} holds {found}; expected a direction. "
            "Its weights are damaged, or fit another model: name another encoder"
        )
    unit: NDArray[np.float16] = (rows_nd / length_n[:, None]).astype(np.float16)
    return unit
