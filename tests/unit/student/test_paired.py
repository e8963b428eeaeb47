"""Two evaluations of the same pictures are compared picture by picture, and others are not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.errors import TableError
from student.comparison import How, compare
from student.paired import ImageSums, paired_difference, read_sums
from student.report_sources import gather
from student.verdict_types import Changed
from student.verdicts import judge
from tests.runs import make_evaluation, make_reading, make_run, write_sums


def the_change(run: Path | str, base: Path | str) -> Changed:
    verdicts = judge(compare(gather([str(run)], baseline=str(base), goal={})))
    [found] = [one for one in verdicts if isinstance(one, Changed)]
    return found


def sums_of(rng: np.random.Generator, keys: tuple[str, ...]) -> ImageSums:
    whole_i = rng.integers(1, 5, len(keys)).astype(np.float64)
    return ImageSums(keys=keys, part_i=whole_i * rng.random(len(keys)), whole_i=whole_i)


def test_the_interval_is_that_of_drawing_the_same_pictures_on_both_sides() -> None:
    rng = np.random.default_rng(5)
    keys = tuple(f"p{number:02}" for number in range(40))
    ours, theirs = sums_of(rng, keys), sums_of(rng, keys)

    found = paired_difference(ours, theirs, num_draws=4000)

    drawn = []
    for _ in range(4000):
        rows = rng.integers(0, 40, 40)
        ratios = [one.part_i[rows].sum() / one.whole_i[rows].sum() for one in (ours, theirs)]
        drawn.append(ratios[0] - ratios[1])
    whole = [one.part_i.sum() / one.whole_i.sum() for one in (ours, theirs)]
    assert found is not None
    assert found.value == pytest.approx(whole[0] - whole[1])
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist(), abs=0.01)


def test_a_picture_that_one_side_lacks_adds_nothing_there() -> None:
    ours = ImageSums(keys=("a", "b"), part_i=np.array([1.0, 1.0]), whole_i=np.array([1.0, 1.0]))
    theirs = ImageSums(keys=("b", "c"), part_i=np.array([0.0, 1.0]), whole_i=np.array([1.0, 1.0]))

    found = paired_difference(ours, theirs)

    assert found is not None
    assert found.value == 0.5


def test_nothing_is_no_side_of_a_pair() -> None:
    some = ImageSums(keys=("a",), part_i=np.ones(1), whole_i=np.ones(1))
    none = ImageSums(keys=("a",), part_i=np.zeros(1), whole_i=np.zeros(1))

    assert paired_difference(some, none) is None


def test_a_damaged_table_of_sums_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sums.parquet").write_bytes(b"PAR1")

    with pytest.raises(TableError, match=r"sums\.parquet: cannot be read as Parquet"):
        read_sums(str(tmp_path))


def test_sums_are_read_by_metric(tmp_path: Path) -> None:
    write_sums(tmp_path / "sums.parquet", {"miou": [("b", 0.5, 1.0), ("a", 0.2, 2.0)], "brier": [("a", 0.1, 1.0)]})

    found = read_sums(str(tmp_path))

    assert found.keys() == {"miou", "brier"}
    assert found["miou"].keys == ("a", "b")
    assert found["miou"].part_i.tolist() == [0.2, 0.5]


def test_evaluations_of_the_same_pictures_are_paired(tmp_path: Path) -> None:
    pictures = [(f"p{number:03}", 0.1 + number / 120, 1.0) for number in range(100)]
    better = [(key, part + 0.02, whole) for key, part, whole in pictures]
    mean = sum(part for _, part, _ in pictures) / 100
    runs = {}
    for name, rows in (("base", pictures), ("run", better)):
        value = sum(part for _, part, _ in rows) / 100
        evaluation = make_evaluation({"miou": make_reading(value, 0.05)}, name=name)
        runs[name] = str(make_run(tmp_path / name, evaluation, sums={"miou": rows}))

    found = the_change(runs["run"], runs["base"])

    assert found.how is How.PAIRED
    assert found.before == pytest.approx(mean)
    assert found.low == pytest.approx(0.02)  # every picture gained the same: what they differ in cancels
    assert found.is_clear


@pytest.mark.parametrize("fields", [{"split": "val"}, {"build_sha256": "cd" * 32}])
def test_evaluations_of_other_pictures_are_not_paired(tmp_path: Path, fields: dict[str, Any]) -> None:
    rows = [(f"p{number}", 0.3, 1.0) for number in range(20)]
    base = make_run(tmp_path / "base", make_evaluation({"miou": make_reading(0.3)}), sums={"miou": rows})
    run = make_run(tmp_path / "run", make_evaluation({"miou": make_reading(0.3)}, **fields), sums={"miou": rows})

    found = the_change(run, base)

    assert found.how is How.INDEPENDENT


def test_sums_that_give_another_figure_than_the_reading_are_not_used(tmp_path: Path) -> None:
    rows = [(f"p{number}", 0.3, 1.0) for number in range(20)]
    runs = [
        str(make_run(tmp_path / name, make_evaluation({"miou": make_reading(value)}), sums={"miou": rows}))
        for name, value in (("base", 0.3), ("run", 0.5))
    ]

    found = the_change(runs[1], runs[0])

    assert found.how is How.INDEPENDENT
    assert found.delta == pytest.approx(0.2)
