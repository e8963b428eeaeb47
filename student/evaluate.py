"""Evaluates a student, or any model's predictions, on a build: every metric with its interval, and what went wrong.

    python -m student.evaluate RUN|PREDICTIONS.parquet BUILD --split test --out DIR

Of a run or an export, val and test are predicted first. Of any other model, one table with the rows of both is enough:
key, phrase, presence and mask. The threshold and the temperature come from val and never from what is judged; a run
that was trained on this very build keeps them in its checkpoint, and val is not asked again.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from manifests import files
from manifests.recipe import SPLITS
from manifests.stage import log_to_stderr, progress_bar, run_command
from student.predict import SAM3
from student.readings import EVALUATION_NAME, IMAGES_NAME, LATENCY_NAME, SUMS_NAME

if TYPE_CHECKING:
    from rich.progress import Progress

    from student.evaluation import Evaluated
    from student.fitted import Fitted
    from student.predictor import Predictor
    from student.readings import Evaluation, Latency, Start
    from student.run_record import RunRecord

PREDICTIONS_NAME = "predictions.parquet"
_FITTED_SPLIT = "val"
_TABLE = ".parquet"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    source: str  # a run, an export, or a table of predictions
    build: str
    split: str
    out: str
    val_predictions: str
    max_missing_share: float
    name: str
    quiet: bool

    @property
    def is_table(self) -> bool:
        """Whether the predictions are made already."""
        return self.source.endswith(_TABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Predictions, and what is known of the model that made them."""

    predictions: str
    val_predictions: str
    name: str
    start: "Start" = ""
    predictor_sha256: str = ""
    latency: "Latency | None" = None
    fitted: "Fitted | None" = None  # what val chose when the model was made


def evaluate_into(options: Options, progress: "Progress | None" = None) -> "Evaluated":
    """The evaluation that `options` ask for, with its files and its page in their folder.

    Bars are drawn where `progress` is, or on stderr.

    Raises:
        AbsentiaError: the model, the predictions or the build cannot be used.
    """
    from student.evaluation import Asked, evaluate
    from student.failures import failures_uri, write_failures
    from student.image_sums import write_image_sums
    from student.readings import write_json

    made = _given(options) if options.is_table else _predicted(options, progress)
    asked = Asked(
        predictions=made.predictions,
        build=options.build,
        split=options.split,
        val_predictions=made.val_predictions,
        fitted=made.fitted,
        name=options.name or made.name,
        max_missing_share=options.max_missing_share,
    )
    with _bars(options, progress) as bars:
        found = evaluate(asked, progress=bars)
    found = replace(found, evaluation=_with_run(found.evaluation, made))
    files.make_folder(options.out)
    evaluation = files.join(options.out, EVALUATION_NAME)
    files.remove(evaluation)  # one that stood there, of another build, must not vouch for the files that follow
    sums = files.join(options.out, SUMS_NAME)
    write_image_sums(sums, found.judged, found.truth.keys, has_masks=found.answers.has_masks)
    _copy_images(found, made.predictions, files.join(options.out, IMAGES_NAME))
    write_failures(failures_uri(options.out), found)
    write_json(evaluation, found.evaluation)
    return found


def _bars(options: Options, progress: "Progress | None") -> AbstractContextManager["Progress"]:
    """The caller's bars, or this command's own."""
    return progress_bar(quiet=options.quiet) if progress is None else nullcontext(progress)


def _given(options: Options) -> Made:
    return Made(predictions=options.source, val_predictions=options.val_predictions, name="")


def _predicted(options: Options, progress: "Progress | None") -> Made:
    """The split and val as the model at the source predicts them, in tables of the evaluation's folder."""
    from manifests.manifest import read_manifest
    from student.predict import open_predictor, predict_split
    from student.readings import Latency, read_json
    from student.run_record import name_of, read_run

    predictor = open_predictor(options.source)
    _log.info("%s (%s)", predictor.name, predictor.digest())
    record = None if options.source.startswith(SAM3) else read_run(options.source)
    fitted = None if options.val_predictions else _kept(record, predictor, options.build)
    is_asked = fitted is None and not options.val_predictions
    has_val = is_asked and bool(read_manifest(options.build).splits.get(_FITTED_SPLIT))
    table, of_val = (
        files.join(options.out, name) for name in (PREDICTIONS_NAME, f"{_FITTED_SPLIT}-{PREDICTIONS_NAME}")
    )
    wanted = {options.split: table} | ({_FITTED_SPLIT: of_val} if has_val and options.split != _FITTED_SPLIT else {})
    files.make_folder(options.out)
    with _bars(options, progress) as bars:
        for split, uri in wanted.items():
            predict_split(predictor, options.build, split, uri, progress=bars)
    latency = files.join(options.source, LATENCY_NAME)
    return Made(
        predictions=table,
        val_predictions=options.val_predictions or wanted.get(_FITTED_SPLIT, ""),
        name=record.name if record else name_of(options.source),
        start=record.start if record else "",
        predictor_sha256=predictor.digest(),
        latency=read_json(latency, Latency) if files.exists(latency) else None,
        fitted=fitted,
    )


def _kept(record: "RunRecord | None", predictor: "Predictor", build: str) -> "Fitted | None":
    """What the val of `build`, and no other, chose for these very weights when they were trained; None otherwise."""
    from student.fitted import as_chosen
    from student.run_record import build_used

    choice = record.choice if record else None
    if choice is None or (choice.student, choice.builds) != (predictor.digest(), [build_used(build, None).sha256]):
        return None
    return as_chosen(choice)


def _with_run(evaluation: "Evaluation", made: Made) -> "Evaluation":
    import msgspec

    return msgspec.structs.replace(
        evaluation, start=made.start, predictor_sha256=made.predictor_sha256, latency=made.latency
    )


def _copy_images(found: "Evaluated", predictions: str, out: str) -> None:
    """Prompt sensitivity picture by picture, where the model told it, beside the readings."""
    import pyarrow.compute as pc

    from manifests.tables import PREDICTED_IMAGES, read_table, write_table
    from student.predict import images_table

    uri = images_table(predictions)
    if files.exists(uri):
        table = read_table(uri, PREDICTED_IMAGES)
        write_table(out, table.filter(pc.is_in(table["key"], value_set=found.truth.keys)), PREDICTED_IMAGES)
    else:
        files.remove(out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m student.evaluate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "source",
        metavar="RUN|PREDICTIONS",
        help="a training run, an export, sam3:FOLDER, or a .parquet table of any model's predictions",
    )
    parser.add_argument("build", metavar="BUILD", help="a finished build: a folder or a URL")
    parser.add_argument("--split", choices=SPLITS, default="test", help="what is judged [%(default)s]")
    parser.add_argument("--out", default="", metavar="DIR", help="where the files go [RUN/evaluation]")
    parser.add_argument(
        "--val-predictions",
        default="",
        metavar="FILE",
        help="the model's predictions of val, for threshold and temperature [rows of val in PREDICTIONS]",
    )
    parser.add_argument(
        "--max-missing-share",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="most prompts that may lack a usable row; more of them stop the evaluation [%(default)s]",
    )
    parser.add_argument("--name", default="", help="what the evaluation is called [the run's, or the table's own name]")
    parser.add_argument("--json", action="store_true", help="print the evaluation as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _options(parser: argparse.ArgumentParser, found: argparse.Namespace) -> Options:
    if not 0 <= found.max_missing_share < 1:
        parser.error(f"--max-missing-share {found.max_missing_share}: expected a share of 0 or more and below 1")
    if not found.out and (found.source.endswith(_TABLE) or found.source.startswith(SAM3)):
        parser.error(f"--out DIR is needed: {found.source} is no folder of a run or an export, in which it could lie")
    return Options(
        source=found.source,
        build=found.build,
        split=found.split,
        out=found.out or files.join(found.source, "evaluation"),
        val_predictions=found.val_predictions,
        max_missing_share=found.max_missing_share,
        name=found.name,
        quiet=found.quiet,
    )


def _run(options: Options, *, as_json: bool) -> int:
    log_to_stderr()
    found = evaluate_into(options)
    if as_json:
        import msgspec

        sys.stdout.buffer.write(msgspec.json.encode(found.evaluation, order="deterministic") + b"\n")
        sys.stdout.flush()
    else:
        from student.evaluation_table import show

        show(found.evaluation, options.out)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    parser = _parser()
    found = parser.parse_args(argv)
    options = _options(parser, found)
    return run_command(lambda: _run(options, as_json=found.json))


if __name__ == "__main__":
    sys.exit(main())
