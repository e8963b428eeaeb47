"""The real photographs of the demo world and the pieces cut out of them.

`demo_cutouts.toml` says which polygon of which photograph shows what, and which split owns it. Here that file becomes
typed, and a piece becomes a `Layer`: scaled, turned, lit and ready to be pasted. The photographs are those that the
scikit-image wheel ships; nothing is downloaded.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

# Shapes: h, w pixels of a layer or picture, c = 3 colours.
Box = tuple[int, int, int, int]
Ellipse = tuple[float, float, float, float]
Polygon = tuple[tuple[float, float], ...]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

SPLITS = ("train", "val", "test")
SUPERSAMPLING = 4
SMALL_SIDE = 80
MAX_OBJECT_ENLARGEMENT = 5.0
MAX_STRIP_ENLARGEMENT = 3.0
TURN_MARGIN = 0.15  # of the other side, enough for 15 degrees


class Photograph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of `skimage/data` and where it comes from."""

    file: str
    source: str
    licence: str


class Region(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Boxes of a photograph by split: a background without a phrase, or (with one) a texture."""

    photo: str
    phrase: str = ""
    supercategory: str = ""
    train: tuple[Box, ...] = ()
    val: tuple[Box, ...] = ()
    test: tuple[Box, ...] = ()
    tile: bool = True  # may be mirrored beyond its edge, and fill a whole background

    def boxes(self, split: str) -> tuple[Box, ...]:
        """The boxes that the split owns."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ellipse repeated in square cells: rows of aligned pictures."""

    cell: int
    columns: int
    first_row: int
    num_rows: int
    ellipse: Ellipse

    def ellipses(self) -> tuple[Ellipse, ...]:
        """The ellipse moved to each cell, row by row."""
        x, y, radius_x, radius_y = self.ellipse
        cells = ((row, column) for row in range(self.num_rows) for column in range(self.columns))
        return tuple(
            (x + column * self.cell, y + (self.first_row + row) * self.cell, radius_x, radius_y)
            for row, column in cells
        )


class Thing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Outlines of things of one phrase in one photograph, all owned by one split."""

    photo: str
    split: str
    phrase: str = ""
    supercategory: str = ""
    polygons: tuple[Polygon, ...] = ()
    ellipses: tuple[Ellipse, ...] = ()
    grid: Grid | None = None
    parts: tuple[Polygon, ...] = ()
    turn: bool = False
    feather: float = 1.0

    def outlines(self) -> tuple[Polygon, ...]:
        """Every outline as a polygon."""
        ellipses = self.ellipses + (self.grid.ellipses() if self.grid else ())
        return self.polygons + tuple(_ellipse_polygon(ellipse) for ellipse in ellipses)


class Cutouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of `demo_cutouts.toml`."""

    photograph: tuple[Photograph, ...]
    background: tuple[Region, ...]
    texture: tuple[Region, ...]
    object: tuple[Thing, ...]

    def categories(self) -> dict[str, str]:
        """Supercategory by phrase, in alphabetic order of the phrases."""
        entries: tuple[Region | Thing, ...] = (*self.texture, *self.object)
        named = {entry.phrase: entry.supercategory for entry in entries if entry.phrase}
        return dict(sorted(named.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One thing that can be pasted: an outline of a photograph, or a texture's boxes to take windows from."""

    photo: str
    phrase: str
    outline: Polygon = ()
    parts: tuple[Polygon, ...] = ()
    turn: bool = False
    feather: float = 1.0
    boxes: tuple[Box, ...] = ()
    tile: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A piece made ready for one picture, not yet placed."""

    phrase: str
    rgb_hwc: Floats  # 0..255
    alpha_hw: Floats  # 0..1, soft at the edge; the mask is alpha >= 0.5
    parts_hw: tuple[Mask, ...]

    @property
    def mask_hw(self) -> Mask:
        """The pixels that count as the piece."""
        return self.alpha_hw >= 0.5


@cache
def load_cutouts() -> Cutouts:
    """The cut-outs file beside this module, checked against its types."""
    path = Path(__file__).with_name("demo_cutouts.toml")
    return msgspec.toml.decode(path.read_bytes(), type=Cutouts)


@cache
def photograph(name: str) -> Image.Image:
    """The photograph as RGB; `.npy` holds aligned square pictures, laid out ten a row."""
    path = photographs_folder() / name
    if path.suffix == ".npy":
        frames_nhw = np.load(path, allow_pickle=False)[:100]
        num_frames, height, width = frames_nhw.shape
        sheet = frames_nhw.reshape(num_frames // 10, 10, height, width).swapaxes(1, 2)
        grey_hw = np.rint(sheet.reshape(num_frames // 10 * height, 10 * width) * 255).astype(np.uint8)
        return Image.fromarray(grey_hw).convert("RGB")
    with Image.open(path) as image:
        return image.convert("RGB")


def photographs_folder() -> Path:
    """The folder of pictures inside the scikit-image wheel.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the demo world is cut out of scikit-image's pictures; pip install scikit-image")
    return Path(spec.origin).parent / "data"


@cache
def pieces(split: str) -> dict[str, tuple[Piece, ...]]:
    """What the split may paste, by phrase; distractors stand under the empty phrase."""
    cutouts = load_cutouts()
    found: dict[str, list[Piece]] = {}
    for thing in cutouts.object:
        if thing.split == split:
            found.setdefault(thing.phrase, []).extend(
                Piece(
                    photo=thing.photo,
                    phrase=thing.phrase,
                    outline=outline,
                    parts=thing.parts,
                    turn=thing.turn,
                    feather=thing.feather,
                )
                for outline in thing.outlines()
            )
    for region in (*cutouts.texture, *cutouts.background):
        boxes = region.boxes(split)
        if boxes:
            piece = Piece(photo=region.photo, phrase=region.phrase, boxes=boxes, tile=region.tile)
            found.setdefault(region.phrase, []).append(piece)
    return {phrase: tuple(found[phrase]) for phrase in sorted(found)}


def make_layer(piece: Piece, long_side: int, rng: np.random.Generator) -> Layer:
    """The piece at about this size, with light, flip, turn and edge drawn from rng."""
    if piece.outline:
        colour, alpha, parts = _cut_thing(piece, long_side, rng)
    else:
        colour, alpha, parts = _cut_texture(piece, long_side, rng)
    alpha = alpha.filter(ImageFilter.GaussianBlur(piece.feather * rng.uniform(0.4, 1.0)))
    return Layer(
        phrase=piece.phrase,
        rgb_hwc=relight(colour, rng),
        alpha_hw=np.asarray(alpha, dtype=np.float32) / np.float32(255),
        parts_hw=tuple(np.asarray(part) >= 128 for part in parts),
    )


def window(piece: Piece, width: int, height: int, scale: float, rng: np.random.Generator) -> Image.Image:
    """A random window of one of the piece's boxes, enlarged about `scale` times, mirrored beyond the box's edge."""
    areas = np.array([(right - left) * (bottom - top) for left, top, right, bottom in piece.boxes], dtype=float)
    box = piece.boxes[int(rng.choice(len(areas), p=areas / areas.sum()))]
    source_hwc = np.asarray(photograph(piece.photo).crop(box))
    if not piece.tile:
        scale = max(scale, width / source_hwc.shape[1], height / source_hwc.shape[0])
    columns = _mirrored_run(source_hwc.shape[1], max(2, round(width / scale)), rng)
    rows = _mirrored_run(source_hwc.shape[0], max(2, round(height / scale)), rng)
    found = Image.fromarray(source_hwc[rows[:, None], columns[None, :]])
    return found.resize((width, height), Image.Resampling.BICUBIC)


def relight(image: Image.Image, rng: np.random.Generator) -> Floats:
    """The image's pixels in another light: contrast, brightness, a tint and a little gamma."""
    gamma = rng.uniform(0.85, 1.18)
    contrast = rng.uniform(0.8, 1.2)
    tint_c = rng.uniform(0.92, 1.08, size=3)
    curve = 255 * (np.arange(256) / 255) ** gamma  # of all 256 levels at once, which is far cheaper than of the pixels
    curve = (curve - 128) * contrast + 128 + rng.uniform(-25, 25)
    curves_c = np.clip(curve * tint_c[:, None], 0, 255)
    table = [round(float(level)) for level in curves_c.ravel()]
    return np.asarray(image.point(table), dtype=np.float32)


def _cut_thing(
    piece: Piece, long_side: int, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image, list[Image.Image]]:
    """Colour, alpha and part masks of an outlined thing: cropped, scaled, flipped, turned."""
    photo = photograph(piece.photo)
    box = _outer_box(piece.outline, photo.size)
    colour = photo.crop(box)
    masks = [_outline_mask(outline, box) for outline in (piece.outline, *piece.parts)]
    scale = min(MAX_OBJECT_ENLARGEMENT, long_side / max(colour.size))
    size = (max(4, round(colour.width * scale)), max(4, round(colour.height * scale)))
    colour = colour.resize(size, Image.Resampling.BICUBIC)
    masks = [mask.resize(size, Image.Resampling.BILINEAR) for mask in masks]
    if rng.random() < 0.5:
        colour = colour.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        masks = [mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for mask in masks]
    angle = float(rng.uniform(0, 360) if piece.turn else rng.normal(0, 8))
    colour = colour.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    masks = [mask.rotate(angle, Image.Resampling.BILINEAR, expand=True) for mask in masks]
    return colour, masks[0], masks[1:]


def _cut_texture(
    piece: Piece, long_side: int, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image, list[Image.Image]]:
    """Colour and alpha of a texture: a window of it in a random shape."""
    if not piece.tile:
        return _cut_strip(piece, long_side, rng)
    short_side = round(long_side * rng.uniform(0.55, 1.0))
    width, height = (long_side, short_side) if rng.random() < 0.5 else (short_side, long_side)
    spare_x, spare_y = round(TURN_MARGIN * height), round(TURN_MARGIN * width)  # so that turning shows no corner
    colour = window(piece, width + 2 * spare_x, height + 2 * spare_y, float(rng.uniform(0.6, 1.8)), rng)
    colour = colour.rotate(float(np.clip(rng.normal(0, 8), -15, 15)), Image.Resampling.BICUBIC)
    colour = colour.crop((spare_x, spare_y, spare_x + width, spare_y + height))
    return colour, _random_shape(width, height, rng), []


def _cut_strip(
    piece: Piece, long_side: int, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image, list[Image.Image]]:
    """Colour and alpha of a piece of writing: a large part of its box, never mirrored, slightly turned."""
    left, top, right, bottom = piece.boxes[int(rng.integers(len(piece.boxes)))]
    share_x, share_y = rng.uniform(0.35, 1.0), rng.uniform(0.8, 1.0)
    width, height = max(8, round((right - left) * share_x)), max(8, round((bottom - top) * share_y))
    left += int(rng.integers(right - left - width + 1))
    top += int(rng.integers(bottom - top - height + 1))
    scale = min(MAX_STRIP_ENLARGEMENT, long_side * 1.3 / max(width, height))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    colour = photograph(piece.photo).resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    alpha = Image.new("L", size, 255)
    angle = float(rng.normal(0, 8))
    turned = colour.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    return turned, alpha.rotate(angle, Image.Resampling.BILINEAR, expand=True), []


def _random_shape(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """An alpha mask that fills the size: a smooth blob, an ellipse, a turned quadrilateral or a triangle."""
    kind = int(rng.integers(4))
    num_points = (36, 36, 4, 3)[kind]
    angles = np.arange(num_points) * (2 * np.pi / num_points) + rng.uniform(0, 2 * np.pi)
    if kind >= 2:
        angles = angles + rng.uniform(-0.25, 0.25, size=num_points)
    radii = np.ones(num_points)
    if kind == 0:
        for frequency in (2, 3, 4):
            radii = radii + rng.uniform(0, 0.5 / frequency) * np.sin(frequency * angles + rng.uniform(0, 2 * np.pi))
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    points = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    margin = 2.0
    points = margin + points * (np.array([width, height]) - 2 * margin)
    return _draw(tuple((float(x), float(y)) for x, y in points), (0, 0, width, height), 2).reduce(2)


@cache
def _outline_mask(outline: Polygon, box: Box) -> Image.Image:
    """The outline filled inside the box, with soft edges; small ones at a finer resolution than their photograph's."""
    small = max(box[2] - box[0], box[3] - box[1]) < SMALL_SIDE
    return _draw(outline, box, SUPERSAMPLING) if small else _draw(outline, box, SUPERSAMPLING).reduce(SUPERSAMPLING)


def _draw(outline: Polygon, box: Box, times: int) -> Image.Image:
    """The outline filled inside the box, so many times enlarged."""
    left, top, right, bottom = box
    image = Image.new("L", ((right - left) * times, (bottom - top) * times), 0)
    ImageDraw.Draw(image).polygon([((x - left) * times, (y - top) * times) for x, y in outline], fill=255)
    return image


def _outer_box(outline: Polygon, size: tuple[int, int]) -> Box:
    """The outline's bounding box with two pixels to spare, inside the photograph."""
    xs, ys = [x for x, _ in outline], [y for _, y in outline]
    left, top = max(0, int(min(xs)) - 2), max(0, int(min(ys)) - 2)
    return left, top, min(size[0], int(max(xs)) + 3), min(size[1], int(max(ys)) + 3)


def _mirrored_run(length: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`wanted` consecutive positions from a random start, walking back and forth over 0 .. length - 1."""
    start = int(rng.integers(length - wanted + 1)) if wanted <= length else int(rng.integers(2 * length))
    steps = (start + np.arange(wanted)) % (2 * length)
    return np.where(steps < length, steps, 2 * length - 1 - steps)


def _ellipse_polygon(ellipse: Ellipse) -> Polygon:
    """An ellipse as a polygon of 40 points."""
    x, y, radius_x, radius_y = ellipse
    angles = np.arange(40) * (2 * np.pi / 40)
    return tuple((float(x + radius_x * np.cos(a)), float(y + radius_y * np.sin(a))) for a in angles)
