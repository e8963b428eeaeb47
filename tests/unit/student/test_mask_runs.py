import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from manifests.sample import Mask
from shards.images import Letterbox, letterbox_geometry
from shards.masks import mask_from_array, mask_to_array
from student.mask_runs import draw_masks


def naive(grid: NDArray[np.float32], letterbox: Letterbox, side: int, height: int, width: int) -> NDArray[np.float64]:
    """Probability of every pixel, one after another: the four cells around its centre, of those in the picture."""
    filled = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            y, x = (
                place(pixel, number, scaled, before, side, cells)
                for pixel, number, scaled, before, cells in (
                    (row, height, letterbox.scaled_height, letterbox.top, grid.shape[0]),
                    (column, width, letterbox.scaled_width, letterbox.left, grid.shape[1]),
                )
            )
            for cell_y in {int(np.floor(y)), int(np.ceil(y))}:
                for cell_x in {int(np.floor(x)), int(np.ceil(x))}:
                    filled[row, column] += grid[cell_y, cell_x] * (1 - abs(y - cell_y)) * (1 - abs(x - cell_x))
    return filled


def place(pixel: int, number: int, scaled: int, before: int, side: int, cells: int) -> float:
    inside = [cell for cell in range(cells) if before <= (cell + 0.5) * side / cells <= before + scaled]
    if not inside:
        middle = (before + scaled / 2) * cells / side - 0.5
        inside = [min(cells - 1, max(0, round(middle)))]
    centre = (before + (pixel + 0.5) * scaled / number) * cells / side - 0.5
    return min(max(centre, inside[0]), inside[-1])


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    cells=st.sampled_from([1, 2, 8, 16]),
    seed=st.integers(0, 2**32 - 1),
    smooth=st.booleans(),
    threshold=st.sampled_from([0.1, 0.5, 0.75]),
)
def test_masks_are_those_of_filling_every_pixel(
    height: int, width: int, cells: int, seed: int, smooth: bool, threshold: float
) -> None:
    masks_phw = np.random.default_rng(seed).random((3, cells, cells), np.float32)
    if smooth:
        masks_phw = (np.round(masks_phw * 4) / 4).astype(
            np.float32
        )  # crossings on pixel centres, cells of exactly one half
    letterbox = letterbox_geometry(width, height, 32)
    counts = draw_masks(masks_phw, letterbox, 32, height=height, width=width, threshold=threshold)
    for mask_hw, text in zip(masks_phw, counts, strict=True):
        expected = naive(mask_hw, letterbox, 32, height, width)
        found = mask_to_array(Mask(size=(height, width), counts=text)) if text else np.zeros((height, width), np.bool_)
        sure = np.abs(expected - threshold) > 1e-6
        assert np.array_equal(found[sure], (expected > threshold)[sure])


@pytest.mark.parametrize(("value", "expected"), [(0.2, False), (0.9, True)])
def test_a_mask_of_one_value_is_empty_or_all_of_the_picture(value: float, expected: bool) -> None:
    masks_phw = np.full((1, 16, 16), value, np.float32)
    (text,) = draw_masks(masks_phw, letterbox_geometry(300, 100, 64), 64, height=100, width=300, threshold=0.5)
    assert text == (mask_from_array(np.ones((100, 300), np.bool_)).counts if expected else "")


def test_what_lies_in_the_padding_is_not_drawn() -> None:
    masks_phw = np.zeros((1, 16, 16), np.float32)
    masks_phw[:, :5] = masks_phw[:, 11:] = 1  # a picture of 3 to 1 lies in rows 5.3 to 10.7
    assert draw_masks(masks_phw, letterbox_geometry(300, 100, 64), 64, height=100, width=300, threshold=0.5) == [""]


def test_many_masks_are_drawn_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    masks_phw = np.random.default_rng(4).random((9, 8, 8), np.float32)
    letterbox = letterbox_geometry(50, 70, 64)
    together = draw_masks(masks_phw, letterbox, 64, height=70, width=50, threshold=0.5)
    monkeypatch.setattr("student.mask_runs._CELLS_AT_ONCE", 1000)
    assert draw_masks(masks_phw, letterbox, 64, height=70, width=50, threshold=0.5) == together


def test_a_pixel_of_exactly_one_half_is_not_set_whichever_way_the_mask_goes() -> None:
    rising_hw = np.array([[0.25, 0.25], [0.75, 0.75]], np.float32)
    counts = draw_masks(
        np.stack([rising_hw, rising_hw[::-1]]), Letterbox(2, 2, 0, 0), 2, height=3, width=1, threshold=0.5
    )
    drawn = [mask_to_array(Mask(size=(3, 1), counts=text))[:, 0].tolist() for text in counts]
    assert drawn == [[False, False, True], [True, False, False]]
