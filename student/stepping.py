"""One update of the weights: a lesson, its losses over all ranks, the gradient, AdamW; what is no number stops it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from manifests.errors import TrainingError
from shards.batch import Batch
from student.checkpoint import OPTIMIZER, Checkpoint, Running
from student.config import LossConfig, TrainConfig
from student.distributed import Ranks
from student.learner import Learner, Losses, objective, phase_losses
from student.lesson import Tutor
from student.optimiser import load_optimiser, make_optimiser, optimiser_tensors, set_rate
from student.schedule import ALIGNMENT, Place, rate_factor


class Stepper:
    """The learner with what updates it; `begin` a phase, then `learn` from batch after batch."""

    def __init__(self, learner: Learner, tutor: Tutor, ranks: Ranks) -> None:
        self.learner = learner
        self._tutor = tutor
        self._ranks = ranks
        self._config = tutor.config

    def begin(self, place: Place, resumed: Checkpoint | None) -> None:
        """Train what the phase of `place` trains, with the optimiser of `resumed` or a fresh one.

        Raises:
            CheckpointError: the checkpoint's optimiser is of another model.
        """
        self.learner.teach_only(place.phase, self._config.optimiser)
        self._module = self._ranks.wrap(self.learner, partly=_leaves_some_out(place.phase, self._config.losses))
        self._optimiser = make_optimiser(self.learner, self._config.optimiser)
        is_scaled = self._config.precision == "float16"
        self._scaler = torch.amp.GradScaler(self._ranks.device.type, enabled=is_scaled)
        if resumed is None:
            return
        load_optimiser(self._optimiser, self.learner, resumed.below(OPTIMIZER), resumed.uri)
        if self._scaler.is_enabled() and resumed.state.loss_scale is not None:
            tracked = {"scale": resumed.state.loss_scale, "_growth_tracker": resumed.state.loss_scale_steps}
            self._scaler.load_state_dict({**self._scaler.state_dict(), **tracked})

    def learn(self, batch: Batch, place: Place, *, step: int, stop: bool) -> tuple[Mapping[str, Running], bool]:
        """Each loss over all ranks, before the update that this makes, and whether any rank was asked to `stop`.

        Raises:
            TrainingError: a loss or gradient is no finite number.
        """
        lesson = self._tutor.prepare(batch, place.phase, step=step)
        set_rate(self._optimiser, rate_factor(place, self._config.optimiser))
        with autocast(self._config, self._ranks.device):
            losses = phase_losses(self._module, place.phase, lesson, self._config.losses)
        stopped = torch.tensor([float(stop)], device=self._ranks.device)
        counted_n = self._ranks.sum(torch.cat([_stack([found.num for found in losses.values()]), stopped]))
        num_n, total_n = counted_n[:-1], self._ranks.sum(_stack([found.total for found in losses.values()]))
        if not total_n.isfinite().all():
            self._refuse_losses(losses, batch.keys, step)
        loss = objective(losses, num_n, self._config.losses, world_size=self._ranks.world_size)
        self._update(loss, batch.keys, step)
        found = {
            name: Running(total=total, num=num)
            for name, total, num in zip(losses, total_n.tolist(), num_n.tolist(), strict=True)
        }
        return found, bool(counted_n[-1])

    def _update(self, loss: Tensor, keys: list[str], step: int) -> None:
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(self.learner.parameters(), self._config.optimiser.clip_norm)
        if not self._scaler.is_enabled() and not norm.isfinite():  # a scaler passes over such a step
            raise TrainingError(_not_finite("the gradient", step, self._ranks.gather(keys)))
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._optimiser.zero_grad(set_to_none=True)

    def _refuse_losses(self, losses: Losses, keys: list[str], step: int) -> None:
        wrong = [name for name, summed in losses.items() if not summed.total.isfinite()]
        guilty = self._ranks.gather(keys if wrong else [])
        names = sorted(set(self._ranks.gather(wrong)))
        raise TrainingError(_not_finite(f"the loss ({', '.join(names)})", step, guilty))

    def optimiser_tensors(self) -> dict[str, Tensor]:
        """The optimiser's state, by name."""
        return optimiser_tensors(self._optimiser, self.learner)

    def scale(self) -> tuple[float | None, int]:
        """The loss scale and the updates since it grew; None without one."""
        if not self._scaler.is_enabled():
            return None, 0
        found = self._scaler.state_dict()
        return found["scale"], found["_growth_tracker"]


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """What computes in the config's precision; weights and losses stay in float32."""
    dtype = torch.float16 if config.precision == "float16" else torch.bfloat16
    context: AbstractContextManager[object] = torch.autocast(
        device.type, dtype=dtype, enabled=config.precision != "float32"
    )
    return context


def _leaves_some_out(phase: int, losses: LossConfig) -> bool:
    """Whether a step gives some of what it trains no gradient."""
    return phase == ALIGNMENT or not losses.presence or not (losses.mask_bce or losses.mask_dice)


def _stack(values: list[Tensor]) -> Tensor:
    return torch.stack([value.detach().double() for value in values])


def _not_finite(what: str, step: int, keys: list[str]) -> str:
    return (
        f"step {step + 1}: {what} is no finite number over the samples {', '.join(keys)}; expected one. Look at those "
        "samples, or start another run, with --init RUN for the weights of this one, and a --config of lower "
        'optimiser.learning_rate or precision = "float32"'
    )
