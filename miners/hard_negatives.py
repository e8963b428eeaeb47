"""Mines hard negatives: absences that look present, at a false negative rate that is measured in the same run.

    python -m miners.hard_negatives BUILD --out negatives.parquet

Everything is decided by files: embeddings are kept in the work folder and used again, and the same embeddings give the
same table. What the guards took stands beside it, in `<out stem>.rejects.parquet`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from rich.progress import Progress

from manifests import files
from manifests.errors import BuildError
from manifests.recipe import SPLITS, Mine
from manifests.stage import Inline, log_to_stderr, progress_bar, run_command
from miners.composing import mine, vocabulary_of
from miners.ground import choose, prepare_ground
from miners.mined_table import write_mined
from miners.options import add_mine_options, mine_settings
from miners.record import MiningRecord, encode_record, summarise_mining
from shards.publish import is_own_table
from shards.reopened import reopen


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which build is mined, and where the table goes."""

    build: str
    out: str
    work: str = ""  # where embeddings are kept; empty: the build's own
    split: str = "train"
    seed: int = 0
    vocabulary: str = "present"
    lexicons: Sequence[str] = ()
    allow_pickle: str = ""


def mine_build(request: Request, settings: Mine, *, executor: Executor, progress: Progress) -> MiningRecord:
    """Mine a finished build as it is asked, and write the table."""
    _require_own_place(request.build, request.out)
    work = request.work or files.join(request.build, "work")
    opened = reopen(request.build, work, executor=executor, progress=progress, lexicons=request.lexicons)
    ground = prepare_ground(
        opened.inventory,
        opened.assignment,
        opened.roots,
        opened.lexicon,
        vocabulary_of(opened.inventory, opened.assignment, request.vocabulary),
        choose(settings, allow_pickle=request.allow_pickle),
        settings,
        split=request.split,
        folder=work,
        progress=progress,
    )
    mined = mine(ground, settings, split=request.split, seed=request.seed, folder=work, progress=progress)
    write_mined(
        mined,
        request.out,
        inputs_sha256=opened.manifest.inputs_sha256,
        build=_way_to(request.build, request.out),
    )
    return mined.record


def _require_own_place(build: str, out: str) -> None:
    """Stop if the table would take the place of one that the build's manifest names."""
    if is_own_table(build, out):
        raise BuildError(
            f"{out}: is the finished build's own table, which its manifest names; expected another place. Choose "
            "another --out"
        )


def _way_to(build: str, out: str) -> str:
    """The build as seen from the table's folder; a build in a bucket as it is."""
    if not (files.is_local(build) and files.is_local(out)):
        return build
    return os.path.relpath(build, os.path.dirname(out) or ".")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m miners.hard_negatives", description=__doc__.partition("\n")[0])
    parser.add_argument("build", metavar="BUILD", help="a finished build")
    parser.add_argument("--out", required=True, metavar="FILE", help="the table to write, such as negatives.parquet")
    parser.add_argument("--work", metavar="DIR", help="where embeddings are kept [BUILD/work]")
    parser.add_argument("--split", choices=SPLITS, default="train", help="pictures of this split [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is hidden and drawn [%(default)s]")
    parser.add_argument(
        "--vocabulary", default="present", metavar="FILE", help="phrases that may be asked [those present in train]"
    )
    parser.add_argument("--lexicon", action="append", default=[], metavar="FILE", help="synonyms besides our own")
    add_mine_options(parser)
    parser.add_argument("--allow-pickle", default="", metavar="FILE", help="the one weights file that may be a pickle")
    parser.add_argument("--json", action="store_true", help="print the record of the run as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.seed < 0:
        parser.error(f"--seed {options.seed}: expected 0 or more")
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    log_to_stderr()
    request = Request(
        build=options.build,
        out=options.out,
        work=options.work or "",
        split=options.split,
        seed=options.seed,
        vocabulary=options.vocabulary,
        lexicons=options.lexicon,
        allow_pickle=options.allow_pickle,
    )
    settings = mine_settings(options)
    with progress_bar(quiet=options.quiet) as progress:
        record = mine_build(request, settings, executor=Inline(), progress=progress)
    sys.stdout.write(encode_record(record) + "\n" if options.json else summarise_mining(record, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
