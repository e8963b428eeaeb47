"""Masks: each fault by its reason, shapes from every notation, and sampling against a naive reference."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco

from manifests.errors import Reason, Rejected
from manifests.sample import Mask
from shards import masks, rle
from shards.images import Letterbox, letterbox_geometry
from shards.masks import MaskFault, check_masks
from tests.rle_forms import FORMS, masks_read

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools.decode

REAL = Path("../shared/data/coco_train/annotations/instances_train2017.json")


@pytest.fixture(params=FORMS, autouse=True, scope="module")
def reader(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever is said of masks here holds for both forms of the loop."""
    with masks_read(request.param):
        yield


def some_array(height: int = 30, width: int = 40, *, seed: int = 0) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 5 + 1, width // 5 + 1)) < 0.4
    return np.kron(coarse, np.ones((5, 5), np.bool_))[:height, :width].astype(np.bool_)


def fault_of(counts: bytes | str, height: int = 30, width: int = 40) -> MaskFault:
    return MaskFault(check_masks([counts], [height], [width]).faults[0])


def reason_raised(call: Callable[[], object]) -> Reason:
    with pytest.raises(Rejected) as caught:
        call()
    return caught.value.reason


def naive_sample(array: NDArray[np.bool_], letterbox: Letterbox, side: int) -> NDArray[np.bool_]:
    height, width = array.shape
    canvas = np.zeros((side, side), np.bool_)
    for row in range(letterbox.scaled_height):
        for column in range(letterbox.scaled_width):
            source_row = int((row + 0.5) * height / letterbox.scaled_height)
            source_column = int((column + 0.5) * width / letterbox.scaled_width)
            canvas[letterbox.top + row, letterbox.left + column] = array[source_row, source_column]
    return canvas


def test_areas_of_many_sound_masks_are_their_pixels() -> None:
    arrays = [some_array(seed=seed) for seed in range(50)]
    made = [masks.mask_from_array(array) for array in arrays]
    check = check_masks([mask.counts for mask in made], [30] * 50, [40] * 50)
    assert check.areas.tolist() == [int(array.sum()) for array in arrays]
    assert not check.faults.any()


def test_bytes_and_strings_are_checked_alike() -> None:
    mask = masks.mask_from_array(some_array())
    check = check_masks([mask.counts, mask.counts.encode()], [30, 30], [40, 40])
    assert check.areas[0] == check.areas[1] > 0


def test_no_masks_are_no_faults() -> None:
    assert len(check_masks([], [], []).faults) == 0


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        ("01", MaskFault.WRONG_SIZE),
        ("", MaskFault.WRONG_SIZE),
        ("`U1", MaskFault.EMPTY),  # one run of 1200
        ("0`U1", MaskFault.NONE),
        ("0`U1P", MaskFault.CORRUPT),  # not terminated: P says that more follows
        ("0`U1\x1f", MaskFault.CORRUPT),
        ("0`U1\xff", MaskFault.CORRUPT),
        ("0`U1日", MaskFault.CORRUPT),
        ("0`U1\ud800", MaskFault.CORRUPT),
        ("0PPPPPP0`U1", MaskFault.CORRUPT),  # seven digits
        ("O0`U10", MaskFault.CORRUPT),  # -1 first
        (b"\xff\xfe", MaskFault.CORRUPT),
    ],
)
def test_each_fault_of_a_string_is_told(counts: bytes | str, fault: MaskFault) -> None:
    assert fault_of(counts) == fault


def test_a_negative_run_is_corrupt_even_where_the_sum_is_right() -> None:
    counts = masks.mask_from_uncompressed([100, 1100], [30, 40]).counts
    negative = "4" + "L"  # 4, -4: sums to 0
    assert fault_of(counts) == MaskFault.NONE
    assert fault_of(negative + "`U1") == MaskFault.CORRUPT


def as_counts(runs: list[int]) -> str:
    """What COCO writes for `runs`, whatever they are."""
    numbers = [run - runs[place - 2] if place > 2 else run for place, run in enumerate(runs)]
    characters = []
    for number in numbers:
        rest = number
        while not -16 <= rest < 16:
            characters.append(chr(48 + 32 + (rest & 31)))
            rest >>= 5
        characters.append(chr(48 + (rest & 31)))
    return "".join(characters)


def test_numbers_of_any_length_stand_beside_each_other() -> None:
    runs = [0, 1, 15, 16, 17, 511, 512, 513, 1, 16383, 16384, 20000, 2, 600_000, 1 << 20, 3]
    total = sum(runs)
    check = check_masks([as_counts(runs), as_counts([0, total]), as_counts(runs)], [1] * 3, [total] * 3)
    assert check.areas.tolist() == [sum(runs[1::2]), total, sum(runs[1::2])]


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        ([1 << 28] * 32 + [1100, 100], MaskFault.WRONG_SIZE),  # right in 32 bits
        ([0, *[run for k in range(1, 9) for run in (k * (2**29 - 1), 0)]], MaskFault.CORRUPT),
        ([0, 2**31 - 1, 2**31 - 1, 1202], MaskFault.CORRUPT),  # its numbers have seven digits
    ],
)
def test_runs_that_overflow_are_no_mask_and_leave_their_neighbours_alone(runs: list[int], fault: MaskFault) -> None:
    good = masks.mask_from_array(some_array())
    check = check_masks([good.counts, as_counts(runs), good.counts], [30] * 3, [40] * 3)
    assert check.faults.tolist() == [MaskFault.NONE, fault, MaskFault.NONE]
    assert check.areas.tolist() == [masks.area(good), 0, masks.area(good)]


@pytest.mark.parametrize("size", [(0, 40), (30, -1), (-30, -40), (1 << 40, 1 << 40), (10**30, 40)])
def test_a_size_that_no_image_has_is_the_wrong_size(size: tuple[int, int]) -> None:
    assert fault_of(masks.mask_from_array(some_array()).counts, *size) == MaskFault.WRONG_SIZE


def test_a_faulty_mask_leaves_its_neighbours_alone() -> None:
    good = masks.mask_from_array(some_array())
    for bad in ("", "P", "\xff", "O", "PPPPPPPPPPPPPPPPP0", "o" * 40):
        check = check_masks([good.counts, bad, good.counts, bad, good.counts], [30] * 5, [40] * 5)
        assert check.areas.tolist() == [masks.area(good), 0, masks.area(good), 0, masks.area(good)]


def test_every_fault_has_its_reason() -> None:
    assert [masks.reason_of(fault) for fault in MaskFault] == [
        None,
        Reason.MASK_CORRUPT,
        Reason.MASK_SIZE,
        Reason.MASK_EMPTY,
    ]


def test_polygons_are_rasterised_as_pycocotools_does() -> None:
    polygons = [[2.0, 2.0, 20.5, 3.0, 18.0, 25.0], [25.0, 5.0, 39.0, 5.0, 39.0, 28.0, 25.0, 28.0]]
    expected = coco.decode(coco.merge(coco.frPyObjects(polygons, 30, 40))).astype(bool)
    assert (masks.mask_to_array(masks.mask_from_polygons(polygons, 30, 40)) == expected).all()


@pytest.mark.parametrize(
    ("polygons", "reason"),
    [
        ([], Reason.POLYGON_TOO_SHORT),
        ([[1.0, 1.0, 5.0, 5.0]], Reason.POLYGON_TOO_SHORT),
        ([[1.0, 1.0, 5.0, 5.0, 1.0, 5.0], [1.0, 2.0]], Reason.POLYGON_TOO_SHORT),
        ([[1.0, 1.0, 5.0, 5.0, 1.0, 5.0, 7.0]], Reason.MASK_CORRUPT),
        ([[1.0, 1.0, float("nan"), 5.0, 1.0, 5.0]], Reason.MASK_CORRUPT),
        ([[1.0, 1.0, float("inf"), 5.0, 1.0, 5.0]], Reason.MASK_CORRUPT),
        ([[1.0, 1.0, 1e9, 5.0, 1.0, 5.0]], Reason.MASK_CORRUPT),
        ([[1.0, 1.0, 5.0, -1e9, 1.0, 5.0]], Reason.MASK_CORRUPT),
        ([[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]], Reason.ZERO_AREA),
    ],
)
def test_each_bad_polygon_has_its_reason(polygons: list[list[float]], reason: Reason) -> None:
    assert reason_raised(lambda: masks.mask_from_polygons(polygons, 30, 40)) == reason


def test_run_lengths_become_the_mask_that_they_say() -> None:
    array = masks.mask_to_array(masks.mask_from_uncompressed([30, 3, 1167], [30, 40]))
    assert array.sum() == 3
    assert array[0:3, 1].all()


@pytest.mark.parametrize(
    ("counts", "size", "reason"),
    [
        ([1201], [30, 40], Reason.MASK_SIZE),
        ([], [30, 40], Reason.MASK_SIZE),
        ([1200], [30], Reason.MASK_SIZE),
        ([0], [0, 40], Reason.MASK_SIZE),
        ([1 << 62], [1 << 31, 1 << 31], Reason.MASK_SIZE),
        ([-1, 1201], [30, 40], Reason.MASK_CORRUPT),
        ([1200, 0], [30, 40], Reason.MASK_EMPTY),
    ],
)
def test_each_bad_list_of_runs_has_its_reason(counts: list[int], size: list[int], reason: Reason) -> None:
    assert reason_raised(lambda: masks.mask_from_uncompressed(counts, size)) == reason


def test_a_union_is_set_where_any_mask_is() -> None:
    arrays = [some_array(seed=seed) for seed in range(3)]
    merged = masks.union([masks.mask_from_array(array) for array in arrays])
    assert (masks.mask_to_array(merged) == np.logical_or.reduce(arrays)).all()


def test_hundreds_of_masks_and_polygons_have_a_union() -> None:
    """Where pycocotools keeps numbers of masks in 8 bits (as its `area` of a list does), it must not be asked."""
    array = some_array()
    assert masks.union([masks.mask_from_array(array)] * 300) == masks.mask_from_array(array)
    square = [1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0]
    assert masks.mask_from_polygons([square] * 300, 30, 40) == masks.mask_from_polygons([square], 30, 40)


@pytest.mark.parametrize("bad", [Mask(size=(30, 40), counts="P"), Mask(size=(30, 41), counts="`U1")])
def test_no_faulty_mask_reaches_pycocotools(bad: Mask) -> None:
    good = masks.mask_from_array(some_array())
    reason = Reason.MASK_CORRUPT if bad.counts == "P" else Reason.MASK_SIZE
    for call in (
        lambda: masks.mask_to_array(bad),
        lambda: masks.area(bad),
        lambda: masks.union([good, bad]),
        lambda: masks.resize_mask_groups([[bad]], letterbox_geometry(bad.size[1], 30, 16), 16),
        lambda: masks.downscale_mask_for_page(bad, 10),
    ):
        assert reason_raised(call) == reason


def test_masks_of_two_sizes_have_no_union() -> None:
    pair = [masks.mask_from_array(some_array()), masks.mask_from_array(some_array(40, 30))]
    assert reason_raised(lambda: masks.union(pair)) == Reason.MASK_SIZE
    assert reason_raised(lambda: masks.resize_mask_groups([pair], Letterbox(8, 8, 0, 0), 8)) == Reason.MASK_SIZE
    with pytest.raises(ValueError, match="at least one"):
        masks.union([])


@pytest.mark.parametrize("side", [1, 7, 16, 32, 64])
@pytest.mark.parametrize("size", [(30, 40), (41, 30), (1, 25), (25, 1)])
def test_resized_masks_are_the_pixels_under_the_targets_centres(size: tuple[int, int], side: int) -> None:
    height, width = size
    arrays = [some_array(height, width, seed=seed) for seed in range(4)]
    arrays[2][:] = True
    made = [masks.mask_from_array(array) for array in arrays]
    letterbox = letterbox_geometry(width, height, side)
    found = masks.resize_mask_groups([made[:2], [], made[2:3], made[3:]], letterbox, side)
    expected = [arrays[0] | arrays[1], np.zeros(size, np.bool_), arrays[2], arrays[3]]
    assert found.shape == (4, side, side)
    for one, array in zip(found, expected, strict=True):
        assert (one == naive_sample(array, letterbox, side)).all()


def test_no_groups_and_empty_masks_resize_to_nothing() -> None:
    letterbox = letterbox_geometry(40, 30, 16)
    empty = masks.mask_from_array(np.zeros((30, 40), np.bool_))
    assert masks.resize_mask_groups([], letterbox, 16).shape == (0, 16, 16)
    assert not masks.resize_mask_groups([[], [empty]], letterbox, 16).any()


def test_a_page_gets_a_small_mask_of_the_same_shape() -> None:
    array = some_array(60, 80)
    mask = masks.mask_from_array(array)
    small = masks.downscale_mask_for_page(mask, 40)
    assert small.size == (30, 40)
    assert (masks.mask_to_array(small) == array[rle.centres(30, 60)][:, rle.centres(40, 80)]).all()
    assert masks.downscale_mask_for_page(mask, 80) is mask


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not on this machine")
def test_real_annotations_have_the_area_that_pycocotools_finds() -> None:
    data = json.loads(REAL.read_bytes())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    made = []
    for annotation in data["annotations"]:
        outline, size = annotation["segmentation"], sizes[annotation["image_id"]]
        if isinstance(outline, list):
            made.append(masks.mask_from_polygons(outline, *size))
        else:
            made.append(masks.mask_from_uncompressed(outline["counts"], outline["size"]))
    check = check_masks([m.counts for m in made], [m.size[0] for m in made], [m.size[1] for m in made])
    expected = [int(coco.area({"size": list(m.size), "counts": m.counts.encode()})) for m in made]
    assert len(made) > 2000
    assert not check.faults.any()
    assert check.areas.tolist() == expected
