"""What `.ci/run` lets pass: skips for what a machine lacks, and no others; rules of ruff with a reason alone."""

import re
import subprocess
import sys
from pathlib import Path

from tests.doors import ROOT

CHECK = ROOT / ".ci" / "check_skips.py"
CASE = '<testcase classname="t" name="test_x">{}</testcase>'


def check(place: Path, skip: str, *, shared_data: bool = False) -> subprocess.CompletedProcess[str]:
    """The check, run from a clone below `place` on a machine without a browser and without PostgreSQL."""
    script = place / "clone" / ".ci" / "check_skips.py"
    script.parent.mkdir(parents=True)
    script.write_text(CHECK.read_text(encoding="utf-8").replace("/usr/lib/postgresql", str(place / "postgresql")))
    if shared_data:
        (place / "shared" / "data").mkdir(parents=True)
    junit = place / "junit.xml"
    junit.write_text(f"<testsuites><testsuite>{CASE.format(skip)}</testsuite></testsuites>")
    command = [sys.executable, str(script), str(junit)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(place)}, timeout=60)


def skipped(reason: str) -> str:
    return f'<skipped type="pytest.skip" message="{reason}">test_x.py:3: {reason}</skipped>'


def test_a_run_without_skips_passes(tmp_path: Path) -> None:
    assert check(tmp_path, "").returncode == 0


def test_a_skip_for_missing_data_passes_where_the_data_is_missing(tmp_path: Path) -> None:
    result = check(tmp_path, skipped("../shared/data/coco is not on this machine"))

    assert result.returncode == 0
    assert "allowed, ../shared/data is not here: t::test_x" in result.stdout


def test_a_skip_for_missing_data_fails_where_the_data_is(tmp_path: Path) -> None:
    result = check(tmp_path, skipped("../shared/data/coco is not on this machine"), shared_data=True)

    assert result.returncode == 1
    assert "COULD HAVE RUN: t::test_x: ../shared/data/coco" in result.stdout


def test_a_skip_for_a_missing_browser_passes_where_there_is_none(tmp_path: Path) -> None:
    assert check(tmp_path, skipped("no Chromium on this machine")).returncode == 0


def test_a_skip_for_a_missing_browser_fails_where_there_is_one(tmp_path: Path) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\n")
    browser.chmod(0o755)

    assert check(tmp_path, skipped("no Chromium on this machine")).returncode == 1


def test_a_skip_for_a_missing_postgres_passes_where_there_is_none(tmp_path: Path) -> None:
    assert check(tmp_path, skipped("no PostgreSQL on this machine")).returncode == 0


def test_a_skip_for_a_missing_postgres_fails_where_debian_brought_one(tmp_path: Path) -> None:
    programs = tmp_path / "postgresql" / "15" / "bin"
    programs.mkdir(parents=True)
    (programs / "postgres").touch()

    assert check(tmp_path, skipped("no PostgreSQL on this machine")).returncode == 1


def test_a_skip_for_any_other_reason_fails(tmp_path: Path) -> None:
    assert check(tmp_path, skipped("could not import 'wids'")).returncode == 1


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    assert check(tmp_path, '<skipped type="pytest.xfail" message="known"/>').returncode == 0


def test_a_run_without_a_report_fails(tmp_path: Path) -> None:
    command = [sys.executable, str(CHECK), str(tmp_path / "none.xml")]

    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 1


def test_every_rule_that_is_ignored_has_its_reason_beside_it() -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ignored = re.search(r"^ignore = \[\n(.*?)^\]", settings, re.MULTILINE | re.DOTALL)
    assert ignored is not None
    assert [line for line in ignored[1].splitlines() if "# " not in line] == []
