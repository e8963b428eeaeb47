"""What can be said of a run: typed verdicts with their figures and no word of any language.

The questions, in order: does it know what is not there, what is undefined, how did it begin, what changed beside the
baseline, how near are teacher and goal, does quantising stay within its bound, and may latencies be compared.
"""

import msgspec

from student.comparison import How, Why
from student.readings import Start


class _Verdict(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What is said of `run`; of all runs together where that is ""."""

    run: str = ""


class Changed(_Verdict, frozen=True, kw_only=True, tag=True):
    """A metric beside the baseline."""

    metric: str
    before: float
    after: float
    delta: float
    low: float | None
    high: float | None
    how: How
    ratio: float | None
    gain: int  # 1 better, -1 worse, 0 neither or perhaps chance
    is_clear: bool  # its interval is clear of 0


class TradeOff(_Verdict, frozen=True, kw_only=True, tag=True):
    """What became better while something became worse."""

    better: list[str]
    worse: list[str]
    by_chance: bool  # some of it has no interval


class TeacherShare(_Verdict, frozen=True, kw_only=True, tag=True):
    """A metric as a share of the teacher's; `share` is None where it is undefined, and `why` says why."""

    metric: str
    value: float
    teacher: float | None
    share: float | None
    why: Why | None = None


class GoalShare(_Verdict, frozen=True, kw_only=True, tag=True):
    """A goal as a share of the teacher's reading, and the round share that it is easily taken for."""

    metric: str
    goal: float
    teacher: float
    share: float
    mistaken_for: float | None


class GoalMet(_Verdict, frozen=True, kw_only=True, tag=True):
    """Whether a run reaches a goal."""

    metric: str
    value: float
    goal: float
    is_met: bool
    is_clear: bool | None  # its interval does not straddle the goal; None without an interval


class Quantised(_Verdict, frozen=True, kw_only=True, tag=True):
    """A drop by quantising against its bound, judged exactly: equal is within."""

    variant: str
    metric: str
    drop: float
    low: float | None
    high: float | None
    bound: float
    base: str
    is_within: bool


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """A condition that keeps two latencies apart; "" where nobody said what it was."""

    name: str
    ours: str
    theirs: str


class Latencies(_Verdict, frozen=True, kw_only=True, tag=True):
    """Two latencies, and why they do not compare, if they do not."""

    other: str
    ms: float
    other_ms: float
    apart: list[Condition]
    unstable: list[str]  # whose calls never became steady


class Undefined(_Verdict, frozen=True, kw_only=True, tag=True):
    """A metric that has no value, and why; `given` is what stood in its place."""

    metric: str
    why: Why | None
    said: str
    given: float | None


class KnowsAbsence(_Verdict, frozen=True, kw_only=True, tag=True):
    """Whether the run tells present from absent better than chance, whose MCC is 0.

    `knows` is None where nobody can say: why there is no value, or an MCC above 0 without an interval.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    knows: bool | None
    why: Why | None
    said: str


class BesideBlind(_Verdict, frozen=True, kw_only=True, tag=True):
    """The run's MCC beside that of the phrase or the source alone, without any picture."""

    blind: str
    value: float
    has_interval: bool  # of the run's MCC
    blind_value: float


class BesideEverything(_Verdict, frozen=True, kw_only=True, tag=True):
    """The run's mIoU beside that of a mask over the whole picture."""

    value: float
    everything: float


class WorstKind(_Verdict, frozen=True, kw_only=True, tag=True):
    """The kind of absent prompt that the run most often answers "present"."""

    metric: str
    value: float
    low: float | None
    high: float | None


class Started(_Verdict, frozen=True, kw_only=True, tag=True):
    """How the run and its baseline began, and whether it saw one class alone."""

    start: Start
    baseline_start: Start | None  # None without a baseline
    one_class: bool


Verdict = (
    Changed
    | TradeOff
    | TeacherShare
    | GoalShare
    | GoalMet
    | Quantised
    | Latencies
    | Undefined
    | KnowsAbsence
    | BesideBlind
    | BesideEverything
    | WorstKind
    | Started
)
