"""Inline SVG for reports: a line chart, and dots with their intervals; text and colour come from the page's style."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from student.report_curves import Point

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 8, 26
DOTS_WIDTH, DOT_STEP = 174, 11
NUM_SERIES = 6  # colours
_LETTER = 6.5  # pixels of a letter, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a chart."""

    name: str
    colour: int
    points: tuple[Point, ...]
    has_dots: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One figure with its interval."""

    name: str  # whose, and the figure, for those who point at it
    colour: int
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """From values to pixels."""

    least: float
    most: float
    start: float
    end: float

    def __call__(self, value: float) -> str:
        share = (value - self.least) / (self.most - self.least)
        return f"{self.start + share * (self.end - self.start):.1f}"


def nice_ticks(least: float, most: float, *, about: int = 4) -> list[float]:
    """Round numbers that reach from `least` or below to `most` or above."""
    span = most - least or abs(most) or 1.0
    raw = span / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw * 0.999)
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def tidy(value: float) -> str:
    """A tick's text."""
    text = f"{value:.6g}" if abs(value) < 1e4 else f"{value / 1000:.6g}k"
    return "0" if text == "-0" else text.replace("-", "−")


def line_chart(title: str, series: Sequence[Series], *, across: str, diagonal: bool = False) -> str:
    """A figure with a line per series; `across` names what runs to the right."""
    points = [point for one in series for point in one.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    ticks_x = nice_ticks(0, 1) if diagonal else nice_ticks(min(xs), max(xs))
    ticks_y = nice_ticks(0, 1) if diagonal else nice_ticks(min(0.0, *ys), max(ys))
    x = _Scale(least=ticks_x[0], most=ticks_x[-1], start=LEFT, end=WIDTH - RIGHT)
    y = _Scale(least=ticks_y[0], most=ticks_y[-1], start=HEIGHT - BOTTOM, end=TOP)
    free = WIDTH - RIGHT - _LETTER * len(across)  # of the name to the right
    parts = [_across(tick, x) for tick in ticks_x if float(x(tick)) + _LETTER * 2 < free]
    parts += [_up(tick, y) for tick in ticks_y]
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end">{html.escape(across)}</text>')
    if diagonal:
        parts.append(f'<line class="rule dashed" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>')
    parts += [_line(one, x, y) for one in series]
    told = html.escape(f"{title}: {', '.join(one.name for one in series)}", quote=True)
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">{"".join(parts)}</svg></figure>'
    )


def _across(tick: float, x: _Scale) -> str:
    return f'<text x="{x(tick)}" y="{HEIGHT - 10}" text-anchor="middle">{tidy(tick)}</text>'


def _up(tick: float, y: _Scale) -> str:
    rule = f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>'
    return f'{rule}<text x="{LEFT - 6}" y="{y(tick)}" dy=".32em" text-anchor="end">{tidy(tick)}</text>'


def _line(one: Series, x: _Scale, y: _Scale) -> str:
    path = "L".join(f"{x(across)},{y(up)}" for across, up in one.points)
    title = f"<title>{html.escape(one.name)}</title>"
    dots = [f'<circle cx="{x(across)}" cy="{y(up)}" r="2.6"/>' for across, up in one.points]
    shown = "".join(dots) if one.has_dots or len(dots) == 1 else ""
    return f'<g class="series-{one.colour % NUM_SERIES}"><path class="curve" d="M{path}">{title}</path>{shown}</g>'


def dots(rows: Sequence[Dot], *, whole: float) -> str:
    """Figures one below the other on one scale, from 0 on; up to `whole`, if there is one, where they are large."""
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None]
    ticks = nice_ticks(min(0.0, *ends), max(0.0, *ends), about=2)
    if whole and max(ends) > whole / 2:
        ticks = [*(tick for tick in ticks if tick < 0), 0.0, whole / 2, whole]
    height = DOT_STEP * len(rows) + 16
    least = min(0.0, *ends)
    ticks = [tick for tick in ticks if tick >= least]
    x = _Scale(least=least, most=max(ticks[-1], *ends), start=12, end=DOTS_WIDTH - 12)
    parts = []
    for tick in ticks:
        parts.append(f'<line class="rule" x1="{x(tick)}" x2="{x(tick)}" y1="2" y2="{height - 13}"/>')
        parts.append(f'<text x="{x(tick)}" y="{height - 3}" text-anchor="middle">{tidy(tick)}</text>')
    parts += [_dot(row, x, DOT_STEP * number + 9) for number, row in enumerate(rows)]
    told = html.escape("; ".join(row.name for row in rows), quote=True)
    return (
        f'<svg class="dots" viewBox="0 0 {DOTS_WIDTH} {height}" width="{DOTS_WIDTH}" height="{height}" role="img" '
        f'aria-label="{told}">{"".join(parts)}</svg>'
    )


def _dot(row: Dot, x: _Scale, at: int) -> str:
    whisker = ""
    if row.low is not None and row.high is not None:
        whisker = f'<line class="whisker" x1="{x(row.low)}" x2="{x(row.high)}" y1="{at}" y2="{at}"/>'
    title = f"<title>{html.escape(row.name)}</title>"
    circle = f'<circle cx="{x(row.value)}" cy="{at}" r="3.2"/>'
    return f'<g class="series-{row.colour % NUM_SERIES}">{title}{whisker}{circle}</g>'
