"""Fail if a test was skipped that could have run here: `check_skips.py JUNIT.xml`.

A skip is allowed only for what this machine really lacks: a browser or a PostgreSQL that Debian could not bring,
or `../shared/data`.
"""

import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
POSTGRES = Path("/usr/lib/postgresql")  # where Debian puts it, outside of PATH
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def skipped(junit: Path) -> Iterator[tuple[str, str]]:
    """Name and reason of each skipped test; expected failures are none."""
    for case in ET.parse(junit).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        for skip in case.iter("skipped"):
            if skip.get("type") != "pytest.xfail":
                yield f"{case.get('classname')}::{case.get('name')}", f"{skip.get('message')} {skip.text}"


def excuse(reason: str) -> str | None:
    """What this machine lacks, if that is why a test was skipped."""
    if "shared/data" in reason and not SHARED_DATA.is_dir():
        return "../shared/data is not here"
    if "chromium" in reason.lower() and not any(map(shutil.which, CHROMIUM_NAMES)):
        return "no Chromium here"
    if "postgresql" in reason.lower() and not shutil.which("postgres") and not any(POSTGRES.glob("*/bin/postgres")):
        return "no PostgreSQL here"
    return None


def main() -> int:
    """1 if a test could have run, or nothing was run at all."""
    junit = Path(sys.argv[1])
    if not junit.is_file():
        sys.stdout.write("no report of the tests; did pytest start?\n")
        return 1
    num_wrong = 0
    for name, reason in skipped(junit):
        why = excuse(reason)
        num_wrong += why is None
        sys.stdout.write(f"{f'allowed, {why}' if why else 'COULD HAVE RUN'}: {name}: {reason}\n")
    sys.stdout.write(f"{num_wrong} tests were skipped that could have run\n")
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
