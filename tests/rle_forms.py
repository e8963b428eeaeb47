"""The loop that reads masks, in the form that a test asks for: as Python, or as machine code."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shards import rle

FORMS = ("interpreted", "compiled")


@contextmanager
def masks_read(form: str) -> Iterator[None]:
    """Masks are read in this form, however few there are."""
    loop = rle.reading.compiled() if form == "compiled" else rle.reading.plain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle.reading, "form_for", lambda work: loop)
        yield
