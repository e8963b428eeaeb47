"""What a training run may be told: one TOML file with frozen keys, all of which have defaults."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from manifests import files
from manifests.errors import RecipeError

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
Weight = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The student's shape."""

    size: Annotated[int, Meta(ge=64, multiple_of=32)] = 256  # side of the letterboxed picture in pixels
    image_encoder: str = "efficientnet_lite0"  # any timm model that gives features at strides 4, 8, 16 and 32
    pretrained: bool = True  # image encoder from ImageNet weights: those that pip ships for Lite0, timm's hub otherwise
    width: Annotated[int, Meta(ge=16, multiple_of=8)] = 128  # of phrase rows, pixel rows and the decoder
    attention_layers: Count = 2  # of the phrase over the picture
    attention_heads: Count = 4
    text_width: Annotated[int, Meta(ge=16, multiple_of=8)] = 128
    text_layers: Count = 4
    text_heads: Count = 4
    context: Annotated[int, Meta(ge=4, le=77)] = 32  # tokens of a phrase, its two ends included

    def __post_init__(self) -> None:
        """Heads share a width evenly."""
        for heads, width in (("attention_heads", "width"), ("text_heads", "text_width")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"{heads} = {getattr(self, heads)} does not divide {width} = {getattr(self, width)}; expected one "
                    "that does"
                )


class LossConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights of the losses; 0 leaves one out."""

    presence: Weight = 1.0
    focal_gamma: Weight = 2.0  # 0 is plain binary cross entropy
    mask_bce: Weight = 1.0
    mask_dice: Weight = 1.0
    soft_presence: Share = 0.0  # of the teacher's presence in the target, where its table has it
    soft_mask: Share = 0.0  # of the teacher's mask in the target, likewise; where no whole mask is known it is all
    align_image: Weight = 1.0  # phase 1
    align_text: Weight = 1.0
    align_match: Weight = 1.0  # 0 for a teacher whose rows of pictures and of phrases share no space


class AugmentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes that keep presence true; drawn by (seed, epoch, key)."""

    flip: Share = 0.5  # chance of a mirror image
    crop: Share = 0.5  # chance of a scaled crop; one that would cut a present thing away is not taken
    least_scale: Annotated[float, Meta(gt=0, le=1)] = 0.6  # of the crop's side
    brightness: Share = 0.2  # largest relative change


class OptimiserConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW with warm-up and a cosine to zero over each phase."""

    learning_rate: Positive = 1e-3
    image_learning_rate: Weight = 2e-4  # of the image encoder; 0 freezes it
    image_frozen_stride: Literal[0, 4, 8, 16] = 0  # the image encoder's layers up to this stride stay as they are
    weight_decay: Weight = 0.05
    warmup: Share = 0.05  # of the phase's steps
    clip_norm: Positive = 1.0


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole training run, but for its data, teacher and length, which the command line says."""

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    batch_size: Count = 32  # global: all ranks together
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # of autocast; weights stay float32
    checkpoint_steps: Count = 200  # between two writes of last.safetensors
    log_steps: Count = 10
    model: ModelConfig = ModelConfig()
    losses: LossConfig = LossConfig()
    augmentation: AugmentConfig = AugmentConfig()
    optimiser: OptimiserConfig = OptimiserConfig()


def read_config(uri: str | None) -> TrainConfig:
    """The config in the TOML file at `uri`; all defaults for None.

    Raises:
        RecipeError: there is no such file, or a key or value is none that is known.
    """
    if uri is None:
        return TrainConfig()
    try:
        return msgspec.toml.decode(files.read_text(uri), type=TrainConfig)
    except FileNotFoundError as error:
        raise RecipeError(f"{uri}: there is no such file; expected a training config in TOML") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{uri}: {error}; docs/training.md lists the keys") from error


def encode_config(config: TrainConfig) -> bytes:
    """The config in TOML, every key with its value."""
    return msgspec.toml.encode(config)
