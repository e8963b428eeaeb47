"""Puts runs side by side and says in words what their figures mean: `report.md` and `report.html`.

    python -m student.report RUN|READINGS.json|EVALUATION_DIR... [--baseline RUN] [--teacher RUN] --out DIR

Every verdict is computed from the figures that were read. What is slow to import is imported once there is something to
do, so that `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from manifests.stage import run_command

if TYPE_CHECKING:
    from student.report_record import Report

MARKDOWN_NAME = "report.md"
PAGE_NAME = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    sources: tuple[str, ...]
    out: str
    baseline: str | None = None
    teacher: str | None = None
    goal: Mapping[str, float]
    language: Literal["en", "ko"] = "en"


def write_report(options: Options) -> "Report":
    """What the report says, which now stands in `options.out`.

    Raises:
        TableError, CheckpointError: a source holds none of what is expected, is damaged or newer, or contradicts
            another.
        StorageError: the folder cannot be written.
    """
    from dataclasses import replace

    from manifests import files
    from student.comparison import compare
    from student.report_failures import read_failures
    from student.report_markdown import to_markdown
    from student.report_page import write_page
    from student.report_record import Report
    from student.report_sentences import say_all
    from student.report_sources import gather
    from student.report_words import Words
    from student.verdicts import judge

    words = Words(options.language)
    gathered = gather(options.sources, baseline=options.baseline, teacher=options.teacher, goal=options.goal)
    failures = {one.name: read_failures(one.failures) for one in gathered.subjects if one.failures}
    linked = [replace(one, failures=_link(options.out, one.failures)) for one in gathered.subjects]
    comparison = compare(replace(gathered, subjects=tuple(linked)))
    verdicts = judge(comparison)
    said = say_all(verdicts, comparison, words)
    files.make_folder(options.out)
    markdown, page = files.join(options.out, MARKDOWN_NAME), files.join(options.out, PAGE_NAME)
    files.write_bytes(markdown, to_markdown(comparison, said, words).encode())
    write_page(page, comparison, said, failures, words)
    return Report(
        markdown=markdown,
        page=page,
        runs=[subject.name for subject in comparison.subjects],
        verdicts=verdicts,
        said=[one.text for one in said],
    )


def _link(out: str, place: str) -> str:
    """`place` as a page in the folder `out` names it."""
    from manifests import files

    if not place or not files.is_local(place) or not files.is_local(out):
        return place
    return os.path.relpath(place, out).replace(os.sep, "/")


def _goal(said: str) -> tuple[str, float]:
    key, equals, value = said.partition("=")
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if not key or not equals or not abs(found) < float("inf"):
        raise argparse.ArgumentTypeError(f"{said!r}: expected METRIC=NUMBER, such as miou=0.12")
    return key, found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m student.report", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="RUN|READINGS.json|EVALUATION_DIR",
        help="a trained run, the folder of an evaluation, or a readings.json with the figures of any runs",
    )
    parser.add_argument("--baseline", metavar="RUN", help="beside which runs changed; any of the above")
    parser.add_argument("--teacher", metavar="RUN", help="of which runs reach a share; any of the above")
    parser.add_argument(
        "--goal",
        type=_goal,
        action="append",
        default=[],
        metavar="METRIC=NUMBER",
        help="what a metric should reach; may be given more than once, and outweighs a readings.json",
    )
    parser.add_argument("--lang", choices=("en", "ko"), default="en", help="language of the report [%(default)s]")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of report.md and report.html")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options))


def _run(found: argparse.Namespace) -> int:
    report = write_report(
        Options(
            sources=tuple(found.sources),
            out=found.out,
            baseline=found.baseline,
            teacher=found.teacher,
            goal=dict(found.goal),
            language=found.lang,
        )
    )
    if found.json:
        import msgspec

        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    else:
        _show(report)
    return 0


def _show(report: "Report") -> None:
    from student.report_markup import without_bold

    lines = [f"- {without_bold(text)}" for text in report.said]
    sys.stdout.write("\n".join([*lines, "", f"The report: {report.page} (as Markdown: {report.markdown})"]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
