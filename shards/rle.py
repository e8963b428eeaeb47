"""The run lengths of many COCO masks at once: read, judged and sampled, without unpacking a pixel.

A compressed string is a list of run lengths, column by column from the top left, background first. Each run is
written in base 32, least significant digit first, in characters 48 to 111: five bits of digit and one that says
"more follows"; from the fourth run on, the difference to the run two places before is written.

Source: `rleFrString` in https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c.

One loop over the characters reads and judges. It is plain Python, and stays so while there is little to read; a process
that reads much has it compiled as it stands (docs/decisions/0008).
"""

# N masks, C characters of all masks together, R runs of all masks together, G groups of masks

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from manifests.compiled import Loop

MAX_MASK_PIXELS = 1 << 29  # the largest run that fits 30 bits with its sign; beyond, maskApi.c overflows an int

_MAX_DIGIT = 63  # five bits of digit and the bit that says that more follow
_MORE = 32
_SIGN = 16  # of a number's last digit
_MAX_BITS = 30  # of a number: six digits
_MAX_LENGTH = (1 << 31) - 1  # of a run that differences sum to
_NOT_A_DIGIT = "\x7f"
_INTERPRETED_CHARACTERS = 1 << 21  # of which a second is interpreted

_Int8 = NDArray[np.int8]
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
    """The runs of several masks, one after another, and what was found of each mask."""

    lengths: _Int32  # [R]; a corrupt mask has none, and there are none at all where they were not asked for
    starts: _Int64  # [N + 1] the place of each mask's first run in the list
    areas: _Int64  # [N] pixels; 0 where the mask is faulty
    faults: _Int8  # [N] values of MaskFault


def pixels_of(heights: Sequence[int] | _Int64, widths: Sequence[int] | _Int64) -> _Int64:
    """Height times width [N]; -1, which no sum of runs equals, where that is no size of an image."""
    sides = [side.tolist() if isinstance(side, np.ndarray) else side for side in (heights, widths)]
    pixels = [
        height * width if height > 0 < width and height * width <= MAX_MASK_PIXELS else -1
        for height, width in zip(*sides, strict=True)
    ]
    return np.array(pixels, np.int64)


def read_runs(counts: Sequence[bytes | str], pixels: _Int64, *, keep_lengths: bool = True) -> Runs:
    """The runs that `counts` stand for, whose masks should have `pixels` [N] each."""
    characters, ends = _joined(counts)
    lengths = np.empty(len(characters) if keep_lengths else 0, np.int32)
    starts = np.zeros(len(counts) + 1, np.int64)
    areas, faults = np.zeros(len(counts), np.int64), np.zeros(len(counts), np.int8)
    reading.form_for(len(characters))(characters, ends, pixels, lengths, starts, areas, faults)
    return Runs(lengths=lengths[: starts[-1]], starts=starts, areas=areas, faults=faults)


def _joined(counts: Sequence[bytes | str]) -> tuple[bytes, _Int64]:
    """All characters, and where each mask's end; one of other characters than ASCII is replaced by a corrupt one."""
    try:
        characters = "".join(counts).encode("ascii")  # type: ignore[arg-type]  # so it is nearly always
    except (TypeError, UnicodeEncodeError):
        texts = [text if isinstance(text, str) else text.decode("latin-1") for text in counts]
        return _joined([text if text.isascii() else _NOT_A_DIGIT for text in texts])
    return characters, np.cumsum(np.fromiter(map(len, counts), np.int64, len(counts)))


def _read_masks(  # noqa: C901, PLR0912  one function, because numba compiles one
    characters: bytes, ends: _Int64, pixels: _Int64, lengths: _Int32, starts: _Int64, areas: _Int64, faults: _Int8
) -> None:
    """Fill `lengths` (unless it is empty), `starts`, `areas` and `faults`; mask n ends before character `ends[n]`.

    No integer here passes 2^62, so that Python's and the machine's say the same.
    """
    keep_lengths = len(lengths) > 0
    first_run = 0
    place = 0
    for mask in range(len(ends)):
        end = int(ends[mask])
        run, length, length_before = 0, 0, 0
        total, area = 0, 0
        is_corrupt = False
        while place < end:
            digit = characters[place] - 48
            digits = digit  # whose bits tell of a foreign character
            number, bits = digit & 31, 5
            place += 1
            while digit & _MORE and place < end and bits < _MAX_BITS:
                digit = characters[place] - 48
                digits |= digit
                number |= (digit & 31) << bits
                bits += 5
                place += 1
            if digit & _SIGN:
                number -= 1 << bits
            if run > 2:
                number += length_before
            if digits & ~_MAX_DIGIT or digit & _MORE or number < 0 or number > _MAX_LENGTH:
                is_corrupt = True
                break
            if keep_lengths:
                lengths[first_run + run] = number
            total += number
            if run & 1:
                area += number
            length_before, length = length, number
            run += 1
        place = end
        if is_corrupt:
            run = 0
            faults[mask] = MaskFault.CORRUPT
        elif total != pixels[mask]:
            faults[mask] = MaskFault.WRONG_SIZE
        elif area == 0:
            faults[mask] = MaskFault.EMPTY
        else:
            areas[mask] = area
        if keep_lengths:
            first_run += run
        starts[mask + 1] = first_run


reading = Loop(_read_masks, plain=_read_masks, worth=_INTERPRETED_CHARACTERS)


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
    run_ends: _Int64 = np.cumsum(runs.lengths) - mask_of_run * (height * width)  # every mask fills its image exactly
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
