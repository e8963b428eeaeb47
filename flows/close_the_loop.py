"""Builds, trains, judges, and builds again with what the student took for present: N rounds and one report.

    python -m flows.close_the_loop RECIPE.toml --out DIR [--rounds 2] [--config FILE.toml] [--epochs 10]

The same command goes on where a stopped one was.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.next_recipe import FALSE_ALARM_SHARE
from manifests.stage import log_to_stderr, run_command

if TYPE_CHECKING:
    from flows.loop_record import LoopRecord
    from student.readings import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says besides the recipe."""

    recipe: str
    out: str
    num_rounds: int
    config: str
    epochs: int | None
    share: float
    num_workers: int
    device: str
    as_json: bool
    quiet: bool


def parse(argv: Sequence[str] | None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.close_the_loop", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("recipe", metavar="RECIPE.toml", help="of the first round; see docs/recipes.md")
    add("--out", required=True, metavar="DIR", help="folder of the loop; made if it is not there")
    add("--rounds", type=int, default=2, metavar="N", help="students that are trained [%(default)s]")
    add("--config", default="", metavar="FILE.toml", help="of the student, its losses and optimiser [defaults]")
    add("--epochs", type=int, metavar="N", help="how often each student sees train [10]")
    add(
        "--false-alarms",
        type=float,
        default=FALSE_ALARM_SHARE,
        metavar="SHARE",
        help="of train's absent prompts from round 2 on, where the recipe gives them none [%(default)s]",
    )
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes [one per core]")
    add("--device", default="auto", metavar="D", help="that trains: cpu, cuda ... [cuda where there is one]")
    add("--json", action="store_true", help="print the record of the loop as JSON on stdout")
    add("--quiet", action="store_true", help="no progress bars")
    found = parser.parse_args(argv)
    for name in ("rounds", "epochs", "workers"):
        if (value := getattr(found, name)) is not None and value < 1:
            parser.error(f"--{name} {value}: expected 1 or more")
    if not 0 < found.false_alarms < 1:
        parser.error(f"--false-alarms {found.false_alarms}: expected a share between 0 and 1")
    return Options(
        recipe=found.recipe,
        out=found.out,
        num_rounds=found.rounds,
        config=found.config,
        epochs=found.epochs,
        share=found.false_alarms,
        num_workers=found.workers,
        device=found.device,
        as_json=found.json,
        quiet=found.quiet,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    options = parse(argv)
    return run_command(lambda: _run(options))


def _run(options: Options) -> int:
    import msgspec  # from here on what --help need not wait for

    from flows.rounds import Learning, close_the_loop
    from manifests.recipe_file import load_recipe
    from manifests.stage import local_executor, progress_bar
    from student.config import read_config

    log_to_stderr()
    recipe = load_recipe(options.recipe)
    learning = Learning(config=read_config(options.config or None), epochs=options.epochs, device=options.device)
    with local_executor(options.num_workers) as executor, progress_bar(quiet=options.quiet) as progress:
        found = close_the_loop(
            recipe,
            options.out,
            executor=executor,
            progress=progress,
            rounds=options.num_rounds,
            learning=learning,
            share=options.share,
            where=options.recipe,
        )
    if options.as_json:
        sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
    else:
        _show(found, options.out)
    return 0


def _show(found: "LoopRecord", out: str) -> None:
    """The key figures of every round, and where to read on."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    table.add_column(f"{found.split} of {found.judged_on}", no_wrap=True)
    for one in found.rounds:
        table.add_column(f"round {one.number}", justify="right", no_wrap=True)
    figures = {name: None for one in found.rounds for name in one.readings}
    for name in figures:
        table.add_row(name, *(_cell(one.readings.get(name)) for one in found.rounds))
    table.add_section()
    for kind in {kind: None for one in found.rounds for kind in one.absent}:
        table.add_row(f"train's {kind}", *(f"{one.absent.get(kind, 0):,}" for one in found.rounds))
    console = Console()
    console.print(table)
    console.print("\nIn brackets: 95 % intervals over pictures; hallucination is better when it is lower.")
    console.print(f"The report of all rounds: {os.path.join(out, found.report)}", soft_wrap=True)
    last = found.rounds[-1]
    console.print(f"Rebuild the last round:   python -m flows.build_shards {os.path.join(out, last.recipe)} --out DIR")


def _cell(reading: "Reading | None") -> str:
    if reading is None or reading.value is None:
        return "undefined"
    if reading.low is None or reading.high is None:
        return f"{reading.value:.3f}"
    return f"{reading.value:.3f} ({reading.low:.3f} to {reading.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
