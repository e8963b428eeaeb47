"""What a reader has to know besides the verdicts: where intervals come from, on which data, what is missing."""

from collections.abc import Iterator

from student.comparison import Comparison, How, same_data
from student.readings import Evaluation
from student.report_sources import Subject
from student.report_words import Words


def notes(comparison: Comparison, words: Words) -> list[str]:
    """One sentence each."""
    return [*_of_intervals(comparison, words), *(_of_subjects(comparison, words))]


def _of_intervals(comparison: Comparison, words: Words) -> Iterator[str]:
    if any(cell.low is not None for row in comparison.rows for cell in row.cells):
        yield words.say("note", "bounds")
    hows = {cell.delta.how for row in comparison.rows for cell in row.cells if cell.delta}
    if hows & {How.INDEPENDENT, How.PAIRED}:
        yield words.say("note", "independent")
    if comparison.baseline is None:
        yield words.say("note", "no_baseline")
    if comparison.teacher is None:
        yield words.say("note", "no_teacher")


def _of_subjects(comparison: Comparison, words: Words) -> Iterator[str]:
    baseline = None if comparison.baseline is None else comparison.subjects[comparison.baseline]
    for place, subject in enumerate(comparison.subjects):
        if baseline is not None and place in comparison.runs:
            yield _of_data(subject, baseline, words)
        if subject.record is not None and not subject.record.finished:
            yield words.say("note", "unfinished", name=subject.name)
        if subject.is_outdated:
            yield words.say("note", "outdated", name=subject.name)
        if subject.evaluation is not None:
            yield from _of_evaluation(subject.name, subject.evaluation, words)
        elif subject.record is not None:
            yield words.say("note", "not_evaluated", name=subject.name)


def of_training(comparison: Comparison, words: Words) -> str:
    """That not all were trained for as many steps; "" where they were, or fewer than two say."""
    steps = {one.name: num for one in comparison.subjects if (num := _num_steps(one))}
    if len(set(steps.values())) < 2:
        return ""
    return words.say("note", "other_steps", steps=words.listed([f"{name} {num:,}" for name, num in steps.items()]))


def _num_steps(subject: Subject) -> int:
    """The steps that a run was trained for, as its record or else its curves say; 0 where neither does."""
    if subject.record is not None and subject.record.steps:
        return subject.record.steps
    return round(max((curve.points[-1][0] for curve in subject.curves if curve.points), default=0))


def _of_data(subject: Subject, baseline: Subject, words: Words) -> str:
    same = same_data(subject, baseline)
    if same is None or subject.evaluation is None or baseline.evaluation is None:
        return words.say("note", "unknown_data", name=subject.name)
    if same:
        return words.say("note", "same_data", name=subject.name)
    ours, theirs = (f"{one.build}, {one.split}" for one in (subject.evaluation, baseline.evaluation))
    return words.say("note", "other_data", name=subject.name, ours=ours, theirs=theirs)


def _of_evaluation(name: str, found: Evaluation, words: Words) -> Iterator[str]:
    if found.threshold is not None and found.temperature is not None:
        threshold, temperature = f"{found.threshold:.3g}", f"{found.temperature:.3g}"
        yield words.say("note", "fitted", name=name, threshold=threshold, temperature=temperature, on=found.fitted_on)
    for note in found.notes:
        yield words.say("note", "from_evaluation", name=name, note=note)
