"""Any model of open_clip as an encoder, with weights from a file and prompts from templates.

The model is built from its description alone and every tensor is then loaded by name, so that it never comes up with
random weights; open_clip's log and warnings stay where they are.
"""

# B pictures, S views, V phrases, D width

import contextlib
import hashlib
import json
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.factory import load_checkpoint
from open_clip.pretrained import get_pretrained_cfg
from safetensors import SafetensorError

from manifests import files
from manifests.errors import RecipeError
from miners.open_clip_weights import FOLDER_PREFIX, Named, Weights
from miners.templates import filled
from miners.views import Geometry

FAMILY = "open_clip"  # of prompt templates
_TEXT_BATCH = 256
_TOWERS = {"pretrained_image": False, "pretrained_text": False, "load_weights": False}

# what open_clip, safetensors and torch raise on a description or on weights that are not what they should be
_LOAD_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    AttributeError,
    AssertionError,
    SafetensorError,
    pickle.UnpicklingError,
)


class _Preprocessing(msgspec.Struct, frozen=True, kw_only=True):
    """open_clip's `PreprocessCfg`."""

    size: int | tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: str
    fill_color: int = 0
    mode: str = "RGB"


_Tokenizer = Callable[[list[str]], torch.Tensor]


class _Model(Protocol):
    """What is used of open_clip's models, which share no typed base."""

    def encode_image(self, image: torch.Tensor, normalize: bool = False) -> torch.Tensor: ...

    def encode_text(self, text: torch.Tensor, normalize: bool = False) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenClip:
    """The encoder; see `load_open_clip`."""

    name: str
    digest: str
    weights_digest: str
    preprocessing_digest: str
    dim: int
    geometry: Geometry
    model: _Model
    tokenizer: _Tokenizer
    templates: tuple[str, ...]
    mean: torch.Tensor
    std: torch.Tensor

    def encode_images(self, pixels_bshw3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One unit row per picture [B, D], the mean over its views."""
        num, views = pixels_bshw3.shape[:2]
        flat = torch.from_numpy(pixels_bshw3.reshape(-1, *pixels_bshw3.shape[2:])).to(self.mean.device)
        with torch.inference_mode():
            pixels = flat.permute(0, 3, 1, 2).float().div_(255).sub_(self.mean).div_(self.std)
            rows = self.model.encode_image(pixels, normalize=True)
            pooled = rows.float().view(num, views, -1).mean(1)
            unit: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return unit

    def encode_texts(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """One unit row per phrase [V, D], the mean over the templates."""
        blocks = [phrases[start : start + _TEXT_BATCH] for start in range(0, len(phrases), _TEXT_BATCH)]
        rows = [np.empty((0, self.dim), np.float32), *(self._text_block(block) for block in blocks)]
        return np.concatenate(rows)

    def _text_block(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        total = torch.zeros(len(phrases), self.dim, device=self.mean.device)
        with torch.inference_mode():
            for template in self.templates:
                tokens = self.tokenizer([filled(template, phrase) for phrase in phrases]).to(total.device)
                total += self.model.encode_text(tokens, normalize=True).float()
            unit: NDArray[np.float32] = torch.nn.functional.normalize(total, dim=1).cpu().numpy()
        return unit


def load_open_clip(named: Named, weights: Weights, templates: Sequence[str]) -> OpenClip:
    """The encoder `named`, its weights read from `weights`.

    Raises:
        RecipeError: the weights are damaged or are another model's, or the model cannot be built.
    """
    try:
        with quiet():
            model, tokenizer = _build(named, weights)
            load_checkpoint(model, str(weights.file), strict=True, weights_only=True)
    except _LOAD_ERRORS as error:
        said = " ".join(str(error).split())[:300]
        raise RecipeError(
            f"encoder {named.name}: {weights.file} does not load: {said}; expected the weights of this very model"
        ) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)
    seen = msgspec.convert(model.visual.preprocess_cfg, _Preprocessing)
    geometry = _geometry(seen)
    sha256, rest = files.sha256_file(str(weights.file)), [_description(named, weights), seen, geometry, list(templates)]
    return OpenClip(
        name=named.name,
        digest=_digest(sha256, *rest),
        weights_digest=sha256[:16],
        preprocessing_digest=_digest(*rest),
        dim=_width(model, tokenizer, device),
        geometry=geometry,
        model=model,
        tokenizer=tokenizer,
        templates=tuple(templates),
        mean=torch.tensor(seen.mean, device=device).view(3, 1, 1),
        std=torch.tensor(seen.std, device=device).view(3, 1, 1),
    )


def _digest(*said: object) -> str:
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:16]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip's log lines, which go to the root logger and set it up, out of ours."""
    nothing, before = logging.NullHandler(), logging.root.manager.disable
    logging.root.addHandler(nothing)
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
        logging.root.removeHandler(nothing)


def _build(named: Named, weights: Weights) -> tuple[Any, _Tokenizer]:
    """The model without its weights, and its tokenizer."""
    if weights.config is not None:
        folder = f"{FOLDER_PREFIX}{weights.config.parent}"
        text = json.loads(weights.config.read_bytes())["model_cfg"]["text_cfg"]
        from_hub = named.kind == "hub" and text.get("hf_tokenizer_name")  # those files lie in a repository of their own
        return open_clip.create_model(folder, **_TOWERS), open_clip.get_tokenizer(named.name if from_hub else folder)
    tag = get_pretrained_cfg(named.model, named.place) if named.kind == "tag" else {}
    model = open_clip.create_model(
        named.model,
        force_quick_gelu=bool(tag.get("quick_gelu", False)),
        force_preprocess_cfg={key: value for key, value in tag.items() if key != "size"},
        **_TOWERS,
    )
    return model, open_clip.get_tokenizer(named.model)


def _description(named: Named, weights: Weights) -> str:
    """What the model is made of, as JSON."""
    if weights.config is not None:
        return weights.config.read_text()
    tag = get_pretrained_cfg(named.model, named.place) if named.kind == "tag" else {}
    return json.dumps([open_clip.get_model_config(named.model), bool(tag.get("quick_gelu", False))], sort_keys=True)


def _geometry(seen: _Preprocessing) -> Geometry:
    height, width = (seen.size, seen.size) if isinstance(seen.size, int) else seen.size
    resize = "shortest" if seen.resize_mode not in ("longest", "squash") else seen.resize_mode
    keeps_ratio = resize == "shortest" and height != width  # there open_clip passes its interpolation over
    interpolation = "bilinear" if seen.interpolation == "bilinear" and not keeps_ratio else "bicubic"
    fields = {"height": height, "width": width, "resize": resize, "interpolation": interpolation}
    return msgspec.convert(fields | {"fill": seen.fill_color}, Geometry)


def _width(model: _Model, tokenizer: _Tokenizer, device: torch.device) -> int:
    with torch.inference_mode():
        return int(model.encode_text(tokenizer(["a"]).to(device)).shape[1])
