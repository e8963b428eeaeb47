"""The main job: a recipe in, a finished build out. `python -m flows.build_shards RECIPE.toml --out DIR`."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manifests.stage import log_to_stderr, run_command

if TYPE_CHECKING:
    from manifests.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says besides the recipe."""

    recipe: str
    out: str
    num_workers: int
    scheduler: str  # address of a Dask scheduler; empty: this machine
    as_json: bool
    quiet: bool


def parse(argv: Sequence[str] | None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.build_shards", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", metavar="RECIPE.toml", help="what to build; see docs/recipes.md")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the build; made if it is not there")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    parser.add_argument(
        "--runner", choices=("local", "dask"), default="local", help="where parts run: this machine, or a Dask cluster"
    )
    parser.add_argument("--scheduler", default="", metavar="ADDRESS", help="of the Dask cluster, as tcp://HOST:8786")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    found = parser.parse_args(argv)
    if found.workers < 1:
        parser.error(f"--workers {found.workers}: expected 1 or more")
    if found.runner == "dask" and not found.scheduler:
        parser.error("--runner dask: expected --scheduler ADDRESS, too, as tcp://HOST:8786")
    if found.runner != "dask" and found.scheduler:
        parser.error(f"--scheduler {found.scheduler}: expected --runner dask, too")
    return Options(
        recipe=found.recipe,
        out=found.out,
        num_workers=found.workers,
        scheduler=found.scheduler,
        as_json=found.json,
        quiet=found.quiet,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    options = parse(argv)
    return run_command(lambda: _run(options))


def _run(options: Options) -> int:
    import msgspec  # from here on what --help need not wait for

    from flows.building import build
    from manifests import files
    from manifests.recipe_file import load_recipe
    from manifests.stage import progress_bar

    log_to_stderr()
    recipe = load_recipe(options.recipe)
    place = files.absolute(options.out) if options.scheduler else options.out
    with _executor(options, place) as executor, progress_bar(quiet=options.quiet) as progress:
        manifest = build(recipe, place, executor=executor, progress=progress, where=options.recipe)
    if options.as_json:
        sys.stdout.buffer.write(msgspec.json.encode(manifest) + b"\n")  # UTF-8, whatever the locale
    else:
        _show(manifest, options.out)
    return 0


@contextlib.contextmanager
def _executor(options: Options, place: str) -> Iterator[Executor]:
    """What runs the parts: this machine's processes, or a cluster all of whose workers see the build's folder."""
    if not options.scheduler:
        from manifests.stage import local_executor

        with local_executor(options.num_workers) as local:
            yield local
        return
    from flows.dask_executor import dask_executor

    with dask_executor(options.scheduler) as dask:
        dask.require_sees(place)
        yield dask


def _show(manifest: "Manifest", out: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    from shards.summary import summarise

    console = Console()
    console.print(Markdown(summarise(manifest)))
    console.print(f"\nEverything lies in {out}: shards/, manifest.json, samples.parquet, rejects.parquet, summary.md")
    console.print(f"Look at it:  python -m shards.show {out} --out page.html")
    console.print(f"Verify it:   python -m shards.verify {out} --deep")


if __name__ == "__main__":
    sys.exit(main())
