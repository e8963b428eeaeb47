"""The demo world: true formats, known truth, nothing shared between splits, the same bytes always."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from manifests.recipe import CocoSource, Sa1bSource
from manifests.recipe_file import load_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import demo_world  # noqa: E402
from demo_cutouts import SPLITS, load_cutouts, photograph, photographs_folder, pieces  # noqa: E402
from demo_formats import coco_annotation, polygons  # noqa: E402
from demo_scene import MIN_VISIBLE_PIXELS, Scene, compose  # noqa: E402
from demo_split import Job, make_picture  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode

Mask = NDArray[np.bool_]
NUM_SMALL = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "world"
    demo_world.write_world(out, num_images=NUM_SMALL)
    return out


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {split: [compose(split, np.random.default_rng([1, n])) for n in range(60)] for split in SPLITS}


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read_tar(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: cast(io.BufferedReader, tar.extractfile(member)).read() for member in tar}


def decode(rle: dict[str, object]) -> Mask:
    return cast(Mask, coco_mask.decode(rle).astype(bool))


def rasterise(flat_polygons: list[list[float]], height: int, width: int) -> Mask:
    return decode(coco_mask.merge(coco_mask.frPyObjects(flat_polygons, height, width)))


def draw_owned(split: str) -> dict[str, Mask]:
    owned: dict[str, Mask] = {}
    for found in pieces(split).values():
        for piece in found:
            image = Image.new("L", photograph(piece.photo).size)
            drawing = ImageDraw.Draw(image)
            for left, top, right, bottom in piece.boxes:
                drawing.rectangle((left, top, right - 1, bottom - 1), fill=1)
            if piece.outline:
                drawing.polygon(list(piece.outline), fill=1)
            drawn = np.asarray(image).astype(bool)
            owned[piece.photo] = owned.get(piece.photo, np.zeros_like(drawn)) | drawn
    return owned


def test_the_command_with_two_workers_writes_the_same_bytes_in_another_folder(world: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "demo_world.py"), "--out", str(tmp_path / "other" / "place")]
    subprocess.run(
        [*command, "--images", str(NUM_SMALL), "--workers", "2"], check=True, cwd=tmp_path, capture_output=True
    )
    assert read_tree(tmp_path / "other" / "place") == read_tree(world)
    assert not (tmp_path / "other" / "place.partial").exists()


def test_another_seed_writes_other_pictures(world: Path) -> None:
    first = make_picture(Job(seed=7, split="train", number=1, coco=False))
    other = make_picture(Job(seed=8, split="train", number=1, coco=False))
    assert first.jpeg == read_tar(world / "train/sa1b/sa_000000.tar")["sa_1.jpg"]
    assert first.jpeg != other.jpeg


def test_a_finished_world_is_left_alone(world: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    marker = demo_world.write_world(world, num_images=NUM_SMALL)
    assert marker.asked.images == NUM_SMALL
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == times


def test_leftovers_of_a_killed_run_are_replaced(tmp_path: Path) -> None:
    leftover = tmp_path / "world.partial" / "train" / "half.tar"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    (tmp_path / "world").mkdir()
    demo_world.write_world(tmp_path / "world", num_images=40)
    assert not leftover.exists()
    assert not (tmp_path / "world" / "train" / "half.tar").exists()
    assert (tmp_path / "world" / "demo_world.json").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--images", "39"], "--images: expected 40 or more"),
        (["--workers", "0"], "--workers: expected 1 or more"),
        (["--seed", "-1"], "--seed: expected 0 or more"),
    ],
)
def test_a_wrong_number_is_one_error_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert demo_world.main(["--out", str(tmp_path / "world"), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected}")
    assert error.count("\n") == 1
    assert not (tmp_path / "world").exists()


def test_a_folder_with_something_else_is_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert demo_world.main(["--out", str(tmp_path)]) == 1
    assert "found something else; choose another --out" in capsys.readouterr().err
    assert demo_world.main(["--out", str(world), "--images", "61"]) == 1
    assert f"holds another demo world ({NUM_SMALL} images, seed 7" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("split", SPLITS)
def test_sa1b_tars_hold_pictures_beside_json_whose_masks_decode_to_what_is_said(world: Path, split: str) -> None:
    members = read_tar(world / split / "sa1b" / "sa_000000.tar")
    names = list(members)
    assert names[0::2] == [name.replace(".json", ".jpg") for name in names[1::2]]
    num_masks = 0
    for name in names[1::2]:
        content = json.loads(members[name])
        image, annotations = content["image"], content["annotations"]
        assert set(image) == {"image_id", "width", "height", "file_name"}
        assert image["file_name"] == name.replace(".json", ".jpg") == f"sa_{image['image_id']}.jpg"
        with Image.open(io.BytesIO(members[image["file_name"]])) as picture:
            assert (picture.format, picture.size) == ("JPEG", (image["width"], image["height"]))
            assert min(picture.size) >= 240 - 1
            assert max(picture.size) <= 480
        for annotation in annotations:
            assert set(annotation) == {
                "id", "segmentation", "bbox", "area", "predicted_iou", "stability_score", "crop_box", "point_coords"
            }  # fmt: skip
            mask = decode(annotation["segmentation"])
            assert mask.shape == (image["height"], image["width"])
            assert annotation["area"] == mask.sum() > 0
            assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
            [[x, y]] = annotation["point_coords"]
            assert mask[int(y), int(x)]
            num_masks += 1
    assert num_masks >= len(names) // 2


@pytest.mark.parametrize("split", SPLITS)
def test_sidecar_rows_name_masks_of_the_tar_and_some_masks_have_no_row(world: Path, split: str) -> None:
    members = read_tar(world / split / "sa1b" / "sa_000000.tar")
    files = [json.loads(content) for name, content in members.items() if name.endswith(".json")]
    masks = {(file["image"]["image_id"], annotation["id"]) for file in files for annotation in file["annotations"]}
    table = pq.read_table(world / split / "sa1b" / "phrases.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("image_id", "int64"), ("annotation_id", "int64"), ("phrase", "string"), ("score", "double")
    ]  # fmt: skip
    rows = table.to_pylist()
    named = {(row["image_id"], row["annotation_id"]) for row in rows}
    assert len(named) == len(rows)
    assert named < masks
    assert {row["phrase"] for row in rows} <= set(load_cutouts().categories())
    assert all(0 <= row["score"] <= 1 for row in rows)


@pytest.mark.parametrize("split", SPLITS)
def test_coco_opens_with_pycocotools(world: Path, split: str, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(world / split / "coco" / "annotations" / "instances.json")
    capsys.readouterr()
    assert [category["name"] for category in coco.dataset["categories"]] == list(load_cutouts().categories())
    assert all(category["supercategory"] for category in coco.dataset["categories"])
    on_disk = {path.name for path in (world / split / "coco" / "images").iterdir()}
    assert {image["file_name"] for image in coco.dataset["images"]} == on_disk
    assert all(len(name) == len("000000000004.jpg") for name in on_disk)
    for annotation in coco.dataset["annotations"]:
        image = coco.imgs[annotation["image_id"]]
        mask = coco.annToMask(annotation)
        assert mask.shape == (image["height"], image["width"])
        assert annotation["area"] == mask.sum() > 0
        assert isinstance(annotation["segmentation"], dict) == bool(annotation["iscrowd"])


def test_a_mid_size_world_has_polygons_for_most_crowds_for_some_and_empty_pictures_for_few(tmp_path: Path) -> None:
    marker = demo_world.write_world(tmp_path / "world", num_images=300)
    assert marker.pictures == {"train": 240, "val": 30, "test": 30}
    for split in SPLITS:
        assert len(marker.presences[split]) >= 12
    everywhere = set.intersection(*(set(marker.presences[split]) for split in SPLITS))
    assert len(everywhere) >= 12
    coco = json.loads((tmp_path / "world/train/coco/annotations/instances.json").read_bytes())
    crowds = [annotation for annotation in coco["annotations"] if annotation["iscrowd"]]
    assert 0 < len(crowds) < 0.3 * len(coco["annotations"])
    assert len(coco["images"]) == 60
    empty = {image["id"] for image in coco["images"]} - {annotation["image_id"] for annotation in coco["annotations"]}
    assert len(empty) <= 12


def test_the_whole_default_world_would_show_twelve_phrases_in_every_split_from_own_cutouts() -> None:
    found = [{phrase for phrase in pieces(split) if phrase} for split in SPLITS]
    assert len(set.intersection(*found)) >= 12
    train, val, test = found
    assert val | test <= train


def test_no_pixel_of_a_photograph_is_owned_by_two_splits() -> None:
    owned = {split: draw_owned(split) for split in SPLITS}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        for photo in owned[first].keys() & owned[second].keys():
            shared = int((owned[first][photo] & owned[second][photo]).sum())
            assert shared == 0, f"{photo}: {shared} pixels stand in {first} and {second}"


def test_every_photograph_used_comes_with_the_wheel_and_has_its_source_and_licence_stated() -> None:
    stated = {photo.file for photo in load_cutouts().photograph}
    used = {piece.photo for split in SPLITS for found in pieces(split).values() for piece in found}
    assert used == stated
    assert all((photographs_folder() / name).is_file() for name in stated)
    assert all(photo.source and photo.licence for photo in load_cutouts().photograph)


@pytest.mark.parametrize("split", SPLITS)
def test_visible_masks_of_named_things_are_disjoint_and_large_enough(
    scenes: dict[str, list[Scene]], split: str
) -> None:
    num_named = 0
    for scene in scenes[split]:
        named = [segment for segment in scene.segments if segment.phrase]
        total = np.zeros((scene.height, scene.width), dtype=int)
        for segment in named:
            total += segment.mask_hw
            assert segment.mask_hw.sum() >= MIN_VISIBLE_PIXELS
        assert total.max(initial=0) <= 1
        num_named += len(named)
    assert num_named >= 60


def test_what_was_found_too_hidden_is_not_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any layer allowed to stay, the picture is its background alone, to the byte."""
    monkeypatch.setattr("demo_scene.MIN_VISIBLE_PIXELS", 10**9)
    bare = compose("train", np.random.default_rng(3))
    monkeypatch.setattr("demo_scene._paint", lambda rgb_hwc, item: None)
    unpainted = compose("train", np.random.default_rng(3))
    assert bare.jpeg == unpainted.jpeg
    assert all(segment.stuff for segment in bare.segments)


def test_polygons_redraw_a_mask_with_a_hole_and_a_far_piece() -> None:
    ys, xs = np.mgrid[:120, :160]
    ring = (np.hypot(ys - 50, xs - 60) < 40) & (np.hypot(ys - 45, xs - 55) > 15)
    mask = ring | ((ys > 100) & (xs > 140))
    redrawn = rasterise(polygons(mask), *mask.shape)
    assert (redrawn & mask).sum() / (redrawn | mask).sum() > 0.97


@pytest.mark.parametrize("split", SPLITS)
def test_polygons_redraw_the_masks_of_scenes(scenes: dict[str, list[Scene]], split: str) -> None:
    overlaps = []
    for scene in scenes[split][:20]:
        for segment in scene.segments:
            redrawn = rasterise(polygons(segment.mask_hw), scene.height, scene.width)
            overlaps.append((redrawn & segment.mask_hw).sum() / (redrawn | segment.mask_hw).sum())
    assert min(overlaps) > 0.85
    assert float(np.median(overlaps)) > 0.97


def test_a_crowd_is_exact_also_where_it_fills_the_first_pixel() -> None:
    mask = np.zeros((5, 7), dtype=bool)
    mask[:3, :2] = True
    annotation = coco_annotation(mask, 1, 2, 3, crowd=True)
    assert not isinstance(annotation.segmentation, list)
    rle = {"size": list(annotation.segmentation.size), "counts": annotation.segmentation.counts}
    assert (decode(coco_mask.frPyObjects(rle, 5, 7)) == mask).all()
    assert (annotation.area, annotation.bbox) == (6.0, (0.0, 0.0, 2.0, 3.0))


def test_the_recipe_loads_and_names_only_what_was_written(world: Path) -> None:
    recipe = load_recipe(str(world / "demo.toml"))
    assert (recipe.name, recipe.seed) == ("demo-world", 7)
    assert set(recipe.mix) == {"sa1b", "coco", "sa1b_val", "coco_val", "sa1b_test", "coco_test", "blank", "noise"}
    for split in SPLITS:
        suffix = "" if split == "train" else f"_{split}"
        sa1b, coco = recipe.sources[f"sa1b{suffix}"], recipe.sources[f"coco{suffix}"]
        assert isinstance(sa1b, Sa1bSource)
        assert isinstance(coco, CocoSource)
        assert (sa1b.split, coco.split) == (split, split)
        assert list(world.glob(str(sa1b.data)))
        assert (world / sa1b.phrases).is_file()
        assert (world / coco.images).is_dir()
        assert (world / str(coco.annotations)).is_file()
