from contextlib import nullcontext
from typing import cast

import pytest
import torch

from shards.reader import Loader
from student.distributed import Ranks
from student.model import Answer, Student
from student.validation import NUM_COUNTS, Validation, judge, matthews, summarise, validate
from tests.students import TINY, make_batch, tiny_config


def test_figures_come_of_the_summed_counts() -> None:
    found = summarise(torch.tensor([5.0, 10, 3, 1, 2, 4, 4, *[1.2, 30, 100] * 19], dtype=torch.float64))
    assert found.presence_loss == 0.5
    assert found.il_mcc == pytest.approx((3 * 4 - 1 * 2) / (4 * 5 * 5 * 6) ** 0.5)
    assert found.miou == pytest.approx(0.3)
    assert (found.num_present, found.num_absent, found.num_masked) == (5, 5, 4)


def test_labels_of_one_class_leave_the_correlation_undefined_and_answers_of_one_make_it_nothing() -> None:
    assert matthews(3, 0, 2, 0) is None
    assert matthews(0, 3, 0, 2) is None
    assert matthews(3, 4, 0, 0) == 0
    assert matthews(3, 0, 0, 4) == 1
    assert matthews(0, 4, 3, 0) == -1


def test_nothing_to_judge_by_is_undefined() -> None:
    found = summarise(torch.zeros(NUM_COUNTS, dtype=torch.float64))
    assert (found.presence_loss, found.il_mcc, found.miou) == (None, None, None)
    assert (found.mask_threshold, found.miou_there, found.ciou_there) == (0.5, None, None)


@pytest.mark.parametrize(
    ("better", "threshold"),
    [
        ({0.1: (3.0, 40.0), 0.15: (3.0, 40.0)}, 0.15),  # of equal ones that nearest to one half
        ({0.1: (3.0, 40.0), 0.2: (2.5, 60.0)}, 0.2),  # a little less mIoU, and many more of the pixels
        ({}, 0.5),
    ],
)
def test_pixels_are_set_above_what_gives_the_largest_miou_and_ciou_together(
    better: dict[float, tuple[float, float]], threshold: float
) -> None:
    """By threshold: IoU of four masks, and the pixels of 100 that overlap."""
    overlaps = {round(0.05 * step, 2): (1.0, 30.0) for step in range(1, 20)} | better
    sums = [number for iou, both in overlaps.values() for number in (iou, both, 100.0)]
    found = summarise(torch.tensor([5.0, 10, 3, 1, 2, 4, 4, *sums], dtype=torch.float64))
    iou, both = overlaps[threshold]
    assert (found.mask_threshold, found.miou_there, found.ciou_there) == (threshold, iou / 4, both / 100)
    assert found.miou == 0.25


def test_a_student_whose_masks_are_timid_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch()
    masks_bphw = torch.where(batch.masks, torch.tensor(-1.0), torch.tensor(-3.0))  # probabilities .27 and .05

    def answer(*_: object) -> Answer:
        return Answer(presence_bp=torch.zeros(batch.present.shape), masks_bphw=masks_bphw)

    student = Student(TINY)
    monkeypatch.setattr(Student, "forward", answer)
    loader = cast(Loader, [batch, batch])
    found = validate(student, loader, tiny_config(), Ranks(), nullcontext())
    assert (found.miou, found.miou_there, found.ciou_there, found.num_masked) == (0.0, 1.0, 1.0, 2)
    assert found.mask_threshold == 0.25


@pytest.mark.parametrize(
    ("il_mcc", "miou", "one_class", "expected"),
    [
        (0.5, 0.25, False, (0.75, "il_mcc + miou")),
        (0.5, 0.25, True, (0.25, "miou")),
        (None, 0.25, False, (0.25, "miou")),
        (0.5, None, False, (0.5, "il_mcc")),
        (None, None, False, (-0.7, "-presence_loss")),
    ],
)
def test_weights_are_chosen_by_what_the_labels_allow(
    il_mcc: float | None, miou: float | None, one_class: bool, expected: tuple[float, str]
) -> None:
    found = Validation(presence_loss=0.7, il_mcc=il_mcc, miou=miou, num_present=1, num_absent=1, num_masked=1)
    assert judge(found, one_class=one_class) == expected
