"""The student: which of these phrases a picture shows, and where.

A timm encoder sees the picture once, however many phrases are asked; a small OpenCLIP tower reads each distinct phrase
once. Each phrase is put to the picture by itself, so that its answer does not depend on what else is asked. Presence is
how well the phrase matches any of its cells, which hold what the encoder was pretrained to tell apart; what it gathers
from them makes the kernel that draws its mask at stride 4. Presence is thus decided before any mask: an empty mask is
no evidence of absence, and a full one none of presence.
"""

# B pictures, P phrases a picture, U distinct phrases, L tokens, S side of pictures, C width, N cells at stride 16

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from student.config import ModelConfig
from student.depthwise import Depthwise
from student.image_weights import make_image_encoder
from student.tokens import NUM_WORDS, VOCABULARY

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
        self.text = TextTower(config)
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
        channels = self.encoder.channels
        self.fine, self.coarse = (_to_cells(found, config.width) for found in channels[-2:])
        self.sideways = nn.ModuleList([nn.Conv2d(found, config.width, 1) for found in channels])
        self.smooth = nn.ModuleList([_smoothing(config.width) for _ in channels[:-1]])
        self.place_nc = nn.Parameter(0.02 * torch.randn((config.size // 16) ** 2, config.width))

    def forward(self, images_b3ss: Tensor) -> Seen:
        """What is seen in RGB pictures of 0 to 255."""
        levels = self.encoder((images_b3ss.to(self.place_nc.dtype) - 127.5) / 127.5)
        cells_bhwc = self.fine(levels[-2].movedim(1, -1))
        cells_bchw = cells_bhwc.movedim(-1, 1) + _twice(self.coarse(levels[-1].movedim(1, -1)).movedim(-1, 1))
        above = self.sideways[-1](levels[-1])
        for level, sideways, smooth in reversed(list(zip(levels[:-1], self.sideways, self.smooth, strict=False))):
            above = smooth(sideways(level) + _twice(above))
        return Seen(cells_bnc=cells_bchw.flatten(2).transpose(1, 2) + self.place_nc, pixels_bchw=above)


def _to_cells(channels: int, width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))


def _twice(maps_bchw: Tensor) -> Tensor:
    """The same maps at half the stride."""
    return functional.interpolate(maps_bchw, scale_factor=2.0, mode="nearest")


def _smoothing(width: int) -> nn.Module:
    """A depthwise and a pointwise convolution, normalised per picture."""
    return nn.Sequential(
        Depthwise(width, width, 3, padding=1, groups=width),
        nn.Conv2d(width, width, 1),
        nn.GroupNorm(8, width),
        nn.ReLU(inplace=True),
    )


class TextTower(nn.Module):
    """Phrases to rows: OpenCLIP's transformer, small, and beside it the mean of the words' embeddings.

    The transformer alone gives all phrases nearly one row before it is trained (a cosine of .8), and takes hundreds of
    steps to tell them apart; by their words they differ from the first.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        from open_clip.transformer import TextTransformer

        self.transformer: nn.Module = TextTransformer(
            context_length=config.context,
            vocab_size=VOCABULARY,
            width=config.text_width,
            heads=config.text_heads,
            layers=config.text_layers,
            output_dim=config.width,
        )
        nn.init.normal_(self.transformer.get_parameter("token_embedding.weight"), std=config.text_width**-0.5)
        self.word_norm = nn.LayerNorm(config.text_width)
        self.words = nn.Linear(config.text_width, config.width, bias=False)

    def forward(self, tokens_ul: Tensor) -> Tensor:
        """Rows [U, C]."""
        is_word_ul1 = ((tokens_ul > 0) & (tokens_ul < NUM_WORDS))[..., None]
        embedded_ulc = functional.embedding(tokens_ul, self.transformer.get_parameter("token_embedding.weight"))
        sum_uc = (embedded_ulc * is_word_ul1).sum(1)
        words_uc = self.words(self.word_norm(sum_uc / is_word_ul1.sum(1).clamp(min=1)))
        rows_uc: Tensor = self.transformer(tokens_ul) + words_uc
        return rows_uc


class Decoder(nn.Module):
    """Phrases put to a picture: matched for their presence, attending for their masks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.query = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.presence = Match()
        self.layers = nn.ModuleList([AttentionLayer(config) for _ in range(config.attention_layers)])
        self.kernel = _mlp(2 * width, width, width)
        self.mask_bias = nn.Parameter(torch.tensor(-2.0))  # most of a picture is not the thing

    def forward(self, seen: Seen, rows_bpc: Tensor) -> Answer:
        """Presence and mask logits of each phrase, from its row of the text tower."""
        asked_bpc = self.query(rows_bpc)
        found_bpc = asked_bpc
        for layer in self.layers:
            found_bpc = layer(found_bpc, seen.cells_bnc)
        batch, channels, height, width = seen.pixels_bchw.shape
        kernel_bpc = self.kernel(torch.cat([asked_bpc, found_bpc], dim=-1))
        masks_bpn = kernel_bpc @ seen.pixels_bchw.flatten(2) * channels**-0.5 + self.mask_bias
        return Answer(
            presence_bp=self.presence(asked_bpc, seen.cells_bnc),
            masks_bphw=masks_bpn.reshape(batch, -1, height, width),
        )

    def match(self, seen: Seen, rows_uc: Tensor) -> Tensor:
        """Presence logits [B, U] of every phrase in every picture, without masks."""
        logits_bu: Tensor = self.presence(self.query(rows_uc), seen.cells_bnc)
        return logits_bu


class Match(nn.Module):
    """Whether any cell of a picture shows a phrase: a soft maximum over the cells, as in multiple instance learning.

    With sharpness r, log(mean(exp(r s))) / r lies between the mean of the scores s (r to 0) and the largest of them.

    Source: Pinheiro and Collobert, 2015, "From Image-level to Pixel-level Labeling with Convolutional Networks",
    arXiv 1411.6228, log-sum-exp aggregation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(4.0)))  # of the scores
        self.log_sharpness = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.tensor(PRIOR_LOGIT))

    def forward(self, phrases_bpc: Tensor, cells_bnc: Tensor) -> Tensor:
        """Logits of presence [B, P]; phrases [P, C] are put to every picture."""
        num_cells, width = cells_bnc.shape[1:]
        scores_bpn = phrases_bpc @ cells_bnc.transpose(1, 2) * (self.log_scale.exp() * width**-0.5)
        sharpness = self.log_sharpness.exp()
        highest_bp = torch.logsumexp(sharpness * scores_bpn, dim=-1)
        logits_bp: Tensor = (highest_bp - math.log(num_cells)) / sharpness + self.bias
        return logits_bp


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
