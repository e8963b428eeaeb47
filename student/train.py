"""Trains the student on one or several builds: features aligned to a teacher, then presence and masks.

    python -m student.train BUILD[=WEIGHT]... --out RUN [--config FILE.toml] [--teacher FEATURES]

A run that is stopped (Ctrl-C, SIGTERM, a crash) goes on with --resume to the losses that it would have had.
"""

import argparse
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from manifests import files
from manifests.errors import AbsentiaError, TrainingError
from manifests.stage import log_to_stderr, progress_bar, run_command
from student.config import read_config
from student.launching import GRACE_S, LAUNCHED, STOPPED_BY_KEYBOARD, launch

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress

    from student.distributed import Ranks
    from student.preparing import Request
    from student.run_record import RunRecord

log = logging.getLogger(__name__)

_LAST = "last.safetensors"  # preparing.LAST, without torch


_UNUSED = (
    "--teacher-predictions teach nothing here: losses.soft_presence and losses.soft_mask are both 0, and no present "
    "phrase of train lacks a whole mask; set one of the two above 0 in [losses] of --config"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m student.train",
        description=__doc__.partition("\n")[0],
        epilog="torchrun's environment is understood, too: torchrun --nproc-per-node 2 -m student.train ...",
    )
    add = parser.add_argument
    add("builds", nargs="+", metavar="BUILD[=WEIGHT]", help="finished builds; a weight for all of them, or for none")
    add("--out", required=True, metavar="RUN", help="the run's folder")
    add("--config", metavar="FILE.toml", help="of the model, its losses and optimiser [defaults, or the resumed run's]")
    add("--teacher", nargs="+", default=[], metavar="FEATURES", help="embeddings of pictures and phrases, for phase 1")
    add("--teacher-predictions", metavar="TABLE", help="presence and masks of another model, for phase 2")
    add("--phases", type=_numbers, metavar="1,2", help="alignment, refinement [1,2 with a teacher, 2 without]")
    add("--epochs", type=_numbers, metavar="2,10", help="of each phase [2 for phase 1, 10 for phase 2]")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--init", metavar="RUN", help="begin with the best weights of this run")
    begin.add_argument("--resume", action="store_true", help="go on with the run in --out")
    add("--allow-one-class", action="store_true", help="train though there are only present or only absent prompts")
    add("--positives-only", action="store_true", help="leave absent prompts out, for a baseline")
    add("--workers", type=int, metavar="N", help="processes that read, for each that trains [2, or one a core]")
    add("--processes", type=int, default=1, metavar="N", help="that train as one [%(default)s]")
    add("--device", default="auto", metavar="D", help="cpu, cuda, cuda:1, ... [cuda where there is one]")
    add("--json", action="store_true", help="print the record of the run as JSON on stdout")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    parser = _parser()
    given = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(given)
    builds = _builds(parser, options.builds)
    _require_options(parser, options)
    if options.processes > 1 and LAUNCHED not in os.environ:
        command = [sys.executable, "-m", "student.train", *given]
        return run_command(lambda: _unless_cut(lambda: launch(command, options.processes), options, given))
    return run_command(lambda: _unless_cut(lambda: _run(options, builds, given), options, given))


def _unless_cut(work: Callable[[], int], options: argparse.Namespace, given: Sequence[str]) -> int:
    """What `work` returns; where Ctrl-C cuts it short, what is left of it is said."""
    try:
        return work()
    except KeyboardInterrupt:
        saved = files.exists(files.join(options.out, _LAST))
        left = f"resume with {_resume_line(given)}" if saved else "there is no checkpoint yet; run the command again"
        sys.stderr.write(f"stopped by the keyboard; {left}\n")
        return STOPPED_BY_KEYBOARD


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers from 1, such as 1,2")
    return found


def _builds(parser: argparse.ArgumentParser, given: Sequence[str]) -> dict[str, float | None]:
    """The weight of each build's folder; None where none was given."""
    found: dict[str, float | None] = {}
    for text in given:
        folder, equals, weight = text.rpartition("=")
        try:
            named = (folder, float(weight)) if equals else (text, None)
        except ValueError:
            named = (text, None)  # a folder whose name has an equals sign
        if named[0] in found:
            parser.error(f"{named[0]} is given twice; give it once, with a weight")
        if named[1] is not None and not 0 < named[1] < float("inf"):
            parser.error(f"{text}: expected a weight above 0")
        found[named[0]] = named[1]
    if len({weight is None for weight in found.values()}) > 1:
        parser.error("some builds have a weight and some have none; give all of them one, or none")
    return found


def _require_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    phases = options.phases or ()
    if phases and (not set(phases) <= {1, 2} or sorted(set(phases)) != list(phases)):
        parser.error(f"--phases {','.join(map(str, phases))}: expected 1, 2 or 1,2")
    if options.workers is not None and options.workers < 0:
        parser.error(f"--workers {options.workers}: expected 0 or more")
    if options.processes < 1:
        parser.error(f"--processes {options.processes}: expected 1 or more")
    if not files.is_local(options.out):
        parser.error(f"--out {options.out}: a run is written to a folder of this machine; copy it afterwards")


def _run(options: argparse.Namespace, builds: dict[str, float | None], given: Sequence[str]) -> int:
    from student.distributed import joined
    from student.heap import keep_freed_memory

    log_to_stderr()
    request = _request(options, builds)
    device = choose_device(options.device, request)
    if device.type == "cpu":
        keep_freed_memory()
    with joined(device) as ranks:
        try:
            record, interrupted = train_on(request, ranks)
        except AbsentiaError as error:
            if not ranks.leads:
                _leave_to_the_lead(error)
            raise
    if ranks.leads:
        _tell(record, options, given)
    return STOPPED_BY_KEYBOARD if interrupted and not record.finished else 0


def _leave_to_the_lead(error: AbsentiaError) -> None:
    """Say what is wrong and wait to be ended: leaving at once would bury it under the lead's lost connection."""
    sys.stderr.write(f"error: {error}\n")
    sys.stderr.flush()
    time.sleep(3 * GRACE_S)
    os._exit(1)


def train_on(request: "Request", ranks: "Ranks", progress: "Progress | None" = None) -> "tuple[RunRecord, bool]":
    """The record of the run as far as it came, and whether Ctrl-C stopped it.

    A bar is drawn where `progress` is, or on stderr. SIGTERM and the first Ctrl-C stop it after the step at hand.

    Raises:
        TrainingError: the data teach nothing.
        CheckpointError: the folder holds a run on other samples, or of another config or length.
    """
    from student.initial import describe_init
    from student.preparing import prepare
    from student.run_record import RunRecord
    from student.stopping import until_interrupt, until_sigterm
    from student.teacher_check import match_auc
    from student.training import train

    with until_sigterm() as stop:
        prepared = prepare(request)
        if isinstance(prepared, RunRecord):
            return prepared, False
        if prepared.init is not None and ranks.leads and not request.resume:
            log.info("%s", describe_init(prepared.init))
        if prepared.soft_unused and ranks.leads:
            log.warning("%s", _UNUSED)
        if prepared.record.not_taught and ranks.leads:
            num, lacking = len(prepared.train.phrases), prepared.record.not_taught
            log.info("phase 1 leaves out %d of %d phrases: the teacher has no row of them", lacking, num)
        if prepared.teacher is not None and prepared.settled.config.losses.align_match and ranks.leads:
            _tell_of_match(match_auc(prepared.teacher, prepared.train_builds))
        shown = progress_bar(quiet=request.quiet or not ranks.leads) if progress is None else nullcontext(progress)
        with until_interrupt(stop.set) as interrupted, shown as bars:
            standing = train(prepared, ranks, bars, stop)
        return standing.told(prepared.record), interrupted.is_set()


def _tell_of_match(auc: float | None) -> None:
    from student.teacher_check import LEAST_AUC

    if auc is None:
        return
    said = f"the teacher's rows tell a picture that shows a phrase from another one's with an AUC of {auc:.2f}"
    if auc < LEAST_AUC:
        log.warning(
            "%s; expected %g or more, as phase 1 teaches presence by them. Give rows of pictures and phrases in one "
            "space, as miners.embed writes them, or set losses.align_match = 0",
            said,
            LEAST_AUC,
        )
    else:
        log.info("%s", said)


def _request(options: argparse.Namespace, builds: dict[str, float | None]) -> "Request":
    from student.preparing import Request

    return Request(
        builds=builds,
        out=options.out,
        config=read_config(options.config) if options.config or not options.resume else None,
        teacher=tuple(options.teacher),
        predictions=options.teacher_predictions,
        phases=options.phases,
        epochs=options.epochs,
        init=options.init,
        resume=options.resume,
        allow_one_class=options.allow_one_class or options.positives_only,
        positives_only=options.positives_only,
        num_workers=default_readers() if options.workers is None else options.workers,
        quiet=options.quiet,
    )


def default_readers() -> int:
    """Processes that read for one that trains: two, or one a core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(2, cores)


def choose_device(name: str, request: "Request") -> "torch.device":
    """The device called `name`; on a CPU its cores are shared among the processes that train.

    Raises:
        RecipeError: it is not there.
        TrainingError: it cannot train in the precision that is asked for.
    """
    import torch

    from student.torch_predictor import open_device

    device = open_device(name)
    if device.type == "cpu" and request.config is not None and request.config.precision == "float16":
        raise TrainingError("precision float16 on a CPU is slow and overflows; expected a GPU. Use bfloat16 or float32")
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
        torch.set_num_threads(max(1, torch.get_num_threads() // num_processes))
    return device


def _tell(record: "RunRecord", options: argparse.Namespace, given: Sequence[str]) -> None:
    """What became of the run: its record as JSON, or a line."""
    import msgspec

    if not record.finished:
        sys.stderr.write(f"stopped after {record.steps} steps; resume with {_resume_line(given)}\n")
    if options.json:
        sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
    elif record.finished and record.best is not None:
        best = record.best
        sys.stdout.write(
            f"{options.out}: {record.steps} steps, best after {best.step} ({best.metric} {best.value:.4f}); "
            f"curves in {files.join(options.out, 'curves.png')}\n"
        )


def _resume_line(given: Sequence[str]) -> str:
    """The command that goes on with this run."""
    kept = [text for text in given if text != "--resume"]
    if "--init" in kept:
        at = kept.index("--init")
        del kept[at : at + 2]
    return shlex.join(["python", "-m", "student.train", *(t for t in kept if not t.startswith("--init=")), "--resume"])


if __name__ == "__main__":
    sys.exit(main())
