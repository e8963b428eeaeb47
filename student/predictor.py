"""What answers prompts: the student, its ONNX export or SAM 3, all behind one protocol.

Whoever predicts, evaluates or exports knows this file alone; weights and libraries are behind it.
"""

# B pictures, P phrases of one picture, V phrases, S side of pictures, H W of the predictor's own masks, D width

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

MASK_THRESHOLD = 0.5  # of models for which no val has chosen another


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """What is said of one picture, phrase by phrase."""

    presence_p: NDArray[np.float32]  # 0 to 1, as the model gives it: no temperature was applied
    masks_phw: NDArray[np.float32]  # probabilities 0 to 1 over the square picture, on any grid that tiles it


class Predictor(Protocol):
    """Presence and mask of phrases in pictures; an implementation names it as its base."""

    name: str  # for people: "student", "onnx int8-int4", "sam3"
    size: int  # side of the square pictures that it wants, in pixels
    mask_threshold: float = MASK_THRESHOLD  # a pixel of a mask is set above it
    stretch: bool = False  # True: pictures fill the square, whatever their shape; False: letterboxed, as in training

    @abstractmethod
    def predict(self, images_b3ss: NDArray[np.uint8], phrases: Sequence[Sequence[str]]) -> list[Predicted]:
        """What is said of each RGB picture; `phrases` has a list for each, which may be empty.

        Raises:
            RecipeError: a phrase is longer than the model reads.
        """

    @abstractmethod
    def digest(self) -> str:
        """16 hex digits over weights and settings: equal where answers may be mixed in one table."""

    def predict_rounds(
        self, images_b3ss: NDArray[np.uint8], rounds: Iterable[Sequence[Sequence[str]]]
    ) -> Iterator[list[Predicted]]:
        """`predict` for one round of phrases after another; a predictor that can sees the pictures but once."""
        for phrases in rounds:
            yield self.predict(images_b3ss, phrases)


@runtime_checkable
class FeatureGiver(Protocol):
    """A predictor that shows its rows of pictures and phrases, so that it can teach another."""

    @abstractmethod
    def image_rows(self, images_b3ss: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One unit row per picture [B, D]."""

    @abstractmethod
    def phrase_rows(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """One unit row per phrase [V, D]."""
