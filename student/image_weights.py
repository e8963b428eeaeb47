"""The image encoder with ImageNet weights: those of EfficientNet-Lite0 come with pip, others from timm's hub.

A classifier tells things apart by the map that it ends in, which for EfficientNet is one layer more than its last
stage. That map is kept: what was learnt of a million pictures is in it.
"""

import torch
from torch import Tensor, nn

from manifests.errors import RecipeError
from manifests.packaged import lite0_weights
from student.depthwise import quicken

LITE0 = "efficientnet_lite0"
STRIDES = (4, 8, 16, 32)
_TRIED = 64  # side of the picture that tells what a model gives


def is_plain_name(name: str) -> bool:
    """Whether `name` is of a model that timm itself has, not of a hub or a folder that it would read."""
    return ":" not in name and "/" not in name


class ImageEncoder(nn.Module):
    """A timm model that gives its features at strides 4, 8 and 16, and the map that it ends in, at stride 32."""

    def __init__(self, net: nn.Module, places: list[int]) -> None:
        super().__init__()
        self.net = net
        self.places = places  # of the first three among all levels of `net`
        self.channels: list[int] = []  # of the four maps

    def forward(self, images_b3ss: Tensor) -> list[Tensor]:
        """Four maps [B, channels, S / stride, S / stride] of normalised pictures."""
        last, levels = self.net.forward_intermediates(images_b3ss, indices=self.places)  # type: ignore[operator]
        return [*levels, last]

    def layers_up_to(self, stride: int) -> list[nn.Parameter]:
        """The parameters that the level at `stride` depends on, as one small picture's gradient tells."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        device = parameters[0].device
        with torch.enable_grad():
            level = self(torch.zeros((1, 3, _TRIED, _TRIED), device=device))[STRIDES.index(stride)]
            reached = torch.autograd.grad(level.sum(), parameters, allow_unused=True)
        return [parameter for parameter, found in zip(parameters, reached, strict=True) if found is not None]


def make_image_encoder(name: str, *, pretrained: bool) -> ImageEncoder:
    """A timm model as an encoder.

    Raises:
        RecipeError: timm has no such model, it lacks a stride, or its weights cannot be had.
    """
    import timm

    if not is_plain_name(name):
        raise RecipeError(f"image encoder {name!r} names a hub or a folder; expected a model that timm itself has")
    try:
        net: nn.Module = timm.create_model(name, num_classes=0, global_pool="", pretrained=pretrained and name != LITE0)
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        raise RecipeError(
            f"image encoder {name!r} cannot be made: {error}; expected a timm model with features at four strides, and "
            "with pretrained = true a hub within reach"
        ) from error
    if pretrained and name == LITE0:
        net.load_state_dict(_lite0_state(net))
    return _as_encoder(name, net)


def _as_encoder(name: str, net: nn.Module) -> ImageEncoder:
    strides = [level["reduction"] for level in getattr(net, "feature_info", [])]
    if not hasattr(net, "forward_intermediates") or not set(STRIDES) <= set(strides):
        raise RecipeError(
            f"image encoder {name!r} has levels at strides {tuple(strides)}; expected {STRIDES} among them"
        )
    encoder = ImageEncoder(net, [strides.index(stride) for stride in STRIDES[:-1]])
    try:
        with torch.no_grad():
            shapes = [tuple(found.shape[1:]) for found in encoder.eval()(torch.zeros((1, 3, _TRIED, _TRIED)))]
    except (RuntimeError, ValueError, AssertionError) as error:
        raise RecipeError(
            f"image encoder {name!r} cannot see a picture of {_TRIED} pixels: {error}; expected one for any size"
        ) from error
    if [shape[1:] for shape in shapes] != [(_TRIED // stride, _TRIED // stride) for stride in STRIDES]:
        raise RecipeError(
            f"image encoder {name!r} gives maps of {shapes} for pictures of {_TRIED} pixels; expected channels, height "
            f"and width at strides {STRIDES}"
        )
    encoder.channels = [shape[0] for shape in shapes]
    quicken(net)
    return encoder


def _lite0_state(net: nn.Module) -> dict[str, torch.Tensor]:
    """The packaged tensors under the encoder's names: they stand in the order of timm's whole classifier."""
    import timm

    names = timm.create_model(LITE0, pretrained=False).state_dict()
    named = dict(zip(names, _packaged().values(), strict=True))
    return {name: named[name] for name in net.state_dict()}


def _packaged() -> dict[str, torch.Tensor]:
    path = lite0_weights(named_by=f"model.image_encoder {LITE0}", otherwise="set model.pretrained = false")
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
