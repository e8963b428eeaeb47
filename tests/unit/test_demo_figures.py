"""What the demo has to show is judged from its files, and fails where it does not show it."""

from pathlib import Path

import pytest

from benchmarks.demo import figures_of
from student.readings import Reading
from student.report import main as report
from tests.runs import make_evaluation, make_reading, make_run

GOOD = {
    "il_mcc": 0.55,
    "presence_f1": 0.7,
    "il_fpr": 0.1,
    "hallucination_blank": 0.01,
    "hallucination_noise": 0.0,
    "miou": 0.4,
    "miou_everything": 0.2,
    "blind_phrase_mcc": 0.1,
}


def make_demo(folder: Path, **changes: float) -> Path:
    for name, values in (("student", GOOD | changes), ("positives", GOOD | {"il_mcc": changes.get("alone", 0.02)})):
        readings = {key: make_reading(value) for key, value in values.items() if key in GOOD}
        make_run(folder / name, make_evaluation(readings, name=name))
    runs = [str(folder / "student"), "--baseline", str(folder / "positives")]
    assert report([*runs, "--out", str(folder / "report")]) == 0
    return folder


def test_a_demo_that_shows_it_all_keeps_every_claim(tmp_path: Path) -> None:
    found = figures_of(make_demo(tmp_path), 540)
    assert [claim.name for claim in found.claims if not claim.holds] == []
    assert len(found.claims) == 7
    assert found.rows[0] == {"figure": "il_mcc", "student": 0.55, "positives": 0.02}


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"hallucination_blank": 0.06}, "hallucination on blank pictures"),
        ({"hallucination_noise": 0.06}, "hallucination on noise pictures"),
        ({"il_mcc": 0.49}, "IL_MCC on the held-out split"),
        ({"miou": 0.25}, "mIoU by that of a mask over everything"),
        ({"alone": -0.2}, "IL_MCC of the student of presences alone, off 0"),
    ],
)
def test_each_claim_can_fail(tmp_path: Path, changes: dict[str, float], broken: str) -> None:
    found = figures_of(make_demo(tmp_path, **changes), None)
    assert [claim.name for claim in found.claims if not claim.holds] == [broken]


def test_a_report_of_other_figures_and_a_slow_demo_are_seen(tmp_path: Path) -> None:
    folder = make_demo(tmp_path)
    page = folder / "report" / "report.md"
    page.write_text(page.read_text(encoding="utf-8").replace("0.0200", "0.0300"), encoding="utf-8")
    broken = [claim.name for claim in figures_of(folder, 601).claims if not claim.holds]
    assert broken == ["students whose IL_MCC stands on the report", "make demo, installed"]


def test_an_undefined_figure_is_no_figure(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo")
    readings = {name: Reading(undefined="no absent prompt was evaluated") for name in GOOD}
    evaluation = make_evaluation(readings, name="student")
    make_run(tmp_path / "other", evaluation)
    moved = (tmp_path / "other" / "evaluation" / "evaluation.json").read_bytes()
    (folder / "student" / "evaluation" / "evaluation.json").write_bytes(moved)
    with pytest.raises(RuntimeError, match="hallucination_blank is undefined, because no absent prompt"):
        figures_of(folder, None)
