"""Verdicts follow from figures alone: the story's own, and each turned until it says the opposite."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from student.comparison import Cell, Comparison, How, Why, compare, difference, share_of
from student.metric_kinds import metric_kind
from student.readings import Conditions, Latency, Reading
from student.report_sentences import Tone, say
from student.report_sources import Gathered, gather
from student.report_tables import latency_table
from student.report_words import Words
from student.verdict_types import (
    BesideBlind,
    BesideEverything,
    Changed,
    GoalMet,
    GoalShare,
    KnowsAbsence,
    Latencies,
    Quantised,
    Started,
    TeacherShare,
    TradeOff,
    Undefined,
    WorstKind,
)
from student.verdicts import conditions_apart, judge, round_share
from tests.runs import NOTED, STORY, make_evaluation, make_quantisation, make_run

V = TypeVar("V")


def of_type(comparison: Comparison, kind: type[V]) -> list[V]:
    return [verdict for verdict in judge(comparison) if isinstance(verdict, kind)]


def told(folder: Path, *runs: Mapping[str, Any], **fields: object) -> Comparison:
    """The comparison of a readings file with these runs."""
    path = folder / "told.json"
    path.write_text(json.dumps({"runs": [{"readings": {}} | dict(run) for run in runs]} | fields))
    return compare(gather([str(path)], goal={}))


def run_of(**readings: object) -> dict[str, Any]:
    return {"name": "student", "role": "run", "readings": readings}


def base_of(**readings: object) -> dict[str, Any]:
    return {"name": "base", "role": "baseline", "readings": readings}


def span(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def story() -> Comparison:
    return compare(gather([str(STORY)], goal={}))


def test_the_story_s_changes_are_those_of_its_figures(story: Comparison) -> None:
    changed = {found.metric: found for found in of_type(story, Changed)}

    assert changed["miou"].ratio == pytest.approx(0.0898 / 0.0571)
    assert changed["prompt_sensitivity"].ratio == pytest.approx(89.533, abs=1e-3)
    assert all(found.how is How.NONE and not found.is_clear and found.gain == 1 for found in changed.values())


def test_the_story_s_goal_is_no_round_share_of_the_teacher(story: Comparison) -> None:
    [goal] = of_type(story, GoalShare)

    assert goal.share == pytest.approx(0.12 / 0.1522)
    assert goal.mistaken_for == 0.8
    assert [found.is_met for found in of_type(story, GoalMet)] == [False]
    assert [found.share for found in of_type(story, TeacherShare)] == [pytest.approx(0.59001, abs=1e-5)]


def test_the_story_s_presence_is_undefined_whatever_stands_there(story: Comparison) -> None:
    [undefined] = of_type(story, Undefined)

    assert (undefined.metric, undefined.why, undefined.given) == ("presence_f1", Why.NO_ABSENT, 0.0)
    assert [found.knows for found in of_type(story, KnowsAbsence)] == [None]


@pytest.mark.parametrize(
    ("share", "mistaken"),
    [(0.7884, 0.8), (0.8, None), (0.79999, None), (0.8004, None), (0.81, 0.8), (0.75, None), (0.01, None)],
)
def test_a_share_is_mistaken_for_the_round_one_beside_it(share: float, mistaken: float | None) -> None:
    assert round_share(share) == mistaken


@pytest.mark.parametrize(("drop", "is_within"), [(0.02, True), (0.0200001, False), (0.021, False), (-0.01, True)])
def test_a_drop_is_judged_exactly(tmp_path: Path, drop: float, is_within: bool) -> None:
    [found] = of_type(told(tmp_path, run_of(quantisation_drop=drop)), Quantised)

    assert found.is_within == is_within


def test_each_drop_of_an_export_is_judged_by_its_own_bound(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_evaluation({}), quantisation=make_quantisation(drop=0.03, bound=0.05))

    [found] = of_type(compare(gather([str(run)], goal={})), Quantised)

    assert (found.variant, found.metric, found.bound, found.is_within) == ("int8-int4", "miou", 0.05, True)


def test_of_an_export_the_drop_from_the_bound_s_base_is_told(tmp_path: Path) -> None:
    quantisation = make_quantisation()
    variant = quantisation.variants[1]
    drops = [*variant.drops, msgspec.structs.replace(variant.drops[0], base="fp32")]
    run = make_run(
        tmp_path / "run",
        make_evaluation({}),
        quantisation=msgspec.structs.replace(quantisation, variants=[msgspec.structs.replace(variant, drops=drops)]),
    )

    assert [found.base for found in of_type(compare(gather([str(run)], goal={})), Quantised)] == ["fp16"]


def test_an_interval_over_zero_is_no_change(tmp_path: Path) -> None:
    before, after = span(0.40, 0.38, 0.42), span(0.41, 0.39, 0.43)

    [changed] = of_type(told(tmp_path, base_of(miou=before), run_of(miou=after)), Changed)

    assert changed.low is not None
    assert changed.high is not None
    assert changed.low < 0 < changed.high
    assert (changed.gain, changed.is_clear, changed.how) == (0, False, How.INDEPENDENT)


def test_independent_intervals_are_combined_side_by_side() -> None:
    delta = difference(Cell(value=0.5, low=0.47, high=0.52), Cell(value=0.3, low=0.28, high=0.34), metric_kind("miou"))

    assert delta is not None
    assert delta.low == pytest.approx(0.2 - 0.05)  # 0.03 and 0.04 are the legs of it
    assert delta.high == pytest.approx(0.2 + 0.0282843)


def test_what_rose_while_what_fell_is_a_trade_off(tmp_path: Path) -> None:
    base = base_of(miou=0.3, ece=0.05, giou=0.4, pope_random_yes_ratio=0.5)
    run = run_of(miou=0.4, ece=0.09, giou=0.4, pope_random_yes_ratio=0.9)

    [found] = of_type(told(tmp_path, base, run), TradeOff)

    assert (found.better, found.worse) == (["miou"], ["ece"])


def test_a_lower_error_is_better(tmp_path: Path) -> None:
    [found] = of_type(told(tmp_path, base_of(hallucination_blank=0.5), run_of(hallucination_blank=0.1)), TradeOff)

    assert (found.better, found.worse) == (["hallucination_blank"], [])


@pytest.mark.parametrize(
    ("reading", "knows"),
    [(span(0.5, 0.4, 0.6), True), (span(0.05, -0.01, 0.1), False), (0.3, None), (-0.1, False), (0.0, False)],
)
def test_knowing_absence_is_an_mcc_above_chance(tmp_path: Path, reading: object, knows: bool | None) -> None:
    [found] = of_type(told(tmp_path, run_of(il_mcc=reading)), KnowsAbsence)

    assert found.knows == knows


def test_the_threshold_of_val_decides_what_is_known(tmp_path: Path) -> None:
    [found] = of_type(told(tmp_path, run_of(il_mcc=0.0, il_mcc_at_val=span(0.4, 0.3, 0.5))), KnowsAbsence)

    assert (found.metric, found.knows) == ("il_mcc_at_val", True)


def test_the_best_blind_answer_and_the_worst_kind_are_told(tmp_path: Path) -> None:
    readings = {"il_mcc": 0.1, "blind_phrase_mcc": 0.3, "blind_source_mcc": 0.2}
    rates = {"hallucination_blank": 0.1, "hallucination_near_text": 0.4}
    comparison = told(tmp_path, run_of(**readings, **rates, miou=0.2, miou_everything=0.25))

    assert [(found.blind, found.blind_value) for found in of_type(comparison, BesideBlind)] == [
        ("blind_phrase_mcc", 0.3)
    ]
    assert [(found.metric, found.value) for found in of_type(comparison, WorstKind)] == [
        ("hallucination_near_text", 0.4)
    ]
    assert [(found.value, found.everything) for found in of_type(comparison, BesideEverything)] == [(0.2, 0.25)]


@pytest.mark.parametrize(
    ("teacher", "why"),
    [
        ([], None),
        ([{"name": "t", "role": "teacher", "readings": {}}], Why.NO_TEACHER),
        ([{"name": "t", "role": "teacher", "readings": {"miou": 0.0}}], Why.TEACHER_ZERO),
        ([{"name": "t", "role": "teacher", "readings": {"miou": None}}], Why.NOT_SAID),
    ],
)
def test_without_a_teacher_s_reading_its_share_is_undefined(
    tmp_path: Path, teacher: list[dict[str, Any]], why: Why | None
) -> None:
    comparison = told(tmp_path, run_of(miou=0.3), *teacher, goal={"miou": 0.2})

    assert [found.why for found in of_type(comparison, TeacherShare)] == ([why] if why else [])
    assert of_type(comparison, GoalShare) == []
    assert [found.is_met for found in of_type(comparison, GoalMet)] == [True]


def test_a_metric_that_one_side_lacks_has_no_difference(tmp_path: Path) -> None:
    comparison = told(tmp_path, base_of(miou=None), run_of(miou=0.3))

    assert of_type(comparison, Changed) == []
    assert of_type(comparison, TradeOff) == []
    assert of_type(comparison, Undefined)[0].run == "base"


def test_no_ratio_is_made_of_mcc_or_over_nothing(tmp_path: Path) -> None:
    comparison = told(tmp_path, base_of(il_mcc=0.1, miou=0.0), run_of(il_mcc=0.5, miou=0.2))

    assert {found.metric: found.ratio for found in of_type(comparison, Changed)} == {"il_mcc": None, "miou": None}
    assert share_of(Cell(value=0.5), Cell(value=0.8), metric_kind("il_mcc")) is Why.NO_RATIO


def test_presence_needs_both_sides_and_masks_need_presences(tmp_path: Path) -> None:
    one_sided = run_of(il_mcc=0.3, miou=0.2) | {"num_present": 0, "num_absent": 9}

    undefined = {found.metric: found.why for found in of_type(told(tmp_path, one_sided), Undefined)}

    assert undefined == {"il_mcc": Why.NO_PRESENT, "miou": Why.NO_PRESENT}


def test_a_goal_of_a_rate_is_a_ceiling_and_an_interval_may_hold_it(tmp_path: Path) -> None:
    goal = {"hallucination_blank": 0.05}

    [found] = of_type(told(tmp_path, run_of(hallucination_blank=span(0.04, 0.02, 0.06)), goal=goal), GoalMet)

    assert (found.is_met, found.is_clear) == (True, False)


def test_latencies_compare_under_equal_conditions_alone(tmp_path: Path) -> None:
    noted = msgspec.to_builtins(NOTED)
    runs = [
        base_of() | {"latency": {"ms": 30.0, "conditions": noted}},
        run_of() | {"latency": {"ms": 10.0, "conditions": noted | {"load": 3.0}}},
        run_of() | {"name": "other", "latency": {"ms": 10.0, "conditions": noted | {"threads": 1, "device": ""}}},
    ]

    same, apart = of_type(told(tmp_path, *runs), Latencies)

    assert same.apart == []
    assert [(one.name, one.ours, one.theirs) for one in apart.apart] == [
        ("device", "", "cpu Example"),
        ("threads", "1", "2"),
    ]


def test_latencies_differ_in_every_condition_but_the_load_and_in_what_neither_noted() -> None:
    names = [name for name in Conditions.__struct_fields__ if name != "load"]
    changed = {name: 9 if isinstance(getattr(NOTED, name), int) else "other" for name in names}

    assert conditions_apart(NOTED, msgspec.structs.replace(NOTED, load=7.5)) == []
    assert [one.name for one in conditions_apart(NOTED, msgspec.structs.replace(NOTED, **changed))] == names
    assert [one.name for one in conditions_apart(Conditions(), Conditions())] == names


def test_a_latency_that_never_became_steady_does_not_compare(tmp_path: Path) -> None:
    noted = {"conditions": msgspec.to_builtins(NOTED)}
    base = base_of() | {"latency": {"ms": 30.0, "stable": False} | noted}

    comparison = told(tmp_path, base, run_of() | {"latency": {"ms": 10.0, "stable": True} | noted})

    [found] = of_type(comparison, Latencies)
    assert (found.apart, found.unstable) == ([], ["base"])
    assert say(found, "base", Words("en")).text.endswith("**not comparable**: the calls of base never became steady.")
    assert "30.0 ms (never steady)" in latency_table(comparison, Words("en")).rows[0]


@pytest.mark.parametrize(("ms", "tone"), [(30.0, Tone.PLAIN), (30.5, Tone.PLAIN), (15.0, Tone.GOOD), (60.0, Tone.BAD)])
def test_as_fast_as_the_other_is_neither_good_nor_bad(ms: float, tone: Tone) -> None:
    found = Latencies(run="student", other="base", ms=ms, other_ms=30.0, apart=[], unstable=[])

    assert say(found, "base", Words("en")).tone is tone


@pytest.mark.parametrize(("mcc", "tone"), [(0.5, Tone.CARE), (span(0.5, 0.4, 0.6), Tone.GOOD), (0.1, Tone.BAD)])
def test_a_bare_mcc_above_chance_or_blindness_is_told_with_care(tmp_path: Path, mcc: object, tone: Tone) -> None:
    comparison = told(tmp_path, run_of(il_mcc=mcc, blind_phrase_mcc=0.3))

    [blind] = of_type(comparison, BesideBlind)

    said = say(blind, "", Words("en"))
    assert (said.tone, "without intervals" in said.text) == (tone, isinstance(mcc, float))


def test_a_bare_mcc_above_chance_has_no_interval(tmp_path: Path) -> None:
    [found] = of_type(told(tmp_path, run_of(il_mcc=0.5)), KnowsAbsence)

    said = say(found, "", Words("en"))

    assert said.tone is Tone.CARE
    assert said.text.endswith("IL_MCC 0.5000 is above 0, which guessing gives, but has no interval.")


@pytest.mark.parametrize(
    ("num_present", "num_absent", "defined"),
    [
        (0, 9, {"giou", "ciou", "n_acc"}),
        (9, 0, {"giou", "ciou", "miou"}),
        (9, 9, {"giou", "ciou", "miou", "n_acc", "ece", "brier"}),
    ],
)
def test_a_metric_needs_the_classes_that_its_definition_counts(
    tmp_path: Path, num_present: int, num_absent: int, defined: set[str]
) -> None:
    counts = {"num_present": num_present, "num_absent": num_absent}
    read = dict.fromkeys(("miou", "giou", "ciou", "n_acc", "ece", "brier"), 0.2)

    comparison = told(tmp_path, run_of(**read) | counts)

    assert {row.key for row in comparison.rows if row.cells[0].value is not None} == defined


def test_how_a_run_began_and_that_it_saw_one_class_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_evaluation({}), start="resume", one_class=True)

    [found] = of_type(compare(gather([str(run)], goal={})), Started)

    assert (found.start, found.baseline_start, found.one_class) == ("resume", None, True)


def test_a_report_without_runs_judges_nothing() -> None:
    empty = Gathered(subjects=(), goal={}, bounds=gather([str(STORY)], goal={}).bounds)

    assert judge(compare(empty)) == []


def test_latency_without_the_other_side_is_not_judged(tmp_path: Path) -> None:
    comparison = told(tmp_path, base_of(), run_of() | {"latency": {"ms": 10.0}})

    assert comparison.subjects[1].latency == Latency(ms=10.0)
    assert of_type(comparison, Latencies) == []


def test_a_reading_without_value_says_why(tmp_path: Path) -> None:
    said = msgspec.to_builtins(Reading(undefined="the predictions hold no masks"))

    [found] = of_type(told(tmp_path, run_of(miou=said)), Undefined)

    assert (found.why, found.said) == (None, "the predictions hold no masks")
