"""Models for tests of predicting: one whose answers are known, and an untrained student, in memory or as a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from manifests.stage import progress_bar
from student.checkpoint import MODEL, CheckpointState, write_checkpoint
from student.config import ModelConfig, TrainConfig
from student.model import Student
from student.predict import Summary, predict_split
from student.predictor import MASK_THRESHOLD, Predicted, Predictor
from student.run_record import RunRecord, write_run

SIZE, CELLS = 64, 16  # sides of pictures and of masks
SMALL = ModelConfig(
    size=SIZE,
    pretrained=False,
    width=16,
    attention_layers=1,
    attention_heads=2,
    text_width=16,
    text_layers=1,
    text_heads=2,
)


@dataclass(slots=True)
class Brightness(Predictor):
    """A phrase's presence is a hundredth of its length; its mask is where the picture is red, longer phrases more."""

    name: str = "brightness"
    size: int = SIZE
    mask_threshold: float = MASK_THRESHOLD
    stretch: bool = False
    num_seen: int = 0
    asked: list[list[str]] = field(default_factory=list)
    stop_after: int | None = None  # pictures
    always: Predicted | None = None

    def predict(self, images_b3ss: NDArray[np.uint8], phrases: Sequence[Sequence[str]]) -> list[Predicted]:
        """See `Predictor`."""
        if self.stop_after is not None and self.num_seen >= self.stop_after:
            raise KeyboardInterrupt
        self.num_seen += len(images_b3ss)
        self.asked += [list(asked) for asked in phrases]
        return [self.always or self._answer(*pair) for pair in zip(images_b3ss, phrases, strict=True)]

    def _answer(self, image_3ss: NDArray[np.uint8], asked: Sequence[str]) -> Predicted:
        masks = [redness(image_3ss, phrase) for phrase in asked]
        return Predicted(
            presence_p=np.array([len(phrase) / 100 for phrase in asked], np.float32),
            masks_phw=np.array(masks, np.float32).reshape(-1, CELLS, CELLS),
        )

    def digest(self) -> str:
        """See `Predictor`."""
        return "0123456789abcdef"


def redness(image_3ss: NDArray[np.uint8], phrase: str) -> NDArray[np.float32]:
    """What `Brightness` says of each cell."""
    cells_hw = image_3ss[0, 2::4, 2::4].astype(np.float32) / 255
    return np.clip(cells_hw * np.float32(len(phrase) / 6), 0, 1)


def run(predictor: Predictor, build: str, out: Path, *, split: str = "train", **options: str | int) -> Summary:
    """`predict_split` without a bar."""
    with progress_bar(quiet=True) as progress:
        return predict_split(predictor, build, split, str(out), progress=progress, **options)  # type: ignore[arg-type]


def make_student(seed: int = 0) -> Student:
    """An untrained student whose masks are neither empty nor full, and which hears the phrase."""
    torch.manual_seed(seed)
    student = Student(SMALL).eval()
    with torch.no_grad():
        student.decoder.mask_bias.zero_()
        student.decoder.presence.bias.fill_(1.0)
        student.decoder.presence.log_scale.fill_(2.5)
        for weight in student.decoder.kernel.parameters():
            weight.mul_(3)
    return student


def write_run_of(folder: Path, student: Student) -> Path:
    """`folder`, now that of a finished run whose best student is `student`."""
    state = CheckpointState(
        start="scratch",
        began="scratch",
        phase=2,
        epoch=1,
        step=1,
        position=1,
        order_digest="",
        config=TrainConfig(model=student.config),
        builds=[],
        teacher=[],
        phases=[2],
        epochs=[1],
        one_class=False,
        positives_only=False,
        finished=True,
    )
    tensors = {MODEL + name: tensor for name, tensor in student.state_dict().items()}
    write_checkpoint(str(folder / "best.safetensors"), tensors, state)
    record = RunRecord(
        name=folder.name,
        start="scratch",
        began="scratch",
        builds=[],
        teacher=[],
        phases=[2],
        epochs=[1],
        num_parameters=1,
        num_present=1,
        num_absent=1,
        one_class=False,
        positives_only=False,
        versions={},
        finished=True,
    )
    write_run(str(folder), record)
    return folder
