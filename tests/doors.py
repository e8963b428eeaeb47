"""Files that change only on purpose: tests compare them, and `make doors` writes them anew."""

import difflib
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
PACKAGES = ("manifests", "shards", "miners", "student", "flows")
UPDATE = os.environ.get("ABSENTIA_UPDATE_DOORS") == "1"


def compare(path: Path, wanted: str) -> None:
    """Fail with the difference if the file at `path` does not hold `wanted`; write it if that was asked for."""
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted, encoding="utf-8")
    found = path.read_text(encoding="utf-8") if path.exists() else ""
    if found != wanted:
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        lines = difflib.unified_diff(found.splitlines(), wanted.splitlines(), f"{name}", "the code", "", "", 0, "")
        pytest.fail(
            f"{name} and the code differ. Users rely on what stands there: if the change is meant, run `make doors`, "
            "commit the file with it, and say in the commit what breaks.\n" + "\n".join(lines),
            pytrace=False,
        )


def modules() -> list[Path]:
    """Every Python file of our packages relative to the root, layer by layer from the bottom, folder by folder."""
    found = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(found, key=lambda path: (PACKAGES.index(path.parts[0]), path.parent, path.name))
