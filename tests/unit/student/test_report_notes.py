"""What a report says besides the verdicts: unlike training, an evaluation that is out of date, names as they stand."""

import os
from pathlib import Path

import msgspec
import pytest

from student.comparison import Comparison, compare
from student.report_drawing import Dot, dots
from student.report_markdown import to_markdown
from student.report_notes import notes, of_training
from student.report_sources import gather
from student.report_words import Words
from student.run_record import ValChoice
from tests.runs import make_evaluation, make_history, make_run

EN = Words("en")


def compared(*runs: Path) -> Comparison:
    return compare(gather([str(run) for run in runs], goal={}))


def test_runs_that_were_trained_for_unlike_numbers_of_steps_are_told(tmp_path: Path) -> None:
    short = make_run(tmp_path / "short", steps=177)
    long = make_run(tmp_path / "long", history=make_history(epochs=3, steps=40))

    comparison = compared(short, long)

    said = "These were trained for different numbers of steps (short 177 and long 120), so a difference may come"
    assert of_training(comparison, EN).startswith(said)
    assert said in to_markdown(comparison, [], EN)
    assert "short 177" in of_training(comparison, Words("ko"))


def test_equal_or_unknown_steps_are_not_told(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, steps=steps) for name, steps in (("a", 177), ("b", 177), ("c", 0))]

    assert of_training(compared(*runs), EN) == ""


@pytest.mark.parametrize(("seconds", "is_told"), [(-9, True), (9, False)])
def test_an_evaluation_that_is_older_than_the_weights_is_told(tmp_path: Path, seconds: int, is_told: bool) -> None:
    run = make_run(tmp_path / "run", make_evaluation({}))
    (run / "best.safetensors").write_bytes(b"")
    now = (run / "best.safetensors").stat().st_mtime
    os.utime(run / "evaluation" / "evaluation.json", (now + seconds, now + seconds))

    said = "run was evaluated before it was trained further; evaluate it again."

    assert (said in notes(compared(run), EN)) is is_told


@pytest.mark.parametrize(("judged", "is_told"), [("aa", False), ("bb", True)])
def test_digests_tell_which_weights_were_judged_whatever_a_copy_did_to_the_times(
    tmp_path: Path, judged: str, is_told: bool
) -> None:
    evaluation = msgspec.structs.replace(make_evaluation({}), predictor_sha256=judged)
    run = make_run(tmp_path / "run", evaluation, choice=ValChoice(student="aa", builds=[], num_prompts=9))
    (run / "best.safetensors").write_bytes(b"")
    later = (run / "evaluation" / "evaluation.json").stat().st_mtime + 9
    os.utime(run / "best.safetensors", (later, later))

    assert ("run was evaluated before it was trained further" in " ".join(notes(compared(run), EN))) is is_told


def test_a_name_makes_no_link_or_picture(tmp_path: Path) -> None:
    run = make_run(tmp_path / "![cat](x)", make_evaluation({}))

    markdown = to_markdown(compared(run), [], EN)

    assert "\\!\\[cat\\](x)" in markdown
    assert "![cat]" not in markdown


def test_a_large_figure_is_drawn_up_to_its_whole() -> None:
    drawn = dots([Dot(name="a", colour=0, value=61.0, low=None, high=None)], whole=100.0)

    assert ">100</text>" in drawn
    assert ">1</text>" not in drawn
