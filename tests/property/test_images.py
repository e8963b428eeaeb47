"""Pictures, for any damage to their bytes: an answer or a `Rejected`, and no other exception."""

import contextlib
import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests.errors import Rejected
from shards import images


def whole_pictures() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    written = []
    for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):  # libtiff writes to stderr by itself
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, name)
        written.append(buffer.getvalue())
    return written


WHOLE = whole_pictures()


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=4),
    st.integers(0, 10_000),
)
def test_damaged_pictures_are_read_or_rejected(whole: bytes, changes: list[tuple[int, int]], length: int) -> None:
    damaged = bytearray(whole[:length])
    for place, value in changes:
        if place < len(damaged):
            damaged[place] = value
    with contextlib.suppress(Rejected):
        images.inspect_image(bytes(damaged))
    with contextlib.suppress(Rejected):
        assert max(images.decode_rgb(bytes(damaged), longest=32).size) == 32
    with contextlib.suppress(Rejected):
        images.perceptual_hash(bytes(damaged))


@settings(deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 512))
def test_a_letterbox_fits_its_square_and_keeps_the_aspect(width: int, height: int, side: int) -> None:
    scaled_width, scaled_height, left, top = images.letterbox_geometry(width, height, side)
    assert max(scaled_width, scaled_height) == side
    assert min(scaled_width, scaled_height) >= 1
    assert 0 <= side - scaled_width - 2 * left <= 1
    assert 0 <= side - scaled_height - 2 * top <= 1
    exact = min(width, height) * side / max(width, height)
    assert abs(min(scaled_width, scaled_height) - max(1, exact)) <= 0.5
