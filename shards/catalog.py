"""Scans the sources of a recipe into `DIR/work/catalog` and says what they hold: the first stages of a build alone.

    python -m shards.catalog RECIPE.toml --out DIR

A later build goes on there. What is slow to import is imported once there is something to do, so that `--help` answers
at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from manifests.stage import run_command

if TYPE_CHECKING:
    from shards.source_count import SourceCount

CATALOG_RECIPE = "recipe.json"  # below `work`: whose sources were scanned


def scan_recipe(recipe_uri: str, out: str, *, num_workers: int, quiet: bool = False) -> "list[SourceCount]":
    """What the sources of the recipe hold, each scanned into `out`.

    Raises:
        AbsentiaError: the recipe, the sources or the disk do not allow it; a build is running in `out`.
    """
    import msgspec

    from manifests import files
    from manifests.recipe_file import load_recipe
    from manifests.stage import local_executor, progress_bar
    from shards.locking import locked_build
    from shards.scanning import prepare_sources, scan_sources
    from shards.source_count import count_source
    from shards.sources.registry import open_sources

    recipe = load_recipe(recipe_uri)
    work = files.join(out, "work")
    sources = open_sources(recipe)
    files.make_folder(work)
    with locked_build(work), local_executor(num_workers) as executor, progress_bar(quiet=quiet) as progress:
        files.write_bytes(files.join(work, CATALOG_RECIPE), msgspec.json.encode(recipe))
        prepared = prepare_sources(sources, work)
        parts = scan_sources(sources, prepared, work=work, verify=recipe.verify, executor=executor, progress=progress)
    return [count_source(source.name, [p for p in parts if p.source == source.name]) for source in sources]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shards.catalog", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe", metavar="RECIPE.toml", help="whose sources to scan; see docs/recipes.md")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the build; a later build goes on there")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _run(options: argparse.Namespace) -> int:
    import msgspec

    from manifests.stage import log_to_stderr

    log_to_stderr()
    counts = scan_recipe(options.recipe, options.out, num_workers=options.workers, quiet=options.quiet)
    if options.json:
        sys.stdout.write(msgspec.json.encode(counts).decode() + "\n")
    else:
        sys.stdout.writelines(_told(count) for count in counts)
    return 0


def _told(count: "SourceCount") -> str:
    dropped = ", ".join(f"{reason} {num}" for reason, num in count.rejects.items()) or "none"
    return (
        f"{count.source}: {count.images} images, {count.rejected_images} rejected, {count.awaiting_phrases} "
        f"awaiting phrases; rejects: {dropped}\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.workers < 1:
        parser.error(f"--workers {options.workers}: expected 1 or more")
    return run_command(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
