"""Small true data sets on disk: a COCO folder, an SA-1B tar with its sidecar, and a recipe over both.

Both worlds are plain lists that a test changes before they are written, which is how bad input is made.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from flows.building import build
from manifests.manifest import Manifest
from manifests.recipe_file import load_recipe
from manifests.sample import Mask
from manifests.stage import Inline, progress_bar
from shards.masks import area, mask_from_array

CATEGORIES = {1: "person", 3: "car", 16: "bird", 17: "cat", 18: "dog", 38: "kite", 62: "café chair", 90: "animal"}
REPOSITORY = Path(__file__).parents[1]
SIZES = ((64, 48), (96, 64), (48, 80), (80, 60))  # width, height

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One object of a scene: a rectangle of one category."""

    category_id: int
    box: tuple[int, int, int, int]  # x, y, width, height in pixels

    def mask(self, width: int, height: int) -> Mask:
        """Its pixels."""
        left, top, box_width, box_height = self.box
        pixels_hw = np.zeros((height, width), np.bool_)
        pixels_hw[top : top + box_height, left : left + box_width] = True
        return mask_from_array(pixels_hw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A picture and all that is in it."""

    width: int
    height: int
    jpeg: bytes
    things: tuple[Thing, ...]


def make_scene(seed: int) -> Scene:
    """A scene of soft blobs with one to four things, no two of one category; another seed is another scene."""
    rng = np.random.default_rng([seed, 11])
    width, height = SIZES[seed % len(SIZES)]
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    things = []
    for category_id in rng.choice(list(CATEGORIES)[:-1], size=int(rng.integers(1, 5)), replace=False).tolist():
        box_width, box_height = int(rng.integers(12, width // 2)), int(rng.integers(12, height // 2))
        left, top = int(rng.integers(0, width - box_width)), int(rng.integers(0, height - box_height))
        things.append(Thing(category_id=category_id, box=(left, top, box_width, box_height)))
        colour = (29 * category_id % 256, 71 * category_id % 256, 113 * category_id % 256)
        picture.paste(colour, (left, top, left + box_width, top + box_height))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=90)
    return Scene(width=width, height=height, jpeg=encoded.getvalue(), things=tuple(things))


@dataclass(slots=True, kw_only=True)
class CocoWorld:
    """A COCO folder that is not yet written."""

    images: list[Json] = field(default_factory=list)
    annotations: list[Json] = field(default_factory=list)
    categories: list[Json] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)  # by file name

    def annotations_of(self, image_id: int) -> list[Json]:
        """The annotations of one image."""
        return [annotation for annotation in self.annotations if annotation["image_id"] == image_id]

    def write(self, folder: Path) -> None:
        """Write `pictures/` and `instances.json` into `folder`."""
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        for name, data in self.pictures.items():
            (folder / "pictures" / name).write_bytes(data)
        whole = {
            "info": {},
            "licenses": [{"id": 1, "name": "CC BY 4.0"}],
            "images": self.images,
            "annotations": self.annotations,
            "categories": self.categories,
        }
        (folder / "instances.json").write_text(json.dumps(whole))


def make_coco(num_images: int = 40, *, first_seed: int = 1000) -> CocoWorld:
    """A sound COCO world: polygons, compressed and uncompressed RLE, and a crowd, in turn. Image ids start at 1."""
    world = CocoWorld(categories=[{"id": number, "name": name} for number, name in CATEGORIES.items()])
    for image_id in range(1, num_images + 1):
        scene = make_scene(first_seed + image_id)
        name = f"{image_id:012d}.jpg"
        world.pictures[name] = scene.jpeg
        world.images.append(
            {"id": image_id, "file_name": name, "width": scene.width, "height": scene.height, "license": 1}
        )
        for thing in scene.things:
            add_annotation(world, image_id, thing, scene.width, scene.height)
    return world


def add_annotation(world: CocoWorld, image_id: int, thing: Thing, width: int, height: int) -> None:
    """Annotate `thing` in the form whose turn it is."""
    annotation_id = len(world.annotations) + 1
    left, top, box_width, box_height = thing.box
    mask = thing.mask(width, height)
    segmentations: list[object] = [
        [[left, top, left + box_width, top, left + box_width, top + box_height, left, top + box_height]],
        {"size": [height, width], "counts": mask.counts},
        {"size": [height, width], "counts": _runs(thing, width, height)},
    ]
    world.annotations.append(
        {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": thing.category_id,
            "bbox": list(thing.box),
            "area": area(mask),
            "iscrowd": int(annotation_id % 12 == 0),
            "segmentation": segmentations[annotation_id % 3],
        }
    )


def _runs(thing: Thing, width: int, height: int) -> list[int]:
    """Uncompressed run lengths, column by column, background first."""
    left, top, box_width, box_height = thing.box
    pixels_hw = np.zeros((height, width), np.int8)
    pixels_hw[top : top + box_height, left : left + box_width] = 1
    flat = np.concatenate([[0], pixels_hw.T.reshape(-1), [1 - pixels_hw[-1, -1]]])
    edges = np.flatnonzero(np.diff(flat))
    runs: list[int] = np.diff(np.concatenate([[0], edges])).tolist()
    return runs


@dataclass(slots=True, kw_only=True)
class Sa1bWorld:
    """A tar of SA-1B and its sidecar, not yet written."""

    members: list[tuple[tarfile.TarInfo, bytes]] = field(default_factory=list)
    rows: list[Json] = field(default_factory=list)
    extra_lines: list[bytes] = field(default_factory=list)  # of the sidecar, as they are
    cut_bytes: int = 0  # taken off the end of the tar

    def add(self, name: str, data: bytes) -> tarfile.TarInfo:
        """Append a member."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self.members.append((info, data))
        return info

    def replace(self, name: str, data: bytes) -> None:
        """Give the member `name` other bytes."""
        place = next(place for place, (info, _) in enumerate(self.members) if info.name == name)
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self.members[place] = (info, data)

    def remove(self, name: str) -> None:
        """Take the member `name` out."""
        self.members = [(info, data) for info, data in self.members if info.name != name]

    def data(self, name: str) -> bytes:
        """The bytes of the member `name`."""
        return next(data for info, data in self.members if info.name == name)

    def rows_of(self, image_id: int) -> list[Json]:
        """The sidecar's rows of one image."""
        return [row for row in self.rows if row["image_id"] == image_id]

    def write(self, folder: Path) -> None:
        """Write `sa_000000.tar` and `phrases.jsonl` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for info, data in self.members:
                tar.addfile(info, io.BytesIO(data))
            end = tar.offset + 1024  # two empty blocks, without tarfile's padding to 10 kB
        whole = packed.getvalue()[:end]
        (folder / "sa_000000.tar").write_bytes(whole[: len(whole) - self.cut_bytes])
        lines = [json.dumps(row).encode() for row in self.rows] + self.extra_lines
        (folder / "phrases.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def make_sa1b(num_images: int = 60, *, first_id: int = 1) -> Sa1bWorld:
    """A sound SA-1B world whose sidecar names every thing."""
    world = Sa1bWorld()
    for image_id in range(first_id, first_id + num_images):
        scene = make_scene(5000 + image_id)
        world.add(f"sa_{image_id}.jpg", scene.jpeg)
        world.add(f"sa_{image_id}.json", json.dumps(sa1b_json(image_id, scene)).encode())
        for number, thing in enumerate(scene.things):
            phrase = CATEGORIES[thing.category_id]
            row: Json = {
                "image_id": image_id,
                "annotation_id": 100 * image_id + number,
                "phrase": phrase,
                "score": 0.9,
            }
            world.rows.append(row)
    return world


def sa1b_json(image_id: int, scene: Scene) -> Json:
    """The json of one picture, with every field of the public format."""
    annotations: list[Json] = []
    for number, thing in enumerate(scene.things):
        mask = thing.mask(scene.width, scene.height)
        left, top, box_width, box_height = thing.box
        annotations.append(
            {
                "id": 100 * image_id + number,
                "segmentation": {"size": list(mask.size), "counts": mask.counts},
                "bbox": [left, top, box_width, box_height],
                "area": area(mask),
                "predicted_iou": 0.95,
                "stability_score": 0.97,
                "crop_box": [0, 0, scene.width, scene.height],
                "point_coords": [[left + 1, top + 1]],
            }
        )
    image: Json = {
        "image_id": image_id,
        "width": scene.width,
        "height": scene.height,
        "file_name": f"sa_{image_id}.jpg",
    }
    return {"image": image, "annotations": annotations}


def write_recipe(folder: Path, file_name: str = "recipe.toml", /, **changes: object) -> Path:
    """A recipe over `coco/` and `sa1b/` beside it, its top-level keys changed as asked; None leaves one out."""
    table: dict[str, object] = {
        "name": "tiny",
        "seed": 3,
        "samples": 70,
        "shard_samples": 7,
        "splits": {"train": 0.7, "val": 0.15, "test": 0.15},
        "when_short": "repeat",
        "mix": {"sa1b": "rest", "coco": 0.3, "blank": 0.05, "noise": 0.05},
        "prompts": {"absent_per_image": 2, "generated_per_image": 3},
        "sources": {
            "sa1b": {
                "format": "sa1b",
                "data": "sa1b/sa_*.tar",
                "phrases": "sa1b/phrases.jsonl",
                "exhaustive_over": ["coco"],
            },
            "coco": {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"},
            "blank": {"format": "blank"},
            "noise": {"format": "noise"},
        },
    }
    lines = [f"{key} = {toml(value)}" for key, value in {**table, **changes}.items() if value is not None]
    path = folder / file_name
    path.write_text("\n".join(lines) + "\n")
    return path


def toml(value: object) -> str:
    """A value as TOML writes it inline."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(value)


def write_world(folder: Path, *, coco_images: int = 40, sa1b_images: int = 60, **changes: object) -> Path:
    """A sound small world below `folder`, and the path of its recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    make_coco(coco_images).write(folder / "coco")
    make_sa1b(sa1b_images).write(folder / "sa1b")
    return write_recipe(folder, **changes)


def build_world(recipe: Path, out: Path) -> Manifest:
    """The manifest of `recipe` built in `out`, in this process."""
    with progress_bar(quiet=True) as progress:
        return build(load_recipe(str(recipe)), str(out), executor=Inline(), progress=progress, where=recipe.name)


def build_command(recipe: Path, out: Path | str, *, num_workers: int = 1) -> list[str]:
    """The real command."""
    command = [sys.executable, "-m", "flows.build_shards", str(recipe), "--out", str(out)]
    return [*command, "--workers", str(num_workers), "--json"]


def run_command_line(
    recipe: Path, out: Path, *, num_workers: int = 1, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What the real command did, run to its end."""
    return subprocess.run(
        build_command(recipe, out, num_workers=num_workers),
        cwd=REPOSITORY,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=900,
    )


def error_line(stderr: str) -> str:
    """The one `error:` line of a command that failed; progress bars may stand before it, nothing else may."""
    lines = [line for line in stderr.splitlines() if line.strip() and " eta " not in line]
    if len(lines) != 1 or not lines[0].startswith("error: "):
        raise AssertionError(f"expected one error: line, found {stderr!r}")
    return lines[0]


def build_bytes(out: Path) -> dict[str, bytes]:
    """Every file of a finished build by its name, without `work/`."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] != "work"
    }


def finished_bytes(out: Path) -> dict[str, bytes]:
    """The same without what a killed process left unfinished."""
    return {name: data for name, data in build_bytes(out).items() if ".part-" not in name}


def undisturbed_bytes(recipe: Path) -> dict[str, bytes]:
    """What a recipe builds where nothing goes wrong, in a folder beside it."""
    out = recipe.parent / "undisturbed"
    build_world(recipe, out)
    return build_bytes(out)


def start(command: list[str]) -> "subprocess.Popen[str]":
    """A command of ours, running in a process group of its own."""
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
