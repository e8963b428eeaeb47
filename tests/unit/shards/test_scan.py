"""Scanning one part: what a source says of its keys is judged before it becomes the name of a tar's member."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifests.errors import Reason
from manifests.tables import CATALOG, REJECTS, read_table
from shards.scan import ScanTask, scan_part
from shards.sources.source import Found, Picture, Prepared, ScanPart
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


def test_a_sound_key_is_kept(tmp_path: Path) -> None:
    assert scanned(tmp_path, "coco-000000000009") == (["coco-000000000009"], [])
