"""Masks, for any pixels and any bytes: what is accepted here, pycocotools unpacks to the same area."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pycocotools import mask as coco

from manifests.sample import Mask
from shards import masks, rle
from shards.images import Letterbox
from shards.masks import MaskFault, check_masks
from tests.rle_forms import FORMS, masks_read

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools.decode

arrays = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
run_characters = st.text(st.characters(min_codepoint=46, max_codepoint=113), max_size=30)


@pytest.fixture(params=FORMS, autouse=True, scope="module")
def reader(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever is said of masks here holds for both forms of the loop."""
    with masks_read(request.param):
        yield


@settings(deadline=None)
@given(st.lists(arrays, max_size=8))
def test_every_mask_is_read_back_to_its_pixels(pixels: list[NDArray[np.bool_]]) -> None:
    made = [masks.mask_from_array(array) for array in pixels]
    check = check_masks([m.counts for m in made], [m.size[0] for m in made], [m.size[1] for m in made])
    assert check.areas.tolist() == [int(array.sum()) for array in pixels]
    for mask, array in zip(made, pixels, strict=True):
        assert (masks.mask_to_array(mask) == array).all()


@settings(max_examples=400, deadline=None)
@given(arrays, st.data())
def test_a_broken_string_is_refused_or_is_another_sound_mask(array: NDArray[np.bool_], data: st.DataObject) -> None:
    mask = masks.mask_from_array(array)
    broken = bytearray(mask.counts.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(broken)))
        match data.draw(st.sampled_from(["change", "drop", "insert"])):
            case "change":
                broken[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
            case "drop":
                del broken[place : place + 1]
            case _:
                broken.insert(place, data.draw(st.integers(48, 111)))
    assert_agrees_where_accepted([bytes(broken)], *array.shape)


@settings(max_examples=400, deadline=None)
@given(st.lists(run_characters, min_size=1, max_size=6), st.integers(1, 12), st.integers(1, 12))
def test_arbitrary_strings_never_crash_nor_disturb_each_other(texts: list[str], height: int, width: int) -> None:
    together = check_masks(texts, [height] * len(texts), [width] * len(texts))
    alone = [check_masks([text], [height], [width]) for text in texts]
    assert together.faults.tolist() == [one.faults[0] for one in alone]
    assert together.areas.tolist() == [one.areas[0] for one in alone]
    assert_agrees_where_accepted([text.encode() for text in texts], height, width)


def assert_agrees_where_accepted(counts: list[bytes], height: int, width: int) -> None:
    check = check_masks(counts, [height] * len(counts), [width] * len(counts))
    for one, area, fault in zip(counts, check.areas, check.faults, strict=True):
        if fault in {MaskFault.NONE, MaskFault.EMPTY}:
            assert coco.decode({"size": [height, width], "counts": one}).sum() == area


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_runs_in_any_division_are_the_same_pixels(runs: list[int]) -> None:
    """Zero-length runs are legal, and pycocotools writes them for lists that hold them."""
    total = sum(runs)
    if not sum(runs[1::2]):
        return
    mask = masks.mask_from_uncompressed(runs, [total, 1])
    expected = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    assert (masks.mask_to_array(mask)[:, 0] == expected).all()
    assert (masks.resize_mask_groups([[mask]], Letterbox(1, total, 0, 0), total)[0, :, 0] == expected).all()


@settings(max_examples=300, deadline=None)
@given(arrays, st.integers(1, 50), st.integers(1, 50))
def test_resizing_is_indexing_at_the_centres(array: NDArray[np.bool_], width: int, height: int) -> None:
    side = max(width, height)
    found = masks.resize_mask_groups([[masks.mask_from_array(array)]], Letterbox(width, height, 0, 0), side)[0]
    rows, columns = rle.centres(height, array.shape[0]), rle.centres(width, array.shape[1])
    assert (found[:height, :width] == array[rows][:, columns]).all()
    assert not found[height:].any()
    assert not found[:, width:].any()


@settings(deadline=None)
@given(arrays)
def test_a_mask_is_its_own_union(array: NDArray[np.bool_]) -> None:
    mask: Mask = masks.mask_from_array(array)
    assert masks.union([mask, mask]) == mask
