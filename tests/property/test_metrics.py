"""Every metric beside its naive reference, over thousands of random evaluations: one-sided, tied, empty, tiny."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from manifests.sample import KINDS, Mask, NegativeKind
from shards.masks import mask_from_array, mask_to_array
from student import presence_metrics
from student.blind import blind
from student.calibration import calibration, choose_threshold, reliability
from student.estimates import Estimate, Estimated, Estimates, Undefined
from student.mask_metrics import mask_metrics
from student.overlaps import Overlaps, best_instance_ious, overlaps, paired_ious
from student.pope import pope
from student.presence_metrics import hallucination, presence_auc, says_present
from student.saco_metrics import saco_metrics
from tests import naive_metrics as naive
from tests.naive_metrics import Figures, Row

NUM_CASES = 1500
DRAWS = 3  # intervals have their own test


@dataclass(frozen=True, slots=True)
class Case:
    """Rows for the naive reference, and the same as arrays."""

    rows: list[Row]

    def of(self, name: str) -> NDArray[np.generic]:
        values = [getattr(row, name) for row in self.rows]
        kinds = {"present": np.bool_, "complete": np.bool_, "presence": np.float64, "best_iou": np.float64, "kind": str}
        return np.array(values, kinds.get(name, np.int64))

    @property
    def present_n(self) -> NDArray[np.bool_]:
        return self.of("present").astype(np.bool_)

    @property
    def presence_n(self) -> NDArray[np.float64]:
        return self.of("presence").astype(np.float64)

    @property
    def said_n(self) -> NDArray[np.bool_]:
        return says_present(self.presence_n, 0.5)

    @property
    def image_n(self) -> NDArray[np.int64]:
        return self.of("image").astype(np.int64)

    @property
    def kind_n(self) -> list[str]:
        return [row.kind for row in self.rows]

    @property
    def overlaps(self) -> Overlaps:
        return Overlaps(
            intersection_n=self.of("intersection").astype(np.int64),
            predicted_n=self.of("predicted").astype(np.int64),
            truth_n=self.of("truth").astype(np.int64),
            pixels_n=self.of("pixels").astype(np.int64),
        )


def cases(num: int = NUM_CASES, seed: int = 0) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    for _ in range(num):
        num_rows, num_images = int(rng.integers(0, 13)), int(rng.integers(1, 5))
        share_present = rng.choice([0.0, 0.3, 0.5, 0.7, 1.0])
        presences = random_presences(rng, num_rows)
        yield Case([random_row(rng, float(p), num_images, share_present) for p in presences])


def random_presences(rng: np.random.Generator, num: int) -> NDArray[np.float64]:
    match rng.integers(0, 4):
        case 0:
            return rng.random(num)
        case 1:
            return rng.integers(0, 5, num) / 4  # ties, 0, 0.5 and 1
        case 2:
            return np.full(num, rng.random())  # one-sided answers
        case _:
            return rng.choice([0.0, 1.0], num)


def random_row(rng: np.random.Generator, presence: float, num_images: int, share_present: float) -> Row:
    present = bool(rng.random() < share_present)
    pixels = int(rng.integers(1, 30))
    predicted, truth = (int(rng.integers(0, pixels + 1)) * int(rng.random() < 0.8) for _ in range(2))
    truth *= present
    lowest = max(0, predicted + truth - pixels)
    return Row(
        image=int(rng.integers(0, num_images)) * 7,
        present=present,
        presence=presence,
        kind="" if present else str(rng.choice([str(kind) for kind in NegativeKind])),
        phrase=int(rng.integers(0, 4)),
        complete=bool(rng.random() < 0.8),
        intersection=int(rng.integers(lowest, min(predicted, truth) + 1)),
        predicted=predicted,
        truth=truth,
        pixels=pixels,
        best_iou=float(rng.choice([0.0, 0.25, 0.5, 0.72, 0.75, 0.97, 1.0])),
        num_instances=int(rng.integers(1, 4)) * present,
    )


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def presence_of(case: Case) -> Estimates:
    return presence_metrics.presence_metrics(case.said_n, case.present_n, case.image_n, rng=rng(), num_draws=DRAWS)


def auc_of(case: Case) -> Estimates:
    found = presence_auc(case.presence_n, case.present_n, case.image_n, rng=rng(), num_draws=DRAWS)
    return {"presence_auc": found}


def hallucination_of(case: Case) -> Estimates:
    return hallucination(case.said_n, case.present_n, case.kind_n, case.image_n, rng=rng(), num_draws=DRAWS)


def masks_of(case: Case) -> Estimates:
    return mask_metrics(
        case.overlaps,
        present_n=case.present_n,
        complete_n=case.of("complete").astype(np.bool_),
        said_n=case.said_n,
        image_n=case.image_n,
        rng=rng(),
        num_draws=DRAWS,
    )


def calibration_of(case: Case) -> Estimates:
    return calibration(case.presence_n, case.present_n, case.image_n, rng=rng(), num_draws=DRAWS)


def pope_of(case: Case) -> Estimates:
    return pope(case.said_n, case.present_n, case.kind_n, case.image_n, rng=rng(), num_draws=DRAWS)


def blind_of(case: Case) -> Estimates:
    phrase_n = case.of("phrase").astype(np.int64)
    return blind(phrase_n, case.present_n, case.image_n, name="phrase", rng=rng(), num_draws=DRAWS)


def saco_of(case: Case) -> Estimates:
    best_n, num_n = case.of("best_iou").astype(np.float64), case.of("num_instances").astype(np.int64)
    return saco_metrics(best_n, num_n, case.said_n, case.image_n, rng=rng(), num_draws=DRAWS)


def naive_auc(rows: list[Row]) -> Figures:
    return {"presence_auc": naive.presence_auc(rows)}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (presence_of, naive.presence),
        (auc_of, naive_auc),
        (hallucination_of, naive.hallucination),
        (masks_of, naive.masks),
        (calibration_of, naive.calibration),
        (pope_of, naive.pope),
        (blind_of, naive.blind),
        (saco_of, naive.saco),
    ],
)
def test_every_metric_is_what_its_definition_says_and_never_nan(
    ours: Callable[[Case], Estimates], theirs: Callable[[list[Row]], Figures]
) -> None:
    num_defined = num_undefined = 0
    for case in cases():
        found, expected = ours(case), theirs(case.rows)
        assert list(found) == list(expected)
        for name, figure in expected.items():
            assert_same(found[name], figure, f"{name} of {case.rows}")
            num_defined += figure is not None
            num_undefined += figure is None
    assert num_defined > NUM_CASES / 4
    assert num_undefined > NUM_CASES / 10


def assert_same(found: Estimated, expected: float | None, where: str) -> None:
    if expected is None:
        assert isinstance(found, Undefined), where
        assert found.why
        return
    assert isinstance(found, Estimate), where
    assert abs(found.value - expected) < 1e-9, where
    assert found.low <= found.value <= found.high, where  # no NaN among them
    assert math.isfinite(found.low + found.high), where
    assert found.num > 0


def test_the_threshold_is_the_best_of_all_that_could_be_tried() -> None:
    for case in cases():
        found, expected = choose_threshold(case.presence_n, case.present_n), naive.threshold(case.rows)
        if expected is None:
            assert isinstance(found, Undefined)
            continue
        assert isinstance(found, float)
        assert abs(found - expected) < 1e-6  # ours is a float32
        chosen, best = naive.mcc_at(case.rows, found), naive.mcc_at(case.rows, expected)
        assert abs(chosen - best) < 1e-12


def test_the_reliability_curve_holds_every_prompt_once() -> None:
    for case in cases(300):
        curve = reliability(case.presence_n, case.present_n)
        assert sum(b.num for b in curve) == len(case.rows)
        assert abs(sum(b.num * b.share_present for b in curve) - sum(row.present for row in case.rows)) < 1e-9
        means = [b.mean_presence for b in curve]
        assert means == sorted(means)


def random_mask(rng: np.random.Generator, height: int, width: int) -> Mask:
    match rng.integers(0, 5):
        case 0:
            array = np.zeros((height, width), np.bool_)
        case 1:
            array = np.ones((height, width), np.bool_)
        case 2:
            array = rng.random((height, width)) < 0.5
        case _:
            array = np.zeros((height, width), np.bool_)
            top, left = rng.integers(0, height), rng.integers(0, width)
            array[top : top + height // 2 + 1, left : left + width // 2 + 1] = True
    return mask_from_array(array)


def test_overlaps_are_those_of_the_pixels_for_any_sizes_and_any_number_of_instances() -> None:
    rng = np.random.default_rng(2)
    sizes = [(int(h), int(w)) for h, w in rng.integers(1, 40, (12, 2))] + [(300, 500), (1, 1)]
    for num in (0, 1, 7, 700):
        size = [sizes[int(rng.integers(len(sizes)))] for _ in range(num)]
        predicted = [random_mask(rng, *hw) if rng.random() < 0.9 else None for hw in size]
        truth = [tuple(random_mask(rng, *hw) for _ in range(int(rng.integers(0, 4)))) for hw in size]
        found = overlaps(predicted, truth, [h for h, _ in size], [w for _, w in size])
        best_n = best_instance_ious(predicted, truth)
        assert len(best_n) == len(found.iou_n) == num
        for n, (mask, instances) in enumerate(zip(predicted, truth, strict=True)):
            here = mask_to_array(mask) if mask else np.zeros(size[n], np.bool_)
            there = [mask_to_array(instance) for instance in instances]
            union = np.logical_or.reduce(there) if there else np.zeros(size[n], np.bool_)
            assert found.intersection_n[n] == (here & union).sum()
            assert found.predicted_n[n] == here.sum()
            assert found.truth_n[n] == union.sum()
            assert found.union_n[n] == (here | union).sum()
            assert found.pixels_n[n] == here.size
            ious = [(here & one).sum() / max((here | one).sum(), 1) for one in there]
            assert best_n[n] == pytest.approx(max(ious, default=0.0), abs=1e-15)


def test_masks_far_to_the_right_of_a_batch_compare_as_at_its_left() -> None:
    tall, wide = (np.zeros((2000, 3000), np.bool_) for _ in range(2))
    tall[:, 1000:1500] = wide[500:1000] = True
    one, two = mask_from_array(tall), mask_from_array(wide)
    # 2000 x 500 and 500 x 3000 pixels meet in 500 x 500: 250000 / (1000000 + 1500000 - 250000) = 1/9
    assert paired_ious([one] * 150, [two] * 150).tolist() == [1 / 9] * 150


def test_kinds_have_codes_and_a_presence_has_none() -> None:
    assert presence_metrics.kind_codes(["", *KINDS]).tolist() == [-1, *range(len(KINDS))]
