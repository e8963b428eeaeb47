"""Times one call of a student: the first one, and warmed ones, with the conditions under which they were read.

    python -m student.latency RUN --threads 2
    python -m student.latency RUN/export/int8-int4 --json

A call is all of it: a picture through the image tower, phrases through the text tower, and the decoder. Loading is not
counted. The record lies in `latency.json` beside what was timed; readings of unlike conditions do not compare.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
from rich.progress import Progress

from manifests import files
from manifests.errors import ExportError
from manifests.stage import log_to_stderr, progress_bar, run_command
from student.readings import LATENCY_NAME, Conditions, Latency, write_json

if TYPE_CHECKING:
    from student.onnx_predictor import OnnxPredictor
    from student.timing import Told

PHRASES = 4
_REDRAW_S = 1.0


def read_latency_of(
    source: str,
    *,
    threads: int = 1,
    batch: int | None = None,
    num_phrases: int | None = None,
    device: str = "cpu",
    told: "Told | None" = None,
) -> Latency:
    """The latency of the training run or export in the folder `source`.

    `batch` and `num_phrases` are 1 and 4 for a run; an export's are fixed. `told` hears of calls between them.

    Raises:
        CheckpointError: there is no student.
        ExportError: a file of an export is damaged, or was exported for other numbers or another device.
    """
    from student.export_record import is_export

    if is_export(source):
        from student.onnx_predictor import open_onnx

        predictor = open_onnx(source, threads=threads)
        fixed_phrases = predictor.record.num_phrases
        fixed = (("--batch", batch, 1), ("--phrases", num_phrases, fixed_phrases), ("--device", device, "cpu"))
        _require_as_exported(source, fixed)
        return time_export(predictor, threads, told)
    from student.timing import read_latency

    call, conditions = _call_of_run(
        source, threads=threads, batch=batch or 1, num_phrases=num_phrases or PHRASES, device=device
    )
    return read_latency(call, conditions, told=told)


def _require_as_exported(source: str, fixed: Iterable[tuple[str, str | int | None, str | int]]) -> None:
    """Stop at an option that asks for another number or device than the export is fixed to."""
    for option, asked, is_so in fixed:
        if asked is not None and asked != is_so:
            raise ExportError(
                f"{source}: {option} {asked}: the export is fixed to {is_so}; leave the option out, or export again"
            )


def time_export(predictor: "OnnxPredictor", threads: int, told: "Told | None" = None) -> Latency:
    """The latency of an opened export, which runs on `threads` threads; `told` as in `read_latency_of`."""
    from student.conditions import read_conditions
    from student.onnx_predictor import onnx_runtime
    from student.timing import read_latency

    record = predictor.record
    conditions = read_conditions(
        threads=threads,
        batch=1,
        resolution=record.size,
        num_phrases=record.num_phrases,
        precision=record.name,
        runtime=onnx_runtime(),
    )
    return read_latency(predictor.fixed_call(), conditions, told=told)


def _call_of_run(
    source: str, *, threads: int, batch: int, num_phrases: int, device: str
) -> tuple[Callable[[], object], Conditions]:
    """What is timed of a training run, and under which conditions."""
    import torch

    from student.checkpoint import load_student
    from student.conditions import device_name, read_conditions
    from student.torch_predictor import open_device

    student = load_student(source).student
    place = open_device(device)
    torch.set_num_threads(threads)
    student.to(place)
    config = student.config
    images_b3ss = torch.full((batch, 3, config.size, config.size), 127, dtype=torch.uint8)
    tokens_ul = torch.full((num_phrases, config.context), 127, dtype=torch.int64)
    phrase_bp = torch.arange(num_phrases).expand(batch, num_phrases)

    @torch.inference_mode()
    def call() -> object:
        answer = student(images_b3ss.to(place), tokens_ul.to(place), phrase_bp.to(place))
        return answer.presence_bp.cpu(), answer.masks_bphw.cpu()

    named = device_name() if place.type == "cpu" else f"{place.type} {torch.cuda.get_device_name(place)}"
    conditions = read_conditions(
        threads=threads,
        batch=batch,
        resolution=config.size,
        num_phrases=num_phrases,
        precision="fp32",
        runtime=("torch", str(torch.__version__)),
        device=named,
    )
    return call, conditions


def say_latency(latency: Latency) -> str:
    """The record in two lines."""
    from student.conditions import say_conditions

    warm = "" if latency.stable else " (never became stable)"
    return (
        f"{latency.ms:.1f} ms (p95 {latency.p95_ms or 0:.1f}) over {latency.num_calls} calls after "
        f"{latency.num_warm_up} to warm up{warm}; the first call took {latency.first_ms or 0:.1f} ms\n"
        f"{say_conditions(latency.conditions)}\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m student.latency", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", metavar="RUN|EXPORT", help="a training run, an export, or one variant of it")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the CPU [%(default)s]")
    parser.add_argument("--batch", type=int, metavar="N", help="pictures of one call [1; of an export fixed]")
    parser.add_argument("--phrases", type=int, metavar="N", help=f"phrases a picture [{PHRASES}; of an export fixed]")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="of a run: cpu, cuda, auto [%(default)s]")
    parser.add_argument("--json", action="store_true", help="print the record as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _run(options: argparse.Namespace) -> int:
    log_to_stderr()
    with progress_bar(quiet=options.quiet, by_hand=True) as progress:
        latency = read_latency_of(
            options.source,
            threads=options.threads,
            batch=options.batch,
            num_phrases=options.phrases,
            device=options.device,
            told=_shown_on(progress),
        )
    write_json(files.join(options.source, LATENCY_NAME), latency)
    sys.stdout.write(msgspec.json.encode(latency).decode() + "\n" if options.json else say_latency(latency))
    return 0


def _shown_on(progress: Progress) -> "Told":
    """What draws how many calls are made, once a second at most: a call that follows finds its caches cold."""
    bar, drawn = progress.add_task("latency", total=None), -_REDRAW_S

    def tell(done: int, most: int) -> None:
        nonlocal drawn
        progress.update(bar, completed=done, total=most)
        if (now := time.monotonic()) - drawn >= _REDRAW_S:
            progress.refresh()
            drawn = now

    return tell


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    for option, value in (("--threads", options.threads), ("--batch", options.batch), ("--phrases", options.phrases)):
        if value is not None and value < 1:
            parser.error(f"{option} {value}: expected 1 or more")
    return run_command(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
