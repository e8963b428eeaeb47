"""Training curves of a run: losses by step and what was read on val after each epoch, thinned to what can be drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from student.history import LossLine, ValLine, read_history

MOST_POINTS = 240  # of a drawn curve; neighbours are averaged

Point = tuple[float, float]  # step, value


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One quantity over training steps."""

    name: str  # of a loss, or a figure's key on val
    is_val: bool
    points: tuple[Point, ...]


def read_curves(folder: str) -> list[Curve]:
    """The curves of the run in `folder`, losses first; none where it kept no history.

    Raises:
        CheckpointError: the history is damaged.
    """
    return curves_of(read_history(folder))


def curves_of(lines: Sequence[LossLine | ValLine]) -> list[Curve]:
    """The curves of a history; a step that was done again counts as it was done last."""
    losses: dict[str, dict[float, float]] = {}
    val: dict[str, dict[float, float]] = {}
    for line in lines:
        found, curves = (line.losses, losses) if isinstance(line, LossLine) else (line.val, val)
        for name, value in found.items():
            if value is not None and not name.startswith("num_"):
                curves.setdefault(name, {})[line.step] = value
    return [*_curves(losses, is_val=False), *_curves(val, is_val=True)]


def _curves(found: Mapping[str, Mapping[float, float]], *, is_val: bool) -> list[Curve]:
    return [Curve(name=name, is_val=is_val, points=thin(sorted(points.items()))) for name, points in found.items()]


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most `most` points, each the mean of its neighbours."""
    size = max(1, -(-len(points) // most))
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple((sum(x for x, _ in one) / len(one), sum(y for _, y in one) / len(one)) for one in blocks)
