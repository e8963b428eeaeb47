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
    """The runs of several masks, one after another; each length stands in `even` or `odd` by its place in that list."""

    even: _Int64  # [ceil(R / 2)] lengths, negative where a mask is corrupt
    odd: _Int64  # [floor(R / 2)]
    starts: _Int64  # [N + 1] the place of each mask's first run
    corrupt: _Bool  # [N] the string itself is broken

    def lengths(self) -> _Int64:
        """All lengths [R], in order."""
        lengths = np.empty(len(self.even) + len(self.odd), np.int64)
        lengths[0::2], lengths[1::2] = self.even, self.odd
        return lengths


def as_texts(counts: Sequence[bytes | str]) -> list[str]:
    """The strings as ASCII; one that is none is replaced by a corrupt one."""
    texts = [text if isinstance(text, str) else text.decode("latin-1") for text in counts]
    if "".join(texts).isascii():
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
    pixels = np.where(possible, heights_n, 0) * np.where(possible, widths_n, 0)
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
    more = np.flatnonzero(more_c)
    starts = np.concatenate(([0], ends - np.searchsorted(more, ends)))  # every character but those ends a run
    written, overlong = _read_numbers(digits_c, more_c, more)
    if overlong.size:
        corrupt[np.searchsorted(starts, overlong, side="right") - 1] = True
    even, odd = _undo_differences(written, starts)
    return Runs(even=even, odd=odd, starts=starts, corrupt=corrupt)


def _read_numbers(digits_c: NDArray[np.uint8], more_c: _Bool, more: _Int64) -> tuple[_Int64, _Int64]:
    """The signed numbers [R], and which of them have more digits than any run can.

    `more_c` tells the characters that do not end their number, `more` is where they stand. Most numbers have one digit.
    """
    last_digits = ((digits_c & 31) ^ 16).view(np.int8) - np.int8(16)  # the top bit of a number is its sign
    written = last_digits.take(np.flatnonzero(~more_c)).astype(np.int64)
    number_of_digit = more - np.arange(len(more))
    place = np.flatnonzero(np.diff(number_of_digit, append=-1))  # the highest of each number's lower digits
    number = number_of_digit[place]
    lower_digits = digits_c[more] & 31
    for _ in range(_MAX_LOWER_DIGITS):
        written[number] = (written[number] << 5) | lower_digits[place]
        has_more = (place > 0) & (number_of_digit[place - 1] == number)
        place, number = place[has_more] - 1, number[has_more]
        if not number.size:
            break
    return written, number


def _undo_differences(written: _Int64, starts: _Int64) -> tuple[_Int64, _Int64]:
    """Lengths of the runs at even and at odd places of the whole list.

    From a mask's fourth number on, each is a difference to the run two places before: so every second number is summed,
    through all masks at once, and what stood before each mask is taken off again.
    """
    first, last = starts[:-1], starts[1:]
    first, last = first[last > first], last[last > first]
    even, odd = (_running_sum(written[parity::2]) for parity in (0, 1))
    for parity, running in enumerate((even, odd)):
        starts_here = first % 2 == parity
        # Runs 0, 2, 4, ... of the masks that start at this parity (run 0 is no difference), 1, 3, 5, ... of the others.
        before = running[np.where(starts_here, first, first - 1) // 2 + 1]
        running[1:] -= np.repeat(before, _num_places(last, parity) - _num_places(first, parity))
        running[1:][first[starts_here] // 2] = written[first[starts_here]]
    return even[1:], odd[1:]


def _running_sum(values: _Int64) -> _Int64:
    """0 and the sums of the first 1, 2, ... values."""
    running = np.zeros(len(values) + 1, np.int64)
    np.cumsum(np.ascontiguousarray(values), out=running[1:])  # over a strided view it takes five times as long
    return running


def _num_places(place: _Int64, parity: int) -> _Int64:
    """How many places of `parity` come before `place`."""
    return (place + 1 - parity) // 2


def judge(runs: Runs, pixels: _Int64) -> tuple[_Int64, NDArray[np.int8]]:
    """Areas and faults [N] of masks that should have `pixels` [N] each; the area is 0 where a mask is faulty."""
    first, last = runs.starts[:-1], runs.starts[1:]
    corrupt = runs.corrupt.copy()
    sums = []
    for parity, lengths in enumerate((runs.even, runs.odd)):
        running = _running_sum(lengths)
        sums.append(running[_num_places(last, parity)] - running[_num_places(first, parity)])
        negative = np.flatnonzero(lengths < 0)
        if negative.size:
            corrupt[np.searchsorted(runs.starts, 2 * negative + parity, side="right") - 1] = True
    areas = np.where(first % 2 == 0, sums[1], sums[0])
    faults = np.where(areas == 0, MaskFault.EMPTY, MaskFault.NONE).astype(np.int8)
    faults[sums[0] + sums[1] != pixels] = MaskFault.WRONG_SIZE
    faults[corrupt] = MaskFault.CORRUPT
    return np.where(faults == MaskFault.NONE, areas, 0), faults


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
