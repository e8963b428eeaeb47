"""Exports a trained student to ONNX at fixed shapes, checks it against torch, and quantises it.

    python -m student.export RUN --build BUILD
    python -m student.export RUN --build BUILD --quantize int8-int4

Each variant is a folder of three graphs. What it loses is judged on the build's split, and its ranges are read on the
build's train pictures. `bench.py` in the export times any variant with onnxruntime alone; docs/on-device.md says how to
run it on a phone.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from manifests import files
from manifests.errors import ExportError
from manifests.recipe import SPLITS
from manifests.stage import log_to_stderr, progress_bar, run_command
from student.readings import Bounds, Variant

if TYPE_CHECKING:
    from student.exporting import Exported, Wanted

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_QUANTISED = "int8-int4"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m student.export", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", metavar="RUN", help="the folder of a training run")
    parser.add_argument("--out", metavar="DIR", help="folder of the export [RUN/export]")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="checkpoint [%(default)s]")
    parser.add_argument("--phrases", type=int, default=4, metavar="N", help="phrases of one call [%(default)s]")
    parser.add_argument(
        "--build", default="", metavar="BUILD", help="a finished build to check, calibrate and judge on"
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="what is judged on [%(default)s]")
    parser.add_argument("--quantize", choices=(_QUANTISED,), help="8-bit image tower and decoder, 4-bit text tower")
    parser.add_argument(
        "--bound",
        type=float,
        default=Bounds().quantisation_drop,
        metavar="X",
        help="largest relative drop of mIoU and IL_MCC [%(default)s]",
    )
    parser.add_argument(
        "--pictures", type=int, default=64, metavar="N", help="train pictures that ranges are read on [%(default)s]"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the CPU [%(default)s]")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _wanted(options: argparse.Namespace) -> "Wanted":
    from student.exporting import Wanted

    return Wanted(
        run=options.run,
        which=options.which,
        out=options.out or files.join(options.run, "export"),
        num_phrases=options.phrases,
        build=options.build,
        split=options.split,
        quantised=options.quantize is not None,
        bound=options.bound,
        num_calibration=options.pictures,
        threads=options.threads,
    )


def _require_packages() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"{', '.join(missing)} cannot be imported; expected the extra of exports. Install it with "
            "pip install -e '.[export]' in Absentia's folder"
        )


def _run(options: argparse.Namespace) -> int:
    log_to_stderr()
    _require_packages()
    from student.exporting import export_run

    with progress_bar(quiet=options.quiet) as progress:
        exported = export_run(_wanted(options), progress)
    sys.stdout.write(msgspec.json.encode(exported).decode() + "\n" if options.json else _told(exported))
    return 0


def _told(exported: "Exported") -> str:
    parity = exported.parity
    lines = [f"{exported.out}: {', '.join(exported.variants)}; {exported.chosen} is chosen"]
    for one in parity.differences:
        far = max(one.presence_logit, one.mask_logit)
        lines.append(f"{one.variant}: at most {far:.1e} from torch in a logit, on {parity.num_pictures} pictures")
    if exported.quantisation:
        for variant in exported.quantisation.variants:
            lines += _told_variant(variant)
        lines += exported.quantisation.notes
    return "\n".join(lines) + "\n"


def _told_variant(variant: Variant) -> Iterator[str]:
    size = sum(variant.num_bytes.values()) / 1e6
    flipped = f"{variant.flipped_presences} of {variant.num_prompts} presences flipped"
    ms = f"{variant.latency.ms:.1f} ms" if variant.latency else "not measured"
    yield f"{variant.name}: {size:.1f} MB, {ms}, {flipped}"
    for drop in variant.drops:
        interval = f"{drop.low:.2%} to {drop.high:.2%}"
        yield f"  {drop.metric} drops {drop.drop:.2%} ({interval}) from {drop.base}: {drop.verdict} {drop.bound:.2%}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    numbers = (("--phrases", options.phrases), ("--pictures", options.pictures), ("--threads", options.threads))
    for option, value in numbers:
        if value < 1:
            parser.error(f"{option} {value}: expected 1 or more")
    if not 0 <= options.bound < 1:
        parser.error(f"--bound {options.bound}: expected a share from 0 to below 1")
    if options.quantize and not options.build:
        parser.error("--quantize needs --build: ranges are read on its train pictures, and drops judged on its split")
    return run_command(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
