from contextlib import nullcontext
from typing import cast

import pytest
import torch

from shards.reader import Loader
from student.distributed import Ranks
from student.model import Answer, Student
from student.validation import Validation, judge, matthews, summarise, validate
from tests.students import TINY, make_batch, tiny_config


def test_figures_come_of_the_summed_counts() -> None:
    found = summarise(torch.tensor([5.0, 10, 3, 1, 2, 4, 4, *[1.2] * 19], dtype=torch.float64))
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
    found = summarise(torch.zeros(26, dtype=torch.float64))
    assert (found.presence_loss, found.il_mcc, found.miou) == (None, None, None)
    assert (found.mask_threshold, found.miou_there) == (0.5, None)


def test_the_threshold_of_masks_is_that_of_the_largest_miou_and_of_equal_ones_the_nearest_to_a_half() -> None:
    ious = torch.full((19,), 1.0, dtype=torch.float64)
    ious[1] = ious[2] = 3.0  # at .10 and .15
    found = summarise(torch.cat([torch.tensor([5.0, 10, 3, 1, 2, 4, 4], dtype=torch.float64), ious]))
    assert (found.mask_threshold, found.miou_there, found.miou) == (0.15, 0.75, 0.25)


def test_a_student_whose_masks_are_timid_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch()
    masks_bphw = torch.where(batch.masks, torch.tensor(-1.0), torch.tensor(-3.0))  # probabilities .27 and .05

    def answer(*_: object) -> Answer:
        return Answer(presence_bp=torch.zeros(batch.present.shape), masks_bphw=masks_bphw)

    student = Student(TINY)
    monkeypatch.setattr(Student, "forward", answer)
    loader = cast(Loader, [batch, batch])
    found = validate(student, loader, tiny_config(), Ranks(), nullcontext())
    assert (found.miou, found.miou_there, found.num_masked) == (0.0, 1.0, 2)
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
