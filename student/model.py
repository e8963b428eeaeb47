"""The student: which of these phrases a picture shows, and where.

A timm encoder sees the picture once, however many phrases are asked; a small OpenCLIP tower reads each distinct phrase
once. Each phrase then attends over the picture by itself, so that its answer does not depend on what else is asked.
What it gathered decides its presence and makes the kernel that draws its mask at stride 4. Presence is thus decided
with the phrase and before any mask: an empty mask is no evidence of absence, and a full one none of presence.
"""

# B pictures, P phrases a picture, U distinct phrases, L tokens, S side of pictures, C width, N cells at stride 16

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from student.config import ModelConfig
from student.image_weights import make_image_encoder
from student.tokens import VOCABULARY

STRIDE = 4  # of the masks: one logit for four by four pixels
PRIOR_LOGIT = -1.0  # presence before anything is learnt; a little below even, as absences outnumber presences


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the image tower gives of a picture, for any phrase to ask."""

    cells_bnc: Tensor  # at stride 16, with their places
    pixels_bchw: Tensor  # at stride 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the student says; logits."""

    presence_bp: Tensor
    masks_bphw: Tensor  # [B, P, S / 4, S / 4]


class Student(nn.Module):
    """Image tower, text tower, and the decoder that puts the one to the other."""

    def __init__(self, config: ModelConfig) -> None:
        """A student whose image encoder alone may be trained already.

        Raises:
            RecipeError: timm has no such encoder, or its weights cannot be had.
        """
        super().__init__()
        self.config = config
        self.image = ImageTower(config)
        self.text = make_text_tower(config)
        self.decoder = Decoder(config)

    def forward(self, images_b3ss: Tensor, tokens_ul: Tensor, phrase_bp: Tensor) -> Answer:
        """Answers to the phrases `tokens_ul[phrase_bp]`; pictures are RGB in 0 to 255, of any dtype."""
        answer: Answer = self.decoder(self.image(images_b3ss), self.text(tokens_ul)[phrase_bp])
        return answer

    def train(self, mode: bool = True) -> "Student":
        """As of any module, but that batch statistics stay as they were pretrained."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class ImageTower(nn.Module):
    """Pictures to cells and pixels: a timm encoder and the way back up through its strides."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = make_image_encoder(config.image_encoder, pretrained=config.pretrained)
        channels = self.encoder.feature_info.channels()  # type: ignore[union-attr,operator]
        self.sideways = nn.ModuleList([nn.Conv2d(found, config.width, 1) for found in channels])
        self.smooth = nn.ModuleList([_smoothing(config.width) for _ in channels[:-1]])
        self.place_nc = nn.Parameter(0.02 * torch.randn((config.size // 16) ** 2, config.width))
        self.cell_norm = nn.LayerNorm(config.width)

    def forward(self, images_b3ss: Tensor) -> Seen:
        """What is seen in RGB pictures of 0 to 255."""
        levels = self.encoder((images_b3ss.to(self.place_nc.dtype) - 127.5) / 127.5)
        above = self.sideways[-1](levels[-1])
        ways = list(zip(levels[:-1], self.sideways, self.smooth, strict=False))
        cells_bchw = above
        for level, sideways, smooth in reversed(ways):
            above = smooth(sideways(level) + functional.interpolate(above, scale_factor=2.0, mode="nearest"))
            if level is levels[-2]:
                cells_bchw = above
        return Seen(cells_bnc=self.cell_norm(cells_bchw.flatten(2).transpose(1, 2)) + self.place_nc, pixels_bchw=above)


def _smoothing(width: int) -> nn.Module:
    """A depthwise and a pointwise convolution, normalised per picture."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.Conv2d(width, width, 1),
        nn.GroupNorm(8, width),
        nn.ReLU(inplace=True),
    )


def make_text_tower(config: ModelConfig) -> nn.Module:
    """OpenCLIP's text transformer, small: tokens [U, L] to rows [U, C]."""
    from open_clip.transformer import TextTransformer

    tower: nn.Module = TextTransformer(
        context_length=config.context,
        vocab_size=VOCABULARY,
        width=config.text_width,
        heads=config.text_heads,
        layers=config.text_layers,
        output_dim=config.width,
    )
    return tower


class Decoder(nn.Module):
    """Phrases put to a picture: attention, then presence and mask."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.query = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.layers = nn.ModuleList([AttentionLayer(config) for _ in range(config.attention_layers)])
        self.presence = _mlp(3 * width, width, 1)
        self.presence_bias = nn.Parameter(torch.tensor(PRIOR_LOGIT))
        self.kernel = _mlp(2 * width, width, width)
        self.mask_bias = nn.Parameter(torch.tensor(-2.0))  # most of a picture is not the thing

    def forward(self, seen: Seen, rows_bpc: Tensor) -> Answer:
        """Presence and mask logits of each phrase, from its row of the text tower."""
        asked_bpc = self.query(rows_bpc)
        found_bpc = asked_bpc
        for layer in self.layers:
            found_bpc = layer(found_bpc, seen.cells_bnc)
        both_bpd = torch.cat([asked_bpc, found_bpc], dim=-1)
        presence_bp = self.presence(torch.cat([both_bpd, asked_bpc * found_bpc], dim=-1)).squeeze(-1)
        presence_bp = presence_bp + self.presence_bias
        batch, channels, height, width = seen.pixels_bchw.shape
        flat_bpn = self.kernel(both_bpd) @ seen.pixels_bchw.flatten(2) * channels**-0.5
        return Answer(presence_bp=presence_bp, masks_bphw=flat_bpn.reshape(batch, -1, height, width) + self.mask_bias)


class AttentionLayer(nn.Module):
    """Each phrase looks over the cells and thinks; phrases do not see each other."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.attention_heads
        self.norm = nn.LayerNorm(width)
        self.ask, self.tell = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.think = nn.Sequential(nn.LayerNorm(width), _mlp(width, 2 * width, width))

    def forward(self, phrases_bpc: Tensor, cells_bnc: Tensor) -> Tensor:
        """The phrases' rows with what they found added."""
        keys, values = (self._split(found) for found in self.tell(cells_bnc).chunk(2, dim=-1))
        seen = functional.scaled_dot_product_attention(self._split(self.ask(self.norm(phrases_bpc))), keys, values)
        phrases_bpc = phrases_bpc + self.out(seen.transpose(1, 2).flatten(2))
        thought_bpc: Tensor = self.think(phrases_bpc)
        return phrases_bpc + thought_bpc

    def _split(self, rows_brc: Tensor) -> Tensor:
        """[B, R, C] to [B, heads, R, C / heads]."""
        batch, num_rows, width = rows_brc.shape
        return rows_brc.reshape(batch, num_rows, self.heads, width // self.heads).transpose(1, 2)


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))


def num_parameters(module: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(parameter.numel() for parameter in module.parameters())
