"""The main job: a recipe in, a finished build out. `python -m flows.build_shards RECIPE.toml --out DIR`."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manifests.stage import run_command

if TYPE_CHECKING:
    from manifests.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says besides the recipe."""

    recipe: str
    out: str
    num_workers: int
    as_json: bool


def parse(argv: Sequence[str] | None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.build_shards", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", metavar="RECIPE.toml", help="what to build; see docs/recipes.md")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the build; made if it is not there")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    found = parser.parse_args(argv)
    if found.workers < 1:
        parser.error(f"--workers {found.workers}: expected 1 or more")
    return Options(recipe=found.recipe, out=found.out, num_workers=found.workers, as_json=found.json)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    options = parse(argv)

    import msgspec  # from here on what --help need not wait for

    from flows.building import build
    from manifests.recipe_file import load_recipe
    from manifests.stage import local_executor, progress_bar

    recipe = load_recipe(options.recipe)
    with local_executor(options.num_workers) as executor, progress_bar() as progress:
        manifest = build(recipe, options.out, executor=executor, progress=progress, where=options.recipe)
    if options.as_json:
        sys.stdout.buffer.write(msgspec.json.encode(manifest) + b"\n")  # UTF-8, whatever the locale
    else:
        _show(manifest, options.out)
    return 0


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
    raise SystemExit(run_command(main))
