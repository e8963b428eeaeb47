"""AdamW over what a phase trains, and its state as named tensors for the checkpoint."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from manifests.errors import CheckpointError
from student.config import OptimiserConfig

_ENCODER = "student.image.encoder."


def make_optimiser(learner: nn.Module, config: OptimiserConfig) -> AdamW:
    """AdamW over the parameters that want gradients; the encoder at its own rate, vectors without decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(_ENCODER), parameter.ndim > 1), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "lr": 0.0,
                "base": config.image_learning_rate if of_encoder else config.learning_rate,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (of_encoder, decays), parameters in groups.items()
        ],
        fused=True,  # one pass over the weights: without it a CPU spends a quarter of a step here
    )


def set_rate(optimiser: AdamW, factor: float) -> None:
    """Set every group to its base rate times `factor`."""
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * factor


def optimiser_tensors(optimiser: AdamW, learner: nn.Module) -> dict[str, Tensor]:
    """The state as `<parameter>.<what>`."""
    return {
        f"{name}.{what}": value
        for name, parameter in learner.named_parameters()
        for what, value in optimiser.state.get(parameter, {}).items()
    }


def load_optimiser(optimiser: AdamW, learner: nn.Module, tensors: Mapping[str, Tensor], uri: str) -> None:
    """Take up the state that `optimiser_tensors` gave.

    Raises:
        CheckpointError: it is of other parameters.
    """
    parameters = dict(learner.named_parameters())
    for full_name, tensor in tensors.items():
        name, _, what = full_name.rpartition(".")
        parameter = parameters.get(name)
        if parameter is None or (what != "step" and parameter.shape != tensor.shape):
            raise CheckpointError(
                f"{uri}: optimizer.{full_name} fits no parameter; it is of another model. Train again"
            )
        like = parameter if what != "step" else tensor.to(parameter.device)
        # the fused update walks through memory, so that the layout must be the parameter's
        optimiser.state[parameter][what] = torch.empty_like(like, requires_grad=False).copy_(tensor)
