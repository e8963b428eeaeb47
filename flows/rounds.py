"""The loop closed: build, mine, train, judge, and build again with what the student took for present on train.

Every stage finds what it finished before, so the same call goes on where a killed one was. All rounds are judged by the
first round's build, on the same pictures and prompts; nothing is chosen by what is judged, and false alarms come from
train alone.
"""

import contextlib
import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from rich.progress import Progress

from flows.building import build
from flows.loop_record import LOOP_NAME, LoopRecord, RoundRecord, absent_of_train, key_figures
from flows.next_recipe import FALSE_ALARM_SHARE, next_recipe
from flows.training import evaluate, predict, train
from manifests import files
from manifests.errors import BuildError, NothingMinedError, RecipeError
from manifests.manifest import MANIFEST_NAME, Manifest
from manifests.recipe import Recipe
from manifests.recipe_file import parse_recipe
from manifests.recipe_writing import encode_recipe, moved
from shards.locking import locked
from student.config import TrainConfig
from student.readings import Evaluation, read_json, write_json

log = logging.getLogger(__name__)

T = TypeVar("T")

JUDGED_ON = "test"
REPORT = "report"
_OWN = re.compile(r"round_[1-9][0-9]*|report|loop\.json|\.lock|.*\.part-.*")
_LENT = ("catalog", "embeddings", "index", "phrases", "spill")  # of `work/`: the same for as long as inputs are
_STAGES = ("build", "train", "evaluate", "predict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """How every round's student learns."""

    config: TrainConfig | None = None  # None: the defaults
    epochs: int | None = None
    num_readers: int | None = None
    device: str = "auto"


class Run(Protocol):
    """Does what is called by a label and draws its bars; a flow does it elsewhere and shows it as a task run."""

    def __call__(self, label: str, call: Callable[[Progress], T], progress: Progress, /) -> T:
        """What `call` returns."""


def run_here(_label: str, call: Callable[[Progress], T], progress: Progress, /) -> T:
    """What `call` returns, done at once and in this process."""
    return call(progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loop:
    """Where a loop goes and what runs it."""

    out: str
    learning: Learning
    executor: Executor
    progress: Progress
    run: Run
    where: str

    def folder(self, number: int) -> str:
        return files.join(self.out, f"round_{number}")


def close_the_loop(
    recipe: Recipe,
    out: str,
    *,
    executor: Executor,
    progress: Progress,
    rounds: int = 2,
    learning: Learning | None = None,
    share: float = FALSE_ALARM_SHARE,
    run: Run = run_here,
    where: str = "recipe",
) -> LoopRecord:
    """What the finished loop in `out` came to, with the report of all rounds; what is finished there is not done again.

    Args:
        recipe: Of the first round.
        out: Folder of the loop, on this machine.
        executor: Where the parts of builds run.
        progress: Shows how far each stage is.
        rounds: How many students are trained at most, 1 or more; fewer where one leaves no false alarm to mine.
        learning: How; None takes the defaults.
        share: Of train's absent prompts that false alarms get from round 2 on, where the recipe gives them none.
        run: Runs training, judging and predicting.
        where: The recipe's name in messages.

    Raises:
        AbsentiaError: a stage cannot be done, or `out` holds another loop, or none.
    """
    if rounds < 1:
        raise RecipeError(f"{rounds} rounds; expected 1 or more")
    _refuse_foreign(out)
    files.make_folder(out)
    how = learning or Learning()
    loop = _Loop(out=os.path.abspath(out), learning=how, executor=executor, progress=progress, run=run, where=where)
    found: list[RoundRecord] = []
    with locked(out, "loop"):
        current = moved(recipe, loop.folder(1))
        for number in range(1, rounds + 1):
            if found:
                predictions = files.join(loop.folder(number - 1), "predictions.parquet")
                current = next_recipe(current, predictions, loop.folder(number), share=share)
            try:
                found.append(_round(number, current, loop, is_last=number == rounds))
            except NothingMinedError as error:
                if not found:
                    raise
                log.info("round %d has nothing to learn from, and the loop ends before it: %s", number, error)
                break
        return _report(recipe.name, found, loop)


def _refuse_foreign(out: str) -> None:
    """Stop where the folder cannot hold a loop, or holds what no loop wrote."""
    if not files.is_local(out):
        raise BuildError(f"{out}: a student is trained in a folder of this machine; expected one. Copy it afterwards")
    names = sorted(os.listdir(out)) if os.path.isdir(out) else []
    foreign = [name for name in names if not _OWN.fullmatch(name)]
    if foreign:
        raise BuildError(
            f"{out}: holds {foreign[0]!r}, which no loop wrote; expected an empty or a new folder, or that of a loop. "
            "Choose another --out"
        )


def _round(number: int, asked: Recipe, loop: _Loop, *, is_last: bool) -> RoundRecord:
    """One round, all of it."""
    folder = loop.folder(number)
    stages = _STAGES[:-1] if is_last else _STAGES
    bar = loop.progress.add_task(f"round {number}", total=len(stages))
    log.info("round %d: %s", number, folder)
    manifest = _build(number, asked, loop)
    loop.progress.advance(bar)
    built, run, judge = files.join(folder, "build"), files.join(folder, "student"), _judge(loop)
    how = loop.learning
    learn = partial(
        train, built, run, config=how.config, epochs=how.epochs, num_readers=how.num_readers, device=how.device
    )
    loop.run(f"train round {number}", learn, loop.progress)
    loop.progress.advance(bar)
    judged = partial(evaluate, run, judge, split=JUDGED_ON)
    evaluation = loop.run(f"evaluate round {number}", judged, loop.progress)
    loop.progress.advance(bar)
    if not is_last:
        answer = partial(predict, run, built, files.join(folder, "predictions.parquet"))
        loop.run(f"predict round {number}", answer, loop.progress)
        loop.progress.advance(bar)
    return _record(number, manifest, evaluation, is_last=is_last)


def _judge(loop: _Loop) -> str:
    """The build by which every round is judged."""
    return files.join(loop.folder(1), "build")


def _build(number: int, asked: Recipe, loop: _Loop) -> Manifest:
    """The round's build, made from the very text that lies beside it as `recipe.toml`."""
    folder = loop.folder(number)
    text, uri, out = encode_recipe(asked), files.join(folder, "recipe.toml"), files.join(folder, "build")
    where = loop.where if number == 1 else uri
    recipe = parse_recipe(text.decode(), where=where, folder=folder)
    if number > 1:
        _lend_work(files.join(loop.folder(number - 1), "build"), out)
    manifest = build(recipe, out, executor=loop.executor, progress=loop.progress, where=where)
    if not files.exists(uri) or files.read_bytes(uri) != text:
        files.write_bytes(uri, text)
    return manifest


def _lend_work(before: str, out: str) -> None:
    """Let the build in `out` find what the one before scanned and embedded; it makes anew what it does not find."""
    if files.exists(files.join(out, MANIFEST_NAME)):
        return
    folders = [Path(before, "work", name) for name in _LENT]
    lent = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in sorted(lent, key=lambda path: path.suffix == ".json"):  # records last: they say that the rest is there
        target = Path(out) / path.relative_to(before)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # there already, or a disk without links
            target.hardlink_to(path)


def _record(number: int, manifest: Manifest, evaluation: Evaluation, *, is_last: bool) -> RoundRecord:
    folder = f"round_{number}"
    return RoundRecord(
        number=number,
        recipe=f"{folder}/recipe.toml",
        build=f"{folder}/build",
        student=f"{folder}/student",
        evaluation=f"{folder}/student/evaluation",
        predictions="" if is_last else f"{folder}/predictions.parquet",
        recipe_sha256=manifest.recipe_sha256,
        inputs_sha256=manifest.inputs_sha256,
        student_sha256=evaluation.predictor_sha256,
        absent=absent_of_train(manifest),
        readings=key_figures(evaluation),
    )


def _report(name: str, rounds: list[RoundRecord], loop: _Loop) -> LoopRecord:
    """The record of the loop, once its report is written; the first round is the baseline of the others."""
    from student.report import MARKDOWN_NAME, PAGE_NAME, Options, write_report

    found = LoopRecord(
        name=name,
        judged_on=rounds[0].build,
        split=JUDGED_ON,
        rounds=rounds,
        report=f"{REPORT}/{PAGE_NAME}",
    )
    uri, folder = files.join(loop.out, LOOP_NAME), files.join(loop.out, REPORT)
    pages = [files.join(folder, page) for page in (MARKDOWN_NAME, PAGE_NAME)]
    if files.exists(uri) and all(map(files.exists, pages)) and read_json(uri, LoopRecord) == found:
        return found
    first, *others = [files.join(loop.out, one.student) for one in rounds]
    write_report(Options(sources=tuple(others or [first]), baseline=first if others else None, goal={}, out=folder))
    write_json(uri, found)
    return found
