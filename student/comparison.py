"""Runs side by side: of each metric the reading of every run, its difference to the baseline, its share of the teacher.

Everything here is arithmetic over what `report_sources` read. A figure that its own counts forbid is made undefined
first: a Presence F1 over no absent prompt is no 0.0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from student.metric_kinds import Better, MetricKind, metric_kind, metric_order
from student.paired import ImageSums, paired_difference
from student.report_sources import Gathered, Subject

_LEAST = 1e-9  # what is less than this is nothing, and no multiple of it means anything


class Why(StrEnum):
    """Why a figure is undefined, as far as a report finds out by itself."""

    NO_ABSENT = "no_absent"
    NO_PRESENT = "no_present"
    NOT_READ = "not_read"  # this run has no such reading
    NOT_SAID = "not_said"  # null, without a reason
    NO_TEACHER = "no_teacher"
    TEACHER_ZERO = "teacher_zero"
    NO_RATIO = "no_ratio"  # 0 of this metric is not "nothing at all"


class How(StrEnum):
    """Where the interval of a difference comes from."""

    PAIRED = "paired"  # both under the same draws of pictures
    INDEPENDENT = "independent"  # of two intervals, as if the pictures were others: too wide where they are the same
    NONE = "none"  # one side has no interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A run's reading less the baseline's."""

    value: float
    low: float | None
    high: float | None
    how: How
    ratio: float | None  # run over baseline; None where that means nothing

    @property
    def sign(self) -> int:
        """1 or -1 where its interval is clear of 0; without an interval, of the value itself; 0 where it may be 0."""
        least, most = (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)
        return (least > 0) - (most < 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A metric of a run."""

    value: float | None
    low: float | None = None
    high: float | None = None
    num: int = 0
    why: Why | None = None  # the value is undefined
    said: str = ""  # why, in the words of who read it
    given: float | None = None  # what stood there and means nothing
    delta: Delta | None = None
    share: float | None = None  # of the teacher
    no_share: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """A metric over all runs."""

    key: str
    kind: MetricKind
    cells: tuple[Cell, ...]  # as `Comparison.subjects`


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a report shows and judges."""

    gathered: Gathered
    subjects: tuple[Subject, ...]
    baseline: int | None
    teacher: int | None
    rows: tuple[MetricRow, ...]

    @property
    def runs(self) -> list[int]:
        """The subjects that are judged."""
        return [i for i in range(len(self.subjects)) if i not in (self.baseline, self.teacher)]

    def row(self, key: str) -> MetricRow | None:
        """A metric over all runs; None where none has it and it is no goal."""
        return next((row for row in self.rows if row.key == key), None)

    def cell(self, key: str, subject: int) -> Cell | None:
        """A metric of a subject; None where no run has it."""
        row = self.row(key)
        return None if row is None else row.cells[subject]


def compare(gathered: Gathered) -> Comparison:
    """The comparison of all that was gathered."""
    subjects = gathered.subjects
    places = {subject.role: place for place, subject in enumerate(subjects)}
    baseline, teacher = places.get("baseline"), places.get("teacher")
    keys = sorted({key for subject in subjects for key in subject.readings} | set(gathered.goal), key=metric_order)
    rows = []
    for key in keys:
        cells = [settle(subject, key) for subject in subjects]
        rows.append(MetricRow(key=key, kind=metric_kind(key), cells=_related(cells, subjects, key, baseline, teacher)))
    return Comparison(gathered=gathered, subjects=subjects, baseline=baseline, teacher=teacher, rows=tuple(rows))


def settle(subject: Subject, key: str) -> Cell:
    """The reading of a metric, undefined where the prompts that it needs were not evaluated."""
    reading, kind = subject.readings.get(key), metric_kind(key)
    if reading is None:
        return Cell(value=None, why=Why.NOT_READ)
    if kind.needs_absent and subject.num_absent == 0:
        return Cell(value=None, why=Why.NO_ABSENT, given=reading.value)
    if kind.needs_present and subject.num_present == 0:
        return Cell(value=None, why=Why.NO_PRESENT, given=reading.value)
    if reading.value is None:
        return Cell(value=None, why=None if reading.undefined else Why.NOT_SAID, said=reading.undefined)
    return Cell(value=reading.value, low=reading.low, high=reading.high, num=reading.num)


def _related(
    cells: Sequence[Cell], subjects: Sequence[Subject], key: str, baseline: int | None, teacher: int | None
) -> tuple[Cell, ...]:
    """The cells with their differences to the baseline and shares of the teacher."""
    kind, related = metric_kind(key), []
    for place, cell in enumerate(cells):
        delta = None
        if baseline is not None and place not in (baseline, teacher):
            delta = difference(cell, cells[baseline], kind, _sums(subjects[place], subjects[baseline], key))
        share: float | Why | None = None
        if place != teacher and cell.value is not None:
            share = share_of(cell, None if teacher is None else cells[teacher], kind)
        number, why = (None, share) if isinstance(share, Why) else (share, None)
        related.append(replace(cell, delta=delta, share=number, no_share=why))
    return tuple(related)


def same_data(one: Subject, other: Subject) -> bool | None:
    """Whether both were evaluated on one split of one build; None where a side does not say on what."""
    if one.evaluation is None or other.evaluation is None:
        return None
    ours, theirs = one.evaluation, other.evaluation
    return (ours.build_sha256, ours.split) == (theirs.build_sha256, theirs.split)


def _sums(one: Subject, other: Subject, key: str) -> tuple[ImageSums, ImageSums] | None:
    """What each picture adds to the metric on both sides, where both are of the same pictures."""
    if not same_data(one, other) or key not in one.sums or key not in other.sums:
        return None
    return one.sums[key], other.sums[key]


def difference(
    cell: Cell, other: Cell, kind: MetricKind, sums: tuple[ImageSums, ImageSums] | None = None
) -> Delta | None:
    """`cell` less `other` with its interval, paired where there are sums of the same pictures; None if undefined.

    Source: Zou and Donner (2008), doi 10.1002/sim.3095, for the difference of two independent intervals.
    """
    if cell.value is None or other.value is None:
        return None
    value = cell.value - other.value
    ratio = ratio_of(cell.value, other.value, kind)
    paired = paired_difference(*sums) if sums is not None else None
    if paired is not None and math.isclose(paired.value, value, rel_tol=1e-3, abs_tol=1e-6):
        return Delta(value=value, low=paired.low, high=paired.high, how=How.PAIRED, ratio=ratio)
    if cell.low is None or cell.high is None or other.low is None or other.high is None:
        return Delta(value=value, low=None, high=None, how=How.NONE, ratio=ratio)
    below = math.hypot(cell.value - cell.low, other.high - other.value)
    above = math.hypot(cell.high - cell.value, other.value - other.low)
    return Delta(value=value, low=value - below, high=value + above, how=How.INDEPENDENT, ratio=ratio)


def ratio_of(value: float, other: float, kind: MetricKind) -> float | None:
    """`value` over `other`; None where that means nothing."""
    return value / other if kind.has_ratio and other >= _LEAST and value >= 0 else None


def share_of(cell: Cell, teacher: Cell | None, kind: MetricKind) -> float | Why:
    """`cell` over the teacher's, or why that is undefined."""
    if teacher is None or teacher.why is Why.NOT_READ:
        return Why.NO_TEACHER
    if not kind.has_ratio or kind.better is not Better.HIGHER:
        return Why.NO_RATIO
    if teacher.value is None or cell.value is None:
        return teacher.why or Why.NOT_SAID
    share = ratio_of(cell.value, teacher.value, kind)
    return Why.TEACHER_ZERO if share is None else share


def gain(delta: Delta, kind: MetricKind) -> int:
    """1 for better, -1 for worse, 0 where nobody can tell."""
    sign = {Better.HIGHER: 1, Better.LOWER: -1, Better.NEITHER: 0}[kind.better]
    return sign * delta.sign
