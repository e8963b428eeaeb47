"""Predicts presence and masks over a build, with a student, its ONNX export or SAM 3, as one table that can be resumed.

    python -m student.predict RUN BUILD --split val --ask plan --out predictions.parquet

The table is what `student.evaluate` judges, what `student.train --teacher-predictions` learns from, and what
`miners.hard_negatives` takes as a verifier or as alarms. Beside it, `<stem>.images.parquet` says how far each picture's
masks change with the phrase.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from manifests import files
from manifests.errors import CheckpointError, PredictionError
from manifests.recipe import SPLITS
from manifests.stage import log_to_stderr, progress_bar, run_command

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress

    from student.predictor import Predictor

BATCH = 16
SAM3 = "sam3:"
MASK_THRESHOLD_KEY = "mask_threshold"  # in a table's metadata
MASKS, DRAWN = "masks", "drawn"  # likewise: an empty mask there is one that the model left empty
_SUFFIX = ".parquet"
_log = logging.getLogger(__name__)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in the tables."""

    out: str
    images: str  # the table beside it
    predictor: str
    digest: str
    split: str
    pictures: int
    prompts: int
    features: int  # rows of pictures and phrases


def open_predictor(source: str, *, device: str = "auto", threads: int | None = None) -> "Predictor":
    """The model at `source`: a training run's folder, an export's folder, or `sam3:` and a folder or hub id.

    Args:
        source: Where it lies.
        device: Of torch: "auto", "cpu", "cuda"; an export always runs on the CPU.
        threads: Of the CPU; None leaves their number to the library.

    Raises:
        CheckpointError: there is no model, or its checkpoint is damaged.
        RecipeError: the device is not there.
        PredictionError: SAM 3 cannot be had.
        ExportError: an export is damaged.
    """
    if source.startswith(SAM3):
        from student.sam3 import open_sam3

        return open_sam3(source.removeprefix(SAM3), device=_torch_device(device, threads))
    from student.export_record import is_export

    if is_export(source):
        from student.onnx_predictor import open_onnx

        return open_onnx(source, threads=threads)
    from student.run_record import RUN_NAME, name_of

    if not files.exists(files.join(source, RUN_NAME)):
        raise CheckpointError(
            f"{source}: holds no model; expected the folder of a training run (with {RUN_NAME}) or of an export, or "
            "sam3:FOLDER. Check the path"
        )
    from student.checkpoint import load_student
    from student.torch_predictor import TorchPredictor

    loaded = load_student(source)
    student = loaded.student.to(_torch_device(device, threads))
    return TorchPredictor(student, name=name_of(source), mask_threshold=loaded.state.mask_threshold)


def _torch_device(device: str, threads: int | None) -> "torch.device":
    import torch

    from student.torch_predictor import open_device

    if threads is not None:
        torch.set_num_threads(threads)
    return open_device(device)


def images_table(out: str) -> str:
    """Where the pictures' table lies that goes with the predictions at `out`."""
    return out.removesuffix(_SUFFIX) + ".images" + _SUFFIX


def predict_split(
    predictor: "Predictor",
    build: str,
    split: str,
    out: str,
    *,
    ask: str = "plan",
    batch_size: int = BATCH,
    features: str = "",
    progress: "Progress",
) -> Summary:
    """What lies in the tables now: the predictions of a split's pictures at `out`, their sensitivity beside it.

    A run that was stopped goes on with the shards that are not done, to the same bytes; where the tables are finished
    already, nothing is computed.

    Args:
        predictor: The model.
        build: Folder or URL of a finished build.
        split: Whose pictures are asked.
        out: Ends in `.parquet`; unfinished work lies in `<stem>.parts` beside it.
        ask: "plan", "vocabulary", a file with a phrase a line, or a table of key and phrase.
        batch_size: Pictures that the model sees at once; another may change last bits.
        features: Folder for the model's rows of the pictures and of the phrases; "" for none.
        progress: Where the bars are drawn.

    Raises:
        PredictionError: the model answers with what is no probability, or has no features to show.
        TableError, RecipeError: `ask` is none.
        ManifestError: the build is unfinished or damaged, or has no such split.
        RecipeError: a phrase is longer than the model reads.
    """
    from shards.blocks import read_index
    from student.asking import read_questions, read_shelves
    from student.feature_tables import write_features
    from student.predict_parts import Asking, predict_parts, write_predictions

    _require_own_place(build, out)
    index = read_index(build, split)
    shelves = read_shelves(index)
    asking = Asking(predictor=predictor, index=index, questions=read_questions(ask, index), batch_size=batch_size)
    parts = predict_parts(asking, shelves)
    num_rows = 0
    if features:
        phrases = asking.questions.all()
        num_rows = write_features(
            predictor, index, shelves, phrases, folder=features, batch_size=batch_size, progress=progress
        )
    work = out.removesuffix(_SUFFIX) + ".parts"
    metadata = {"ask": os.path.basename(ask), MASKS: DRAWN, MASK_THRESHOLD_KEY: str(predictor.mask_threshold)}
    num_prompts = write_predictions(
        asking, parts, out=out, images=images_table(out), work=work, metadata=metadata, progress=progress
    )
    return Summary(
        out=out,
        images=images_table(out),
        predictor=predictor.name,
        digest=predictor.digest(),
        split=split,
        pictures=sum(part.weight for part in parts),
        prompts=num_prompts,
        features=num_rows,
    )


def _require_own_place(build: str, out: str) -> None:
    """Stop if the table has no Parquet's name, or would take the place of one of the build's own."""
    from shards.publish import is_own_table

    if not out.endswith(_SUFFIX):
        raise PredictionError(f"--out {out}: expected a name that ends in {_SUFFIX}, such as predictions{_SUFFIX}")
    if is_own_table(build, out) or is_own_table(build, images_table(out)):
        raise PredictionError(
            f"--out {out}: is the finished build's own table, which its manifest names; expected another place"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m student.predict", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", metavar="MODEL", help="a training run, an export, or sam3:FOLDER (or a hub id)")
    parser.add_argument("build", metavar="BUILD", help="a finished build: a folder or a URL")
    parser.add_argument("--out", required=True, metavar="FILE", help="the table to write, such as predictions.parquet")
    parser.add_argument("--split", choices=SPLITS, default="train", help="pictures of this split [%(default)s]")
    parser.add_argument(
        "--ask",
        default="plan",
        metavar="WHAT",
        help="plan: each picture's prompts; vocabulary: every phrase that the build asks, of each picture; or a text "
        "file with a phrase a line, or a Parquet table with key and phrase [%(default)s]",
    )
    parser.add_argument("--features", default="", metavar="DIR", help="write the model's own rows, too: a teacher")
    parser.add_argument("--batch-size", type=int, default=BATCH, metavar="N", help="pictures at once [%(default)s]")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda ... [%(default)s]")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the CPU [the library's own choice]")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _run(options: argparse.Namespace) -> int:
    log_to_stderr()
    predictor = open_predictor(options.model, device=options.device, threads=options.threads)
    _log.info("%s (%s)", predictor.name, predictor.digest())
    with progress_bar(quiet=options.quiet) as progress:
        summary = predict_split(
            predictor,
            options.build,
            options.split,
            options.out,
            ask=options.ask,
            batch_size=options.batch_size,
            features=options.features,
            progress=progress,
        )
    sys.stdout.write((msgspec.json.encode(summary).decode() if options.json else _told(summary)) + "\n")
    return 0


def _told(summary: Summary) -> str:
    rows = f", and {summary.features} rows of features" if summary.features else ""
    what = f"{summary.prompts} answers of {summary.predictor} on {summary.pictures} pictures of {summary.split}"
    return f"{summary.out}: {what}{rows}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        parser.error(f"--batch-size {options.batch_size}: expected 1 or more")
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads {options.threads}: expected 1 or more")
    return run_command(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
