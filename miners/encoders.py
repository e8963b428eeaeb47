"""Encoders of pictures and phrases into one space, and the choice of one by name.

    auto                               open_clip's default if its weights are on this machine, else conse
    conse                              built from weights that pip packages bring; needs no download
    MODEL/PRETRAINED                   a model and a pretrained tag of open_clip, as ViT-B-32-256/datacomp_s34b_b86k
    MODEL@FILE.safetensors             a model of open_clip with the weights of a file
    hf-hub:ORG/NAME                    an open_clip repository of the Hugging Face hub
    local-dir:FOLDER                   the same as a folder

What was named and cannot be had is an error; only `auto` chooses, and says what and why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from manifests.errors import RecipeError
from miners.views import Geometry

if TYPE_CHECKING:
    from miners.open_clip_weights import Named, Weights

# B pictures, S views of each, H W their side, V phrases, D width

AUTO, CONSE = "auto", "conse"
DEFAULT = "ViT-B-32-256/datacomp_s34b_b86k"
DEFAULT_REPOSITORY = "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K"  # where open_clip finds it


class Encoder(Protocol):
    """A joint space of pictures and phrases."""

    @property
    def name(self) -> str:
        """What the user names it."""

    @property
    def digest(self) -> str:
        """16 hex digits over weights, preprocessing and templates: equal where rows may be compared."""

    @property
    def weights_digest(self) -> str:
        """16 hex digits over the weights alone."""

    @property
    def preprocessing_digest(self) -> str:
        """16 hex digits over all else that decides a row: pixels, templates and settings."""

    @property
    def dim(self) -> int:
        """Width of its rows."""

    @property
    def geometry(self) -> Geometry:
        """What pixels it wants."""

    def encode_images(self, pixels_bshw3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One unit row per picture [B, D]; its views are pooled."""

    def encode_texts(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """One unit row per phrase [V, D]; its templates are averaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An encoder, and why it is this one."""

    encoder: Encoder
    why: str


def choose_encoder(name: str, *, templates: str = "", allow_pickle: str = "") -> Chosen:
    """The encoder that `name` asks for, with its weights loaded.

    Args:
        name: As the module's docstring lists them.
        templates: A file of prompt templates; "" takes those that ship with the encoder.
        allow_pickle: The one weights file that may be a pickle; "" refuses all.

    Raises:
        RecipeError: it cannot be had, its weights are a pickle, or the templates are none for it.
    """
    if name == CONSE:
        return Chosen(encoder=_conse(templates), why="conse was asked for by name.")
    if name == AUTO:
        return _choose(templates)
    from miners.open_clip_weights import find_weights, licence_note, parse_name

    named = parse_name(name)
    weights = find_weights(named, download=True, allow_pickle=allow_pickle)
    if weights is None:
        raise RecipeError(f"encoder {name}: there are no weights; name another encoder")
    why = f"{name} was asked for by name.{licence_note(named)}"
    return Chosen(encoder=_open_clip(named, weights, templates), why=why)


def _choose(templates: str) -> Chosen:
    """What `auto` stands for on this machine."""
    from miners.open_clip_weights import find_weights, is_cached, parse_name

    if is_cached(DEFAULT_REPOSITORY):  # asked first: open_clip takes seconds to import
        named = parse_name(DEFAULT)
        if (weights := find_weights(named, download=False)) is not None:
            why = f"auto took {DEFAULT}: its weights are on this machine."
            return Chosen(encoder=_open_clip(named, weights, templates), why=why)
    why = (
        f"auto took conse: the weights of {DEFAULT} are not on this machine, and auto downloads nothing; name "
        f"{DEFAULT} to fetch them."
    )
    return Chosen(encoder=_conse(templates), why=why)


def _conse(templates: str) -> Encoder:
    from miners.conse import load_conse
    from miners.templates import read_templates

    return load_conse(read_templates(CONSE, family=CONSE, uri=templates))


def _open_clip(named: "Named", weights: "Weights", templates: str) -> Encoder:
    from miners.open_clip_encoder import FAMILY, load_open_clip
    from miners.templates import read_templates

    return load_open_clip(named, weights, read_templates(named.name, family=FAMILY, uri=templates))
