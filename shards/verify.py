"""Checks every hash, count, rate and invariant of a finished build, and what breaks stock readers.

    python -m shards.verify DIR [--deep] [--lexicon FILE]

One sentence per fault, with shard and key; the exit code is 1 if there is any. `--deep` also decodes every picture and
every mask. What is slow to import is imported once there is something to do, so that `--help` answers at once.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shards.faults import Fault, Report

_SMALL_BYTES = 256 << 20  # below, starting processes takes longer than they save


def verify(folder: str, deep: bool = False, lexicons: Sequence[str] = ()) -> "list[Fault]":
    """Everything that is wrong with the build in `folder`; nothing is printed.

    Args:
        folder: Path or URL of the build.
        deep: Also decode every picture and every mask.
        lexicons: The recipe's own files of synonyms, which a build does not carry.

    Raises:
        ManifestError: there is no finished build, or its manifest is damaged or newer.
        RecipeError: a lexicon is missing or is none.
    """
    from manifests.manifest import read_manifest
    from manifests.stage import Inline, progress_bar
    from shards.examine import examine

    manifest = read_manifest(folder)
    with progress_bar(quiet=True) as progress:
        return examine(
            folder, manifest, deep=deep, executor=Inline(), at_once=1, progress=progress, lexicons=lexicons
        ).faults


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shards.verify", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("build", metavar="DIR", help="a finished build: a folder or a URL")
    parser.add_argument("--deep", action="store_true", help="also decode every picture and every mask")
    parser.add_argument(
        "--lexicon", action="append", default=[], metavar="FILE", help="synonyms, as the recipe had them"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _run(options: argparse.Namespace) -> int:
    import msgspec

    from manifests.stage import log_to_stderr

    log_to_stderr()
    report = _examine(options)
    if options.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        sys.stdout.writelines(f"{fault}\n" for fault in report.faults)
        sys.stdout.write(f"{report.summary}\n")
    return 1 if report.faults else 0


def _examine(options: argparse.Namespace) -> "Report":
    from manifests.manifest import read_manifest
    from manifests.stage import local_executor, progress_bar
    from shards.examine import examine

    manifest = read_manifest(options.build)
    _tell_missing_lexicons(manifest.recipe.prompts.lexicon, options.lexicon)
    size = sum(shard.filesize for shards in manifest.splits.values() for shard in shards)
    workers = options.workers if size >= _SMALL_BYTES else 1
    with local_executor(workers) as executor, progress_bar(quiet=options.quiet) as progress:
        return examine(
            options.build,
            manifest,
            deep=options.deep,
            executor=executor,
            at_once=4 * workers,
            progress=progress,
            lexicons=options.lexicon,
        )


def _tell_missing_lexicons(asked: Sequence[str], given: Sequence[str]) -> None:
    if len(given) < len(asked):
        logging.getLogger(__name__).warning(
            "the build was made with the lexicons %s, which it does not carry; their synonyms are not looked at. "
            "Give each by --lexicon",
            ", ".join(asked),
        )


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for faults or a user's mistake; a wrong option exits with 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.workers < 1:
        parser.error(f"--workers {options.workers}: expected 1 or more")
    from manifests.stage import run_command

    return run_command(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
