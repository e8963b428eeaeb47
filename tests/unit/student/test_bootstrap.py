"""Intervals beside plain resampling, in which pictures are really drawn and every metric is read anew."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from student import bootstrap
from student.bootstrap import bounds, draw_weights, intervals
from student.calibration import calibration
from student.estimates import Estimate, Estimates
from student.mask_metrics import mask_metrics
from student.overlaps import Overlaps
from student.pope import pope
from student.presence_metrics import hallucination, presence_auc, presence_metrics
from student.saco_metrics import saco_metrics
from tests import naive_metrics as naive
from tests.naive_metrics import Row

SEED, DRAWS = 11, 40


def make_rows(num_images: int = 12) -> list[Row]:
    rng = np.random.default_rng(0)
    rows = []
    for image in range(num_images):
        for _ in range(int(rng.integers(1, 9))):
            present = bool(rng.random() < 0.5)
            truth, predicted = int(rng.integers(1, 50)) * present, int(rng.integers(0, 50))
            presence = float(np.clip(rng.normal(0.6 if present else 0.4, 0.2), 0, 1))
            rows.append(
                Row(
                    image=image,
                    present=present,
                    presence=round(presence, 1),
                    kind="" if present else str(rng.choice(["random", "popular", "co_occurring", "blank"])),
                    complete=bool(rng.random() < 0.9),
                    intersection=int(rng.integers(0, min(truth, predicted) + 1)),
                    predicted=predicted,
                    truth=truth,
                    pixels=100,
                    best_iou=float(rng.random()),
                    num_instances=int(rng.integers(1, 3)) * present,
                )
            )
    return rows


def ours(rows: Sequence[Row], num_draws: int) -> Estimates:
    """Every metric but POPE's, each drawing the same pictures."""
    image, present = np.array([row.image for row in rows]), np.array([row.present for row in rows])
    presence, kinds = np.array([row.presence for row in rows]), [row.kind for row in rows]
    said = presence >= 0.5
    areas = {
        f"{name}_n": np.array([getattr(row, name) for row in rows])
        for name in ("intersection", "predicted", "truth", "pixels")
    }
    complete = np.array([row.complete for row in rows])
    best, num = np.array([row.best_iou for row in rows]), np.array([row.num_instances for row in rows])

    def rng() -> np.random.Generator:
        return np.random.default_rng(SEED)

    return {
        **presence_metrics(said, present, image, rng=rng(), num_draws=num_draws),
        "presence_auc": presence_auc(presence, present, image, rng=rng(), num_draws=num_draws),
        **hallucination(said, present, kinds, image, rng=rng(), num_draws=num_draws),
        **mask_metrics(
            Overlaps(**areas),
            present_n=present,
            complete_n=complete,
            said_n=said,
            image_n=image,
            rng=rng(),
            num_draws=num_draws,
        ),
        **calibration(presence, present, image, rng=rng(), num_draws=num_draws),
        **saco_metrics(best, num, said, image, rng=rng(), num_draws=num_draws),
    }


def resampled(rows: Sequence[Row], figures: Callable[[list[Row]], naive.Figures], num_draws: int) -> Estimates:
    """Value and percentile interval of each figure, with the pictures of each draw put together row by row."""
    images = sorted({row.image for row in rows})
    drawn = np.random.default_rng(SEED).integers(0, len(images), (num_draws, len(images)))
    samples = [
        figures([replace(row, image=place) for place, i in enumerate(draw) for row in rows if row.image == images[i]])
        for draw in drawn
    ]
    found: Estimates = {}
    for name, value in figures(list(rows)).items():
        if value is not None:
            known = [figure for sample in samples if (figure := sample[name]) is not None]
            low, high = np.quantile(known, [0.025, 0.975])
            found[name] = Estimate(value=value, low=min(value, float(low)), high=max(value, float(high)), num=1)
    return found


def all_but_pope(rows: list[Row]) -> naive.Figures:
    found = naive.all_sums(rows) | {"presence_auc": naive.presence_auc(rows)}
    return {name: figure for name, figure in found.items() if not name.startswith("pope")}


def assert_equal(found: Estimates, expected: Estimates) -> None:
    for name, estimate in expected.items():
        mine = found[name]
        assert isinstance(estimate, Estimate)
        assert isinstance(mine, Estimate)
        expected_interval = pytest.approx((estimate.value, estimate.low, estimate.high), abs=1e-9)
        assert (mine.value, mine.low, mine.high) == expected_interval, name


@pytest.mark.parametrize("num_images", [1, 2, 12])
def test_every_interval_is_that_of_pictures_drawn_one_by_one(num_images: int) -> None:
    rows = make_rows(num_images)
    expected = resampled(rows, all_but_pope, DRAWS)
    assert len(expected) > 10
    assert_equal(ours(rows, DRAWS), expected)


def test_the_intervals_of_pope_are_those_of_its_pairs() -> None:
    rows = make_rows(20)
    for setting, kind in (("random", "random"), ("popular", "popular"), ("adversarial", "co_occurring")):
        paired = {row.image for row in rows if row.kind == kind} & {row.image for row in rows if row.present}
        asked = [row for row in rows if row.image in paired and row.kind in {"", kind}]
        expected = {n: e for n, e in resampled(asked, naive.pope, DRAWS).items() if f"_{setting}_" in n}
        image, kinds = np.array([row.image for row in asked]), [row.kind for row in asked]
        said, present = (np.array(flags) for flags in ([naive.said(r) for r in asked], [r.present for r in asked]))
        found = pope(said, present, kinds, image, rng=np.random.default_rng(SEED), num_draws=DRAWS)
        assert len(expected) == 6
        assert_equal(found, expected)


def mean(sums: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return sums[..., :1] / sums[..., 1:]


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        num = rng.integers(1, 9, 80)
        counts = np.stack([rng.binomial(num, 0.3), num], axis=1).astype(np.float64)
        _, low, high = intervals(counts, mean, rng=rng, num_draws=200)
        held += int(low[0] <= 0.3 <= high[0])
    assert 0.90 <= held / 300 <= 0.98


def test_every_draw_draws_as_many_images_as_there_are() -> None:
    weights = np.concatenate(list(draw_weights(7, np.random.default_rng(0), 50)))
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert len({tuple(row) for row in weights.tolist()}) > 40


def test_small_blocks_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows()
    at_once = ours(rows, DRAWS)
    monkeypatch.setattr(bootstrap, "BLOCK", 30)
    assert ours(rows, DRAWS) == at_once


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    counts = np.random.default_rng(0).random((30, 2))
    first, again, other = (intervals(counts, mean, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    assert first[1].tolist() != other[1].tolist()


def test_draws_in_which_a_metric_is_undefined_are_left_out() -> None:
    drawn = np.array([[np.nan, np.nan], [0.2, np.nan], [0.4, np.nan]])
    low, high = bounds(drawn, np.array([0.3, 0.9]))
    assert low.tolist() == pytest.approx([0.205, 0.9])  # 2.5 % of the way from 0.2 to 0.4
    assert high.tolist() == pytest.approx([0.395, 0.9])


def test_an_interval_is_widened_to_the_value_it_is_of() -> None:
    low, high = bounds(np.array([[0.5], [0.6]]), np.array([0.1]))
    assert low.tolist() == [0.1]
    assert high.tolist() == pytest.approx([0.5975])
