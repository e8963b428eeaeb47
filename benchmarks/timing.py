"""How every benchmark takes its times and tells what it found: alternating rounds, medians, one JSON of one shape.

Rounds alternate between the ways that are compared, so that what else the machine does meets all of them; before each
timing, dirty pages of the one before are written out (`sync`), untimed.
"""

import argparse
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec

RESULTS = Path(__file__).resolve().parent / "results"
_PACKAGES = ("msgspec", "numpy", "pillow", "pyarrow")

Value = str | int | float


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure that has a bound."""

    name: str
    value: float
    bound: float
    at_least: bool  # else at most
    unit: str = "×"

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def expectation(self) -> str:
        """The bound in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g} {self.unit}"


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of a benchmark found."""

    benchmark: str
    title: str
    command: str
    conditions: dict[str, Value]
    rows: list[dict[str, Value]]
    claims: list[Claim]


@dataclass(frozen=True, slots=True)
class Way:
    """One way of doing the work that is timed."""

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None  # untimed, before each run


def machine(*packages: str) -> dict[str, Value]:
    """Conditions that every benchmark shares; `packages` are named with their versions, too."""
    load = os.getloadavg()[0]
    versions = ", ".join(f"{name} {version(name)}" for name in (*_PACKAGES, *packages))
    return {
        "cores": os.cpu_count() or 1,
        "load before": round(load, 1),
        "Python": platform.python_version(),
        "packages": versions,
    }


def seconds(way: Way, *, settle: bool = False) -> float:
    """How long one run takes; with `settle`, once the disk has nothing left to write."""
    way.prepare()
    if settle:
        subprocess.run(["sync"], check=True)
    start = time.perf_counter()
    way.run()
    return time.perf_counter() - start


def alternate(ways: Sequence[Way], rounds: int, *, settle: bool = False) -> dict[str, list[float]]:
    """Seconds of every way, round by round."""
    found: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way.name].append(seconds(way, settle=settle))
    return found


def median_ratio(times: Mapping[str, Sequence[float]], above: str, below: str) -> float:
    """The median over the rounds of `above`'s seconds by those of `below` in the same round."""
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all benchmarks have."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", type=Path, help="write the figures here, too")


def report(figures: Figures, json: Path | None) -> None:
    """Print the figures as a table and write them to `json` where that is given."""
    for name, value in figures.conditions.items():
        print(f"{name:52}{value}")
    for row in figures.rows:
        first, *others = row.items()
        print(f"{first[1]:52}" + "  ".join(f"{name}: {shown(value)}" for name, value in others))
    for claim in figures.claims:
        verdict = "" if claim.holds else "  <-- missed"
        print(f"{claim.name:52}{shown(claim.value)} {claim.unit} (expected {claim.expectation}){verdict}")
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")


def shown(value: Value) -> str:
    """A number with three figures, anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
