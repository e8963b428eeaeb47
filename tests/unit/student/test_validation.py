import pytest
import torch

from student.validation import Validation, judge, matthews, summarise


def test_figures_come_of_the_summed_counts() -> None:
    found = summarise(torch.tensor([5.0, 10, 3, 1, 2, 4, 1.2, 4], dtype=torch.float64))
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
    found = summarise(torch.zeros(8, dtype=torch.float64))
    assert (found.presence_loss, found.il_mcc, found.miou) == (None, None, None)


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
