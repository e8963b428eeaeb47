"""Pictures as bytes: what they are, whether they are sound, and their pixels at the size that is asked for.

Everything starts from the bytes, since a build copies JPEGs as they are. Limits are our own and are applied to the
header, before Pillow allocates anything; Pillow's format classes are called directly, which leaves its global limit,
its warning and its guessing out of it. EXIF rotation is ignored everywhere: annotations are on unrotated pixels.
"""

# H W pixels, S side of a square

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from manifests.errors import Reason, Rejected
from shards import jpeg
from shards.perceptual_hash import GRID_SIDE, hash_grid

_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB"})
_TIFF_BITS_PER_SAMPLE = 258
_HEAD_BYTES = 32
_PNG_BIT_DEPTH = 24

# What Pillow's readers raise on bytes that are not what they claim to be.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)

_Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest picture that is accepted."""

    max_pixels: int = 178_956_970  # where Pillow itself refuses
    max_bytes: int = 256 << 20


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What a picture is."""

    width: int
    height: int
    format: str  # jpeg, png, webp, gif, bmp or tiff
    encoded: bool  # True where it is no JPEG and must be encoded as one when written


class Letterbox(NamedTuple):
    """Where a picture lies in a square, in pixels of the square."""

    scaled_width: int
    scaled_height: int
    left: int
    top: int


def inspect_image(data: bytes | memoryview, *, limits: Limits = DEFAULT_LIMITS) -> ImageFacts:
    """What the picture in `data` is: a JPEG by its structure, any other format by decoding it.

    A JPEG is copied and therefore checked cheaply; other formats are decoded and encoded anyway. Transparency is
    refused, also where a format only declares it, since what lies beneath is not what anybody annotated.

    Raises:
        Rejected: EMPTY_FILE, NOT_AN_IMAGE, TRUNCATED, UNREADABLE, UNSUPPORTED_MODE, TOO_MANY_PIXELS, TOO_MANY_BYTES.
    """
    if not len(data):
        raise Rejected(Reason.EMPTY_FILE, "0 bytes")
    if len(data) > limits.max_bytes:
        raise Rejected(Reason.TOO_MANY_BYTES, f"{len(data)} bytes, expected at most {limits.max_bytes}")
    if jpeg.is_jpeg(data):
        frame = jpeg.read_frame(data)
        _require_pixels(frame.width, frame.height, limits)
        return ImageFacts(width=frame.width, height=frame.height, format="jpeg", encoded=False)
    with _opened(data, limits) as (image, name):
        image.load()
        return ImageFacts(width=image.width, height=image.height, format=name, encoded=True)


def verify_decodes(data: bytes | memoryview) -> None:
    """Returns where the whole picture decodes.

    libjpeg goes on after damaged bits and fills what it cannot read; only what stops it is found here.

    Raises:
        Rejected: as `inspect_image`.
    """
    if inspect_image(data).encoded:
        return  # decoded just now
    with _opened(data, DEFAULT_LIMITS) as (image, _):
        image.load()


def decode_rgb(data: bytes | memoryview, *, longest: int | None = None) -> Image.Image:
    """The picture as RGB, unrotated; scaled so that its longer side is `longest` pixels where that is given.

    A JPEG is decoded at the nearest scale (1/1, 1/2, 1/4, 1/8) that is not below the target, then resampled.

    Raises:
        Rejected: as `inspect_image`; TRUNCATED or UNREADABLE where the pixels do not decode.
    """
    with _opened(data, DEFAULT_LIMITS) as (image, _):
        if longest is None:
            image.load()
            return image.convert("RGB")
        return _scaled(image, scaled_size(image.width, image.height, longest), "RGB")


def read_size(data: bytes | memoryview) -> tuple[int, int]:
    """Width and height of the picture in `data`, from its header.

    Raises:
        Rejected: as `inspect_image`.
    """
    with _opened(data, DEFAULT_LIMITS) as (image, _):
        return image.width, image.height


def decode_at_least(data: bytes | memoryview, size: tuple[int, int]) -> Image.Image:
    """The picture as RGB, unrotated; a JPEG at the smallest of the scales 1/1, 1/2, 1/4, 1/8 that is not below `size`.

    Raises:
        Rejected: as `inspect_image`; TRUNCATED or UNREADABLE where the pixels do not decode.
    """
    with _opened(data, DEFAULT_LIMITS) as (image, _):
        image.draft("RGB", size)
        image.load()
        return image.convert("RGB")


def scaled_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height, each at least 1, once the longer side is `longest`; halves round up."""
    side = max(width, height)
    return max(1, (2 * width * longest + side) // (2 * side)), max(1, (2 * height * longest + side) // (2 * side))


def letterbox_geometry(width: int, height: int, side: int) -> Letterbox:
    """Where a picture of `width` x `height` lies, centred and unstretched, in a square of `side` pixels."""
    scaled_width, scaled_height = scaled_size(width, height, side)
    return Letterbox(scaled_width, scaled_height, (side - scaled_width) // 2, (side - scaled_height) // 2)


def decode_letterboxed(data: bytes | memoryview, side: int, *, out: _Pixels | None = None) -> _Pixels:
    """The picture [S, S, 3] in RGB, centred in a black square; written to `out` where that is given.

    Raises:
        Rejected: as `decode_rgb`.
    """
    image = decode_rgb(data, longest=side)
    canvas = np.empty((side, side, 3), np.uint8) if out is None else out
    left, top = (side - image.width) // 2, (side - image.height) // 2
    canvas[:top] = canvas[top + image.height :] = 0
    canvas[:, :left] = canvas[:, left + image.width :] = 0
    canvas[top : top + image.height, left : left + image.width] = np.asarray(image)
    return canvas


def perceptual_hash(data: bytes | memoryview) -> int | None:
    """64 bits that near-duplicates share but for a few, equal on every machine; None for a picture without structure.

    Raises:
        Rejected: as `decode_rgb`.
    """
    with _opened(data, DEFAULT_LIMITS) as (image, _):
        return hash_grid(np.asarray(_scaled(image, (GRID_SIDE, GRID_SIDE), "L")))


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegSettings:
    """How a JPEG is encoded: enough to encode a generated picture as the real ones are."""

    quantisation: tuple[tuple[int, ...], ...]  # 64 steps a table, row by row; luma first, then chroma
    subsampling: str = "4:2:0"
    progressive: bool = False


def settings_of_quality(quality: int, *, subsampling: str = "4:2:0") -> JpegSettings:
    """The settings that libjpeg's quality of 1 to 100 stands for."""
    encoded = io.BytesIO()
    Image.new("RGB", (16, 16)).save(encoded, "JPEG", quality=quality, subsampling=subsampling)
    return read_jpeg_settings(encoded.getvalue())


def read_jpeg_settings(data: bytes | memoryview) -> JpegSettings:
    """How the JPEG in `data` was encoded; a subsampling that Pillow cannot write is given as 4:2:0.

    Raises:
        Rejected: NOT_AN_IMAGE where `data` is no JPEG; else as `decode_rgb`.
    """
    with _opened(data, DEFAULT_LIMITS) as (image, name):
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            raise Rejected(Reason.NOT_AN_IMAGE, f"a {name}, expected a JPEG")
        sampling = JpegImagePlugin.get_sampling(image)
        return JpegSettings(
            quantisation=tuple(tuple(table) for _, table in sorted(image.quantization.items())),
            subsampling=_SUBSAMPLINGS[sampling] if sampling >= 0 else "4:2:0",
            progressive="progressive" in image.info,
        )


def encode_jpeg(image: Image.Image, *, settings: JpegSettings) -> bytes:
    """`image` as JPEG bytes without metadata; equal pixels and settings give equal bytes."""
    encoded = io.BytesIO()
    image.save(
        encoded,
        "JPEG",
        qtables=[list(table) for table in settings.quantisation],
        subsampling=settings.subsampling,
        progressive=settings.progressive,
        comment=b"",  # else Pillow takes it from the picture's info
    )
    return encoded.getvalue()


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF block stays unread: nothing here uses it, and Pillow warns where it is damaged."""

    def _read_dpi_from_exif(self) -> None:
        pass


_FORMATS: tuple[tuple[bytes, str, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", "jpeg", _JpegFile),
    (b"\x89PNG\r\n\x1a\n", "png", PngImagePlugin.PngImageFile),
    (b"GIF87a", "gif", GifImagePlugin.GifImageFile),
    (b"GIF89a", "gif", GifImagePlugin.GifImageFile),
    (b"RIFF", "webp", WebPImagePlugin.WebPImageFile),
    (b"BM", "bmp", BmpImagePlugin.BmpImageFile),
    (b"II*\x00", "tiff", TiffImagePlugin.TiffImageFile),
    (b"MM\x00*", "tiff", TiffImagePlugin.TiffImageFile),
)


@contextlib.contextmanager
def _opened(data: bytes | memoryview, limits: Limits) -> Iterator[tuple[ImageFile.ImageFile, str]]:
    """The picture with its header read, and its format's name; what Pillow raises meanwhile becomes a `Rejected`."""
    head = bytes(data[:_HEAD_BYTES])
    name, reader = _format_of(head)
    try:
        with contextlib.ExitStack() as stack:
            if name != "jpeg":  # these warn of harmless metadata; JPEGs, which are many, do without the lock on filters
                stack.enter_context(warnings.catch_warnings(action="ignore"))
            image = stack.enter_context(reader(io.BytesIO(data)))
            _require_pixels(image.width, image.height, limits)
            _require_opaque_8_bit(image, name, head)
            yield image, name
    except Image.DecompressionBombError as error:  # met inside a reader: WebP's canvas, GIF's frames
        raise Rejected(Reason.TOO_MANY_PIXELS, f"{name} of {len(data)} bytes: {error}") from error
    except _PILLOW_ERRORS as error:
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = Reason.TRUNCATED if cut else Reason.UNREADABLE
        raise Rejected(reason, f"{name} of {len(data)} bytes does not decode: {error}") from error


def _format_of(head: bytes) -> tuple[str, type[ImageFile.ImageFile]]:
    for magic, name, reader in _FORMATS:
        if head.startswith(magic) and (name != "webp" or head[8:12] == b"WEBP"):
            return name, reader
    if not head:
        raise Rejected(Reason.EMPTY_FILE, "0 bytes")
    raise Rejected(
        Reason.NOT_AN_IMAGE, f"starts with {head[:8].hex(' ')}, which is no picture format that is read here"
    )


def _require_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        found = f"{width} x {height} = {width * height} pixels"
        raise Rejected(Reason.TOO_MANY_PIXELS, f"{found}, expected at most {limits.max_pixels}")


def _require_opaque_8_bit(image: ImageFile.ImageFile, name: str, head: bytes) -> None:
    if image.mode not in _OPAQUE_MODES or "transparency" in image.info:
        alpha = " with transparency" if image.has_transparency_data else ""
        raise Rejected(Reason.UNSUPPORTED_MODE, f"{name} of mode {image.mode}{alpha}, expected opaque grey or RGB")
    bits = 8
    if name == "png":
        bits = head[_PNG_BIT_DEPTH]
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,)))
    if bits > 8:
        raise Rejected(Reason.UNSUPPORTED_MODE, f"{name} of {bits} bits a sample, expected at most 8")


def _scaled(image: ImageFile.ImageFile, size: tuple[int, int], mode: str) -> Image.Image:
    drafted = image.draft(mode, size)
    box = drafted[1] if drafted else None
    image.load()
    pixels = image.convert(mode)
    return pixels.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
