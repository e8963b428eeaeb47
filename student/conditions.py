"""Under what a latency was read here."""

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from student.readings import COMPARED, Conditions

_WORDS = {"num_phrases": "phrases"}
_CPU_INFO = Path("/proc/cpuinfo")


def device_name() -> str:
    """The processor of this machine, as a reading names it: "cpu" and the model's name."""
    return f"cpu {_processor()}".strip()


def _processor() -> str:
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", _CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named.group(1).strip() if named else platform.processor() or platform.machine()


def machine_load() -> float | None:
    """Runnable processes over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def read_conditions(
    *,
    threads: int,
    batch: int,
    resolution: int,
    num_phrases: int,
    precision: str,
    runtime: Sequence[str],
    device: str | None = None,
) -> Conditions:
    """The conditions of a reading that starts now on this machine; `runtime` is a name and its version."""
    return Conditions(
        device=device or device_name(),
        threads=threads,
        batch=batch,
        resolution=resolution,
        num_phrases=num_phrases,
        precision=precision,
        runtime=" ".join(runtime),
        load=machine_load(),
    )


def say_conditions(conditions: Conditions) -> str:
    """The conditions in a line, what nobody said left out."""
    parts = [f"{_WORDS.get(name, name)} {value}" for name in COMPARED if (value := getattr(conditions, name))]
    load = [] if conditions.load is None else [f"load {conditions.load:g}"]
    return ", ".join([*parts, *load])
