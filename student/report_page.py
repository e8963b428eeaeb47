"""The report as one self-contained HTML file: static markup, inline drawings, no script, nothing fetched."""

import base64
import html
import re
from collections.abc import Iterator, Mapping, Sequence

from manifests import files
from shards.html_file import packaged, policy_digest
from student.comparison import Comparison
from student.report_drawing import NUM_SERIES, Series, line_chart
from student.report_failures import Failure
from student.report_markdown import SIGNS, title_of
from student.report_markup import element, text
from student.report_notes import notes, of_training
from student.report_readings import readings_tables, swatch
from student.report_sentences import Said
from student.report_tables import (
    Table,
    goals_table,
    latency_table,
    layers_table,
    quantisation_table,
    sources_table,
)
from student.report_tiles import tiles
from student.report_words import Words

_THEMES = ("system", "light", "dark")


def write_page(
    uri: str,
    comparison: Comparison,
    said: Sequence[Said],
    failures: Mapping[str, Sequence[Failure]],
    words: Words,
) -> int:
    """How many bytes the page has that now stands at `uri`; `failures` are pictures by the name of their run.

    Raises:
        StorageError: it cannot be written.
    """
    style = packaged("shards", "common.css") + packaged("student", "report.css")
    parts = {
        "language": words.language,
        "title": text(title_of(comparison, words)),
        "policy": f"default-src 'none'; img-src data:; style-src {policy_digest(style)}",
        "style": style,
        "what": text(_what(comparison, words)),
        "theme": _themes(words),
        "tiles": _tiles(comparison, words),
        "body": "\n".join(_sections(comparison, said, failures, words)),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], packaged("student", "report.html"))
    data = page.encode()
    files.write_bytes(uri, data)
    return len(data)


def _what(comparison: Comparison, words: Words) -> str:
    runs = words.listed([comparison.subjects[place].name for place in comparison.runs]) or words.plain("none")
    roles = {place: words.say("role", subject.role) for place, subject in enumerate(comparison.subjects)}
    others = [
        roles[place] if subject.name == roles[place] else f"{subject.name} ({roles[place]})"
        for place, subject in enumerate(comparison.subjects)
        if place not in comparison.runs
    ]
    if not others:
        return words.plain("made_of_alone", runs=runs)
    return words.plain("made_of", runs=runs, others=words.listed(others))


def _themes(words: Words) -> str:
    choices = [
        f'<label><input type="radio" name="theme" id="theme-{name}"{" checked" if name == "system" else ""}>'
        f"{text(words.say('heading', f'theme_{name}'))}</label>"
        for name in _THEMES
    ]
    legend = element("legend", text(words.say("heading", "theme")))
    return element("fieldset", legend + "".join(choices), id="themes")


def _tiles(comparison: Comparison, words: Words) -> str:
    made = [
        element("li", element("b", text(one.figure)) + element("span", text(one.name)), class_=one.tone)
        for one in tiles(comparison, words)
    ]
    return element("ul", "".join(made), id="tiles") if made else ""


def _sections(
    comparison: Comparison, said: Sequence[Said], failures: Mapping[str, Sequence[Failure]], words: Words
) -> Iterator[str]:
    cards = "".join(_verdicts(comparison, said, words))
    yield _section("verdicts", element("div", cards, class_="beside"), words)
    yield _section("readings", "".join(readings_tables(comparison, words)), words)
    yield from _plain_table(goals_table(comparison, words), words)
    yield from _failures(comparison, failures, words)
    yield from _plain_table(quantisation_table(comparison, words), words)
    yield from _plain_table(layers_table(comparison, words), words)
    yield from _plain_table(latency_table(comparison, words), words)
    yield from _charts("reliability", _reliability_charts(comparison, words), words)
    drawn = [place for place, subject in enumerate(comparison.subjects) if subject.curves]
    names = [swatch(place) + text(comparison.subjects[place].name) for place in drawn]
    said_steps = of_training(comparison, words)
    yield from _charts("curves", _training_charts(comparison, words), words, names=names, said=said_steps)
    yield from _plain_table(sources_table(comparison, words), words)
    if listed := notes(comparison, words):
        items = "".join(element("li", text(note)) for note in listed)
        yield _section("notes", element("ul", items, class_="notes"), words)


def _section(key: str, inner: str, words: Words) -> str:
    heading = element("h2", text(words.say("heading", key)), id=f"{key}-heading")
    return element("section", heading + inner, id=key, aria_labelledby=f"{key}-heading")


def _verdicts(comparison: Comparison, said: Sequence[Said], words: Words) -> Iterator[str]:
    roles = {subject.name: words.say("role", subject.role) for subject in comparison.subjects}
    for run in dict.fromkeys(one.run for one in said):
        items = "".join(_verdict(one) for one in said if one.run == run)
        tag = element("span", text(roles[run]), class_="tag") if run and roles[run] != run else ""
        title = text(run or words.say("heading", "together")) + tag
        kind = "panel" if run else "panel together"
        yield element("div", element("h3", title) + element("ul", items, class_="verdicts"), class_=kind)


def _verdict(one: Said) -> str:
    sign = element("span", SIGNS[one.tone], class_="sign", aria_hidden="true")
    return element("li", sign + element("span", text(one.text)), class_=str(one.tone))


def _plain_table(table: Table, words: Words) -> Iterator[str]:
    if not table.rows:
        return
    head = "".join(
        element("th", text(name), scope="col", class_=_kind(table, at)) for at, name in enumerate(table.head)
    )
    rows = "".join(
        element("tr", "".join(element("td", text(one), class_=_kind(table, at)) for at, one in enumerate(row)))
        for row in table.rows
    )
    inner = element("table", element("thead", element("tr", head)) + element("tbody", rows))
    yield _section(table.heading, element("div", inner, class_="panel wide"), words)


def _kind(table: Table, column: int) -> str:
    return "number" if column >= table.numbers_from else ""


def _failures(comparison: Comparison, failures: Mapping[str, Sequence[Failure]], words: Words) -> Iterator[str]:
    made = []
    for subject in comparison.subjects:
        if not subject.failures:
            continue
        link = element("a", text(words.say("note", "saved_failures")), href=subject.failures)
        pictures = "".join(_failure(one, words) for one in failures.get(subject.name, ()))
        title = element("h3", text(subject.name) + element("span", link, class_="link"))
        made.append(element("div", title + element("div", pictures, class_="failures"), class_="panel"))
    if made:
        yield _section("failures", "".join(made), words)


def _failure(one: Failure, words: Words) -> str:
    kind = one.sort.removeprefix("alarm_")
    is_alarm = kind != one.sort
    fields = {"presence": f"{one.presence:.2f}", "iou": "–" if one.iou is None else f"{one.iou:.2f}"}
    if is_alarm:
        fields["kind"] = words.section("kind").get(kind, kind)
    said = words.say("failure", "alarm" if is_alarm else one.sort, **fields)
    picture = f"data:image/webp;base64,{base64.b64encode(one.picture).decode('ascii')}"
    image = f'<img src="{picture}" width="{one.width}" height="{one.height}" alt="{html.escape(one.key)}">'
    caption = element("b", html.escape(one.phrase)) + element("span", text(said))
    return element("figure", image + element("figcaption", caption), title=one.key)


def _charts(
    key: str, charts: Sequence[str], words: Words, *, names: Sequence[str] = (), said: str = ""
) -> Iterator[str]:
    """A section of charts, with the runs' colours where several share a chart, and what is said of them."""
    if charts or said:
        sentence = element("p", text(said), class_="legend") if said else ""
        legend = element("p", "".join(element("span", name) for name in names), class_="legend") if names[1:] else ""
        drawn = element("div", "".join(charts), class_="charts") if charts else ""
        yield _section(key, sentence + legend + drawn, words)


def _reliability_charts(comparison: Comparison, words: Words) -> list[str]:
    made = []
    for place, subject in enumerate(comparison.subjects):
        bins = [one for one in (subject.evaluation.reliability if subject.evaluation else []) if one.num]
        if bins:
            points = tuple((one.mean_presence, one.share_present) for one in bins)
            series = Series(name=subject.name, colour=place % NUM_SERIES, points=points, has_dots=True)
            title = f"{subject.name}: {words.say('column', 'share_present')}"
            made.append(line_chart(title, [series], across=words.say("column", "presence_said"), diagonal=True))
    return made


def _training_charts(comparison: Comparison, words: Words) -> list[str]:
    """A chart per quantity with a line per run: losses, then what was read on val."""
    found: dict[tuple[bool, str], list[Series]] = {}
    for place, subject in enumerate(comparison.subjects):
        for curve in subject.curves:
            if curve.points:
                series = Series(
                    name=subject.name, colour=place % NUM_SERIES, points=curve.points, has_dots=curve.is_val
                )
                found.setdefault((curve.is_val, curve.name), []).append(series)
    across = words.say("column", "step")
    return [
        line_chart(
            f"val: {words.metric(name)}" if is_val else words.say("note", "loss", name=words.metric(name)),
            series,
            across=across,
        )
        for (is_val, name), series in sorted(found.items(), key=lambda one: one[0][0])
    ]
