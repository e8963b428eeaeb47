"""Judges a comparison: from its figures to verdicts, run by run, each by a pure function."""

from collections.abc import Iterator

from student.comparison import Cell, Comparison, Delta, How, MetricRow, Why, gain, ratio_of
from student.metric_kinds import AT_VAL, Better, Group
from student.readings import COMPARED, Conditions
from student.verdict_types import (
    BesideBlind,
    BesideEverything,
    Changed,
    Condition,
    GoalMet,
    GoalShare,
    KnowsAbsence,
    Latencies,
    Quantised,
    Started,
    TeacherShare,
    TradeOff,
    Undefined,
    Verdict,
    WorstKind,
)

NEAR_ROUND = 0.025  # a share this near to a whole ten per cent is easily told as that
_DROP = "quantisation_drop"
_MCC = ("il_mcc_at_val", "il_mcc")  # the threshold that a user would take comes first
_PRESENCE = (*_MCC, "presence_f1_at_val", "presence_f1", "absence_f1")


def judge(comparison: Comparison) -> list[Verdict]:
    """All verdicts: of the goals, then of each run in the order of their questions."""
    found: list[Verdict] = list(goal_shares(comparison))
    for place in comparison.runs:
        found += judge_run(comparison, place)
    if comparison.baseline is not None:
        found += judge_alone(comparison, comparison.baseline)
    return found


def judge_run(comparison: Comparison, place: int) -> Iterator[Verdict]:
    """What is said of one run."""
    yield from judge_alone(comparison, place)
    yield from changes(comparison, place)
    yield from trade_off(comparison, place)
    yield from teacher_shares(comparison, place)
    yield from goals_met(comparison, place)
    yield from quantised(comparison, place)
    yield from latencies(comparison, place)


def judge_alone(comparison: Comparison, place: int) -> Iterator[Verdict]:
    """What is said of a run, or of the baseline, beside nothing but chance."""
    yield from knows_absence(comparison, place)
    yield from beside_blind(comparison, place)
    yield from worst_kind(comparison, place)
    yield from beside_everything(comparison, place)
    yield from undefined(comparison, place)
    yield from started(comparison, place)


def goal_shares(comparison: Comparison) -> Iterator[GoalShare]:
    """What share of the teacher each goal is, where the teacher has that metric."""
    if comparison.teacher is None:
        return
    for key, goal in comparison.gathered.goal.items():
        row = comparison.row(key)
        teacher = row.cells[comparison.teacher].value if row else None
        share = None if row is None or teacher is None else ratio_of(goal, teacher, row.kind)
        if teacher is None or share is None:
            continue
        yield GoalShare(metric=key, goal=goal, teacher=teacher, share=share, mistaken_for=round_share(share))


def round_share(share: float) -> float | None:
    """The whole ten per cent that `share` is easily told as, though it is another; None where it is none or far."""
    nearest = round(share, 1)
    is_it = f"{100 * share:.1f}" == f"{100 * nearest:.1f}"
    return None if is_it or not nearest or abs(share - nearest) >= NEAR_ROUND else nearest


def started(comparison: Comparison, place: int) -> Iterator[Started]:
    """How the run began, where anybody said so of it or of the baseline."""
    subject, other = comparison.subjects[place], comparison.baseline
    baseline = None if other in (None, place) else comparison.subjects[other or 0].start
    one_class = subject.record is not None and subject.record.one_class
    if subject.start or baseline or one_class:
        yield Started(run=subject.name, start=subject.start, baseline_start=baseline, one_class=one_class)


def knows_absence(comparison: Comparison, place: int) -> Iterator[KnowsAbsence]:
    """Whether IL_MCC is above 0; why that cannot be said, where any presence metric was meant to be read."""
    cells = [(key, cell) for key in _PRESENCE if (cell := comparison.cell(key, place)) and cell.why is not Why.NOT_READ]
    if not cells:
        return
    key, cell = next(((key, cell) for key, cell in cells if key in _MCC and cell.value is not None), cells[0])
    if cell.value is not None and key not in _MCC:
        return  # an F1 alone says nothing of chance
    knows = None
    if cell.value is not None and (cell.low is not None or cell.value <= 0):
        knows = (cell.value if cell.low is None else cell.low) > 0
    yield KnowsAbsence(
        run=comparison.subjects[place].name,
        metric=key,
        value=cell.value,
        low=cell.low,
        high=cell.high,
        knows=knows,
        why=cell.why,
        said=cell.said,
    )


def beside_blind(comparison: Comparison, place: int) -> Iterator[BesideBlind]:
    """The run's MCC beside the best that phrase or source alone reach."""
    cells = (comparison.cell(key, place) for key in _MCC)
    mcc = next((cell for cell in cells if cell is not None and cell.value is not None), None)
    keys = ("blind_phrase_mcc", "blind_source_mcc")
    blind = {key: found for key in keys if (found := _value(comparison, key, place)) is not None}
    if mcc is not None and mcc.value is not None and blind:
        best, name = max(blind, key=lambda key: blind[key]), comparison.subjects[place].name
        has_interval = mcc.low is not None
        yield BesideBlind(run=name, blind=best, value=mcc.value, has_interval=has_interval, blind_value=blind[best])


def worst_kind(comparison: Comparison, place: int) -> Iterator[WorstKind]:
    """The highest hallucination rate."""
    rows = [row for row in comparison.rows if row.kind.group is Group.HALLUCINATION]
    for is_val in (True, False):
        known = [(row.key, row.cells[place]) for row in rows if row.key.endswith(AT_VAL) == is_val]
        rates = [(cell.value, key, cell) for key, cell in known if cell.value is not None]
        if rates:
            value, key, cell = max(rates, key=lambda rate: rate[:2])
            name = comparison.subjects[place].name
            yield WorstKind(run=name, metric=key, value=value, low=cell.low, high=cell.high)
            return


def beside_everything(comparison: Comparison, place: int) -> Iterator[BesideEverything]:
    """Whether masks are better than the whole picture as a mask."""
    value, everything = _value(comparison, "miou", place), _value(comparison, "miou_everything", place)
    if value is not None and everything is not None:
        yield BesideEverything(run=comparison.subjects[place].name, value=value, everything=everything)


def changes(comparison: Comparison, place: int) -> Iterator[Changed]:
    """The metrics that are worth a sentence, beside the baseline."""
    for row, cell, delta in _deltas(comparison, place):
        before = row.cells[comparison.baseline or 0].value
        if row.kind.is_headline and cell.value is not None and before is not None:
            yield Changed(
                run=comparison.subjects[place].name,
                metric=row.key,
                before=before,
                after=cell.value,
                delta=delta.value,
                low=delta.low,
                high=delta.high,
                how=delta.how,
                ratio=delta.ratio,
                gain=gain(delta, row.kind),
                is_clear=delta.how is not How.NONE and delta.sign != 0,
            )


def trade_off(comparison: Comparison, place: int) -> Iterator[TradeOff]:
    """What got better and what got worse; a metric at val's threshold is told where it alone is known."""
    better: list[str] = []
    worse: list[str] = []
    by_chance = False
    found = list(_deltas(comparison, place))
    keys = {row.key for row, _, _ in found}
    for row, _, delta in found:
        way = gain(delta, row.kind)
        if way == 0 or (row.key.endswith(AT_VAL) and row.key.removesuffix(AT_VAL) in keys):
            continue
        (better if way > 0 else worse).append(row.key)
        by_chance = by_chance or delta.how is How.NONE
    if found:
        yield TradeOff(run=comparison.subjects[place].name, better=better, worse=worse, by_chance=by_chance)


def teacher_shares(comparison: Comparison, place: int) -> Iterator[TeacherShare]:
    """Shares of the teacher's reading of the metrics that are worth a sentence."""
    if comparison.teacher is None:
        return
    for row in comparison.rows:
        cell, teacher = row.cells[place], row.cells[comparison.teacher]
        is_told = row.kind.is_headline and (row.key == "miou" or cell.share is not None)
        if is_told and cell.value is not None and cell.no_share is not Why.NO_RATIO:
            yield TeacherShare(
                run=comparison.subjects[place].name,
                metric=row.key,
                value=cell.value,
                teacher=teacher.value,
                share=cell.share,
                why=cell.no_share,
            )


def goals_met(comparison: Comparison, place: int) -> Iterator[GoalMet]:
    """Whether the run reaches each goal; at most as much where less is better."""
    for key, goal in comparison.gathered.goal.items():
        row = comparison.row(key)
        cell = row.cells[place] if row else None
        if row is None or cell is None or cell.value is None:
            continue
        is_met = cell.value <= goal if row.kind.better is Better.LOWER else cell.value >= goal
        is_clear = None if cell.low is None or cell.high is None else not cell.low < goal < cell.high
        name = comparison.subjects[place].name
        yield GoalMet(run=name, metric=key, value=cell.value, goal=goal, is_met=is_met, is_clear=is_clear)


def quantised(comparison: Comparison, place: int) -> Iterator[Quantised]:
    """Each drop against its bound, of an export those from the base that the bound is for."""
    subject, bounds = comparison.subjects[place], comparison.gathered.bounds
    cell = comparison.cell(_DROP, place)
    if cell is not None and cell.value is not None:
        yield Quantised(
            run=subject.name,
            variant="",
            metric="",
            drop=cell.value,
            low=cell.low,
            high=cell.high,
            bound=bounds.quantisation_drop,
            base=bounds.base,
            is_within=cell.value <= bounds.quantisation_drop,
        )
    for variant in subject.quantisation.variants if subject.quantisation else []:
        for drop in [drop for drop in variant.drops if drop.base == bounds.base] or variant.drops:
            yield Quantised(
                run=subject.name,
                variant=variant.name,
                metric=drop.metric,
                drop=drop.drop,
                low=drop.low,
                high=drop.high,
                bound=drop.bound,
                base=drop.base,
                is_within=drop.verdict == "within",
            )


def latencies(comparison: Comparison, place: int) -> Iterator[Latencies]:
    """The run's latency beside the baseline's and the teacher's."""
    subject = comparison.subjects[place]
    for other in (comparison.baseline, comparison.teacher):
        theirs = None if other is None else comparison.subjects[other]
        if theirs is not None and subject.latency is not None and theirs.latency is not None:
            yield Latencies(
                run=subject.name,
                other=theirs.name,
                ms=subject.latency.ms,
                other_ms=theirs.latency.ms,
                apart=conditions_apart(subject.latency.conditions, theirs.latency.conditions),
                unstable=[one.name for one in (subject, theirs) if one.latency and one.latency.stable is False],
            )


def conditions_apart(ours: Conditions, theirs: Conditions) -> list[Condition]:
    """The conditions in which two latencies differ, and those that nobody noted on either side."""
    found = []
    for name in COMPARED:
        one, other = (str(getattr(side, name) or "") for side in (ours, theirs))
        if one != other or not one:
            found.append(Condition(name=name, ours=one, theirs=other))
    return found


def undefined(comparison: Comparison, place: int) -> Iterator[Undefined]:
    """The metrics that are worth a sentence and have no value, but for those that nobody meant to read."""
    for row in comparison.rows:
        cell = row.cells[place]
        if row.kind.is_headline and cell.value is None and cell.why is not Why.NOT_READ:
            name = comparison.subjects[place].name
            yield Undefined(run=name, metric=row.key, why=cell.why, said=cell.said, given=cell.given)


def _value(comparison: Comparison, key: str, place: int) -> float | None:
    cell = comparison.cell(key, place)
    return None if cell is None else cell.value


def _deltas(comparison: Comparison, place: int) -> Iterator[tuple[MetricRow, Cell, Delta]]:
    for row in comparison.rows:
        cell = row.cells[place]
        if cell.delta is not None:
            yield row, cell, cell.delta
