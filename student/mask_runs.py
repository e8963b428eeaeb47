"""Masks at a picture's own size, from probabilities on a coarse grid, as run lengths and never unpacked.

Between two cells of a column the probability is linear, so it crosses a threshold once at most, and where is known. The
cost goes with the cells and the width of the picture, not with its pixels: ten times less than to fill those of SA-1B.
"""

# P masks, H W pixels of the picture, h w cells of the grid, T places where a mask begins or ends

import math

import numpy as np
from numpy.typing import NDArray

from shards.images import Letterbox
from shards.masks import mask_from_runs

_CELLS_AT_ONCE = 4_000_000  # of h x W: bounds the working arrays

_Float = NDArray[np.float32]
_Int64 = NDArray[np.int64]


def draw_masks(
    masks_phw: _Float, letterbox: Letterbox, side: int, *, height: int, width: int, threshold: float
) -> list[str]:
    """COCO's counts of each mask at `height` x `width`, bilinear from its cells; "" where no pixel is set.

    Args:
        masks_phw: Probabilities on a grid that tiles a square; cells outside of the picture are not looked at.
        letterbox: Where the picture lies in the square.
        side: Of the square in the letterbox's pixels.
        height: Of the picture.
        width: Of the picture.
        threshold: A pixel is set above it.
    """
    _, grid_height, grid_width = masks_phw.shape
    place_y = _places(height, letterbox.scaled_height, letterbox.top, side, grid_height)
    place_x = _places(width, letterbox.scaled_width, letterbox.left, side, grid_width)
    at_once = max(1, _CELLS_AT_ONCE // (grid_height * width))
    counts: list[str] = []
    for start in range(0, len(masks_phw), at_once):
        counts += _draw(masks_phw[start : start + at_once], place_y, place_x, threshold)
    return counts


def cells_within(masks_phw: _Float, letterbox: Letterbox, side: int) -> _Float:
    """The part of the grid that lies in the picture."""
    _, grid_height, grid_width = masks_phw.shape
    top, bottom = _span(letterbox.scaled_height, letterbox.top, side, grid_height)
    left, right = _span(letterbox.scaled_width, letterbox.left, side, grid_width)
    return masks_phw[:, top : bottom + 1, left : right + 1]


def _places(num_pixels: int, scaled: int, before: int, side: int, cells: int) -> NDArray[np.float64]:
    """Where each pixel's centre lies among the centres of the cells, kept to cells whose centre is in the picture."""
    centre = (before + (np.arange(num_pixels) + 0.5) * (scaled / num_pixels)) * (cells / side) - 0.5
    return np.clip(centre, *_span(scaled, before, side, cells))


def _span(scaled: int, before: int, side: int, cells: int) -> tuple[int, int]:
    """The first and the last cell whose centre lies in the picture; the nearest where it is thinner than a cell."""
    first = math.ceil(before * cells / side - 0.5)
    last = math.floor((before + scaled) * cells / side - 0.5)
    if first > last:
        first = last = min(max(round((before + scaled / 2) * cells / side - 0.5), 0), cells - 1)
    return first, last


def _draw(masks_phw: _Float, place_y: NDArray[np.float64], place_x: NDArray[np.float64], threshold: float) -> list[str]:
    height, width = len(place_y), len(place_x)
    top = int(place_y[0])  # places ascend
    columns_phw = _columns(masks_phw[:, top : int(np.ceil(place_y[-1])) + 1], place_x)
    above_phw = columns_phw > threshold
    mask_t, cell_t, column_t = np.nonzero(above_phw[:, 1:] != above_phw[:, :-1])
    before_t = columns_phw[mask_t, cell_t, column_t].astype(np.float64)
    after_t = columns_phw[mask_t, cell_t + 1, column_t].astype(np.float64)
    crossing_t = top + cell_t + (threshold - before_t) / (after_t - before_t)
    right_t, left_t = (np.searchsorted(place_y, crossing_t, side) for side in ("right", "left"))
    row_t = np.where(after_t > before_t, right_t, left_t)
    inside = row_t < height
    line_t = mask_t[inside] * width + column_t[inside]  # lines: the columns of all masks, one after another
    starts_pw = above_phw[:, 0]
    odd_pw = np.bincount(line_t, minlength=starts_pw.size).reshape(starts_pw.shape) % 2 == 1
    ends_pw = starts_pw ^ odd_pw
    before_pw = np.concatenate([np.zeros((len(masks_phw), 1), np.bool_), ends_pw[:, :-1]], axis=1)
    turning = np.flatnonzero(starts_pw != before_pw)
    places, times = np.unique(np.concatenate([line_t * height + row_t[inside], turning * height]), return_counts=True)
    return _counts(places[times % 2 == 1], len(masks_phw), height, width)


def _columns(masks_phw: _Float, place_x: NDArray[np.float64]) -> _Float:
    """The grid's rows with a column for each pixel column [P, h, W]."""
    left = np.floor(place_x).astype(np.int64)
    right = np.minimum(left + 1, masks_phw.shape[2] - 1)
    share = (place_x - left).astype(np.float32)
    from_left = masks_phw[:, :, left]
    columns: _Float = from_left + (masks_phw[:, :, right] - from_left) * share
    return columns


def _counts(turns: _Int64, num_masks: int, height: int, width: int) -> list[str]:
    """The counts of each mask, from all places [T] at which one of them begins or ends."""
    pixels = height * width
    edges = np.searchsorted(turns, np.arange(num_masks + 1) * pixels)
    counts = []
    for number, (first, last) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        within = turns[first:last] - number * pixels
        runs = np.diff(np.concatenate([[0], within, [pixels]])).tolist()
        counts.append(mask_from_runs(runs, height, width).counts if len(within) else "")
    return counts
