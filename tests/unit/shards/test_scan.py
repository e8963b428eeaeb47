"""Scanning one part: keys are judged before they become names of a tar's members, and masks are found again."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifests.errors import Reason
from manifests.sample import decode_masks
from manifests.tables import CATALOG, LABEL_RANGES, REJECTS, read_table, table_writer
from shards.scan import LabelFiles, ScanTask, scan_part
from shards.sources.source import Found, Label, LabelState, Picture, Prepared, ScanPart
from tests.factories import make_mask
from tests.worlds import make_scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """A source that brings one picture under a key of its own."""

    key: str
    name: str = "old"
    root: str = ""

    def prepare(self, work: str) -> Prepared:
        """One part."""
        return Prepared(parts=(ScanPart(name=work, weight=1, uri=""),))

    def scan(self, part: ScanPart) -> Iterator[Found]:
        """The picture."""
        yield Picture(image_id="1", key=self.key, uri=part.name, offset=0, data=make_scene(1).jpeg, labels=())


def scanned(folder: Path, key: str) -> tuple[list[str], list[str]]:
    """Keys and reject reasons."""
    source = Keyed(key=key)
    scan_part(
        ScanTask(name="p", weight=1, source=source, part=source.prepare("p").parts[0]),
        folder=str(folder),
        verify="structure",
    )
    keys: list[str] = read_table(str(folder / "p.parquet"), CATALOG)["key"].to_pylist()
    reasons: list[str] = read_table(str(folder / "p.rejects.parquet"), REJECTS)["reason"].to_pylist()
    return keys, reasons


@pytest.mark.parametrize("key", ["../up", "/x/y", "a.b", "a b", "ü", "x" * 91, "a\n"])
def test_a_key_that_is_no_name_of_a_member_rejects_its_picture(tmp_path: Path, key: str) -> None:
    assert scanned(tmp_path, key) == ([], [Reason.UNSAFE_NAME])


def test_the_byte_range_of_every_label_holds_its_masks(tmp_path: Path) -> None:
    first, second, third = (make_mask(left=left) for left in (1, 2, 3))
    pictures = {
        "a": [Label(phrase="cat", state=LabelState.PRESENT, masks=(first, second)), open_label("dog")],
        "b": [],
        "c": [open_label("owl"), Label(phrase="cat", state=LabelState.PRESENT, masks=(third,))],
    }
    uri, masks = str(tmp_path / "labels.parquet"), io.BytesIO()
    with table_writer(uri, LABEL_RANGES) as rows:
        labels = LabelFiles(rows, masks)
        for key, found in pictures.items():
            labels.add(key, found)
    columns = read_table(uri, LABEL_RANGES).to_pydict().values()
    read = [
        (key, phrase, state, decode_masks(masks.getvalue()[start : start + length]))
        for key, phrase, state, _, start, length, _ in zip(*columns, strict=True)
    ]
    assert read == [(key, one.phrase, one.state, one.masks) for key, found in pictures.items() for one in found]


def open_label(phrase: str) -> Label:
    return Label(phrase=phrase, state=LabelState.OPEN)


def test_a_sound_key_is_kept(tmp_path: Path) -> None:
    assert scanned(tmp_path, "coco-000000000009") == (["coco-000000000009"], [])
