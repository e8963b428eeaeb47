"""Whatever the story's figures are turned into, its verdicts follow them: no text knows a number by heart."""

import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from student.comparison import compare
from student.readings import Bounds, Latency, ReadingsFile, Run, read_json, write_json
from student.report_sentences import say_all
from student.report_sources import gather
from student.report_words import Words
from student.verdict_types import Changed, GoalMet, GoalShare, Quantised, TeacherShare
from student.verdicts import judge
from tests.runs import STORY

FIGURE = st.floats(0.001, 1).map(lambda value: round(value, 4))


@settings(max_examples=60, deadline=None)
@given(
    miou=st.tuples(FIGURE, FIGURE, FIGURE),
    sensitivity=st.tuples(FIGURE, FIGURE),
    goal=FIGURE,
    drop=st.floats(-0.1, 0.2).map(lambda value: round(value, 4)),
    bound=st.floats(0.001, 0.1).map(lambda value: round(value, 3)),
    ms=st.floats(1, 900).map(lambda value: round(value, 1)),
    num_absent=st.integers(0, 3),
)
def test_the_story_with_other_figures_has_other_verdicts(
    miou: tuple[float, float, float],
    sensitivity: tuple[float, float],
    goal: float,
    drop: float,
    bound: float,
    ms: float,
    num_absent: int,
) -> None:
    base, run, teacher = read_json(str(STORY), ReadingsFile).runs
    story = ReadingsFile(
        bounds=Bounds(quantisation_drop=bound),
        goal={"miou": goal},
        runs=[
            _with(base, {"miou": miou[0], "prompt_sensitivity": sensitivity[0]}),
            msgspec.structs.replace(
                _with(
                    run,
                    {
                        "miou": miou[1],
                        "prompt_sensitivity": sensitivity[1],
                        "presence_f1": 0.25,
                        "quantisation_drop": drop,
                    },
                ),
                num_absent=num_absent,
                latency=Latency(ms=ms),
            ),
            _with(teacher, {"miou": miou[2]}),
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "readings.json")
        write_json(path, story)
        comparison = compare(gather([path], goal={}))

    words = Words("en")
    verdicts = judge(comparison)
    said = dict(zip(map(type, verdicts), (one.text for one in say_all(verdicts, comparison, words)), strict=True))
    changed = {found.metric: found for found in verdicts if isinstance(found, Changed)}
    assert changed["miou"].gain == (miou[1] > miou[0]) - (miou[1] < miou[0])
    ratio = sensitivity[1] / sensitivity[0]
    expected = f"× {ratio:,.1f}" if ratio >= 2 else f"{100 * abs(ratio - 1):.1f} %"
    assert expected in words.change("prompt_sensitivity", changed["prompt_sensitivity"].ratio, 0.0)
    assert f"{100 * (miou[1] / miou[2]):.1f} % of the teacher" in said[TeacherShare]
    assert f"{100 * (goal / miou[2]):.1f} % of the teacher" in said[GoalShare]
    assert ("misses" in said[GoalMet]) == (miou[1] < goal)
    assert ("**over**" in said[Quantised]) == (drop > bound)
    whole = "\n".join(said.values())
    assert ("no absent prompt was evaluated" in whole) == (num_absent == 0)
    if 57.3 not in {round(100 * (miou[1] / miou[0] - 1), 1), round(100 * (ratio - 1), 1)}:
        assert "+57.3 %" not in whole


def _with(run: Run, readings: dict[str, float]) -> Run:
    return msgspec.structs.replace(run, readings=dict(readings))
