"""What a run leaves in its folder: `last.safetensors`, `best.safetensors`, `run.json`, `config.toml`."""

from dataclasses import dataclass, field

import msgspec
from torch import Tensor

from manifests import files
from student.checkpoint import ALIGN, MODEL, OPTIMIZER, CheckpointState, Running, read_checkpoint, write_checkpoint
from student.config import encode_config
from student.preparing import BEST, LAST, Prepared
from student.run_record import CONFIG_NAME, Best, RunRecord, ValChoice, write_run
from student.schedule import Schedule
from student.stepping import Stepper


@dataclass(slots=True, kw_only=True)
class Standing:
    """How far a run is."""

    step: int = 0  # updates so far
    validated: int = 0  # the step at which val was last looked at
    best: Best | None = None
    running: dict[str, Running] = field(default_factory=dict)  # losses since the last line of the history
    order_digest: str = ""
    choice: ValChoice | None = None  # of val for the best weights, once all steps are done
    finished: bool = False

    def told(self, record: RunRecord) -> RunRecord:
        """The record of the run as far as it came."""
        return msgspec.structs.replace(
            record, steps=self.step, best=self.best, choice=self.choice, finished=self.finished
        )

    def remember(self, found: dict[str, Running]) -> None:
        """Add the losses of a step to those that are running."""
        for name, loss in found.items():
            before = self.running.get(name, Running(total=0.0, num=0.0))
            self.running[name] = Running(total=before.total + loss.total, num=before.num + loss.num)

    def means(self) -> dict[str, float]:
        """The running losses, each over what it was measured on; those of nothing are left out."""
        return {name: found.total / found.num for name, found in self.running.items() if found.num}


def standing_of(state: CheckpointState | None) -> Standing:
    """Where the checkpoint stood, or the beginning."""
    if state is None:
        return Standing()
    return Standing(
        step=state.step,
        validated=state.validated,
        best=state.best,
        running=dict(state.running),
        order_digest=state.order_digest,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Saver:
    """Writes checkpoints of one run; only the rank that leads has one."""

    prepared: Prepared
    schedule: Schedule
    stepper: Stepper

    def begin(self) -> None:
        """Say what the run is, before it is anything."""
        out = self.prepared.request.out
        write_run(out, self.prepared.record)
        files.write_bytes(files.join(out, CONFIG_NAME), encode_config(self.prepared.settled.config))

    def save_best(self, standing: Standing) -> None:
        """Keep the model alone."""
        write_checkpoint(self._uri(BEST), self._model(), self._state(standing))

    def keep_choice(self, choice: ValChoice) -> None:
        """Write what val chose into the best checkpoint; its weights stay as they are."""
        found = read_checkpoint(self._uri(BEST))
        write_checkpoint(found.uri, found.tensors, msgspec.structs.replace(found.state, choice=choice))

    def save_last(self, standing: Standing) -> RunRecord:
        """Keep all that resuming needs, then say so in `run.json`; what that says."""
        align = self.stepper.learner.align.state_dict()
        optimiser = self.stepper.optimiser_tensors()
        tensors = self._model() | _named(ALIGN, align) | _named(OPTIMIZER, optimiser)
        write_checkpoint(self._uri(LAST), tensors, self._state(standing))
        record = standing.told(self.prepared.record)
        write_run(self.prepared.request.out, record)
        return record

    def _model(self) -> dict[str, Tensor]:
        return _named(MODEL, self.stepper.learner.student.state_dict())

    def _uri(self, name: str) -> str:
        return files.join(self.prepared.request.out, name)

    def _state(self, standing: Standing) -> CheckpointState:
        settled, record = self.prepared.settled, self.prepared.record
        place = self.schedule.at(max(standing.step - 1, 0))
        loss_scale, loss_scale_steps = self.stepper.scale()
        return CheckpointState(
            start=record.start,
            began=record.began,
            phase=place.phase,
            epoch=place.epoch + (1 if standing.step and place.ends_epoch else 0),
            step=standing.step,
            position=standing.step * settled.config.batch_size,
            order_digest=standing.order_digest,
            config=settled.config,
            builds=settled.builds,
            teacher=settled.teacher,
            phases=settled.phases,
            epochs=settled.epochs,
            one_class=record.one_class,
            positives_only=settled.positives_only,
            finished=standing.finished,
            validated=standing.validated,
            best=standing.best,
            choice=standing.choice,
            loss_scale=loss_scale,
            loss_scale_steps=loss_scale_steps,
            running=standing.running,
        )


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}
