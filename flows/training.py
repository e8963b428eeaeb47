"""Training, evaluating and predicting as plain calls: paths in and out, and what is finished is not done again.

They run in this process and draw their bars where the caller wants them. A run that was stopped goes on from its last
checkpoint when the same call is made again.
"""

from typing import TYPE_CHECKING

from manifests import files
from manifests.errors import TrainingError
from manifests.manifest import read_manifest
from student.config import TrainConfig
from student.readings import EVALUATION_NAME, SUMS_NAME, Evaluation, read_json
from student.run_record import RunRecord, read_run

if TYPE_CHECKING:
    from rich.progress import Progress

    from student.predict import Summary


def train(
    build: str,
    out: str,
    progress: "Progress",
    *,
    config: TrainConfig | None = None,
    epochs: int | None = None,
    num_readers: int | None = None,
    device: str = "auto",
) -> RunRecord:
    """The record of the finished run in `out`, trained where it was not; masks and presence, without a teacher.

    Args:
        build: Folder or URL of a finished build.
        out: Folder of the run, on this machine.
        config: Of the model, its losses and optimiser; None takes the defaults.
        epochs: How often it sees train; None takes the default.
        num_readers: Processes that read; None takes two, or one a core.
        device: As torch calls it, or "auto".
        progress: Where the bar is drawn.

    Raises:
        TrainingError: the data teach nothing, or the run was asked to stop before its end.
        CheckpointError: `out` holds a run on other samples, or of another config or length.
        KeyboardInterrupt: Ctrl-C stopped it, after the step at hand and its checkpoint.
    """
    from student.distributed import joined
    from student.heap import keep_freed_memory
    from student.preparing import Request
    from student.train import choose_device, default_readers, train_on

    request = Request(
        builds={build: None},
        out=out,
        config=config or TrainConfig(),
        epochs=None if epochs is None else (epochs,),
        resume=_was_stopped(out),
        num_workers=default_readers() if num_readers is None else num_readers,
    )
    chosen = choose_device(device, request)
    if chosen.type == "cpu":
        keep_freed_memory()
    with joined(chosen) as ranks:
        record, interrupted = train_on(request, ranks, progress)
    if record.finished:
        return record
    if interrupted:
        raise KeyboardInterrupt
    raise TrainingError(f"{out}: was asked to stop after {record.steps} steps; do the same again, and it goes on")


def _was_stopped(out: str) -> bool:
    """Whether `out` holds a run that can be resumed."""
    from student.checkpoint import read_checkpoint
    from student.preparing import LAST

    record, last = read_run(out), files.join(out, LAST)
    if record is None or record.finished or not files.exists(last):
        return False
    return not read_checkpoint(last).state.finished


def evaluate(run: str, build: str, progress: "Progress", *, split: str = "test", name: str = "") -> Evaluation:
    """What a run is worth on a split of a build, with its files in `RUN/evaluation`; judged where it was not.

    Args:
        run: Folder of a training run or of an export.
        build: Folder or URL of a finished build, which need not be the one that it was trained on.
        split: What is judged; threshold and temperature come from val.
        name: What the evaluation is called; "" for the run's name.
        progress: Where the bars are drawn.

    Raises:
        AbsentiaError: the model or the build cannot be used.
    """
    from student.evaluate import Options, evaluate_into
    from student.evaluation import MAX_MISSING_SHARE
    from student.failures import failures_uri
    from student.predict import open_predictor
    from student.truth import digest_of_build

    out = files.join(run, "evaluation")
    uri = files.join(out, EVALUATION_NAME)
    if all(map(files.exists, (uri, files.join(out, SUMS_NAME), failures_uri(out)))):
        found = read_json(uri, Evaluation)
        asked = (open_predictor(run).digest(), digest_of_build(read_manifest(build)), split)
        if (found.predictor_sha256, found.build_sha256, found.split) == asked and name in {"", found.name}:
            return found
    options = Options(
        source=run,
        build=build,
        split=split,
        out=out,
        val_predictions="",
        max_missing_share=MAX_MISSING_SHARE,
        name=name,
        quiet=False,
    )
    return evaluate_into(options, progress).evaluation


def predict(
    run: str, build: str, out: str, progress: "Progress", *, split: str = "train", ask: str = "vocabulary"
) -> "Summary":
    """What lies in the table at `out`: the answers of a run on a split of a build, asked for where they are not there.

    Args:
        run: Folder of a training run or of an export, or `sam3:FOLDER`.
        build: Folder or URL of a finished build.
        out: Ends in `.parquet`.
        split: Whose pictures are asked.
        ask: "plan", "vocabulary", or a file; see `student.predict`.
        progress: Where the bar is drawn.

    Raises:
        AbsentiaError: the model or the build cannot be used.
    """
    from student.predict import open_predictor, predict_split

    return predict_split(open_predictor(run), build, split, out, ask=ask, progress=progress)
