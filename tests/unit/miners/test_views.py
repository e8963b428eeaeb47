"""The pixels that an encoder sees: as open_clip's own transform, from one decode, with context around a mask."""

import io
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from open_clip.transform import image_transform
from PIL import Image

from manifests.errors import Rejected
from miners.views import Geometry, crop_box, fit, largest, make_views, mask_box
from shards.images import decode_at_least
from tests.factories import make_jpeg, make_mask

SIDE = 32
Resize = Literal["shortest", "longest", "squash"]


def picture(width: int, height: int) -> Image.Image:
    return Image.open(io.BytesIO(make_jpeg(width, height, seed=3))).convert("RGB")


def as_open_clip(image: Image.Image, geometry: Geometry) -> NDArray[np.uint8]:
    """What open_clip's transform gives, without its normalisation."""
    size = geometry.width if geometry.width == geometry.height else (geometry.height, geometry.width)
    transform = image_transform(
        size,
        is_train=False,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize_mode=geometry.resize,
        interpolation=geometry.interpolation,
        fill_color=geometry.fill,
    )
    pixels: NDArray[np.uint8] = (transform(image) * 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (101, 37), (31, 33), (32, 32), (20, 90)])
@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_open_clips_own_transform(
    size: tuple[int, int], resize: Resize, interpolation: Literal["bicubic", "bilinear"]
) -> None:
    geometry = Geometry(height=SIDE, width=SIDE, resize=resize, interpolation=interpolation)
    image = picture(*size)
    np.testing.assert_array_equal(fit(image, geometry), as_open_clip(image, geometry))


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_an_input_that_is_no_square_is_met_too(resize: Resize) -> None:
    geometry = Geometry(height=24, width=40, resize=resize)
    for size in ((64, 48), (48, 64), (40, 24)):
        np.testing.assert_array_equal(fit(picture(*size), geometry), as_open_clip(picture(*size), geometry))


def test_what_longest_leaves_free_is_filled() -> None:
    pixels = fit(picture(64, 16), Geometry(height=SIDE, width=SIDE, resize="longest", fill=7))
    assert np.all(pixels[:12] == 7)
    assert np.all(pixels[-12:] == 7)
    assert not np.all(pixels[12:-12] == 7)


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_a_scaled_decode_gives_nearly_the_same_pixels(resize: Resize) -> None:
    data = make_jpeg(900, 600, seed=5)
    geometry = Geometry(height=64, width=64, resize=resize)
    found = make_views(data, geometry).whole_shw3[0]
    expected = as_open_clip(Image.open(io.BytesIO(data)).convert("RGB"), geometry)
    assert np.abs(found.astype(int) - expected).mean() < 1.0


def test_a_large_jpeg_is_decoded_small_and_a_small_crop_of_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[tuple[int, int]] = []

    def watched(data: bytes, size: tuple[int, int]) -> Image.Image:
        image = decode_at_least(data, size)
        decoded.append(image.size)
        return image

    monkeypatch.setattr("miners.views.decode_at_least", watched)
    data, geometry = make_jpeg(1600, 1200), Geometry(height=64, width=64, resize="squash")
    make_views(data, geometry)
    make_views(data, geometry, boxes=[(10.0, 10.0, 64.0, 64.0)])
    assert decoded == [(200, 150), (1600, 1200)]


def test_crops_and_tiles_show_what_their_boxes_name() -> None:
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:40, :60], pixels[40:, :60], pixels[:40, 60:], pixels[40:, 60:] = 40, 90, 150, 220
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    quarters = tuple((x, y, 0.5, 0.5) for x in (0.0, 0.5) for y in (0.0, 0.5))
    geometry = Geometry(height=8, width=8, resize="squash", tiles=quarters)
    views = make_views(encoded.getvalue(), geometry, boxes=[(0.0, 40.0, 60.0, 40.0), (60.0, 0.0, 60.0, 40.0)])
    assert [int(tile.mean()) for tile in views.whole_shw3] == [40, 90, 150, 220]
    assert [int(crop.mean()) for crop in views.crops_khw3] == [90, 150]


def test_a_picture_of_which_nothing_is_asked_gives_no_view() -> None:
    views = make_views(make_jpeg(), Geometry(height=8, width=8, resize="squash"), whole=False)
    assert views.whole_shw3.shape == views.crops_khw3.shape == (0, 8, 8, 3)


def test_bytes_that_are_no_picture_are_rejected() -> None:
    with pytest.raises(Rejected, match="no picture format"):
        make_views(b"no picture", Geometry(height=8, width=8, resize="squash"))


def test_a_crop_has_context_and_is_square_where_there_is_room() -> None:
    mask = make_mask(200, 100, left=50, top=40, right=70, bottom=50)
    assert mask_box(mask) == (50, 40, 20, 10)
    assert crop_box(mask, margin=0.25) == (45, 30, 30, 30)


def test_a_crop_at_the_edge_is_moved_into_the_picture_and_cut_to_it() -> None:
    corner = make_mask(200, 100, left=180, top=90, right=200, bottom=100)
    assert crop_box(corner, margin=0.25) == (170, 70, 30, 30)
    wide = make_mask(200, 100, left=0, top=10, right=200, bottom=90)
    assert crop_box(wide, margin=0.25) == (0, 0, 200, 100)


def test_the_largest_mask_is_taken_and_the_first_of_equals() -> None:
    small, large = make_mask(right=10), make_mask(right=30)
    other = make_mask(left=9, right=31)
    assert largest([small, large, other]) is large
