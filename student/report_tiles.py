"""The handful of figures at the head of a report's page: the first run's, each as it reads best."""

from collections.abc import Iterator
from dataclasses import dataclass

from student.comparison import Comparison, Why, gain
from student.report_markup import TONES
from student.report_words import Words

_TOLD = ("miou", "prompt_sensitivity", "il_mcc", "presence_f1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A figure and what it is."""

    figure: str
    name: str
    tone: str  # good, bad, care, or "" for none


def tiles(comparison: Comparison, words: Words) -> Iterator[Tile]:
    """Changes beside the baseline where there is one, plain figures else; then the share of the teacher."""
    if not comparison.runs:
        return
    place = comparison.runs[0]
    prefix = f"{comparison.subjects[place].name}: " if len(comparison.runs) > 1 else ""
    for key in _TOLD:
        row = comparison.row(key)
        cell = row.cells[place] if row else None
        if row is None or cell is None or cell.why is Why.NOT_READ:
            continue
        name = prefix + words.metric(key)
        if cell.value is None:
            yield Tile(figure=words.say("state", "undefined"), name=name, tone="care")
        elif cell.delta is None:
            yield Tile(figure=words.value(key, cell.value), name=name, tone="")
        else:
            change = words.change(key, cell.delta.ratio, cell.delta.value)
            told = f"{name} {words.value(key, cell.value)}"
            yield Tile(figure=change, name=told, tone=TONES[gain(cell.delta, row.kind)])
    share = comparison.cell("miou", place)
    if share is not None and share.share is not None and comparison.teacher is not None:
        name = words.say("say", "tile_teacher", metric=words.metric("miou"))
        yield Tile(figure=words.percent(share.share), name=prefix + name, tone="")
