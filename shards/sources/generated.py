"""Pictures in which nothing is to be seen, painted from a seed: blank ones and noise.

Each takes its size, its JPEG settings and whether it is grey from a real picture of the same split, so that none of
these tells it apart. What is painted follows from (seed, source, index) and that picture's bytes alone. Pixels come
from integers, tables and single IEEE operations; the two kinds that use an FFT work in float64, where another
machine's rounding error of about 1e-13 of a grey level meets a rounding boundary once in ten million pictures.
Numpy's random streams and FFT are fixed by its version, as JPEG bytes are by Pillow's.
"""

# H W pixels of the picture, h w pixels of the smaller canvas that is painted, 3 channels in RGB, F = w // 2 + 1

import hashlib
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from manifests.errors import Reason, Rejected
from shards import images, jpeg
from shards.images import JpegSettings

GeneratedKind = Literal["blank", "noise"]

_FALLBACK_QUALITY = 95  # where the model is no JPEG: what `shards.build` encodes such a picture with
_CANVAS_PIXELS = 1 << 19  # larger pictures are painted on a smaller canvas and enlarged
_SPECTRUM_PIXELS = 1 << 17
_MAX_GRAIN = 4
_LEVELS = 1 << 16

_Pixels = NDArray[np.uint8]
_Float = NDArray[np.float64]
_Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedPicture:
    """One picture of nothing, as it stands in a shard."""

    key: str
    index: int
    variant: str  # such as "gradient" or "phase_scrambled"
    jpeg: bytes
    width: int
    height: int
    sha256: str
    origin: str  # such as "generated:blank/gradient"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What a generated picture takes from a real one."""

    data: bytes
    width: int
    height: int
    grey: bool
    settings: JpegSettings

    def canvas_size(self, max_pixels: int) -> tuple[int, int]:
        """Width and height of the same aspect, of at most about `max_pixels`."""
        shrink = min(1.0, (max_pixels / (self.width * self.height)) ** 0.5)
        return max(1, round(self.width * shrink)), max(1, round(self.height * shrink))


_Painter = Callable[[_Model, _Rng], Image.Image]


def generate(source: str, kind: GeneratedKind, index: int, *, seed: int, model: bytes) -> GeneratedPicture:
    """Picture number `index` of the generated source `source`: the same bytes whenever and wherever it is asked for.

    `model` is a real picture of the same split: it lends its size, its JPEG settings and whether it is grey, and is
    itself what phase-scrambled noise is made from.

    Raises:
        Rejected: `model` is no picture that can be read; see `shards.images.inspect_image`.
    """
    digest = hashlib.sha256(f"{seed}\0{source}\0{index}".encode()).digest()
    rng = np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest, "little")))
    painters = _PAINTERS[kind]
    variant = list(painters)[int(rng.integers(len(painters)))]
    lender = _read_model(model)
    painted = painters[variant](lender, rng)
    picture = painted.resize((lender.width, lender.height), Image.Resampling.BICUBIC)
    encoded = images.encode_jpeg(picture.convert("L") if lender.grey else picture, settings=lender.settings)
    sha256 = hashlib.sha256(encoded).hexdigest()
    return GeneratedPicture(
        key=f"{source}-{index}-{sha256[:8]}",
        index=index,
        variant=variant,
        jpeg=encoded,
        width=lender.width,
        height=lender.height,
        sha256=sha256,
        origin=f"generated:{kind}/{variant}",
    )


def variants(kind: GeneratedKind) -> tuple[str, ...]:
    """The names of all that `kind` may look like."""
    return tuple(_PAINTERS[kind])


def _read_model(data: bytes) -> _Model:
    facts = images.inspect_image(data)
    try:
        settings = images.read_jpeg_settings(data)
    except Rejected as rejected:
        if rejected.reason is not Reason.NOT_AN_IMAGE:
            raise
        settings = images.settings_of_quality(_FALLBACK_QUALITY)
    return _Model(
        data=data,
        width=facts.width,
        height=facts.height,
        grey=not facts.encoded and jpeg.read_frame(data).num_components == 1,
        settings=settings,
    )


def _colour(rng: _Rng, low: int, high: int) -> _Float:
    """Three levels from `low` to `high`; every third colour is a grey."""
    levels = rng.integers(low, high + 1, 3)
    return np.full(3, levels[0], np.float64) if rng.integers(3) == 0 else levels.astype(np.float64)


def _to_image(values_hwc: _Float) -> Image.Image:
    return Image.fromarray(np.rint(values_hwc.clip(0, 255)).astype(np.uint8))


def _grid(width: int, height: int) -> tuple[_Float, _Float]:
    """Columns [1, w] and rows [h, 1] from -1 to 1 along the longer side, 0 in the middle."""
    side = max(width, height)
    return (2 * np.arange(width)[None, :] - (width - 1)) / side, (2 * np.arange(height)[:, None] - (height - 1)) / side


def _distance_from(rng: _Rng, width: int, height: int) -> _Float:
    """Distance [h, w] from a random point inside, in half longer sides."""
    x, y = _grid(width, height)
    centre_x, centre_y = rng.uniform(-0.7, 0.7, 2) * (width, height) / max(width, height)
    distance: _Float = np.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2)
    return distance


# ---------------------------------------------------------------------------------------------------------- blank


def _solid(model: _Model, rng: _Rng) -> Image.Image:
    red, green, blue = (int(level) for level in _colour(rng, 16, 239))
    return Image.new("RGB", (model.width, model.height), (red, green, blue))


def _gradient(model: _Model, rng: _Rng) -> Image.Image:
    """From one colour to another along a random direction, or away from a random point."""
    width, height = model.canvas_size(_CANVAS_PIXELS)
    first, last = _colour(rng, 0, 255), _colour(rng, 0, 255)
    if rng.integers(3) == 0:
        way = _distance_from(rng, width, height)
    else:
        x, y = _grid(width, height)
        step_x, step_y = rng.uniform(-1, 1, 2)
        way = x * step_x + y * step_y
    way = (way - way.min()) / max(way.max() - way.min(), 1e-9)
    return _to_image(first + way[:, :, None] * (last - first))


def _near_black(model: _Model, rng: _Rng) -> Image.Image:
    return _flat_with_sensor_noise(model, rng, _colour(rng, 0, 14))


def _near_white(model: _Model, rng: _Rng) -> Image.Image:
    return _flat_with_sensor_noise(model, rng, _colour(rng, 241, 255))


def _flat_with_sensor_noise(model: _Model, rng: _Rng, colour: _Float) -> Image.Image:
    """One colour as a sensor gives it: up to three levels of noise, alike in all channels."""
    width, height = model.canvas_size(_CANVAS_PIXELS)
    noise = _normal(rng, (height, width, 1), 0.0, rng.uniform(0, 3))
    return Image.fromarray((colour.astype(np.int16) + noise).clip(0, 255).astype(np.uint8))


def _over_exposed(model: _Model, rng: _Rng) -> Image.Image:
    """One to three lights that bloom until they clip, over a bright veil that falls off towards the edges."""
    width, height = model.canvas_size(_CANVAS_PIXELS)
    light = np.zeros((height, width))
    for _ in range(int(rng.integers(1, 4))):
        size = rng.uniform(0.3, 1.0)
        light += rng.uniform(80, 220) / (1 + (_distance_from(rng, width, height) / size) ** 2)
    veil = _colour(rng, 120, 215)
    return _to_image(veil + light[:, :, None])


# ---------------------------------------------------------------------------------------------------------- noise


@cache
def _normal_quantiles() -> _Float:
    """The standard normal distribution as `_LEVELS` equally likely values."""
    inverse = statistics.NormalDist().inv_cdf
    return np.array([inverse((level + 0.5) / _LEVELS) for level in range(_LEVELS)])


def _normal(rng: _Rng, shape: tuple[int, ...], mean: float, deviation: float) -> NDArray[np.int16]:
    """Normal values rounded to whole levels; drawn by table, so that no platform's logarithm decides a pixel."""
    table = np.rint(mean + deviation * _normal_quantiles()).astype(np.int16)
    rounded: NDArray[np.int16] = table[rng.integers(_LEVELS, size=shape, dtype=np.uint16)]
    return rounded


def _grains(model: _Model, rng: _Rng) -> tuple[int, int, int]:
    """Height, width and channels (1 or 3) of a canvas whose grains cover 1 to `_MAX_GRAIN` squared pixels each."""
    grain = int(rng.integers(1, _MAX_GRAIN + 1))
    width, height = model.canvas_size(min(_CANVAS_PIXELS, max(1, model.width * model.height // grain**2)))
    return height, width, 1 if rng.integers(3) == 0 else 3


def _spread(model: _Model, rng: _Rng, pixels_hwc: _Pixels) -> Image.Image:
    """The canvas at the model's size, its grains square or soft."""
    painted = Image.fromarray(np.broadcast_to(pixels_hwc, (*pixels_hwc.shape[:2], 3)).copy())
    sharp = bool(rng.integers(2))
    return painted.resize((model.width, model.height), Image.Resampling.NEAREST if sharp else Image.Resampling.BICUBIC)


def _gaussian(model: _Model, rng: _Rng) -> Image.Image:
    values = _normal(rng, _grains(model, rng), rng.uniform(64, 192), rng.uniform(15, 80))
    return _spread(model, rng, values.clip(0, 255).astype(np.uint8))


def _uniform(model: _Model, rng: _Rng) -> Image.Image:
    low, high = int(rng.integers(0, 96)), int(rng.integers(160, 257))
    return _spread(model, rng, rng.integers(low, high, size=_grains(model, rng), dtype=np.uint8))


def _salt_and_pepper(model: _Model, rng: _Rng) -> Image.Image:
    """White and black grains on one colour, from one in fifty to nearly all."""
    height, width, channels = _grains(model, rng)
    share = rng.uniform(0.02, 0.9)
    draws = rng.integers(_LEVELS, size=(height, width, channels), dtype=np.uint16)
    pixels = np.broadcast_to(_colour(rng, 32, 223).astype(np.uint8), (height, width, 3)).copy()
    threshold = int(share / 2 * _LEVELS)
    np.copyto(pixels, 0, where=draws < threshold)
    np.copyto(pixels, 255, where=draws >= _LEVELS - threshold)
    return _spread(model, rng, pixels)


def _smooth_size(length: int) -> int:
    """The largest number up to `length` without a prime factor above 5, for which an FFT is fast."""
    for size in range(length, 1, -1):
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
    return 1


def _spectrum_size(model: _Model) -> tuple[int, int]:
    """Height and width of a canvas that is painted through its Fourier spectrum."""
    width, height = model.canvas_size(_SPECTRUM_PIXELS)
    return _smooth_size(height), _smooth_size(width)


def _pink(model: _Model, rng: _Rng) -> Image.Image:
    """Noise whose amplitude falls as 1 / f^a, as it does in photographs (a near 1); channels alike, akin or apart."""
    height, width = _spectrum_size(model)
    # Not quite Hermitian in the first and last column; irfft2 takes the part that is.
    spectra = _normal(rng, (3, height, width // 2 + 1, 2), 0.0, 1000.0).astype(np.float64).view(np.complex128)[..., 0]
    kinship = (0.0, 0.5, 1.0)[int(rng.integers(3))]
    spectra = kinship * spectra[:1] + (1 - kinship) * spectra
    frequency = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None, :] ** 2)
    frequency[0, 0] = np.inf  # the mean is set below
    field = np.fft.irfft2(spectra / frequency ** rng.uniform(0.7, 1.4), s=(height, width)).transpose(1, 2, 0)
    field /= max(float(field.std()), 1e-9)
    return _to_image(_colour(rng, 80, 176) + rng.uniform(25, 60) * field)


def _phase_scrambled(model: _Model, rng: _Rng) -> Image.Image:
    """The model with a random phase added to each of its frequencies, the same in all channels.

    Amplitude spectrum and mean colour stay, all shapes go. Source: Oppenheim and Lim, The importance of phase in
    signals, Proceedings of the IEEE 69(5), 1981.
    """
    height, width = _spectrum_size(model)
    original = images.decode_rgb(model.data, longest=max(height, width)).resize((width, height))
    spectra = np.fft.rfft2(np.asarray(original, np.float64).transpose(2, 0, 1))  # [3, h, F]
    phases = np.fft.rfft2(_normal(rng, (height, width), 0.0, 1000.0).astype(np.float64))  # [h, F]; white, Hermitian
    phases /= np.maximum(np.abs(phases), 1e-9)
    phases[0, 0] = 1
    return _to_image(np.fft.irfft2(spectra * phases, s=(height, width)).transpose(1, 2, 0))


_PAINTERS: Mapping[GeneratedKind, Mapping[str, _Painter]] = {
    "blank": {
        "solid": _solid,
        "gradient": _gradient,
        "near_black": _near_black,
        "near_white": _near_white,
        "over_exposed": _over_exposed,
    },
    "noise": {
        "gaussian": _gaussian,
        "uniform": _uniform,
        "salt_and_pepper": _salt_and_pepper,
        "pink": _pink,
        "phase_scrambled": _phase_scrambled,
    },
}
