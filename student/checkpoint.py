"""Checkpoints: safetensors whose metadata says what they are; one file each, so that one rename commits it.

`last.safetensors` holds all that resuming needs (`model.`, `align.` and `optimizer.` tensors), `best.safetensors` the
model alone. Nothing is ever unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from manifests import files
from manifests.errors import CheckpointError
from student.config import TrainConfig
from student.image_weights import is_plain_name
from student.model import Student
from student.predictor import MASK_THRESHOLD
from student.readings import Start
from student.run_record import Best, BuildUsed, TableUsed, ValChoice, require_schema

CHECKPOINT_SCHEMA = 1
MODEL, ALIGN, OPTIMIZER = "model.", "align.", "optimizer."  # what tensors' names begin with
SUFFIX = ".safetensors"
_STATE = "absentia"  # key of the state in the file's metadata
_LONGEST_HEADER = 100 << 20
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

Which = Literal["best", "last"]


class Running(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A loss over the steps since the last line of the history."""

    total: float
    num: float


class CheckpointState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint is, and where its run stood."""

    schema: int = CHECKPOINT_SCHEMA
    start: Start  # scratch | init | resume: how the process that wrote it began
    began: Start  # scratch | init
    phase: int
    epoch: int  # of the phase, 0-based; one more than its last once the phase is done
    step: int  # of the whole run: updates so far
    position: int  # samples consumed by all ranks; where the reader goes on
    order_digest: str  # of the reader's order: a position means the same in equal ones alone
    config: TrainConfig
    builds: list[BuildUsed]
    teacher: list[TableUsed]
    phases: list[int]
    epochs: list[int]
    one_class: bool
    positives_only: bool
    finished: bool
    validated: int = 0  # the step at which val was last looked at
    best: Best | None = None
    choice: ValChoice | None = None  # for the best weights, once the run is finished
    loss_scale: float | None = None  # of float16 on a GPU
    loss_scale_steps: int = 0  # updates since it grew
    running: dict[str, Running] = {}

    @property
    def mask_threshold(self) -> float:
        """Above which a pixel of these weights' masks is set; val chose it for the best ones alone."""
        return self.best.mask_threshold if self.best is not None and self.best.step == self.step else MASK_THRESHOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint as it was read."""

    uri: str
    state: CheckpointState
    tensors: dict[str, Tensor]

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix`, without it."""
        return {name.removeprefix(prefix): found for name, found in self.tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A student as a run left it."""

    student: Student  # in evaluation mode, on the CPU
    config: TrainConfig
    state: CheckpointState


def load_student(run: str, which: Which = "best") -> Loaded:
    """The student of the folder `run`.

    Raises:
        CheckpointError: it has no such checkpoint, or one that is pickled, cut short, newer, or of another model.
    """
    checkpoint = read_checkpoint(files.join(run, which + SUFFIX))
    state = checkpoint.state
    student = Student(msgspec.structs.replace(state.config.model, pretrained=False))
    fill(student.state_dict(), checkpoint.below(MODEL), checkpoint.uri)
    return Loaded(student=student.eval(), config=state.config, state=state)


def fill(into: Mapping[str, Tensor], found: Mapping[str, Tensor], uri: str) -> None:
    """Copy every tensor of `found` into that of its name; both must have the same names and shapes.

    Raises:
        CheckpointError: they have not.
    """
    missing, unexpected = sorted(into.keys() - found.keys()), sorted(found.keys() - into.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{uri}: is of another model: {len(missing)} tensors missing ({_some(missing)}), {len(unexpected)} "
            f"unexpected ({_some(unexpected)}); expected those of the model that its config describes"
        )
    require_shapes(into, found, uri)
    for name, tensor in into.items():
        tensor.copy_(found[name])


def require_shapes(into: Mapping[str, Tensor], found: Mapping[str, Tensor], uri: str) -> None:
    """Stop where tensors of one name differ in shape.

    Raises:
        CheckpointError: they do.
    """
    for name in sorted(into.keys() & found.keys()):
        if into[name].shape != found[name].shape:
            raise CheckpointError(
                f"{uri}: {name} is {list(found[name].shape)}, expected {list(into[name].shape)}; it is of another "
                "model. Give the [model] of its config.toml, or another checkpoint"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") or "none"


def write_checkpoint(uri: str, tensors: Mapping[str, Tensor], state: CheckpointState) -> None:
    """Write `tensors` and `state` at `uri`, whole or not at all."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    encoded = msgspec.json.encode(state, order="deterministic").decode()
    files.write_bytes(uri, save(flat, metadata={_STATE: encoded}))


def read_checkpoint(uri: str) -> Checkpoint:
    """The checkpoint at `uri`, its tensors on the CPU.

    Raises:
        CheckpointError: there is none, or it is pickled, cut short, foreign, or newer.
    """
    data = _read(uri)
    metadata = _metadata(uri, data)
    if (encoded := metadata.get(_STATE)) is None:
        raise CheckpointError(
            f"{uri}: is a safetensors file of another program; expected a checkpoint of student.train"
        )
    try:
        require_schema(uri, msgspec.json.decode(encoded, type=dict), CHECKPOINT_SCHEMA)
        state = msgspec.json.decode(encoded, type=CheckpointState)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise CheckpointError(f"{uri}: its state cannot be read: {error}; expected one of student.train") from error
    if not is_plain_name(encoder := state.config.model.image_encoder):
        raise CheckpointError(
            f"{uri}: its image encoder {encoder!r} names a hub or a folder; expected a model that timm itself has"
        )
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{uri}: is cut short or damaged: {error}; copy it again, or train again") from error
    return Checkpoint(uri=uri, state=state, tensors=tensors)


def _read(uri: str) -> bytes:
    try:
        data = files.read_bytes(uri)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{uri}: there is no such checkpoint; expected the folder of a training run") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{uri}: is a folder; expected a safetensors file") from error
    if data.startswith(_PICKLES) and data[8:9] != b"{":  # the length of a header may begin as a pickle does
        raise CheckpointError(
            f"{uri}: is a pickled checkpoint, which can run any code when it is opened; expected safetensors. "
            "Convert it where it was made"
        )
    return data


def _metadata(uri: str, data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: eight bytes of length, then a header in JSON."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > _LONGEST_HEADER or data[8:9] != b"{":
        raise CheckpointError(f"{uri}: is no safetensors file; expected a checkpoint of student.train")
    if len(data) < 8 + length:
        raise CheckpointError(f"{uri}: is cut short: {len(data)} bytes, its header alone has {length}; copy it again")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{uri}: its header is no JSON: {error}; copy it again") from error
    found = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return {str(name): str(value) for name, value in found.items()}
