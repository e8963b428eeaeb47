"""A handful of failures is taken out of the evaluation's page, with the masks that the page would draw."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manifests.errors import TableError
from student.report_failures import read_failures
from tests.runs import write_failures_of


def pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"), np.int16)


def test_sorts_take_turns_and_the_worst_come_first(tmp_path: Path) -> None:
    write_failures_of(tmp_path / "failures.html", ["cat", "dog", "kite", "owl"])

    found = read_failures(str(tmp_path / "failures.html"), most=3)

    assert [(one.sort, one.phrase) for one in found] == [
        ("alarm_co_occurring", "cat"),
        ("unseen", "owl"),
        ("alarm_co_occurring", "dog"),
    ]


def test_a_predicted_mask_is_painted_and_a_true_one_outlined(tmp_path: Path) -> None:
    write_failures_of(tmp_path / "failures.html", ["cat", "owl"])

    alarm, miss = (pixels(one.picture) for one in read_failures(str(tmp_path / "failures.html")))

    assert alarm[25, 35, 0] > alarm[25, 55, 0] + 30  # orange within the mask, the thing's blue beside it
    assert miss[25, 35, 1] < miss[16, 35, 1]  # the inside is left as it is, its edge is green


@pytest.mark.parametrize(
    "text", ["<html></html>", '<script type="application/json" id="index">{"schema": 9}</script>', "\xff"]
)
def test_another_page_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "failures.html").write_bytes(text.encode("latin-1"))

    with pytest.raises(TableError, match=r"failures\.html: expected a page of failures, found .*; evaluate again"):
        read_failures(str(tmp_path / "failures.html"))


def test_a_picture_that_is_far_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_failures_of(tmp_path / "failures.html", ["cat", "owl"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # a bomb is twice as much, and a thumbnail 80 x 60

    with pytest.raises(TableError, match="DecompressionBombError"):
        read_failures(str(tmp_path / "failures.html"))
