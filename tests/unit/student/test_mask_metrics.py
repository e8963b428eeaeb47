"""Mask figures against cases that were computed by hand."""

import numpy as np
import pytest

from student.estimates import NO_ABSENT, NO_PRESENT, NO_PROMPT, Estimate, Estimates, Undefined
from student.mask_metrics import NO_MASK, mask_metrics
from student.overlaps import Overlaps

PICTURE = 100
ABSENT, COMPLETE, PARTIAL = "absent", "complete", "partial"


def figures(rows: list[tuple[str, bool, int, int, int]]) -> Estimates:
    """Of prompts as (label, answered "present", intersection, predicted area, true area), each of its own image."""
    label = np.array([row[0] for row in rows], str)
    intersection, predicted, truth = (np.array([row[place] for row in rows], np.int64) for place in (2, 3, 4))
    return mask_metrics(
        Overlaps(
            intersection_n=intersection,
            predicted_n=predicted,
            truth_n=truth,
            pixels_n=np.full(len(rows), PICTURE, np.int64),
        ),
        present_n=label != ABSENT,
        complete_n=label == COMPLETE,
        said_n=np.array([row[1] for row in rows], np.bool_),
        image_n=np.arange(len(rows)),
        rng=np.random.default_rng(0),
        num_draws=50,
    )


def value(found: Estimates, name: str) -> float:
    estimate = found[name]
    assert isinstance(estimate, Estimate), estimate
    return estimate.value


def test_five_prompts_by_hand() -> None:
    found = figures(
        [
            (COMPLETE, True, 20, 30, 30),  # union 40, IoU 1/2
            (COMPLETE, False, 10, 10, 10),  # IoU 1, but answered "absent"
            (ABSENT, True, 0, 5, 0),
            (ABSENT, False, 0, 50, 0),  # quiet: its mask is not looked at
            (PARTIAL, True, 1, 90, 1),  # the masks may be less than there is: only the answer counts
        ]
    )
    assert value(found, "miou") == pytest.approx((1 / 2 + 1) / 2)  # not gated by presence
    assert value(found, "miou_everything") == pytest.approx((30 / 100 + 10 / 100) / 2)
    assert value(found, "giou") == pytest.approx((1 / 2 + 0 + 0 + 1) / 4)
    assert value(found, "ciou") == pytest.approx((20 + 0 + 0 + 0) / (40 + 10 + 5 + 0))
    assert value(found, "n_acc") == pytest.approx(1 / 2)
    assert value(found, "t_acc") == pytest.approx(2 / 3)
    nums = {name: estimate.num for name, estimate in found.items() if isinstance(estimate, Estimate)}
    assert nums == {"miou": 2, "miou_everything": 2, "giou": 4, "ciou": 4, "n_acc": 2, "t_acc": 3}


def test_without_absences_recall_of_absence_alone_is_undefined() -> None:
    found = figures([(COMPLETE, True, 20, 30, 30)])
    assert found["n_acc"] == NO_ABSENT
    assert value(found, "giou") == value(found, "ciou") == value(found, "miou") == 0.5


def test_without_presences_masks_are_undefined() -> None:
    found = figures([(ABSENT, True, 0, 5, 0)])
    assert found["miou"] == found["miou_everything"] == NO_MASK
    assert found["t_acc"] == NO_PRESENT
    assert value(found, "giou") == value(found, "ciou") == value(found, "n_acc") == 0.0


def test_without_complete_masks_presence_still_counts() -> None:
    found = figures([(PARTIAL, True, 3, 5, 4)])
    assert found["miou"] == NO_MASK
    assert found["giou"] == found["ciou"] == NO_PROMPT
    assert value(found, "t_acc") == 1.0


def test_where_nothing_is_drawn_and_nothing_is_there_ciou_is_undefined() -> None:
    found = figures([(ABSENT, False, 0, 0, 0)])
    assert value(found, "giou") == 1.0
    assert found["ciou"] == Undefined("no pixel was predicted or true")


def test_no_prompt_at_all_leaves_everything_undefined() -> None:
    assert all(isinstance(figure, Undefined) for figure in figures([]).values())
