"""Pictures of the demo world: real cut-outs on real backgrounds, with masks of what is visible.

What is dropped is decided before anything is painted, from the top layer down, so that a phrase without a mask is
truly not in the picture: the labels are exhaustive over the phrases.
"""

import io
from dataclasses import dataclass

import numpy as np
from demo_cutouts import Floats, Layer, Mask, make_layer, pieces, relight, window
from numpy.typing import NDArray
from PIL import Image, ImageFilter

MIN_SIDE, MAX_SIDE = 240, 480
ASPECTS = (1.0, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3)
EMPTY_SHARE = 0.03
STUFF_SHARE = 0.45  # of pictures whose background is itself a phrase
MIN_VISIBLE_SHARE = 0.4
MIN_VISIBLE_PIXELS = 200
MIN_PART_PIXELS = 150
MAX_COVERED_SHARE = 0.7
DISTRACTOR_SHARE = 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The visible pixels of one thing; without a phrase it is a part or a distractor."""

    phrase: str
    mask_hw: Mask
    stuff: bool = False  # the background itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One picture, encoded, with the truth about it."""

    jpeg: bytes
    width: int
    height: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """A layer at its place: its left top corner may lie outside the picture."""

    layer: Layer
    left: int
    top: int


def compose(split: str, rng: np.random.Generator) -> Scene:
    """A picture of things that the split owns; everything about it is drawn from rng."""
    width, height = _draw_size(rng)
    phrase, rgb_hwc = _paint_background(split, width, height, rng)
    placed, owner_hw = _settle(_draw_layers(split, phrase, width, height, rng), width, height)
    for item in placed:
        _paint(rgb_hwc, item)
    segments = [segment for index, item in enumerate(placed) for segment in _segments(item, owner_hw == index)]
    background = Segment(phrase=phrase, mask_hw=owner_hw == -1, stuff=True)
    if phrase or not placed or rng.random() < 0.3:
        segments.append(background)
    return Scene(jpeg=_encode(rgb_hwc, rng), width=width, height=height, segments=tuple(segments))


def _draw_size(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height of the picture."""
    aspect = ASPECTS[int(rng.integers(len(ASPECTS)))]
    longest = int(rng.integers(int(MIN_SIDE * max(aspect, 1 / aspect)) + 1, MAX_SIDE + 1))
    return (longest, round(longest / aspect)) if aspect >= 1 else (round(longest * aspect), longest)


def _paint_background(split: str, width: int, height: int, rng: np.random.Generator) -> tuple[str, Floats]:
    """The phrase that the background shows ("" for none) and its pixels."""
    by_phrase = pieces(split)
    if rng.random() < STUFF_SHARE:
        stuff = [phrase for phrase, found in by_phrase.items() if phrase and found[0].boxes and found[0].tile]
        phrase = stuff[int(rng.integers(len(stuff)))]
        choices, scale = by_phrase[phrase], float(rng.uniform(0.8, 2.2))
    else:
        phrase = ""
        choices, scale = tuple(piece for piece in by_phrase[""] if piece.boxes), float(rng.uniform(1.0, 3.0))
    piece = choices[int(rng.integers(len(choices)))]
    image = window(piece, width, height, scale, rng)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return phrase, relight(image, rng)


def _draw_layers(split: str, background: str, width: int, height: int, rng: np.random.Generator) -> list[_Placed]:
    """What is to lie on the background, the lowest first; some of it may prove too hidden to stay."""
    if rng.random() < EMPTY_SHARE:
        return []
    by_phrase = pieces(split)
    named = [phrase for phrase in by_phrase if phrase and phrase != background]
    num_things = 1 + int(rng.choice(5, p=[0.2, 0.3, 0.25, 0.15, 0.1]))
    wanted = [named[int(rng.integers(len(named)))] for _ in range(num_things)]
    if rng.random() < 0.25:  # several of a kind
        wanted += wanted[:1] * int(rng.integers(1, 5))
    if rng.random() < DISTRACTOR_SHARE:
        wanted += [""]
    placed = []
    for index in rng.permutation(len(wanted)):
        choices = by_phrase[wanted[index]]
        piece = choices[int(rng.integers(len(choices)))]
        share = float(np.exp(rng.uniform(np.log(0.2), np.log(0.75))))
        layer = make_layer(piece, round(min(width, height) * share), rng)
        layer_height, layer_width = layer.alpha_hw.shape
        left = int(rng.uniform(-0.2 * layer_width, width - 0.8 * layer_width))
        top = int(rng.uniform(-0.2 * layer_height, height - 0.8 * layer_height))
        placed.append(_Placed(layer=layer, left=left, top=top))
    return placed


def _settle(layers: list[_Placed], width: int, height: int) -> tuple[list[_Placed], NDArray[np.int16]]:
    """The layers that stay, the lowest first, and for each pixel the index of its owner (-1: background).

    From the top down a layer is hidden only by layers that stay, so one pass decides.
    """
    kept: list[tuple[_Placed, Mask]] = []
    covered_hw = np.zeros((height, width), dtype=bool)
    for item in reversed(layers):
        full_hw = item.layer.mask_hw
        visible_hw = _on_canvas(full_hw, item, width, height) & ~covered_hw
        num_visible = int(visible_hw.sum())
        enough = num_visible >= max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * int(full_hw.sum()))
        if enough and int(covered_hw.sum()) + num_visible <= MAX_COVERED_SHARE * width * height:
            kept.append((item, visible_hw))
            covered_hw |= visible_hw
    kept.reverse()
    owner_hw = np.full((height, width), -1, dtype=np.int16)
    for index, (_, visible_hw) in enumerate(kept):
        owner_hw[visible_hw] = index
    return [item for item, _ in kept], owner_hw


def _segments(item: _Placed, visible_hw: Mask) -> list[Segment]:
    """The thing's visible mask, and those of its parts that are large enough."""
    found = [Segment(phrase=item.layer.phrase, mask_hw=visible_hw)]
    height, width = visible_hw.shape
    for part_hw in item.layer.parts_hw:
        mask_hw = _on_canvas(part_hw, item, width, height) & visible_hw
        if int(mask_hw.sum()) >= MIN_PART_PIXELS:
            found.append(Segment(phrase="", mask_hw=mask_hw))
    return found


def _on_canvas(mask_hw: Mask, item: _Placed, width: int, height: int) -> Mask:
    """The layer's mask in the picture's frame."""
    canvas_hw = np.zeros((height, width), dtype=bool)
    there, here = _overlap(mask_hw.shape[0], mask_hw.shape[1], item, width, height)
    canvas_hw[there] = mask_hw[here]
    return canvas_hw


def _paint(rgb_hwc: Floats, item: _Placed) -> None:
    """Blend the layer into the picture, in place."""
    height, width = rgb_hwc.shape[:2]
    layer_height, layer_width = item.layer.alpha_hw.shape
    there, here = _overlap(layer_height, layer_width, item, width, height)
    alpha_hw1 = item.layer.alpha_hw[here][..., None]
    rgb_hwc[there] = rgb_hwc[there] * (1 - alpha_hw1) + item.layer.rgb_hwc[here] * alpha_hw1


def _overlap(
    layer_height: int, layer_width: int, item: _Placed, width: int, height: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where the layer meets the picture: slices of the picture, slices of the layer."""
    top, bottom = max(0, item.top), min(height, item.top + layer_height)
    left, right = max(0, item.left), min(width, item.left + layer_width)
    there = (slice(top, bottom), slice(left, right))
    return there, (slice(top - item.top, bottom - item.top), slice(left - item.left, right - item.left))


def _encode(rgb_hwc: Floats, rng: np.random.Generator) -> bytes:
    """The picture as a camera would keep it: a fall of light, grain, now and then soft, JPEG of varied quality."""
    height, width = rgb_hwc.shape[:2]
    slope_x, slope_y = rng.uniform(-0.2, 0.2, size=2)
    light_hw = 1 + slope_x * np.linspace(-1, 1, width)[None, :] + slope_y * np.linspace(-1, 1, height)[:, None]
    exposed_hwc = rgb_hwc * light_hw.astype(np.float32)[..., None] * np.float32(rng.uniform(0.8, 1.15))
    grain_hw = rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.uniform(0, 5))
    image = Image.fromarray(np.clip(exposed_hwc + grain_hw[..., None], 0, 255).astype(np.uint8))
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9))))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(75, 96)), subsampling=int(rng.choice([0, 2])))
    return buffer.getvalue()
