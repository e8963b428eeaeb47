"""The run lengths of many COCO masks at once: read, judged and sampled in numpy, without unpacking a pixel.

A compressed string is a list of run lengths, column by column from the top left, background first. Each run is
written in base 32, least significant digit first, in characters 48 to 111: five bits of digit and one that says
"more follows"; from the fourth run on, the difference to the run two places before is written.

Source: `rleFrString` in https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c.
"""

# N masks, C characters of all masks together, R runs of all masks together, G groups of masks

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

MAX_MASK_PIXELS = 1 << 29  # the largest run that fits 30 bits with its sign; beyond, maskApi.c overflows an int

_MAX_DIGIT = 63  # five bits of digit and the bit that says that more follow
_MORE = 32
_MAX_LOWER_DIGITS = 5  # a number has at most six digits: 30 bits
_NOT_A_DIGIT = "\x7f"

_Int32 = NDArray[np.int32]
_Int64 = NDArray[np.int64]
_Bool = NDArray[np.bool_]


class MaskFault(IntEnum):
    """What is wrong with a mask, as small numbers for arrays."""

    NONE = 0
    CORRUPT = 1  # a foreign character, an unterminated or over-long run, a negative length
    WRONG_SIZE = 2  # the runs do not fill height x width
    EMPTY = 3  # no pixel is set


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The runs of several masks, one after another: first those at even places of that list, then those at odd ones."""

    halves: _Int32  # [R] lengths, negative where a mask is corrupt
    starts: _Int64  # [N + 1] the place of each mask's first run in the list
    corrupt: _Bool  # [N] the string itself is broken

    def lengths(self) -> _Int32:
        """All lengths [R], in order."""
        lengths = np.empty_like(self.halves)
        num_even = (len(lengths) + 1) // 2
        lengths[0::2], lengths[1::2] = self.halves[:num_even], self.halves[num_even:]
        return lengths


def as_texts(counts: Sequence[bytes | str]) -> list[str]:
    """The strings as ASCII; one that is none is replaced by a corrupt one."""
    texts = [text if isinstance(text, str) else text.decode("latin-1") for text in counts]
    if all(map(str.isascii, texts)):
        return texts
    return [text if text.isascii() else _NOT_A_DIGIT for text in texts]


def pixels_of(heights: Sequence[int] | _Int64, widths: Sequence[int] | _Int64) -> _Int64:
    """Height times width [N]; -1, which no sum of runs equals, where that is no size of an image."""
    try:
        heights_n, widths_n = np.asarray(heights, np.int64), np.asarray(widths, np.int64)
    except OverflowError:  # JSON has integers of any length
        heights_n, widths_n = (
            np.array([n if 0 < n <= MAX_MASK_PIXELS else 0 for n in side], np.int64) for side in (heights, widths)
        )
    possible = (heights_n > 0) & (widths_n > 0) & (heights_n <= MAX_MASK_PIXELS) & (widths_n <= MAX_MASK_PIXELS)
    pixels = heights_n * widths_n
    return np.where(possible & (pixels <= MAX_MASK_PIXELS), pixels, -1)


def read_runs(texts: Sequence[str], lengths: _Int64) -> Runs:
    """The runs that ASCII `texts` of `lengths` characters stand for."""
    digits_c = np.frombuffer("".join(texts).encode("ascii"), np.uint8) - np.uint8(48)  # wraps below character 48
    more_c = (digits_c & _MORE) != 0
    ends = np.cumsum(lengths)
    last_characters = ends[lengths > 0] - 1
    corrupt = np.zeros(len(texts), np.bool_)
    corrupt[lengths > 0] = more_c[last_characters]  # unterminated
    more_c[last_characters] = False
    foreign = np.flatnonzero(digits_c > _MAX_DIGIT)
    if foreign.size:
        corrupt[np.searchsorted(ends, foreign, side="right")] = True
    last_digits = np.flatnonzero(~more_c)
    starts = np.concatenate(([0], np.searchsorted(last_digits, ends)))
    written, overlong = _read_numbers(digits_c, more_c, last_digits)
    if overlong.size:
        corrupt[np.searchsorted(starts, overlong, side="right") - 1] = True
    return Runs(halves=_undo_differences(written, starts), starts=starts, corrupt=corrupt)


def _read_numbers(digits_c: NDArray[np.uint8], more_c: _Bool, last_digits: _Int64) -> tuple[_Int32, _Int64]:
    """The signed numbers [R], and which of them have more digits than any run can.

    `more_c` tells the characters that do not end their number, `last_digits` is where the others stand. Nearly all
    numbers have up to three digits: these fit 16 bits and are read at every character at once.
    """
    more = more_c.astype(np.int16)
    lower = (digits_c & 31).astype(np.int16)
    number_c = (lower ^ 16) - np.int16(16)  # the top bit of a number is its sign
    goes_back = more[:-1]  # from place `back` on: whether the `back` characters before belong to the same number
    for back in (1, 2):
        number_c[back:] += (31 * number_c[back:] + lower[:-back]) * goes_back  # 32 times the number, and one digit more
        goes_back = goes_back[1:] * more[: -back - 1]
    written = number_c.take(last_digits).astype(np.int32)
    long = np.flatnonzero(goes_back != 0) + 3
    long = long[~more_c[long]]
    number, place = np.searchsorted(last_digits, long), long - 3
    for _ in range(_MAX_LOWER_DIGITS - 2):
        written[number] = (written[number] << 5) | (digits_c[place] & 31)
        has_more = more_c[place - 1]  # False before the first character, too: the last one of all ends its number
        number, place = number[has_more], place[has_more] - 1
    return written, number


def _undo_differences(written: _Int32, starts: _Int64) -> _Int32:
    """The lengths [R] of all runs, those at even places first.

    From a mask's fourth number on, each is a difference to the run two places before: so every second number is summed,
    through all masks at once, and each mask begins by taking off what the one before it came to. A mask's first number
    stands outside those sums. A sum that grows beyond 32 bits is negative first, as a corrupt one is.
    """
    halves = np.concatenate((written[0::2], written[1::2]))
    first = _in_halves(starts[:-1][starts[1:] > starts[:-1]], len(written))
    first_lengths = halves[first]
    halves[first] = 0
    edges = _edges(starts, len(written))
    begins = edges[:-1][edges[1:] > edges[:-1]]
    halves[begins[1:]] -= np.add.reduceat(halves, begins)[:-1]
    lengths = np.cumsum(halves, dtype=np.int32)
    lengths[first] = first_lengths
    return lengths


def _in_halves(places: _Int64, num_places: int) -> _Int64:
    """Where `places` of a list are once those at even places stand first."""
    return places // 2 + (places % 2) * ((num_places + 1) // 2)


def _edges(starts: _Int64, num_places: int) -> _Int64:
    """Where each mask begins in the first half [N + 1, as `starts`], then where it does in the second [N + 1]."""
    return np.concatenate(((starts + 1) // 2, starts // 2 + (num_places + 1) // 2))


def judge(runs: Runs, pixels: _Int64) -> tuple[_Int64, NDArray[np.int8]]:
    """Areas and faults [N] of masks that should have `pixels` [N] each; the area is 0 where a mask is faulty."""
    num_masks = len(pixels)
    edges = _edges(runs.starts, len(runs.halves))
    corrupt = runs.corrupt.copy()
    negative = np.flatnonzero(runs.halves < 0)
    if negative.size:
        corrupt[(np.searchsorted(edges, negative, side="right") - 1) % (num_masks + 1)] = True
    sums = _sums_between(runs.halves, edges)
    even, odd = sums[:num_masks], sums[num_masks + 1 :]
    areas = np.where(runs.starts[:-1] % 2 == 0, odd, even)
    faults = np.where(areas == 0, MaskFault.EMPTY, MaskFault.NONE).astype(np.int8)
    faults[even + odd != pixels] = MaskFault.WRONG_SIZE
    faults[corrupt] = MaskFault.CORRUPT
    return np.where(faults == MaskFault.NONE, areas, 0), faults


def _sums_between(values: _Int32, edges: _Int64) -> _Int64:
    """The sum of the `values` between each two neighbours of the rising `edges`, which span them all."""
    sums = np.zeros(len(edges) - 1, np.int64)
    filled = edges[1:] > edges[:-1]
    sums[filled] = np.add.reduceat(values, edges[:-1][filled], dtype=np.int64)
    return sums


def sample_groups(
    runs: Runs, group_of_mask: _Int64, num_groups: int, *, size: tuple[int, int], scaled_size: tuple[int, int]
) -> _Bool:
    """The union of each group [G, scaled width, scaled height], sampled at the centres of the target's pixels.

    `runs` are of sound masks of one `size` (height, width); `scaled_size` is (width, height).
    """
    height, width = size
    scaled_width, scaled_height = scaled_size
    rows = centres(scaled_height, height)
    columns, column_of_target = np.unique(centres(scaled_width, width), return_inverse=True)
    rows_before: _Int64 = np.searchsorted(rows, np.arange(height))
    columns_before: _Int64 = np.searchsorted(columns, np.arange(width + 2))
    is_sampled: _Int64 = columns_before[1:] - columns_before[:-1]

    mask_of_run = np.repeat(np.arange(len(group_of_mask)), np.diff(runs.starts))
    run_ends: _Int64 = np.cumsum(runs.lengths()) - mask_of_run * (height * width)  # every mask fills its image exactly
    column: _Int64 = run_ends // height
    row: _Int64 = run_ends - column * height
    sampled_before: _Int64 = columns_before[column] * scaled_height + is_sampled[column] * rows_before[row]

    num_sampled = len(columns) * scaled_height
    base_of_mask: _Int64 = group_of_mask * (num_sampled + 1)  # one place more for what comes after the last
    places = sampled_before + base_of_mask[mask_of_run]
    is_background = (np.arange(len(places)) - runs.starts[mask_of_run]) % 2 == 0
    steps = np.where(is_background, np.int32(1), np.int32(-1))  # an end of background is a start of foreground
    depth = np.zeros(num_groups * (num_sampled + 1), np.int32)
    np.add.at(depth, places, steps)
    depth_of_group = np.cumsum(depth.reshape(num_groups, num_sampled + 1), axis=1, dtype=np.int32)
    inside = (depth_of_group[:, :num_sampled] > 0).reshape(num_groups, len(columns), scaled_height)
    return inside if len(columns) == scaled_width else inside[:, column_of_target]


def centres(num_target: int, num_source: int) -> _Int64:
    """The source place under the centre of each target place: place t takes floor((t + 1/2) * source / target)."""
    return (2 * np.arange(num_target) + 1) * num_source // (2 * num_target)
