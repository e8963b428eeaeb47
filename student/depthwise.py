"""Depthwise convolutions that learn on a CPU: autocast leaves them in float32, where their gradient is quicker."""

import torch
from torch import Tensor, nn


class Depthwise(nn.Conv2d):
    """A depthwise convolution whose gradient is not taken in bfloat16 on a CPU.

    oneDNN has no quick gradient of one in bfloat16: with it, a step of EfficientNet-Lite0 that learns from stride 16 on
    takes 1.6 times as long, on a CPU that multiplies bfloat16 (decision 14).
    """

    def forward(self, maps_bchw: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        if maps_bchw.device.type != "cpu" or not self.weight.requires_grad or not torch.is_autocast_enabled("cpu"):
            return super().forward(maps_bchw)
        with torch.autocast("cpu", enabled=False):
            return super().forward(maps_bchw.float())


def quicken(net: nn.Module) -> None:
    """Let the depthwise convolutions of a model learn so; its weights and their names stay."""
    for module in net.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1:
            module.__class__ = Depthwise
