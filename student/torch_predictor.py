"""The student as a predictor: its checkpoint, or the one that is being trained, answers here."""

# B pictures, P phrases of the picture that has most, V phrases, U distinct ones, C width, S side, h w cells of a mask

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from manifests.errors import RecipeError
from student.model import Seen, Student
from student.predictor import MASK_THRESHOLD, FeatureGiver, Predicted, Predictor
from student.tokens import tokenize

_KEPT_PHRASES = 100_000  # whose rows are kept: 50 MB at the default width


class TorchPredictor(Predictor, FeatureGiver):
    """A student in memory; it is used as it stands, so put it to `eval` and on its device first.

    Every phrase is read by itself and its row is kept, so that an answer does not depend on what was asked before. The
    rows are dropped when the text tower is trained on.
    """

    def __init__(self, student: Student, *, name: str = "student", mask_threshold: float = MASK_THRESHOLD) -> None:
        self.name = name
        self.mask_threshold = mask_threshold
        self.size = student.config.size
        self.stretch = False
        self.student = student
        self._rows: dict[str, Tensor] = {}
        self._text_version = -1

    @property
    def device(self) -> torch.device:
        """Where the student is."""
        return self.student.image.place_nc.device

    def digest(self) -> str:
        """See `Predictor`; over the weights and the model's config, whatever the device."""
        settings = msgspec.structs.replace(self.student.config, pretrained=False)  # it says how training began
        return digest_of_weights(self.student.state_dict(), settings)

    def predict(self, images_b3ss: NDArray[np.uint8], phrases: Sequence[Sequence[str]]) -> list[Predicted]:
        """See `Predictor`."""
        return next(self.predict_rounds(images_b3ss, [phrases]))

    def predict_rounds(
        self, images_b3ss: NDArray[np.uint8], rounds: Iterable[Sequence[Sequence[str]]]
    ) -> Iterator[list[Predicted]]:
        """See `Predictor`; the image tower runs once."""
        seen = self._see(images_b3ss)
        for phrases in rounds:
            yield self._answer(seen, phrases)

    def image_rows(self, images_b3ss: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The mean of each picture's cells, as a unit row [B, C]."""
        return self._unit(self._see(images_b3ss).cells_bnc.mean(1))

    def phrase_rows(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """What is matched with each picture's cells, as a unit row [V, C]."""
        with torch.inference_mode():
            return self._unit(self.student.decoder.query(self._rows_of(phrases)))

    def _unit(self, rows_nc: Tensor) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = functional.normalize(rows_nc.float(), dim=1).cpu().numpy()
        return rows

    @torch.inference_mode()
    def _see(self, images_b3ss: NDArray[np.uint8]) -> Seen:
        seen: Seen = self.student.image(torch.from_numpy(images_b3ss).to(self.device))
        return seen

    @torch.inference_mode()
    def _answer(self, seen: Seen, phrases: Sequence[Sequence[str]]) -> list[Predicted]:
        most = max([1, *map(len, phrases)])
        rows_bpc = torch.zeros((len(phrases), most, self.student.config.width), device=self.device)
        for row, asked in enumerate(phrases):
            if asked:
                rows_bpc[row, : len(asked)] = self._rows_of(asked)
        answer = self.student.decoder(seen, rows_bpc)
        presence_bp = answer.presence_bp.float().sigmoid().cpu().numpy()
        masks_bphw = answer.masks_bphw.float().sigmoid().cpu().numpy()
        return [
            Predicted(presence_p=presence_bp[row, : len(asked)], masks_phw=masks_bphw[row, : len(asked)])
            for row, asked in enumerate(phrases)
        ]

    @torch.inference_mode()
    def _rows_of(self, phrases: Sequence[str]) -> Tensor:
        """The text tower's rows [V, C]; new phrases are read one by one, as the size of a batch changes last bits."""
        version = sum(weight._version for weight in self.student.text.parameters())  # noqa: SLF001 - what torch has
        if version != self._text_version or len(self._rows) > _KEPT_PHRASES:
            self._rows, self._text_version = {}, version
        for phrase in phrases:
            if phrase not in self._rows:
                tokens_ul = tokenize([phrase], context=self.student.config.context).to(self.device)
                self._rows[phrase] = self.student.text(tokens_ul)[0]
        return torch.stack([self._rows[phrase] for phrase in phrases])


def digest_of_weights(state: Mapping[str, Tensor], settings: object) -> str:
    """16 hex digits over the tensors, their names, and what decides how they are used."""
    digest = hashlib.sha256(msgspec.json.encode(settings))
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def open_device(name: str) -> torch.device:
    """The device that `name` says; "auto" is a GPU where there is one.

    Raises:
        RecipeError: torch knows no such device, or it is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(
            f"--device {name}: {' '.join(str(error).split())[:200]}; expected auto, cpu, or a device of this machine"
        ) from error
    return device
