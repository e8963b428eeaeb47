"""The pictures of the proof: gathered from folders of COCO, dealt into folds, written as SA-1B and as COCO.

A picture's place is decided by a hash of its file name, so that it is in one fold's test and in no other's. Of what is
left of a fold, an eighth is val; half of the pictures of train that have masks become SA-1B tars, whose categories are
hidden but for a sidecar of phrases that is not exhaustive. The rest is COCO, boxes and masks together.
"""

import hashlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

FOLDS = 5
VAL = 8  # one picture of so many that are not test
PARTS = ("sa1b", "coco", "val", "test")
ANNOTATIONS = ("instances_*.json", "boxes_*.json")
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture with all that is annotated on it."""

    row: dict[str, Any]  # of `images`; `file_name` is relative to the folder of all
    annotations: list[dict[str, Any]]

    @property
    def has_masks(self) -> bool:
        """Whether every annotation has a mask."""
        return all("segmentation" in annotation for annotation in self.annotations)


@dataclass(frozen=True, slots=True)
class Pictures:
    """All pictures, and the categories that are exhaustive on each of them."""

    folder: Path
    categories: list[dict[str, Any]]
    found: list[Picture]


def gather(folder: Path) -> Pictures:
    """Every picture below `folder` that instances or boxes annotate; of two that annotate one, the larger file counts.

    Raises:
        SystemExit: there is none.
    """
    categories: list[dict[str, Any]] = []
    found: dict[str, Picture] = {}
    paths = sorted(path for pattern in ANNOTATIONS for path in folder.rglob(pattern))
    read = [(path, msgspec.json.decode(path.read_bytes())) for path in paths]
    for path, told in sorted(read, key=lambda one: -len(one[1]["images"])):
        if categories and told["categories"] != categories:
            continue
        categories = told["categories"]
        places = {place.name: place for place in path.parent.parent.rglob("*.jpg")}
        of_image = defaultdict(list)
        for annotation in told["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        for row in told["images"]:
            name = row["file_name"]
            if name in places and name not in found:
                placed = row | {"file_name": str(places[name].relative_to(folder))}
                found[name] = Picture(placed, of_image[row["id"]])
    if not found:
        raise SystemExit(
            f"error: {folder}: no picture of COCO; expected instances_*.json or boxes_*.json beside images"
        )
    return Pictures(folder, categories, [found[name] for name in sorted(found)])


def part_of(picture: Picture, fold: int) -> str:
    """Where a picture stands in `fold`."""
    name = Path(picture.row["file_name"]).name
    places = hashlib.sha256(f"absentia proof {name}".encode()).digest()
    if (places[0] * 256 + places[1]) * FOLDS // 65536 == fold:
        return "test"
    if places[2] % VAL == 0:
        return "val"
    return "sa1b" if picture.has_masks and places[3] % 2 else "coco"


def write_fold(pictures: Pictures, fold: int, out: Path) -> dict[str, int]:
    """Write the sources of a fold; how many pictures each part has."""
    out.mkdir(parents=True, exist_ok=True)
    dealt: dict[str, list[Picture]] = {part: [] for part in PARTS}
    for picture in pictures.found:
        dealt[part_of(picture, fold)].append(picture)
    for part, held in dealt.items():
        _write_json(out / f"{part}.json", pictures, held)
    names = [category["name"] for category in pictures.categories]
    (out / "categories.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (out / "images.txt").write_text(str(pictures.folder), encoding="utf-8")
    _write_denied(out / "denied.json", pictures, dealt["coco"])
    images = str(pictures.folder)
    line = ["--as-sa1b", images, str(out / "sa1b.json"), "--as-coco", images, str(out / "coco.json"), "--out", str(out)]
    subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / "coco_as_sa1b.py"), *line],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return {part: len(held) for part, held in dealt.items()}


def _write_json(path: Path, pictures: Pictures, held: Sequence[Picture]) -> None:
    _encode(path, pictures, [p.row for p in held], [one for p in held for one in p.annotations])


def _write_denied(path: Path, pictures: Pictures, held: Sequence[Picture]) -> None:
    """The same pictures with what is absent alone, as LVIS writes it: the naive mix's negatives."""
    everything = [category["id"] for category in pictures.categories]
    rows = []
    for picture in held:
        shown = {annotation["category_id"] for annotation in picture.annotations}
        absent = [category for category in everything if category not in shown]
        rows.append(picture.row | {"neg_category_ids": absent, "not_exhaustive_category_ids": []})
    _encode(path, pictures, rows, [])


def _encode(
    path: Path, pictures: Pictures, rows: Iterable[dict[str, Any]], annotations: Iterable[dict[str, Any]]
) -> None:
    told = {"images": list(rows), "annotations": list(annotations), "categories": pictures.categories}
    path.write_bytes(msgspec.json.encode(told))
