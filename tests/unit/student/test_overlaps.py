"""Overlaps of masks by hand, and masks that cannot be compared."""

import numpy as np
import pytest

from manifests.errors import Reason, Rejected
from manifests.sample import Mask
from student.overlaps import best_instance_ious, overlaps
from tests.factories import make_mask

HEIGHT, WIDTH = 20, 30


def box(left: int, top: int, right: int, bottom: int) -> Mask:
    return make_mask(WIDTH, HEIGHT, left=left, top=top, right=right, bottom=bottom)


def test_areas_and_iou_by_hand() -> None:
    found = overlaps(
        [box(0, 0, 10, 10), None, Mask(size=(HEIGHT, WIDTH), counts=""), box(0, 0, 3, 3), None],
        [[box(5, 0, 15, 10), box(10, 0, 20, 10)], [box(0, 0, 2, 2)], [], [], []],
        [HEIGHT] * 5,
        [WIDTH] * 5,
    )
    assert found.truth_n.tolist() == [150, 4, 0, 0, 0]  # two boxes of 100 that share 50
    assert found.predicted_n.tolist() == [100, 0, 0, 9, 0]
    assert found.intersection_n.tolist() == [50, 0, 0, 0, 0]
    assert found.union_n.tolist() == [200, 4, 0, 9, 0]
    assert found.iou_n.tolist() == [0.25, 0, 0, 0, 0]
    assert found.pixels_n.tolist() == [600] * 5
    assert found.take(np.array([3, 0])).predicted_n.tolist() == [9, 100]


def test_the_best_instance_counts() -> None:
    found = best_instance_ious([box(0, 0, 10, 10), None], [[box(5, 0, 15, 10), box(0, 0, 10, 5)], [box(0, 0, 1, 1)]])
    assert found.tolist() == [0.5, 0.0]  # 50 / 150 and 50 / 100


def test_two_huge_masks_that_differ_in_one_pixel_are_not_alike() -> None:
    side = 20_000  # 4e8 pixels
    everything = Mask(size=(side, side), counts=uncompressed(0, side * side))
    but_one = Mask(size=(side, side), counts=uncompressed(1, side * side - 1))
    found = overlaps([everything] * 12, [[but_one]] * 12, [side] * 12, [side] * 12)  # together beyond 32 bits
    assert found.intersection_n.tolist() == [side * side - 1] * 12
    assert found.iou_n.tolist() == [(side * side - 1) / (side * side)] * 12


def uncompressed(*runs: int) -> str:
    """Up to three run lengths as the format writes them."""
    return "".join(written(run) for run in runs)


def written(run: int) -> str:
    return chr(run + 48) if run < 16 else chr((run & 31) + 80) + written(run >> 5)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (make_mask(WIDTH + 1, HEIGHT, left=0, top=0, right=4, bottom=4), Reason.MASK_SIZE),
        (make_mask(HEIGHT, WIDTH, left=0, top=0, right=4, bottom=4), Reason.MASK_SIZE),  # on its side
        (Mask(size=(HEIGHT, WIDTH), counts="11"), Reason.MASK_SIZE),
        (Mask(size=(HEIGHT, WIDTH), counts="P"), Reason.MASK_CORRUPT),  # unterminated
    ],
)
def test_a_mask_that_is_broken_or_of_another_size_is_refused_with_its_place(mask: Mask, reason: Reason) -> None:
    sound = box(0, 0, 4, 4)
    with pytest.raises(Rejected, match=r"prediction 1: mask of size .* expected a sound mask of 20 x 30") as caught:
        overlaps([None, mask], [[sound], [sound]], [HEIGHT] * 2, [WIDTH] * 2)
    assert caught.value.reason is reason
    with pytest.raises(Rejected, match="truth 1: mask of size"):
        overlaps([None, None], [[], [mask]], [HEIGHT] * 2, [WIDTH] * 2)


def test_a_prediction_of_another_size_than_an_instance_is_refused() -> None:
    with pytest.raises(Rejected, match="truth 0: mask of size"):
        best_instance_ious([make_mask(8, 8, left=0, top=0, right=4, bottom=4)], [[box(0, 0, 4, 4)]])


def test_no_prompts_have_no_overlaps() -> None:
    assert overlaps([], [], [], []).iou_n.tolist() == best_instance_ious([], []).tolist() == []
