"""What a report is made from is found wherever it lies, and what is wrong with it is said in one line."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from manifests.errors import AbsentiaError
from student.readings import Latency, write_json
from student.report_sources import Subject, gather
from tests.runs import (
    NOTED,
    STORY,
    make_evaluation,
    make_history,
    make_quantisation,
    make_reading,
    make_run,
    write_failures_of,
)


def write_readings(path: Path, **fields: object) -> str:
    path.write_text(
        json.dumps({"schema": 1, "runs": [{"name": "a", "role": "run", "readings": {"miou": 0.1}}]} | fields)
    )
    return str(path)


def only(source: str | Path) -> Subject:
    [subject] = gather([str(source)], goal={}).subjects
    return subject


def test_the_runs_of_a_readings_file_come_baseline_first_and_teacher_last() -> None:
    gathered = gather([str(STORY)], goal={})

    assert [subject.role for subject in gathered.subjects] == ["baseline", "run", "teacher"]
    assert gathered.goal == {"miou": 0.12}
    assert gathered.bounds.quantisation_drop == 0.02


def test_a_run_folder_brings_what_other_commands_put_into_it(tmp_path: Path) -> None:
    evaluation = make_evaluation({"miou": make_reading(0.4)})
    run = make_run(tmp_path / "lite", evaluation, quantisation=make_quantisation(), history=make_history())
    write_failures_of(run / "evaluation" / "failures.html", ["cat", "dog"])

    found = only(run)

    assert (found.name, found.start, found.num_absent) == ("lite", "scratch", 420)
    assert found.quantisation is not None
    assert {curve.name for curve in found.curves if not curve.is_val} == {"presence", "mask_dice"}
    assert found.failures.endswith("failures.html")


def test_the_folder_of_an_evaluation_and_its_file_are_the_same(tmp_path: Path) -> None:
    write_json(str(tmp_path / "evaluation.json"), make_evaluation({"miou": make_reading(0.4)}, name="other model"))

    assert only(tmp_path).name == only(tmp_path / "evaluation.json").name == "other model"


def test_a_run_that_was_not_evaluated_has_no_readings(tmp_path: Path) -> None:
    assert only(make_run(tmp_path / "fresh")).readings == {}


def test_a_latency_beside_the_run_outweighs_the_evaluation_s(tmp_path: Path) -> None:
    early, late = Latency(ms=5.0), Latency(ms=9.0, conditions=NOTED)
    run = make_run(tmp_path / "timed", make_evaluation({}, latency=early), latency=late)

    assert only(run).latency == late


def test_baseline_and_teacher_are_named_by_option(tmp_path: Path) -> None:
    runs = [str(make_run(tmp_path / name)) for name in ("a", "b", "c")]

    gathered = gather(runs[:1], baseline=runs[1], teacher=runs[2], goal={})

    assert [(subject.name, subject.role) for subject in gathered.subjects] == [
        ("b", "baseline"),
        ("a", "run"),
        ("c", "teacher"),
    ]


def test_the_baseline_of_a_readings_file_is_taken_from_it(tmp_path: Path) -> None:
    gathered = gather([str(make_run(tmp_path / "new"))], baseline=str(STORY), goal={})

    assert [subject.name for subject in gathered.subjects] == ["baseline", "new"]


def test_runs_of_one_name_are_told_apart_by_the_folders_above_or_numbered(tmp_path: Path) -> None:
    runs = [str(make_run(tmp_path / folder / "lite")) for folder in ("x", "y")]
    deep = [str(make_run(tmp_path / folder / "same" / "lite")) for folder in ("x", "y")]

    assert [subject.name for subject in gather(runs, goal={}).subjects] == ["lite (x)", "lite (y)"]
    assert [subject.name for subject in gather(deep, goal={}).subjects] == ["lite", "lite (2)"]


def test_evaluations_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("early", "late"):
        write_json(str(tmp_path / folder / "evaluation.json"), make_evaluation({}, name="model"))

    subjects = gather([str(tmp_path / "early"), str(tmp_path / "late")], goal={}).subjects

    assert [subject.name for subject in subjects] == ["model (early)", "model (late)"]


def test_a_goal_on_the_command_line_outweighs_a_file_s() -> None:
    assert gather([str(STORY)], goal={"miou": 0.3}).goal == {"miou": 0.3}


def write_text(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def with_torn_history(folder: Path) -> str:
    run = make_run(folder / "run")
    write_text(run / "history.jsonl", '{"step": "one"}\n')
    return str(run)


BAD: Mapping[str, tuple[Callable[[Path], str], str]] = {
    "no such run": (lambda folder: str(folder / "gone"), "there is no such folder; expected one with run.json"),
    "no run": (str, "holds neither run.json of a run or evaluation.json"),
    "no such file": (lambda folder: str(folder / "gone.json"), "gone.json: there is no such file"),
    "newer": (lambda folder: write_readings(folder / "r.json", schema=9), "schema 9 is newer than 1; upgrade absentia"),
    "unknown key": (lambda folder: write_readings(folder / "r.json", colour="red"), "unknown field `colour`"),
    "NaN": (
        lambda folder: write_readings(
            folder / "r.json", runs=[{"name": "a", "role": "run", "readings": {"miou": float("nan")}}]
        ),
        "expected ReadingsFile as JSON, found: JSON is malformed",
    ),
    "too large": (
        lambda folder: write_text(
            folder / "r.json", '{"runs": [{"name": "", "role": "run", "readings": {"a": 1e999}}]}'
        ),
        "r.json: expected ReadingsFile as JSON, found: Number out of range",
    ),
    "a word for a number": (
        lambda folder: write_readings(
            folder / "r.json", runs=[{"name": "a", "role": "run", "readings": {"miou": "high"}}]
        ),
        "Expected `float | object | null`, got `str` - at `$.runs[0].readings[...]`",
    ),
    "no runs": (lambda folder: write_readings(folder / "r.json", runs=[]), "holds no runs; expected one or more"),
    "half an interval": (
        lambda folder: write_readings(
            folder / "r.json", runs=[{"name": "a", "role": "run", "readings": {"miou": {"value": 0.1, "low": 0.0}}}]
        ),
        "r.json: a: miou: expected low and high, or neither, found one of them",
    ),
    "interval turned round": (
        lambda folder: write_readings(
            folder / "r.json",
            runs=[{"name": "a", "role": "run", "readings": {"miou": {"value": 0.1, "low": 0.2, "high": 0.0}}}],
        ),
        "expected low <= high, found 0.2 and 0.0; swap them",
    ),
    "no time at all": (
        lambda folder: write_readings(
            folder / "r.json", runs=[{"name": "a", "role": "run", "readings": {}, "latency": {"ms": 0}}]
        ),
        "r.json: a: latency 0 ms; expected more than 0",
    ),
    "a torn history": (with_torn_history, "history.jsonl:1: expected a line of a training run"),
    "a foreign evaluation": (
        lambda folder: write_text(folder / "evaluation.json", '{"name": 3}'),
        "evaluation.json: expected Evaluation as JSON, found",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_source_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    make, expected = BAD[case]

    with pytest.raises(AbsentiaError) as error:
        gather([make(tmp_path)], goal={})

    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_two_baselines_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(AbsentiaError, match="expected one baseline, found 2"):
        gather([str(STORY)], baseline=str(make_run(tmp_path / "old")), goal={})


def test_a_file_of_several_runs_is_no_teacher_unless_it_names_one(tmp_path: Path) -> None:
    runs = [{"name": name, "role": "run", "readings": {}} for name in "ab"]

    with pytest.raises(AbsentiaError, match=r"holds 2 runs; expected one, or one whose role is teacher"):
        gather([str(STORY)], teacher=write_readings(tmp_path / "r.json", runs=runs), goal={})


def test_goals_that_contradict_each_other_are_refused_unless_one_is_given(tmp_path: Path) -> None:
    other = write_readings(tmp_path / "r.json", goal={"miou": 0.5})

    with pytest.raises(AbsentiaError, match=r"goal miou 0.5; expected 0.12 as in .*story.json"):
        gather([str(STORY), other], goal={})
    assert gather([str(STORY), other], goal={"miou": 0.5}).goal == {"miou": 0.5}


def test_bounds_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    other = write_readings(tmp_path / "r.json", bounds={"quantisation_drop": 0.05})

    with pytest.raises(AbsentiaError, match=r"bounds 0.05 of fp16; expected 0.02 of fp16"):
        gather([str(STORY), other], goal={})
