"""The training loop: phases of lessons, a look at val after each epoch, checkpoints in between.

All that a step depends on is its position, the seed and the weights, so a run that was stopped anywhere goes on to the
same losses. Ranks agree on everything that they decide by summing it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from time import perf_counter

import torch
from rich.progress import Progress, TaskID

from manifests.errors import CheckpointError
from shards.batch import Batch
from shards.reader import Loader
from student.choosing import choose_on_val
from student.config import TrainConfig
from student.curves import draw_curves
from student.distributed import Ranks
from student.history import History, LossLine
from student.lesson import Tutor
from student.opening import open_train, open_val
from student.preparing import Prepared
from student.run_record import Best, ValChoice
from student.saving import Saver, Standing, standing_of
from student.schedule import ALIGNMENT, REFINEMENT, Place, Schedule, make_schedule, rate_factor
from student.stepping import Stepper, autocast
from student.validation import judge, validate


@dataclass(slots=True, kw_only=True)
class Trainer:
    """A run at work; `run` is the way in."""

    prepared: Prepared
    config: TrainConfig
    ranks: Ranks
    stop: Event
    schedule: Schedule
    stepper: Stepper
    val: Loader
    standing: Standing
    saver: Saver | None  # of the rank that leads, as is the history
    history: History | None
    progress: Progress
    bar: TaskID
    since: tuple[float, int] = (0.0, 0)  # clock and step when the last line was logged

    def run(self) -> None:
        """Train to the end, or to the step at which any rank is asked to stop."""
        standing = self.standing
        if standing.step == self.schedule.num_steps:  # it was killed between its last step and its end
            self.stepper.begin(self.schedule.at(standing.step - 1), self.prepared.resumed)
        while standing.step < self.schedule.num_steps:
            if not self._run_phase(self.schedule.at(standing.step)):
                self._save()
                return
        self._finish()

    def _run_phase(self, begins: Place) -> bool:
        """Run to the end of the phase; False where this was asked to stop before."""
        standing = self.standing
        loader = self._begin(begins)
        for batch in self._batches(loader):
            place = self.schedule.at(standing.step)
            found, stops = self.stepper.learn(batch, place, step=standing.step, stop=self.stop.is_set())
            standing.step += 1
            standing.remember(dict(found))
            self.progress.advance(self.bar)
            self._log(place, batch.position)
            if stops and standing.step < self.schedule.num_steps:
                return False
            if place.ends_epoch:
                self._close_epoch(place)
            elif standing.step % self.config.checkpoint_steps == 0:
                self._save()
        return standing.step > 0 and self.schedule.at(standing.step - 1).ends_phase

    def _batches(self, loader: Loader) -> Iterator[Batch]:
        """The loader's batches; a worker that was just starting may end by the same SIGTERM."""
        try:
            yield from loader
        except RuntimeError:
            if not self.stop.is_set():
                raise

    def _begin(self, place: Place) -> Loader:
        """Ready the phase of `place`, from there on; what it reads."""
        resumed, standing = self.prepared.resumed, self.standing
        goes_on = resumed is not None and place.step > 0 and standing.step == resumed.state.step
        self.stepper.begin(place, resumed if goes_on else None)
        if standing.step > standing.validated and (before := self.schedule.at(standing.step - 1)).ends_epoch:
            self._close_epoch(before)  # it was stopped just before
        phase_ends = standing.step - place.step + place.num_steps
        loader = open_train(self.prepared, self.ranks, phase=place.phase, position=standing.step, num_steps=phase_ends)
        if standing.order_digest not in {"", loader.order_digest}:
            raise CheckpointError(
                f"{self.prepared.request.out}: its samples came in an order that these builds no longer have; expected "
                "the same builds, in the same order on the command line"
            )
        standing.order_digest = loader.order_digest
        self.since = perf_counter(), standing.step
        return loader

    def _log(self, place: Place, position: int) -> None:
        """A line of the history, where one is due."""
        step = self.standing.step
        if step % self.config.log_steps and not place.ends_epoch:
            return
        now, (clock, before), means = perf_counter(), self.since, self.standing.means()
        line = LossLine(
            phase=place.phase,
            epoch=place.epoch,
            step=step,
            position=position,
            losses=means,
            learning_rate=self.config.optimiser.learning_rate * rate_factor(place, self.config.optimiser),
            samples_s=(step - before) * self.config.batch_size / (now - clock),
        )
        self.standing.running, self.since = {}, (now, step)
        if self.history is not None:
            self.history.add_losses(line)
        shown = " ".join(f"{name.rpartition('_')[2]} {value:.3f}" for name, value in means.items())
        self.progress.update(self.bar, description=f"{place.phase}.{place.epoch + 1} {shown}")

    def _close_epoch(self, place: Place) -> None:
        """Look at val, keep the weights if they are the best, and save."""
        standing = self.standing
        if place.phase != ALIGNMENT:
            student = self.stepper.learner.student
            found = validate(student, self.val, self.config, self.ranks, autocast(self.config, self.ranks.device))
            value, metric = judge(found, one_class=self.prepared.one_class)
            if self.history is not None:
                self.history.add_validation(place.phase, place.epoch, standing.step, found)
            if standing.best is None or value >= standing.best.value:
                self._keep(Best(step=standing.step, value=value, metric=metric, mask_threshold=found.mask_threshold))
        standing.validated = standing.step
        self._save()
        self.since = perf_counter(), standing.step

    def _keep(self, best: Best) -> None:
        self.standing.best = best
        if self.saver is not None:
            self.saver.save_best(self.standing)

    def _save(self) -> None:
        if self.saver is not None:
            self.saver.save_last(self.standing)

    def _finish(self) -> None:
        if self.standing.best is None:
            self._keep(Best(step=self.standing.step, value=0.0, metric="none: phase 1 alone is not judged"))
        if self.saver is not None:
            self.standing.choice = self._choose()
            self.saver.keep_choice(self.standing.choice)
            draw_curves(self.prepared.request.out)  # before the run is finished: nothing is drawn after that
        self.standing.finished = True
        self._save()

    def _choose(self) -> ValChoice:
        """What val chooses for the best weights; only the rank that leads asks it."""
        prepared = self.prepared
        used = dict(zip(prepared.request.builds, prepared.settled.builds, strict=True))
        return choose_on_val(
            prepared.request.out,
            {folder: used[folder] for folder in prepared.val_builds},
            device=self.ranks.device,
            progress=self.progress,
            why_not="" if REFINEMENT in prepared.settled.phases else "phase 1 alone teaches no presence",
        )


def train(prepared: Prepared, ranks: Ranks, progress: Progress, stop: Event) -> Standing:
    """How far the run came; `finished` says whether to its end.

    Raises:
        TrainingError: a loss or gradient is no number.
        AbsentiaError: a sample cannot be read.
    """
    trainer = _make_trainer(prepared, ranks, progress, stop)
    try:
        trainer.run()
    finally:
        if trainer.history is not None:
            trainer.history.close()
    return trainer.standing


def _make_trainer(prepared: Prepared, ranks: Ranks, progress: Progress, stop: Event) -> Trainer:
    settled, learner = prepared.settled, prepared.learner.to(ranks.device)
    learner.student.image.to(memory_format=torch.channels_last)
    tutor = Tutor(
        config=settled.config,
        device=ranks.device,
        teacher=prepared.teacher,
        soft=prepared.soft,
        positives_only=settled.positives_only,
    )
    stepper = Stepper(learner.train(), tutor, ranks)
    schedule = make_schedule(
        tuple(settled.phases),
        tuple(settled.epochs),
        epoch_samples=open_train(prepared, ranks, phase=0, position=0, num_steps=0).epoch_samples,
        batch_size=settled.config.batch_size,
    )
    standing = standing_of(prepared.resumed.state if prepared.resumed else None)
    ranks.gather([])  # every rank has looked at the folder before one writes there
    saver = Saver(prepared=prepared, schedule=schedule, stepper=stepper) if ranks.leads else None
    if saver is not None:
        saver.begin()
    return Trainer(
        prepared=prepared,
        config=settled.config,
        ranks=ranks,
        stop=stop,
        schedule=schedule,
        stepper=stepper,
        val=open_val(prepared, ranks),
        standing=standing,
        saver=saver,
        history=History(prepared.request.out, step=standing.step) if ranks.leads else None,
        progress=progress,
        bar=progress.add_task("train", total=schedule.num_steps, completed=standing.step),
    )
