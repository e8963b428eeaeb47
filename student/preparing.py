"""Everything that can be refused before the first step is: the request, the data, the teacher, the checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import torch

from manifests import files
from manifests.errors import CheckpointError, TrainingError
from manifests.tables import list_tables
from student.checkpoint import ALIGN, MODEL, SUFFIX, Checkpoint, CheckpointState, fill, read_checkpoint
from student.config import TrainConfig
from student.initial import init_from
from student.learner import Learner, weights_of
from student.model import Student, num_parameters
from student.run_record import (
    BuildUsed,
    InitReport,
    RunRecord,
    TableUsed,
    build_used,
    name_of,
    read_run,
    table_used,
    versions,
    write_run,
)
from student.schedule import ALIGNMENT
from student.soft_targets import SoftTargets, read_soft_targets
from student.survey import Survey, having, require_both_classes, require_short, survey
from student.teacher import Teacher, read_teacher

DEFAULT_EPOCHS = {1: 2, 2: 10}
LAST, BEST = "last" + SUFFIX, "best" + SUFFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command was asked for; None leaves it to the default, or to the run that is resumed."""

    builds: Mapping[str, float | None]  # weight of each folder; all None: in proportion to their samples
    out: str
    config: TrainConfig | None = None
    teacher: tuple[str, ...] = ()
    predictions: str | None = None
    phases: tuple[int, ...] | None = None
    epochs: tuple[int, ...] | None = None
    init: str | None = None
    resume: bool = False
    allow_one_class: bool = False
    positives_only: bool = False
    num_workers: int = 0
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a run is: equal for a run and its resumption."""

    config: TrainConfig
    builds: list[BuildUsed]
    teacher: list[TableUsed]
    phases: list[int]
    epochs: list[int]
    positives_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that may begin."""

    request: Request
    settled: Settled
    learner: Learner
    train: Survey
    train_builds: list[str]  # those that have samples to learn from
    val_builds: list[str]
    one_class: bool
    teacher: Teacher | None = None
    soft: SoftTargets | None = None
    init: InitReport | None = None
    resumed: Checkpoint | None = None
    before: RunRecord | None = field(default=None)  # of the run that is resumed

    @property
    def soft_unused(self) -> bool:
        """Whether a predictions table was given that has no part in any target."""
        losses = self.settled.config.losses
        weighs = losses.soft_presence or losses.soft_mask
        return self.soft is not None and not weighs and self.train.num_masked == self.train.num_present

    @property
    def record(self) -> RunRecord:
        """What the run says of itself before its first step."""
        before, settled = self.before, self.settled
        return RunRecord(
            name=name_of(self.request.out),
            start="resume" if self.resumed else "init" if self.init else "scratch",
            began="init" if self.init else "scratch",
            init=self.init,
            builds=settled.builds,
            teacher=settled.teacher,
            phases=settled.phases,
            epochs=settled.epochs,
            num_parameters=num_parameters(self.learner.student),
            num_present=self.train.num_present,
            num_absent=self.train.num_absent,
            one_class=self.one_class,
            positives_only=settled.positives_only,
            not_taught=self.teacher.num_unknown(sorted(self.train.phrases)) if self.teacher else 0,
            versions=versions(),
            steps=self.resumed.state.step if self.resumed else 0,
            num_resumed=(before.num_resumed if before else 0) + (1 if self.resumed else 0),
            best=self.resumed.state.best if self.resumed else None,
        )


def prepare(request: Request) -> Prepared | RunRecord:
    """The run that was asked for, or the record of an equal one that is finished already.

    Raises:
        TrainingError: the data teach nothing, or the request does not add up.
        CheckpointError: there is nothing to resume or to begin with, or it is of another run or model.
        AbsentiaError: a build, table or config cannot be used.
    """
    before = _record_of(request.out)
    resumed = _resumed(request)
    settled = _settle(request, resumed.state if resumed else None)
    if resumed is not None:
        _require_equal(request.out, settled, resumed.state)
    elif before is not None and (finished := _stands_already(request, settled, before)):
        return finished
    train_builds, val_builds = having(request.builds, "train"), having(request.builds, "val")
    train = survey(train_builds, "train")
    allowed = request.allow_one_class or request.positives_only
    one_class = require_both_classes(train, allowed=allowed, builds=train_builds) or request.positives_only
    require_short(train, context=settled.config.model.context)
    require_short(survey(val_builds, "val"), context=settled.config.model.context)
    teacher = read_teacher(request.teacher) if request.teacher and ALIGNMENT in settled.phases else None
    learner = _make_learner(settled.config, teacher, fresh=resumed is None)
    init = before.init if resumed is not None and before is not None else None
    if resumed is not None:
        fill(learner.student.state_dict(), resumed.below(MODEL), resumed.uri)
        fill(learner.align.state_dict(), resumed.below(ALIGN), resumed.uri)
    elif request.init is not None:
        init = init_from(learner.student, request.init)
    return Prepared(
        request=request,
        settled=settled,
        learner=learner,
        train=train,
        train_builds=train_builds,
        val_builds=val_builds,
        one_class=one_class,
        teacher=teacher,
        soft=read_soft_targets(request.predictions, train.image_keys) if request.predictions else None,
        init=init,
        resumed=resumed,
        before=before,
    )


def _make_learner(config: TrainConfig, teacher: Teacher | None, *, fresh: bool) -> Learner:
    """The student before its first step; the same for a seed."""
    torch.manual_seed(config.seed)
    model = config.model if fresh else msgspec.structs.replace(config.model, pretrained=False)
    return Learner(Student(model), teacher.width if teacher else None)


def _record_of(out: str) -> RunRecord | None:
    """The record in `out`; a run that was killed between its last checkpoint and its record is told to its end."""
    record, last = read_run(out), files.join(out, LAST)
    if record is None or record.finished or not files.exists(last):
        return record
    state = read_checkpoint(last).state
    if not state.finished:
        return record
    told = msgspec.structs.replace(record, steps=state.step, best=state.best, choice=state.choice, finished=True)
    write_run(out, told)
    return told


def _resumed(request: Request) -> Checkpoint | None:
    """What to go on from; a finished run is none.

    Raises:
        CheckpointError: there is none, its run is finished, or the best weights so far are gone.
    """
    if not request.resume:
        return None
    found = read_checkpoint(files.join(request.out, LAST))
    if found.state.finished:
        raise CheckpointError(
            f"{request.out}: this run is finished after {found.state.step} steps; expected one that was stopped. To "
            f"train on from its weights, start another with --init {request.out}"
        )
    best = files.join(request.out, BEST)
    if found.state.best is not None and not files.exists(best):
        raise CheckpointError(
            f"{best}: is gone, though val found the best weights so far at step {found.state.best.step}; expected it "
            f"beside {LAST}. Put it back, or delete {request.out} and train anew"
        )
    return found


def _settle(request: Request, state: CheckpointState | None) -> Settled:
    config = request.config or (state.config if state else TrainConfig())
    default = (1, 2) if request.teacher else (2,)
    phases = request.phases or (tuple(state.phases) if state else default)
    epochs = request.epochs or (tuple(state.epochs) if state else tuple(DEFAULT_EPOCHS[phase] for phase in phases))
    _require_sense(request, config, phases, epochs)
    teacher = [table_used(uri, "features", list_tables(uri)) for uri in request.teacher]
    if request.predictions:
        teacher.append(table_used(request.predictions, "predictions", list_tables(request.predictions)))
    return Settled(
        config=config,
        builds=[build_used(folder, weight) for folder, weight in request.builds.items()],
        teacher=teacher,
        phases=list(phases),
        epochs=list(epochs),
        positives_only=request.positives_only,
    )


def _require_sense(request: Request, config: TrainConfig, phases: tuple[int, ...], epochs: tuple[int, ...]) -> None:
    if ALIGNMENT in phases and not request.teacher:
        raise TrainingError(
            "phase 1 aligns the student's features to a teacher's; expected --teacher FEATURES. Write some with "
            "miners.embed, or train with --phases 2"
        )
    if request.teacher and not request.resume and ALIGNMENT not in phases:
        raise TrainingError(
            "--teacher FEATURES teach in phase 1 alone, and it is not among the phases; expected it there. Train with "
            "--phases 1,2, or leave --teacher out"
        )
    if len(phases) != len(epochs):
        raise TrainingError(
            f"{len(epochs)} numbers of epochs for {len(phases)} phases; expected one for each. Give --epochs "
            f"{','.join(str(DEFAULT_EPOCHS[phase]) for phase in phases)} or so"
        )
    weights = weights_of(config.losses)
    for phase in phases:
        names = [name for name in weights if name.startswith("align_") == (phase == ALIGNMENT)]
        if not any(weights[name] for name in names):
            raise TrainingError(
                f"config: {', '.join(names)} are all 0, so phase {phase} has nothing to learn; expected one above 0 "
                "in [losses]"
            )


def _require_equal(out: str, settled: Settled, state: CheckpointState) -> None:
    """Stop where a resumption is of other data or settings than its run."""
    here = {build.sha256: build.weight for build in settled.builds}
    if here != {build.sha256: build.weight for build in state.builds}:
        raise CheckpointError(
            f"{out}: was trained on {_names(state.builds)}, and these are other samples or weights: "
            f"{_names(settled.builds)}; expected the same builds. Start another run, with --init {out} for its weights"
        )
    if [table.sha256 for table in settled.teacher] != [table.sha256 for table in state.teacher]:
        raise CheckpointError(f"{out}: had other teacher tables; expected the same. Give those that it began with")
    for name in ("config", "phases", "epochs", "positives_only"):
        if getattr(settled, name) != getattr(state, name):
            cure = "Leave it out, and the run's own is taken"
            if name == "positives_only":
                cure = "Give --positives-only again" if state.positives_only else "Leave --positives-only out"
            raise CheckpointError(
                f"{out}: {name} is not what the run began with{_difference(settled, state, name)}; expected the same. "
                f"{cure}"
            )


def _names(builds: list[BuildUsed]) -> str:
    return ", ".join(f"{build.name} {build.sha256[:12]}" for build in builds)


def _difference(settled: Settled, state: CheckpointState, name: str) -> str:
    """Where two values part, in brackets."""
    found, expected = msgspec.to_builtins(getattr(settled, name)), msgspec.to_builtins(getattr(state, name))
    if not isinstance(found, dict):
        return f" (found {found}, began with {expected})"
    parts = [f"{key}: {found[key]} is not {expected[key]}" for key in found if found[key] != expected[key]]
    return f" ({'; '.join(parts)})"


def _stands_already(request: Request, settled: Settled, before: RunRecord) -> RunRecord | None:
    """The record of a finished run that is what was asked for; None where none was begun in earnest.

    Raises:
        CheckpointError: the folder holds another run, or one that was stopped.
    """
    last = files.join(request.out, LAST)
    if not files.exists(last):
        return None
    state = read_checkpoint(last).state
    if not state.finished:
        raise CheckpointError(
            f"{request.out}: holds a run that was stopped after {state.step} steps; expected an empty folder. Go on "
            "with --resume, or choose another --out"
        )
    _require_equal(request.out, settled, state)
    if (before.init.source if before.init else None) != request.init:
        raise CheckpointError(
            f"{request.out}: holds a finished run that began with other weights; expected the same --init. Choose "
            "another --out"
        )
    return before
