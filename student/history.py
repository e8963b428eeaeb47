"""What a run saw of its losses, line by line: `history.jsonl`, and the same for TensorBoard.

After a resume the history goes on where the checkpoint stood: lines of steps that are done again are dropped first.
"""

import contextlib
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

import msgspec

from manifests import files
from manifests.errors import CheckpointError
from student.run_record import HISTORY_NAME

if TYPE_CHECKING:
    from student.validation import Validation  # which imports torch, and a report reads histories without it

TENSORBOARD = "tensorboard"


class LossLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mean losses over the steps since the line before."""

    phase: int
    epoch: int  # of the phase, 0-based
    step: int  # of the run: updates so far
    position: int  # samples so far
    losses: dict[str, float]
    learning_rate: float
    samples_s: float


class ValLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an epoch ended in."""

    phase: int
    epoch: int
    step: int
    val: dict[str, float | None]


class _Line(msgspec.Struct, kw_only=True):
    """Either; what is left out tells which."""

    step: int
    losses: dict[str, float] | None = None


def read_history(folder: str) -> list[LossLine | ValLine]:
    """The lines of a run in order; none where nothing was logged. A last line that was cut is passed over.

    Raises:
        CheckpointError: another line is none of ours.
    """
    uri = files.join(folder, HISTORY_NAME)
    if not files.exists(uri):
        return []
    found: list[LossLine | ValLine] = []
    lines = files.read_bytes(uri).split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line's end was cut
        try:
            losses = msgspec.json.decode(line, type=_Line).losses
            if losses is None:
                found.append(msgspec.json.decode(line, type=ValLine))
            else:
                found.append(msgspec.json.decode(line, type=LossLine))
        except msgspec.MsgspecError as error:
            raise CheckpointError(f"{uri}:{number}: expected a line of a training run, found: {error}") from error
    return found


class History:
    """Writes lines; `close` ends it."""

    def __init__(self, folder: str, *, step: int) -> None:
        """Go on after `step` updates: lines beyond are dropped.

        Raises:
            StorageError: the disk is full, or the folder read-only; so for all that follows.
        """
        from torch.utils.tensorboard import SummaryWriter

        kept = [msgspec.json.encode(line) + b"\n" for line in read_history(folder) if line.step <= step]
        uri = files.join(folder, HISTORY_NAME)
        files.write_bytes(uri, b"".join(kept))
        self._uri = uri
        with files.storage_errors(uri):
            self._file: IO[bytes] = open(uri, "ab")  # noqa: SIM115 - open for as long as the run
            self._board: Any = SummaryWriter(files.join(folder, TENSORBOARD), purge_step=step + 1)

    def add_losses(self, line: LossLine) -> None:
        """Log a line of losses."""
        self._add(line, {**{f"train/{name}": value for name, value in line.losses.items()}, "rate": line.learning_rate})

    def add_validation(self, phase: int, epoch: int, step: int, found: "Validation") -> None:
        """Log what an epoch ended in."""
        val: dict[str, float | None] = msgspec.structs.asdict(found)
        shown = {f"val/{name}": value for name, value in val.items() if value is not None and "num" not in name}
        self._add(ValLine(phase=phase, epoch=epoch, step=step, val=val), shown)

    def _add(self, line: LossLine | ValLine, scalars: Mapping[str, float]) -> None:
        with files.storage_errors(self._uri):
            self._file.write(msgspec.json.encode(line) + b"\n")
            self._file.flush()
            for name, value in scalars.items():
                self._board.add_scalar(name, value, line.step)

    def close(self) -> None:
        """Write out what is held back."""
        with files.storage_errors(self._uri), contextlib.closing(self._board):
            self._file.close()
