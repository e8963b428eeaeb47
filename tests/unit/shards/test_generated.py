"""Generated pictures: the same bytes always, dressed as the real picture they borrow from, and with nothing in them."""

import hashlib
import io
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from manifests.errors import Reason, Rejected
from shards import images, jpeg
from shards.sources import generated
from shards.sources.generated import GeneratedKind, GeneratedPicture, generate, variants

KINDS: tuple[GeneratedKind, ...] = get_args(GeneratedKind)
ALL = [(kind, variant) for kind in KINDS for variant in variants(kind)]


def model(
    width: int = 96, height: int = 72, *, seed: int = 0, mode: str = "RGB", file_format: str = "JPEG", **options: object
) -> bytes:
    """A picture with structure at every scale, as a JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    encoded = io.BytesIO()
    picture.save(encoded, file_format, **{"quality": 90, **options})
    return encoded.getvalue()


def some(kind: GeneratedKind, variant: str, *, number: int = 0, data: bytes | None = None) -> GeneratedPicture:
    """The generated picture of `variant` that comes `number`-th."""
    data = data or model()
    found = (generate(kind, kind, index, seed=3, model=data) for index in range(1000))
    of_variant = (picture for picture in found if picture.variant == variant)
    return [next(of_variant) for _ in range(number + 1)][-1]


def pixels(data: bytes) -> NDArray[np.float64]:
    return np.asarray(images.decode_rgb(data), np.float64)


def log_amplitude(array_hw: NDArray[np.float64]) -> NDArray[np.float64]:
    spectrum: NDArray[np.float64] = np.log(np.abs(np.fft.rfft2(array_hw - array_hw.mean())) + 1)
    return spectrum


def slope(array_hw: NDArray[np.float64], *, highest: float) -> float:
    """How the log amplitude changes with the log frequency, up to `highest` periods a pixel."""
    height, width = array_hw.shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    band = (frequency > 0.01) & (frequency < highest)
    return float(np.polyfit(np.log(frequency[band]), log_amplitude(array_hw)[band], 1)[0])


@pytest.mark.parametrize(("kind", "variant"), ALL)
def test_a_picture_follows_from_seed_source_index_and_model(kind: GeneratedKind, variant: str) -> None:
    first = some(kind, variant)
    assert generate(kind, kind, first.index, seed=3, model=model()) == first
    others = [
        generate(kind, kind, first.index, seed=4, model=model()),
        generate(f"{kind}2", kind, first.index, seed=3, model=model()),
        generate(kind, kind, first.index, seed=3, model=model(quality=50)),
        some(kind, variant, number=1),
    ]
    assert first.sha256 not in {other.sha256 for other in others}


def test_another_process_with_other_threads_and_hashes_paints_the_same() -> None:
    data = model()
    code = (
        "import sys; from shards.sources.generated import generate\n"
        "data = sys.stdin.buffer.read()\n"
        "for kind in ('blank', 'noise'):\n"
        "    for index in range(20):\n"
        "        print(generate(kind, kind, index, seed=3, model=data).sha256)"
    )
    environment = {"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "3", "LC_ALL": "C", "PYTHONPATH": "."}
    run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True, env=environment)
    here = [generate(kind, kind, index, seed=3, model=data).sha256 for kind in KINDS for index in range(20)]
    assert run.stdout.decode().split() == here


@pytest.mark.parametrize("size", [(1, 1), (1, 97), (53, 2), (37, 61), (1013, 601), (1500, 2250)])
def test_size_and_encoding_are_those_of_the_model(size: tuple[int, int]) -> None:
    data = model(*size, quality=83, subsampling="4:4:4", progressive=True)
    for kind, variant in ALL:
        made = some(kind, variant, data=data) if size[0] < 100 else generate(kind, kind, 5, seed=1, model=data)
        assert images.inspect_image(made.jpeg) == images.inspect_image(data)
        assert (made.width, made.height) == size
        assert images.read_jpeg_settings(made.jpeg) == images.read_jpeg_settings(data)


@pytest.mark.parametrize(("kind", "variant"), ALL)
def test_a_grey_model_gives_a_grey_picture(kind: GeneratedKind, variant: str) -> None:
    assert jpeg.read_frame(some(kind, variant, data=model(mode="L")).jpeg).num_components == 1
    assert jpeg.read_frame(some(kind, variant).jpeg).num_components == 3


def test_a_model_that_is_no_jpeg_lends_its_size() -> None:
    data = model(31, 44, file_format="PNG")
    made = [generate("noise", "noise", index, seed=0, model=data) for index in range(30)]
    assert {(picture.width, picture.height) for picture in made} == {(31, 44)}
    assert {images.inspect_image(picture.jpeg).format for picture in made} == {"jpeg"}


def test_a_model_that_is_no_picture_is_rejected() -> None:
    with pytest.raises(Rejected) as caught:
        generate("blank", "blank", 0, seed=0, model=b"no picture")
    assert caught.value.reason is Reason.NOT_AN_IMAGE
    with pytest.raises(Rejected) as caught:
        generate("blank", "blank", 0, seed=0, model=model()[:200])
    assert caught.value.reason is Reason.TRUNCATED


@pytest.mark.parametrize("kind", KINDS)
def test_variants_come_about_equally_often(kind: GeneratedKind) -> None:
    data = model(8, 8)
    counts = dict.fromkeys(variants(kind), 0)
    for index in range(500):
        counts[generate(kind, kind, index, seed=0, model=data).variant] += 1
    assert all(70 <= count <= 130 for count in counts.values()), counts


@pytest.mark.parametrize(("kind", "variant"), ALL)
def test_key_digest_and_origin_name_the_picture(kind: GeneratedKind, variant: str) -> None:
    made = some(kind, variant)
    assert made.sha256 == hashlib.sha256(made.jpeg).hexdigest()
    assert made.key == f"{kind}-{made.index}-{made.sha256[:8]}"
    assert made.origin == f"generated:{kind}/{variant}"


@pytest.mark.parametrize("number", range(6))
def test_blank_pictures_look_as_they_are_called(number: int) -> None:
    shown = {variant: pixels(some("blank", variant, number=number).jpeg) for variant in variants("blank")}
    assert np.ptp(shown["solid"], axis=(0, 1)).max() <= 1
    assert np.ptp(shown["gradient"], axis=(0, 1)).max() > 8
    assert shown["near_black"].mean() < 20
    assert shown["near_white"].mean() > 235
    assert (shown["over_exposed"] >= 254).mean() > 0.02
    assert shown["over_exposed"].mean() > 150


@pytest.mark.parametrize("variant", variants("blank"))
def test_a_blank_picture_has_no_edge(variant: str) -> None:
    data = model(200, 150)
    for number in range(5):
        smooth = np.asarray(
            Image.fromarray(pixels(some("blank", variant, number=number, data=data).jpeg).astype(np.uint8)).resize(
                (50, 38), Image.Resampling.BOX
            ),
            np.float64,
        )
        steps = max(np.abs(np.diff(smooth, axis=axis)).max() for axis in (0, 1))
        assert steps < 24, (variant, number)


@pytest.mark.parametrize("number", range(4))
def test_white_noise_is_flat_in_frequency_and_pink_falls(number: int) -> None:
    data = model(256, 256, quality=98)
    for variant in ("gaussian", "uniform", "salt_and_pepper"):
        white = pixels(some("noise", variant, number=number, data=data).jpeg)[..., 1]
        assert abs(slope(white, highest=0.08)) < 0.25, variant  # below that of the coarsest grains
    pink = pixels(some("noise", "pink", number=number, data=data).jpeg)[..., 1]
    assert -1.6 < slope(pink, highest=0.25) < -0.5


@pytest.mark.parametrize("number", range(3))
def test_phase_scrambling_keeps_amplitudes_and_colour_and_loses_every_shape(number: int) -> None:
    data = model(240, 180, seed=number, quality=95)
    original, scrambled = pixels(data), pixels(some("noise", "phase_scrambled", number=number, data=data).jpeg)
    assert np.abs(original.mean(axis=(0, 1)) - scrambled.mean(axis=(0, 1))).max() < 6
    for channel in range(3):
        before, after = (log_amplitude(array[..., channel])[:20, :20].ravel() for array in (original, scrambled))
        assert np.corrcoef(before, after)[0, 1] > 0.9
        assert abs(np.corrcoef(original[..., channel].ravel(), scrambled[..., channel].ravel())[0, 1]) < 0.4


def test_only_phase_scrambling_looks_at_what_the_model_shows() -> None:
    """Two models of one size and one encoding, with other pixels."""
    first, second = model(seed=1), model(seed=2)
    assert images.read_jpeg_settings(first) == images.read_jpeg_settings(second)
    for kind, variant in ALL:
        index = some(kind, variant).index
        pair = {generate(kind, kind, index, seed=3, model=data).sha256 for data in (first, second)}
        assert len(pair) == (2 if variant == "phase_scrambled" else 1), variant


@pytest.mark.parametrize(("length", "smooth"), [(1, 1), (2, 2), (7, 6), (427, 405), (480, 480), (1013, 1000)])
def test_a_spectrum_has_a_size_without_large_factors(length: int, smooth: int) -> None:
    assert generated._smooth_size(length) == smooth
