"""How long a run is and where it stands: phases, epochs and steps, and the learning rate of each; pure arithmetic.

An epoch is as many whole batches as its samples need, so a batch may straddle two epochs of the reader, and every
phase begins with a whole batch. Positions run on through the phases.
"""

import math
from dataclasses import dataclass

from student.config import OptimiserConfig

ALIGNMENT, REFINEMENT = 1, 2  # the phases


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one step lies; all but the phase 0-based."""

    phase: int
    epoch: int  # of the phase
    step: int  # of the phase
    num_steps: int  # of the phase
    ends_epoch: bool
    ends_phase: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Phases one after another."""

    phases: tuple[int, ...]
    epochs: tuple[int, ...]  # of each phase
    epoch_steps: int

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return sum(self.epochs) * self.epoch_steps

    def at(self, step: int) -> Place:
        """Where the step of number `step` (0-based, of the whole run) lies."""
        first = 0
        for phase, epochs in zip(self.phases, self.epochs, strict=True):
            num = epochs * self.epoch_steps
            if step < first + num:
                within = step - first
                ends_epoch = (within + 1) % self.epoch_steps == 0
                return Place(
                    phase=phase,
                    epoch=within // self.epoch_steps,
                    step=within,
                    num_steps=num,
                    ends_epoch=ends_epoch,
                    ends_phase=within + 1 == num,
                )
            first += num
        raise IndexError(f"step {step} of {self.num_steps}")


def make_schedule(phases: tuple[int, ...], epochs: tuple[int, ...], *, epoch_samples: int, batch_size: int) -> Schedule:
    """The schedule of a run over `epoch_samples` samples."""
    return Schedule(phases=phases, epochs=epochs, epoch_steps=-(-epoch_samples // batch_size))


def rate_factor(place: Place, config: OptimiserConfig) -> float:
    """What the learning rates are multiplied by: up in a line, then down along a cosine to zero."""
    warmup = config.warmup * place.num_steps
    if place.step < warmup:
        return (place.step + 1) / (warmup + 1)
    gone = (place.step - warmup) / max(place.num_steps - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * gone))
