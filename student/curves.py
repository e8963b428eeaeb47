"""The curves of a run as one picture: losses of training above, figures of validation below."""

import io
from collections.abc import Sequence

from manifests import files
from student.history import LossLine, ValLine, read_history

CURVES_NAME = "curves.png"
_SHOWN = ("il_mcc", "miou", "presence_loss")

Points = dict[str, list[tuple[int, float]]]  # (step, value) by name


def draw_curves(folder: str) -> None:
    """Write `curves.png` of the run in `folder`, from its history."""
    from matplotlib.figure import Figure

    lines = read_history(folder)
    figure = Figure(figsize=(8, 6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for panel, points, title in zip(panels, curves_of(lines), ("training loss", "validation"), strict=True):
        for name, found in points.items():
            panel.plot(*zip(*found, strict=True), label=name, marker="." if len(found) < 50 else "")
        panel.set_title(title, loc="left")
        panel.grid(visible=True, alpha=0.3)
        if points:
            panel.legend(fontsize="small")
    panels[-1].set_xlabel("step")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120, metadata={"Software": None})
    files.write_bytes(files.join(folder, CURVES_NAME), drawn.getvalue())


def curves_of(lines: Sequence[LossLine | ValLine]) -> tuple[Points, Points]:
    """The losses, and the figures of validation that are defined."""
    losses: Points = {}
    val: Points = {}
    for line in lines:
        if isinstance(line, LossLine):
            for name, value in line.losses.items():
                losses.setdefault(name, []).append((line.step, value))
        else:
            for name in _SHOWN:
                if (figure := line.val.get(name)) is not None:
                    val.setdefault(name, []).append((line.step, figure))
    return losses, val
