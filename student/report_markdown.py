"""The report as one page of Markdown."""

import re
from collections.abc import Iterator, Sequence

from student.comparison import Comparison
from student.report_notes import notes, of_training
from student.report_sentences import Said, Tone
from student.report_tables import (
    Table,
    curves_table,
    goals_table,
    latency_table,
    layers_table,
    quantisation_table,
    readings_table,
    sources_table,
)
from student.report_words import Words

SIGNS = {Tone.GOOD: "✓", Tone.BAD: "✗", Tone.CARE: "!", Tone.PLAIN: "·"}
_SPECIAL = re.compile(r"[|<>&\[\]]|!(?=\[)")
_ESCAPES = {"|": "\\|", "<": "&lt;", ">": "&gt;", "&": "&amp;", "[": "\\[", "]": "\\]", "!": "\\!"}


def to_markdown(comparison: Comparison, said: Sequence[Said], words: Words) -> str:
    """The whole page."""
    blocks = [f"# {_text(title_of(comparison, words))}", f"## {words.say('heading', 'verdicts')}"]
    blocks += _verdicts(said, words)
    for table in (readings_table, goals_table, quantisation_table, layers_table, latency_table):
        blocks += _table(table(comparison, words), words)
    blocks += _training(comparison, words)
    blocks += _failures(comparison, words)
    blocks += _table(sources_table(comparison, words), words)
    if said_notes := notes(comparison, words):
        blocks += [f"## {words.say('heading', 'notes')}", "\n".join(f"- {_text(note)}" for note in said_notes)]
    return "\n\n".join(blocks) + "\n"


def title_of(comparison: Comparison, words: Words) -> str:
    """What the report is called: after its runs, or after all that it shows where it has none."""
    names = [comparison.subjects[place].name for place in comparison.runs] or [one.name for one in comparison.subjects]
    return words.plain("title", names=words.listed(names))


def _text(text: str) -> str:
    """A text that ends no cell, opens no tag or link and stays on its line; emphasis is kept."""
    return " ".join(_SPECIAL.sub(lambda found: _ESCAPES[found[0]], text).split())


def _verdicts(said: Sequence[Said], words: Words) -> Iterator[str]:
    runs = list(dict.fromkeys(one.run for one in said))
    for run in runs:
        if len(runs) > 1:
            yield f"### {_text(run) or words.say('heading', 'together')}"
        yield "\n".join(f"- {SIGNS[one.tone]} {_text(one.text)}" for one in said if one.run == run)


def _table(table: Table, words: Words) -> Iterator[str]:
    if not table.rows:
        return
    yield f"## {words.say('heading', table.heading)}"
    rule = ["---:" if column >= table.numbers_from else "---" for column in range(len(table.head))]
    lines = [map(_text, table.head), rule, *(map(_text, row) for row in table.rows)]
    yield "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _training(comparison: Comparison, words: Words) -> Iterator[str]:
    curves, said = curves_table(comparison, words), of_training(comparison, words)
    if said and not curves.rows:
        yield f"## {words.say('heading', curves.heading)}"
    yield from _table(curves, words)
    if said:
        yield _text(said)


def _failures(comparison: Comparison, words: Words) -> Iterator[str]:
    found = [subject for subject in comparison.subjects if subject.failures]
    if found:
        yield f"## {words.say('heading', 'failures')}"
        title = words.say("note", "saved_failures")
        yield "\n".join(f"- {_text(one.name)}: [{title}](<{one.failures}>)" for one in found)
