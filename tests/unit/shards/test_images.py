"""Pictures: what is accepted and why not, decoding at a scale, the square, encoding alike, and the perceptual hash."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, JpegImagePlugin

from manifests.errors import Reason, Rejected
from shards import images
from shards.images import JpegSettings, Limits, inspect_image

REAL = Path("../shared/data/coco_val/val2017")
GOLDEN_HASH = 9711519170859387452

needs_real = pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not on this machine")


def photo(width: int = 320, height: int = 240, *, seed: int = 0) -> Image.Image:
    """A picture with structure at every scale."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def as_bytes(image: Image.Image, name: str = "JPEG", **options: object) -> bytes:
    written = io.BytesIO()
    image.save(written, name, **options)
    return written.getvalue()


def with_frame_byte(data: bytes, offset: int, value: int) -> bytes:
    """`data` with the byte at `offset` from its SOF0 marker replaced."""
    place = data.index(b"\xff\xc0") + offset
    return data[:place] + bytes([value]) + data[place + 1 :]


def reason_of(data: bytes, *, limits: Limits = images.DEFAULT_LIMITS) -> Reason:
    with pytest.raises(Rejected) as caught:
        inspect_image(data, limits=limits)
    return caught.value.reason


def real_pictures(num: int) -> list[bytes]:
    return [path.read_bytes() for path in sorted(REAL.glob("*.jpg"))[:num]]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_what_its_header_says(mode: str, options: dict[str, int]) -> None:
    data = as_bytes(photo(33, 21).convert(mode), "JPEG", **options)
    for given in (data, memoryview(data)):
        facts = inspect_image(given)
        assert (facts.width, facts.height, facts.format, facts.encoded) == (33, 21, "jpeg", False)


@pytest.mark.parametrize("name", ["png", "gif", "webp", "bmp", "tiff"])
def test_other_formats_are_known_by_their_bytes_and_to_be_encoded(name: str) -> None:
    facts = inspect_image(as_bytes(photo(33, 21), name.upper()))
    assert (facts.width, facts.height, facts.format, facts.encoded) == (33, 21, name, True)


def test_the_first_picture_of_an_animation_counts() -> None:
    frames = [photo(20, 10, seed=seed) for seed in range(3)]
    data = as_bytes(frames[0].convert("P"), "GIF", save_all=True, append_images=[f.convert("P") for f in frames[1:]])
    assert inspect_image(data).encoded
    assert images.decode_rgb(data).size == (20, 10)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"hello", Reason.NOT_AN_IMAGE),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", Reason.NOT_AN_IMAGE),
        (b"\xff\xd8\xff\xd9", Reason.NOT_AN_IMAGE),
        (b"\xff\xd8\xff", Reason.TRUNCATED),
        (b"\xff\xd8\xff\xe0\x00", Reason.TRUNCATED),
        (b"\xff\xd8\xff\xe0\x00\x01", Reason.NOT_AN_IMAGE),
        (b"\xff\xd8\xff\xe0\x00\x02junk", Reason.NOT_AN_IMAGE),
        (b"\xff\xd8\xff\xc0\x00\x04\x08\x00", Reason.NOT_AN_IMAGE),
        (b"\xff\xd8\xff\xda\x00\x02\x00\xff\xd9", Reason.NOT_AN_IMAGE),
        (as_bytes(photo(), "PNG")[:-500], Reason.TRUNCATED),
        (as_bytes(photo(), "PNG")[:20], Reason.TRUNCATED),
        (as_bytes(photo(), "BMP")[:-500], Reason.TRUNCATED),
        (as_bytes(photo(), "WEBP")[:-500], Reason.UNREADABLE),
    ],
)
def test_bytes_that_are_no_picture_have_their_reason(data: bytes, reason: Reason) -> None:
    assert reason_of(data) == reason


def test_a_jpeg_cut_anywhere_is_told_from_a_whole_one() -> None:
    data = as_bytes(photo(64, 48), comment=b"a thumbnail, with its end \xff\xd9")
    inspect_image(data)
    for length in range(3, len(data) - 1):
        assert reason_of(data[:length]) == Reason.TRUNCATED
    assert reason_of(data[:-200] + bytes(200)) == Reason.TRUNCATED


def test_bytes_after_the_end_of_a_jpeg_are_no_fault() -> None:
    data = as_bytes(photo())
    for tail in (bytes(10), b"\n", b"maker's block" * 20_000, data[:1000]):
        assert not inspect_image(data + tail).encoded
        images.verify_decodes(data + tail)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(as_bytes(photo().convert("CMYK")), id="cmyk"),
        pytest.param(with_frame_byte(as_bytes(photo()), 4, 12), id="12 bits"),
        pytest.param(with_frame_byte(as_bytes(photo()), 1, 0xC9), id="arithmetic"),
        pytest.param(with_frame_byte(as_bytes(photo()), 1, 0xC3), id="lossless"),
        pytest.param(with_frame_byte(as_bytes(photo()), 9, 2), id="two components"),
        pytest.param(as_bytes(photo().convert("RGBA"), "PNG"), id="rgba"),
        pytest.param(as_bytes(photo().convert("LA"), "PNG"), id="grey with alpha"),
        pytest.param(as_bytes(photo().convert("P"), "PNG", transparency=3), id="palette with alpha"),
        pytest.param(as_bytes(photo().convert("RGB"), "PNG", transparency=(1, 2, 3)), id="transparent colour"),
        pytest.param(as_bytes(Image.new("I;16", (20, 10)), "PNG"), id="16-bit grey png"),
        pytest.param(as_bytes(Image.new("I;16", (20, 10)), "TIFF"), id="16-bit tiff"),
        pytest.param(as_bytes(photo().convert("CMYK"), "TIFF"), id="cmyk tiff"),
        pytest.param(as_bytes(Image.new("RGBA", (20, 10), (1, 2, 3, 128)), "WEBP"), id="webp with alpha"),
    ],
)
def test_what_is_not_soundly_rgb_is_refused_by_its_mode(data: bytes) -> None:
    assert reason_of(data) == Reason.UNSUPPORTED_MODE


def test_a_16_bit_colour_png_is_refused_though_pillow_would_squeeze_it() -> None:
    data = bytearray(as_bytes(photo(20, 10), "PNG"))
    data[24] = 16
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    assert reason_of(bytes(data)) == Reason.UNSUPPORTED_MODE


@pytest.mark.parametrize(("mode", "name"), [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("L", "TIFF"), ("P", "GIF")])
def test_whatever_else_decodes_to_rgb_is_accepted(mode: str, name: str) -> None:
    data = as_bytes(photo(20, 10).convert(mode), name)
    assert inspect_image(data).encoded
    assert images.decode_rgb(data).mode == "RGB"


@pytest.mark.parametrize("size", [(0, 240), (320, 0)])
def test_a_jpeg_without_pixels_is_no_image(size: tuple[int, int]) -> None:
    data = as_bytes(photo())
    place = data.index(b"\xff\xc0") + 5
    broken = data[:place] + struct.pack(">HH", size[1], size[0]) + data[place + 4 :]
    assert reason_of(broken) == Reason.NOT_AN_IMAGE


def test_a_jpeg_without_quantisation_tables_is_no_image() -> None:
    data = as_bytes(photo())
    assert reason_of(data.replace(b"\xff\xdb", b"\xff\xfe")) == Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_bomb_is_refused_from_its_header(name: str) -> None:
    data = as_bytes(photo(100, 50), name)
    assert reason_of(data, limits=Limits(max_pixels=4999)) == Reason.TOO_MANY_PIXELS
    assert inspect_image(data, limits=Limits(max_pixels=5000)).width == 100


@pytest.mark.parametrize(
    "chunk",
    [
        b"VP8X\x0a\x00\x00\x00\x02\x00\x00\x00\xff\x3f\x00\xff\x3f\x00",
        b"VP8L\x0a\x00\x00\x00\x2f\xff\xff\xff\x0f\x00\x00\x00",
        b"VP8 \x0a\x00\x00\x00\x00\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f",
    ],
)
def test_a_webp_bomb_is_refused_before_its_reader_allocates(chunk: bytes) -> None:
    assert reason_of(b"RIFF\xff\x00\x00\x00WEBP" + chunk) == Reason.TOO_MANY_PIXELS


def test_harmless_damage_to_metadata_does_not_warn() -> None:
    data = as_bytes(photo(20, 10), "PNG")
    control = b"acTL" + bytes(8)  # an animation of no frames
    chunk = struct.pack(">I", 8) + control + struct.pack(">I", zlib.crc32(control))
    assert inspect_image(data[:33] + chunk + data[33:]).encoded


def test_a_real_bomb_is_refused_by_every_way_in() -> None:
    data = as_bytes(photo())
    place = data.index(b"\xff\xc0") + 5
    bomb = data[:place] + struct.pack(">HH", 65_500, 65_500) + data[place + 4 :]
    ways: list[Callable[[bytes], object]] = [
        inspect_image,
        images.decode_rgb,
        images.perceptual_hash,
        images.verify_decodes,
    ]
    for way in ways:
        with pytest.raises(Rejected, match=r"65500 x 65500 = 4290250000 pixels, expected at most 178956970"):
            way(bomb)


def test_pictures_between_pillows_warning_and_its_error_are_quiet() -> None:
    data = as_bytes(Image.new("L", (10_000, 9_000)))
    assert inspect_image(data).width == 10_000
    assert images.decode_rgb(data, longest=100).size == (100, 90)


def test_too_many_bytes_are_refused() -> None:
    data = as_bytes(photo())
    assert reason_of(data, limits=Limits(max_bytes=len(data) - 1)) == Reason.TOO_MANY_BYTES
    inspect_image(data, limits=Limits(max_bytes=len(data)))


def test_damaged_exif_is_not_even_read() -> None:
    data = as_bytes(photo(), exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + b"\xee" * 40)
    inspect_image(data)
    assert images.decode_rgb(data).size == (320, 240)


def test_exif_rotation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = as_bytes(photo(), exif=exif)
    assert inspect_image(data).width == 320
    assert images.decode_rgb(data).size == (320, 240)
    assert images.decode_rgb(data).tobytes() == images.decode_rgb(as_bytes(photo())).tobytes()
    assert images.perceptual_hash(data) == images.perceptual_hash(as_bytes(photo()))


@pytest.mark.parametrize("way", [images.verify_decodes, images.decode_rgb, images.perceptual_hash])
def test_a_cut_jpeg_is_told_by_every_way_that_reads_pixels(way: Callable[[bytes], object]) -> None:
    with pytest.raises(Rejected) as caught:
        way(as_bytes(photo())[:-500])
    assert caught.value.reason == Reason.TRUNCATED


def test_entropy_data_that_breaks_the_decoder_is_unreadable() -> None:
    data = as_bytes(photo())
    place = data.index(b"\xff\xc4")  # the first Huffman table: more codes than can be
    broken = data[: place + 5] + b"\xff" * 16 + data[place + 21 :]
    inspect_image(broken)
    with pytest.raises(Rejected, match=r"jpeg of .* bytes does not decode"):
        images.verify_decodes(broken)


def test_a_sound_picture_of_any_format_decodes() -> None:
    for name in ("JPEG", "PNG", "WEBP"):
        images.verify_decodes(as_bytes(photo(), name))


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("longest", [16, 100, 320, 400])
def test_scaled_decoding_is_close_to_scaling_the_whole(name: str, longest: int) -> None:
    data = as_bytes(photo(320, 240), name, **({"quality": 95} if name == "JPEG" else {}))
    found = images.decode_rgb(data, longest=longest)
    expected = images.decode_rgb(data).resize(found.size, Image.Resampling.BICUBIC)
    assert max(found.size) == longest
    difference = np.asarray(found).astype(int) - np.asarray(expected)
    assert np.abs(difference).mean() < 2


def test_grey_becomes_rgb() -> None:
    data = as_bytes(photo().convert("L"))
    for image in (images.decode_rgb(data), images.decode_rgb(data, longest=64)):
        pixels = np.asarray(image)
        assert image.mode == "RGB"
        assert (pixels[..., 0] == pixels[..., 2]).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (256, 192, 0, 32)),
        ((480, 640), (192, 256, 32, 0)),
        ((1500, 2250), (171, 256, 42, 0)),
        ((100, 100), (256, 256, 0, 0)),
        ((10_000, 3), (256, 1, 0, 127)),
    ],
)
def test_a_letterbox_is_centred_and_unstretched(size: tuple[int, int], expected: tuple[int, int, int, int]) -> None:
    assert images.letterbox_geometry(*size, 256) == expected


@pytest.mark.parametrize("size", [(320, 240), (201, 240), (50, 40), (3000, 4)])
def test_a_letterboxed_picture_lies_where_its_geometry_says(size: tuple[int, int]) -> None:
    data = as_bytes(Image.new("RGB", size, (200, 150, 100)), quality=95)
    reused: NDArray[np.uint8] = np.full((64, 64, 3), 77, np.uint8)
    found = images.decode_letterboxed(data, 64, out=reused)
    assert found is reused
    assert (found == images.decode_letterboxed(data, 64)).all()
    width, height, left, top = images.letterbox_geometry(*size, 64)
    expected = np.zeros((64, 64), np.bool_)
    expected[top : top + height, left : left + width] = True
    assert ((found[..., 0] > 150) == expected).all()
    assert not found[~expected].any()


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [30, 75, 96])
def test_settings_read_from_a_jpeg_encode_another_in_the_same_way(
    quality: int, subsampling: str, *, progressive: bool
) -> None:
    data = as_bytes(photo(), quality=quality, subsampling=subsampling, progressive=progressive)
    settings = images.read_jpeg_settings(data)
    assert (settings.subsampling, settings.progressive) == (subsampling, progressive)
    again = images.encode_jpeg(photo(seed=1), settings=settings)
    assert images.read_jpeg_settings(again) == settings
    assert images.encode_jpeg(photo(), settings=settings) == data


def test_encoding_is_repeatable_and_carries_no_metadata() -> None:
    picture = photo()
    picture.info.update(exif=b"Exif\x00\x00secret", icc_profile=b"profile", comment=b"comment")
    settings = images.settings_of_quality(90)
    data = images.encode_jpeg(picture, settings=settings)
    assert data == images.encode_jpeg(photo(), settings=settings)
    assert inspect_image(data).format == "jpeg"


def test_a_grey_jpeg_has_settings_that_encode_colour() -> None:
    settings = images.read_jpeg_settings(as_bytes(photo().convert("L")))
    assert len(settings.quantisation) == 1
    assert inspect_image(images.encode_jpeg(photo(), settings=settings)).width == 320


def test_only_a_jpeg_has_jpeg_settings() -> None:
    with pytest.raises(Rejected, match="a png, expected a JPEG"):
        images.read_jpeg_settings(as_bytes(photo(), "PNG"))


def test_a_flat_picture_a_gradient_and_faint_noise_have_no_hash() -> None:
    gradient = Image.linear_gradient("L").resize((640, 480))
    rng = np.random.default_rng(0)
    noise = Image.fromarray(np.clip(rng.normal(90, 10, (480, 640)), 0, 255).astype(np.uint8))
    for picture in (Image.new("RGB", (640, 480), (3, 3, 3)), Image.new("L", (32, 32), 255), gradient, noise):
        assert images.perceptual_hash(as_bytes(picture)) is None


def test_the_hash_is_the_same_for_ever() -> None:
    picture = Image.new("L", (256, 192), 40)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((30, 20, 130, 150), fill=220)
    draw.rectangle((140, 90, 240, 180), fill=130)
    draw.polygon([(150, 10), (250, 30), (170, 80)], fill=255)
    assert images.perceptual_hash(as_bytes(picture, "PNG")) == GOLDEN_HASH


@needs_real
@pytest.mark.real_data
def test_real_hashes_agree_with_imagehash_and_survive_encoding_and_scaling() -> None:
    to_imagehash, to_encoded, to_smaller = [], [], []
    hashes = []
    for data in real_pictures(60):
        found = images.perceptual_hash(data)
        assert found is not None
        hashes.append(found)
        picture = images.decode_rgb(data)
        to_imagehash.append((found ^ int(str(imagehash.phash(picture)), 16)).bit_count())
        encoded = images.perceptual_hash(as_bytes(picture, quality=60))
        smaller = images.perceptual_hash(as_bytes(picture.resize((picture.width * 3 // 5, picture.height * 3 // 5))))
        to_encoded.append((found ^ (encoded or 0)).bit_count())
        to_smaller.append((found ^ (smaller or 0)).bit_count())
    assert max(to_imagehash) <= 4
    assert max(to_encoded) <= 4
    assert sum(bits <= 4 for bits in to_smaller) >= 58
    others = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(others) > 4


@needs_real
@pytest.mark.real_data
def test_every_real_picture_is_accepted_with_the_size_that_it_decodes_to() -> None:
    pictures = real_pictures(1000)
    assert len(pictures) > 200
    for data in pictures:
        facts = inspect_image(data)
        assert (facts.width, facts.height) == JpegImagePlugin.JpegImageFile(io.BytesIO(data)).size
        assert not facts.encoded
        settings: JpegSettings = images.read_jpeg_settings(data)
        assert settings.quantisation
