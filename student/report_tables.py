"""The tables of a report as texts of one language; Markdown and the page lay them out, each in its way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from student.comparison import Cell, Comparison, How, Why, ratio_of
from student.readings import COMPARED, Latency, Reading, Variant
from student.report_sentences import why_text
from student.report_words import Words, milliseconds, number

HOW_SIGNS = {How.PAIRED: " ∥", How.INDEPENDENT: " ≈", How.NONE: ""}
_NUM_SHARED = 3  # drops, then what else a variant has


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A heading's key and rows of texts; columns from `numbers_from` on hold numbers."""

    heading: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers_from: int = 1


def value_text(key: str, cell: Cell, words: Words) -> str:
    """A metric's figure, or that it has none."""
    if cell.value is not None:
        return words.value(key, cell.value)
    return "" if cell.why is Why.NOT_READ else words.say("state", "undefined")


def delta_text(key: str, cell: Cell, words: Words) -> str:
    """The difference to the baseline, as it reads best, with a sign for where its interval comes from."""
    if cell.delta is None:
        return ""
    text = words.change(key, cell.delta.ratio, cell.delta.value)
    return text + HOW_SIGNS[cell.delta.how]


def delta_interval(key: str, cell: Cell, words: Words) -> str:
    """The interval of the difference to the baseline; "" where there is none."""
    if cell.delta is None or cell.delta.low is None or cell.delta.high is None:
        return ""
    low, high = words.differences(key, cell.delta.low, cell.delta.high)
    return words.plain("interval", low=low, high=high)


def undefined_text(cell: Cell, words: Words) -> str:
    """Why a cell has no value; "" where it has one, or was never read."""
    if cell.value is not None or cell.why is Why.NOT_READ:
        return ""
    return why_text(cell.why, cell.said, words)


def readings_table(comparison: Comparison, words: Words) -> Table:
    """Every metric of every run in one line each."""
    rows = []
    for row in comparison.rows:
        if all(cell.why is Why.NOT_READ for cell in row.cells):
            continue  # a goal that nobody measured
        cells = [_reading_text(row.key, cell, words) for cell in row.cells]
        rows.append((words.metric(row.key), *cells))
    head = (words.say("column", "metric"), *(subject.name for subject in comparison.subjects))
    return Table(heading="readings", head=head, rows=tuple(rows))


def _reading_text(key: str, cell: Cell, words: Words) -> str:
    if why := undefined_text(cell, words):
        return f"{words.say('state', 'undefined')}: {why}"
    parts = [value_text(key, cell, words)]
    if interval := words.interval(key, cell.low, cell.high):
        parts.append(f"({interval})")
    if delta := delta_text(key, cell, words):
        interval = delta_interval(key, cell, words)
        parts.append(f"{delta} [{interval}]" if interval else delta)
    return " ".join(parts)


def goals_table(comparison: Comparison, words: Words) -> Table:
    """Each goal beside the teacher and every run."""
    rows = []
    places = [place for place in range(len(comparison.subjects)) if place != comparison.teacher]
    for key, goal in comparison.gathered.goal.items():
        row = comparison.row(key)
        teacher = row.cells[comparison.teacher] if row and comparison.teacher is not None else None
        share = ratio_of(goal, teacher.value, row.kind) if row and teacher and teacher.value is not None else None
        rows.append(
            (
                words.metric(key),
                words.goal(key, goal),
                value_text(key, teacher, words) if teacher else "",
                "" if share is None else words.percent(share),
                *(value_text(key, row.cells[place], words) if row else "" for place in places),
            )
        )
    names = [words.section("column")[name] for name in ("metric", "goal", "teacher", "share")]
    head = (*names, *(comparison.subjects[place].name for place in places))
    return Table(heading="goals", head=head, rows=tuple(rows))


def quantisation_table(comparison: Comparison, words: Words) -> Table:
    """Every exported form of every run: what it costs and what it saves."""
    rows = [
        (subject.name, *_variant_texts(variant, words))
        for subject in comparison.subjects
        if subject.quantisation is not None
        for variant in subject.quantisation.variants
    ]
    names = [words.section("column")[name] for name in ("run", "variant", "drop", "size", "ram")]
    metrics = [words.metric(key) for key in ("miou", "il_mcc")]
    last = [words.section("column")[name] for name in ("flipped", "ms")]
    return Table(heading="quantisation", head=(*names, *metrics, *last), rows=tuple(rows), numbers_from=_NUM_SHARED)


def _variant_texts(variant: Variant, words: Words) -> Iterator[str]:
    yield f"{variant.name} ({variant.remedy})" if variant.remedy else variant.name
    yield "; ".join(_drop_texts(variant, words)) or "–"
    yield megabytes(sum(variant.num_bytes.values()))
    yield words.say("state", "not_measured") if variant.peak_ram_bytes is None else megabytes(variant.peak_ram_bytes)
    for key in ("miou", "il_mcc"):
        yield _figure(key, variant.readings.get(key), words)
    yield f"{variant.flipped_presences} / {variant.num_prompts}"
    yield words.say("state", "not_measured") if variant.latency is None else _median_text(variant.latency, words)


def _figure(key: str, reading: Reading | None, words: Words) -> str:
    if reading is None or reading.value is None:
        return words.say("state", "undefined")
    return words.value(key, reading.value)


def _drop_texts(variant: Variant, words: Words) -> Iterator[str]:
    for drop in variant.drops:
        share, bound = words.apart(drop.drop, drop.bound)
        verdict = words.say("state", drop.verdict)
        yield f"{words.metric(drop.metric)} / {drop.base.upper()}: {share}, **{verdict}** {bound}"


def megabytes(num_bytes: int) -> str:
    """A size in MB."""
    return f"{num_bytes / 1e6:,.1f} MB"


def layers_table(comparison: Comparison, words: Words) -> Table:
    """What quantising each layer alone costs, the dearest first."""
    rows: list[tuple[str, ...]] = []
    for subject in comparison.subjects:
        layers = subject.quantisation.layers if subject.quantisation else []
        dearest = sorted(layers, key=lambda layer: -layer.drop)
        rows += [(subject.name, one.layer, words.metric(one.metric), words.percent(one.drop, 2)) for one in dearest]
    head = tuple(words.section("column")[name] for name in ("run", "layer", "metric", "drop"))
    return Table(heading="layers", head=head, rows=tuple(rows), numbers_from=3)


def latency_table(comparison: Comparison, words: Words) -> Table:
    """Every latency with its conditions."""
    rows = [
        (subject.name, *_latency_texts(subject.latency, words))
        for subject in comparison.subjects
        if subject.latency is not None
    ]
    names = ("run", "ms", "p95", "first", *COMPARED, "load")
    return Table(heading="latency", head=tuple(words.section("column")[name] for name in names), rows=tuple(rows))


def _latency_texts(latency: Latency, words: Words) -> Iterator[str]:
    unknown, conditions = words.say("say", "not_noted"), latency.conditions
    yield _median_text(latency, words)
    for ms in (latency.p95_ms, latency.first_ms):
        yield "–" if ms is None else milliseconds(ms)
    for name in COMPARED:
        yield str(getattr(conditions, name) or unknown)
    yield unknown if conditions.load is None else f"{conditions.load:g}"


def _median_text(latency: Latency, words: Words) -> str:
    """The median, marked where the calls never became steady."""
    text = milliseconds(latency.ms)
    return f"{text} ({words.say('state', 'unstable')})" if latency.stable is False else text


def curves_table(comparison: Comparison, words: Words) -> Table:
    """Where each training curve began and ended."""
    rows = []
    for subject in comparison.subjects:
        for curve in subject.curves:
            if curve.points:
                name = f"val: {words.metric(curve.name)}" if curve.is_val else words.metric(curve.name)
                first, last = curve.points[0], curve.points[-1]
                rows.append((subject.name, name, f"{number(first[1])} → {number(last[1])}", f"{last[0]:.0f}"))
    head = tuple(words.section("column")[name] for name in ("run", "metric", "value", "step"))
    return Table(heading="curves", head=head, rows=tuple(rows), numbers_from=2)


def sources_table(comparison: Comparison, words: Words) -> Table:
    """What was compared, and where it was read from."""
    rows = []
    for subject in comparison.subjects:
        one = subject.evaluation
        counts = [str(count) if count is not None else "?" for count in (subject.num_present, subject.num_absent)]
        rows.append(
            (
                subject.name,
                words.say("role", subject.role),
                words.say("start_short", subject.start or "unknown"),
                f"{one.build}, {one.split}" if one else "–",
                str(one.num_images) if one else "–",
                "–" if counts == ["?", "?"] else " / ".join(counts),
                subject.source,
            )
        )
    names: Sequence[str] = ("run", "role", "start", "build", "pictures", "prompts", "place")
    head = tuple(words.section("column")[name] for name in names)
    return Table(heading="sources", head=head, rows=tuple(rows), numbers_from=len(names))
