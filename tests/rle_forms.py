"""The loop that reads masks, in the form that a test asks for: as Python, or as machine code."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shards import rle

FORMS = ("interpreted", "compiled")


@contextmanager
def masks_read(form: str) -> Iterator[None]:
    """Masks are read in this form, however few there are."""
    loop = rle.compiled_loop() if form == "compiled" else rle._read_masks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle._Reader, "loop_for", lambda self, num_characters: loop)
        yield
