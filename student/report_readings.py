"""The table of readings on the page: a run per column with interval, difference and share, and a drawn row of dots."""

from collections.abc import Iterator, Sequence

from student.comparison import Cell, Comparison, MetricRow, Why, gain
from student.metric_kinds import AT_VAL, Better, Group
from student.report_drawing import NUM_SERIES, Dot, dots
from student.report_markup import TONES, element, text
from student.report_tables import delta_interval, delta_text, undefined_text, value_text
from student.report_words import Words

_WHOLE = frozenset(Group) - {Group.OTHER, Group.COST, Group.CALIBRATION}  # whose metrics end at 1
_WHOLES = {"saco_cgf1": 100.0}  # where others end
_FOLDED = frozenset({Group.CALIBRATION, Group.POPE, Group.BLIND, Group.SACO})
_TOLD_AT_VAL = f"il_mcc{AT_VAL}"


def readings_tables(comparison: Comparison, words: Words) -> Iterator[str]:
    """The table of what matters first, and that of the rest, which opens on demand."""
    rows = [row for row in comparison.rows if any(cell.why is not Why.NOT_READ for cell in row.cells)]
    first = [row for row in rows if not _is_folded(row)]
    rest = [row for row in rows if _is_folded(row)]
    if first:
        yield element("div", _table(first, comparison, words), class_="panel wide")
    if rest:
        groups = dict.fromkeys(words.say("group", row.kind.group) for row in rest)
        summary = element("summary", text(" · ".join(groups)))
        table = element("div", _table(rest, comparison, words), class_="wide")
        yield element("details", summary + table, class_="panel") if first else element("div", table, class_="panel")


def _is_folded(row: MetricRow) -> bool:
    """Whether a row can wait: of a second rank, the same at another threshold, or undefined for every run."""
    if row.kind.is_headline or row.key == _TOLD_AT_VAL:
        return False
    is_undefined = all(cell.value is None for cell in row.cells)
    return row.kind.group in _FOLDED or row.key.endswith(AT_VAL) or is_undefined


def _table(rows: Sequence[MetricRow], comparison: Comparison, words: Words) -> str:
    names = [_column_head(comparison, place, words) for place in range(len(comparison.subjects))]
    metric, plot = (text(words.say("column", name)) for name in ("metric", "plot"))
    head = element("th", metric, scope="col") + "".join(names)
    head += element("th", plot, scope="col", class_="number")
    body, group = [], None
    for row in rows:
        if row.kind.group is not group:
            group = row.kind.group
            heading = element("th", text(words.say("group", group)), colspan=str(len(names) + 2), scope="colgroup")
            body.append(element("tr", heading, class_="group"))
        body.append(_row(row, comparison, words))
    whole = element("thead", element("tr", head)) + element("tbody", "".join(body))
    return element("table", whole, class_="readings")


def _column_head(comparison: Comparison, place: int, words: Words) -> str:
    subject = comparison.subjects[place]
    role = element("span", text(words.say("role", subject.role)), class_="role")
    return element("th", swatch(place) + text(subject.name) + role, scope="col", class_="number")


def swatch(place: int) -> str:
    """A run's colour."""
    return element("i", "", class_=f"swatch key-{place % NUM_SERIES}")


def _row(row: MetricRow, comparison: Comparison, words: Words) -> str:
    is_grouped = row.kind.group in (Group.HALLUCINATION, Group.POPE)
    name = element("th", text(words.metric(row.key, full=not is_grouped)), scope="row")
    cells = "".join(element("td", "".join(_cell(row, cell, words)), class_="number") for cell in row.cells)
    return element("tr", name + cells + element("td", _plot(row, comparison, words), class_="number plot"))


def _cell(row: MetricRow, cell: Cell, words: Words) -> Iterator[str]:
    """A figure with what belongs to it, each in its line."""
    if why := undefined_text(cell, words):
        yield element("span", text(words.say("state", "undefined")), class_="undefined")
        yield element("span", text(why), class_="why")
        return
    if cell.value is None:
        yield element("span", "–", class_="range")
        return
    interval = words.interval(row.key, cell.low, cell.high)
    figure = element("span", text(value_text(row.key, cell, words)), class_="figure")
    yield element("div", figure + _range(interval))
    if cell.delta is not None:
        tone = f"delta {TONES[gain(cell.delta, row.kind)]}".strip()
        delta = element("span", text(delta_text(row.key, cell, words)), class_=tone)
        told = delta_interval(row.key, cell, words)
        yield element("div", delta + _range(f"Δ {told}" if told else ""))
    if cell.share is not None and row.kind.better is Better.HIGHER:
        share = words.say("say", "of_teacher", share=words.percent(cell.share))
        yield element("div", text(share), class_="share")


def _range(interval: str) -> str:
    return f" {element('span', text(interval), class_='range')}" if interval else ""


def _plot(row: MetricRow, comparison: Comparison, words: Words) -> str:
    found = []
    for place, cell in enumerate(row.cells):
        if cell.value is not None:
            interval = words.interval(row.key, cell.low, cell.high)
            told = f"{comparison.subjects[place].name}: {words.value(row.key, cell.value)}"
            name = f"{told} ({interval})" if interval else told
            found.append(Dot(name=name, colour=place, value=cell.value, low=cell.low, high=cell.high))
    whole = _WHOLES.get(row.key.removesuffix(AT_VAL), 1.0 if row.kind.group in _WHOLE else 0.0)
    return dots(found, whole=whole) if found else ""
