"""Every kind of bad input becomes a counted reject with its reason while the build goes on, or stops it in one line."""

import io
import json
import os
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.build_shards import main
from manifests.errors import BuildError, Reason, Repair
from manifests.manifest import Manifest
from miners.judging import GUARDS
from tests.worlds import (
    CocoWorld,
    Json,
    Sa1bWorld,
    build_world,
    error_line,
    make_coco,
    make_sa1b,
    make_scene,
    write_recipe,
    write_world,
)

LONG = "long " * 2000
LOUD = {"max_reject_share": 1.0, "when_short": "repeat", "samples": 120, "shard_samples": 40}


@dataclass(slots=True, kw_only=True)
class Worlds:
    """All that a build reads, before it is written."""

    coco: CocoWorld
    lvis: CocoWorld
    tar: Sa1bWorld
    cut_tar: Sa1bWorld  # a second tar, which is cut short
    loose: dict[str, bytes] = field(default_factory=dict)  # an unpacked folder of SA-1B


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of bad input: what is done to the worlds, and what must come of it."""

    name: str
    spoil: Callable[[Worlds], None]
    reason: Reason
    source: str
    where: str  # stands in the reject's place
    lost: str = ""  # key of the picture that must not be in the build
    kept: str = ""  # key of the picture that must


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, name, **options)
    return data.getvalue()


def picture_of(worlds: Worlds, image_id: int) -> Image.Image:
    image = Image.open(io.BytesIO(worlds.coco.pictures[f"{image_id:012d}.jpg"]))
    image.load()
    return image


def set_picture(image_id: int, change: Callable[[Image.Image, bytes], bytes]) -> Callable[[Worlds], None]:
    """Give a COCO picture the bytes that `change` makes of it."""

    def spoil(worlds: Worlds) -> None:
        name = f"{image_id:012d}.jpg"
        worlds.coco.pictures[name] = change(picture_of(worlds, image_id), worlds.coco.pictures[name])

    return spoil


def sixteen_bit(image: Image.Image, _: bytes) -> bytes:
    pixels_hw = np.arange(image.width * image.height, dtype=np.uint16).reshape(image.height, image.width) * 13
    return encoded(Image.fromarray(pixels_hw), "PNG")


def palette_with_alpha(image: Image.Image, _: bytes) -> bytes:
    return encoded(image.convert("P", palette=Image.Palette.ADAPTIVE), "PNG", transparency=b"\x00\x7f\xff")


def bomb(*_: object) -> bytes:
    """A PNG whose header promises 3.6 gigapixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def broken_png(image: Image.Image, _: bytes) -> bytes:
    data = bytearray(encoded(image, "PNG"))
    place = data.index(b"IDAT") + 4
    data[place : place + 8] = b"\xff" * 8
    return bytes(data)


def set_image_row(image_id: int, **changes: object) -> Callable[[Worlds], None]:
    def spoil(worlds: Worlds) -> None:
        worlds.coco.images[image_id - 1].update(changes)

    return spoil


def without_field(image_id: int, name: str) -> Callable[[Worlds], None]:
    def spoil(worlds: Worlds) -> None:
        del worlds.coco.images[image_id - 1][name]

    return spoil


def set_annotation(image_id: int, **changes: object) -> Callable[[Worlds], None]:
    """Change the first annotation of a COCO image; `size` in an RLE may be written as None for the true one."""

    def spoil(worlds: Worlds) -> None:
        row = worlds.coco.images[image_id - 1]
        annotation = worlds.coco.annotations_of(image_id)[0]
        annotation.update(changes)
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, dict) and segmentation["size"] is None:
            annotation["segmentation"] = {**segmentation, "size": [row["height"], row["width"]]}

    return spoil


def set_category(name: str, number: int) -> Callable[[Worlds], None]:
    def spoil(worlds: Worlds) -> None:
        worlds.coco.categories.append({"id": number, "name": name})

    return spoil


def repeat_annotation_id(worlds: Worlds) -> None:
    first = worlds.coco.annotations_of(26)[0]
    worlds.coco.annotations.append({**first, "bbox": [0, 0, 5, 5]})


def set_json(image_id: int, change: Callable[[Json], object]) -> Callable[[Worlds], None]:
    """Change the json of an SA-1B picture."""

    def spoil(worlds: Worlds) -> None:
        value = json.loads(worlds.tar.data(f"sa_{image_id}.json"))
        change(value)
        worlds.tar.replace(f"sa_{image_id}.json", json.dumps(value).encode())

    return spoil


def first_annotation(value: Json) -> Json:
    annotations = value["annotations"]
    if not isinstance(annotations, list):
        raise TypeError(annotations)
    found: Json = annotations[0]
    return found


def add_member(name: str, kind: bytes = tarfile.REGTYPE) -> Callable[[Worlds], None]:
    def spoil(worlds: Worlds) -> None:
        info = worlds.tar.add(name, b"" if kind != tarfile.REGTYPE else b"data")
        info.type = kind
        info.linkname = "sa_1.jpg" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""

    return spoil


def add_row(**row: object) -> Callable[[Worlds], None]:
    return lambda worlds: worlds.tar.rows.append(row)


def repeat_row(worlds: Worlds) -> None:
    worlds.tar.rows.append(dict(worlds.tar.rows_of(15)[0]))


def repeat_image(worlds: Worlds) -> None:
    """A second tar with a picture of an id that the first tar has."""
    for name in ("sa_16.jpg", "sa_16.json"):
        worlds.cut_tar.members.insert(0, (tarfile.TarInfo(name), worlds.tar.data(name)))
        worlds.cut_tar.members[0][0].size = len(worlds.tar.data(name))


def add_loose(worlds: Worlds) -> None:
    worlds.loose["sa_900.json"] = worlds.tar.data("sa_1.json")
    worlds.loose["sa_900.jpg"] = b""  # grown to 257 MiB, a hole, when it is written


def lose_picture(worlds: Worlds) -> None:
    del worlds.coco.pictures[f"{9:012d}.jpg"]


CASES = [
    Case(
        name="truncated jpeg",
        spoil=set_picture(1, lambda _, data: data[: len(data) // 2]),
        reason=Reason.TRUNCATED,
        source="coco",
        where="000000000001.jpg",
        lost="coco-1",
    ),
    Case(
        name="zero-byte jpeg",
        spoil=set_picture(2, lambda *_: b""),
        reason=Reason.EMPTY_FILE,
        source="coco",
        where="000000000002.jpg",
        lost="coco-2",
    ),
    Case(
        name="cmyk",
        spoil=set_picture(3, lambda image, _: encoded(image.convert("CMYK"), "JPEG")),
        reason=Reason.UNSUPPORTED_MODE,
        source="coco",
        where="000000000003.jpg",
        lost="coco-3",
    ),
    Case(
        name="16 bits",
        spoil=set_picture(4, sixteen_bit),
        reason=Reason.UNSUPPORTED_MODE,
        source="coco",
        where="000000000004.jpg",
        lost="coco-4",
    ),
    Case(
        name="palette with alpha",
        spoil=set_picture(5, palette_with_alpha),
        reason=Reason.UNSUPPORTED_MODE,
        source="coco",
        where="000000000005.jpg",
        lost="coco-5",
    ),
    Case(
        name="decompression bomb",
        spoil=set_picture(6, bomb),
        reason=Reason.TOO_MANY_PIXELS,
        source="coco",
        where="000000000006.jpg",
        lost="coco-6",
    ),
    Case(
        name="text named jpg",
        spoil=set_picture(7, lambda *_: b"<html>not found</html>"),
        reason=Reason.NOT_AN_IMAGE,
        source="coco",
        where="000000000007.jpg",
        lost="coco-7",
    ),
    Case(
        name="png that does not decode",
        spoil=set_picture(8, broken_png),
        reason=Reason.UNREADABLE,
        source="coco",
        where="000000000008.jpg",
        lost="coco-8",
    ),
    Case(
        name="missing picture",
        spoil=lose_picture,
        reason=Reason.MISSING_FILE,
        source="coco",
        where="images[8]",
        lost="coco-9",
    ),
    Case(
        name="picture of another size",
        spoil=set_image_row(10, width=65),
        reason=Reason.SIZE_MISMATCH,
        source="coco",
        where="000000000010.jpg",
        lost="coco-10",
    ),
    Case(
        name="duplicate image id",
        spoil=lambda worlds: worlds.coco.images.append(dict(worlds.coco.images[10])),
        reason=Reason.DUPLICATE_ID,
        source="coco",
        where="images[40]",
        kept="coco-11",
    ),
    Case(
        name="image row of the wrong type",
        spoil=set_image_row(12, width="64"),
        reason=Reason.WRONG_FIELD,
        source="coco",
        where="images[11]",
        lost="coco-12",
    ),
    Case(
        name="image row without a field",
        spoil=without_field(13, "height"),
        reason=Reason.WRONG_FIELD,
        source="coco",
        where="images[12]",
        lost="coco-13",
    ),
    Case(
        name="picture outside its folder",
        spoil=set_image_row(14, file_name="../../etc/passwd.jpg"),
        reason=Reason.UNSAFE_NAME,
        source="coco",
        where="images[13]",
        lost="coco-14",
    ),
    Case(
        name="rle of the wrong size",
        spoil=set_annotation(15, segmentation={"size": [4, 4], "counts": "4"}),
        reason=Reason.MASK_SIZE,
        source="coco",
        where="of image 15",
        kept="coco-15",
    ),
    Case(
        name="corrupt rle",
        spoil=set_annotation(16, segmentation={"size": None, "counts": "\x7f\x7f~~"}),
        reason=Reason.MASK_CORRUPT,
        source="coco",
        where="of image 16",
        kept="coco-16",
    ),
    Case(
        name="empty rle",
        spoil=lambda worlds: set_annotation(
            17, segmentation={"size": None, "counts": [_pixels(worlds.coco.images[16])]}
        )(worlds),
        reason=Reason.MASK_EMPTY,
        source="coco",
        where="of image 17",
        kept="coco-17",
    ),
    Case(
        name="area 0",
        spoil=set_annotation(18, segmentation=[[5.0, 5.0, 5.0, 5.0, 5.0, 5.0]]),
        reason=Reason.ZERO_AREA,
        source="coco",
        where="of image 18",
        kept="coco-18",
    ),
    Case(
        name="polygon with two points",
        spoil=set_annotation(19, segmentation=[[1.0, 1.0, 9.0, 9.0]]),
        reason=Reason.POLYGON_TOO_SHORT,
        source="coco",
        where="of image 19",
        kept="coco-19",
    ),
    Case(
        name="nan box",
        spoil=set_annotation(20, bbox=[float("nan"), 1.0, 5.0, 5.0]),
        reason=Reason.BAD_BOX,
        source="coco",
        where="of image 20",
        kept="coco-20",
    ),
    Case(
        name="unknown category",
        spoil=set_annotation(21, category_id=4711),
        reason=Reason.UNKNOWN_CATEGORY,
        source="coco",
        where="of image 21",
    ),
    Case(
        name="annotation of no image",
        spoil=lambda worlds: worlds.coco.annotations.append({**worlds.coco.annotations[0], "image_id": 987, "id": 9}),
        reason=Reason.UNKNOWN_IMAGE,
        source="coco",
        where="of image 987",
    ),
    Case(
        name="duplicate annotation id",
        spoil=repeat_annotation_id,
        reason=Reason.DUPLICATE_ANNOTATION,
        source="coco",
        where="of image 26",
        kept="coco-26",
    ),
    Case(
        name="category without a name",
        spoil=set_category(" ", 201),
        reason=Reason.EMPTY_PHRASE,
        source="coco",
        where="categories[8]",
    ),
    Case(
        name="category of 10 kB",
        spoil=set_category(LONG, 202),
        reason=Reason.PHRASE_TOO_LONG,
        source="coco",
        where="categories[9]",
    ),
    Case(
        name="shown and denied",
        spoil=lambda worlds: worlds.lvis.images[0].update(
            neg_category_ids=[worlds.lvis.annotations[0]["category_id"]], not_exhaustive_category_ids=[]
        ),
        reason=Reason.CONTRADICTION,
        source="lvis",
        where="image 1",
        kept="lvis-1",
    ),
    Case(
        name="broken json",
        spoil=lambda worlds: worlds.tar.replace("sa_1.json", b'{"image": {'),
        reason=Reason.BROKEN_JSON,
        source="sa1b",
        where="sa_1.json",
        lost="sa1b-1",
    ),
    Case(
        name="json of the wrong type",
        spoil=lambda worlds: worlds.tar.replace("sa_2.json", b"[1, 2, 3]"),
        reason=Reason.WRONG_FIELD,
        source="sa1b",
        where="sa_2.json",
        lost="sa1b-2",
    ),
    Case(
        name="json without a field",
        spoil=set_json(3, lambda value: value.pop("annotations")),
        reason=Reason.WRONG_FIELD,
        source="sa1b",
        where="sa_3.json",
        lost="sa1b-3",
    ),
    Case(
        name="sa-1b rle of the wrong size",
        spoil=set_json(4, lambda value: first_annotation(value).update(segmentation={"size": [9, 9], "counts": "d0"})),
        reason=Reason.MASK_SIZE,
        source="sa1b",
        where="annotation 400",
        kept="sa1b-4",
    ),
    Case(
        name="jpg without json",
        spoil=lambda worlds: worlds.tar.remove("sa_5.json"),
        reason=Reason.NO_ANNOTATION_FILE,
        source="sa1b",
        where="sa_5.jpg",
        lost="sa1b-5",
    ),
    Case(
        name="json without jpg",
        spoil=lambda worlds: worlds.tar.remove("sa_6.jpg"),
        reason=Reason.NO_IMAGE_FILE,
        source="sa1b",
        where="sa_6.json",
        lost="sa1b-6",
    ),
    Case(
        name="member that climbs",
        spoil=add_member("../sa_701.jpg"),
        reason=Reason.UNSAFE_NAME,
        source="sa1b",
        where="../sa_701.jpg",
    ),
    Case(
        name="absolute member",
        spoil=add_member("/tmp/sa_702.jpg"),  # noqa: S108
        reason=Reason.UNSAFE_NAME,
        source="sa1b",
        where="/tmp/sa_702.jpg",  # noqa: S108
    ),
    Case(
        name="symbolic link",
        spoil=add_member("sa_703.jpg", tarfile.SYMTYPE),
        reason=Reason.NOT_A_FILE,
        source="sa1b",
        where="sa_703.jpg",
    ),
    Case(
        name="hard link",
        spoil=add_member("sa_704.jpg", tarfile.LNKTYPE),
        reason=Reason.NOT_A_FILE,
        source="sa1b",
        where="sa_704.jpg",
    ),
    Case(
        name="device",
        spoil=add_member("sa_705.jpg", tarfile.CHRTYPE),
        reason=Reason.NOT_A_FILE,
        source="sa1b",
        where="sa_705.jpg",
    ),
    Case(
        name="tar cut short",
        spoil=lambda worlds: setattr(worlds.cut_tar, "cut_bytes", 1024 + 600),
        reason=Reason.TAR_CUT_SHORT,
        source="sa1b",
        where="sa_000001.tar",
    ),
    Case(
        name="second picture of an id",
        spoil=repeat_image,
        reason=Reason.DUPLICATE_KEY,
        source="sa1b",
        where="sa1b-16",
        kept="sa1b-16",
    ),
    Case(
        name="picture of 257 MiB",
        spoil=add_loose,
        reason=Reason.TOO_MANY_BYTES,
        source="sa1b",
        where="sa_900.json",
        lost="sa1b-900",
    ),
    Case(
        name="sidecar row for a missing image",
        spoil=add_row(image_id=4242, annotation_id=1, phrase="ghost", score=1.0),
        reason=Reason.UNKNOWN_IMAGE,
        source="sa1b",
        where="image 4242",
    ),
    Case(
        name="sidecar row for a missing annotation",
        spoil=add_row(image_id=10, annotation_id=31, phrase="kite", score=1.0),
        reason=Reason.UNKNOWN_ANNOTATION,
        source="sa1b",
        where="sa_10.json",
        kept="sa1b-10",
    ),
    Case(
        name="empty phrase",
        spoil=add_row(image_id=11, annotation_id=1100, phrase=" \n ", score=1.0),
        reason=Reason.EMPTY_PHRASE,
        source="sa1b",
        where="sa_11.json",
        kept="sa1b-11",
    ),
    Case(
        name="phrase of 10 kB",
        spoil=add_row(image_id=12, annotation_id=1200, phrase=LONG, score=1.0),
        reason=Reason.PHRASE_TOO_LONG,
        source="sa1b",
        where="sa_12.json",
        kept="sa1b-12",
    ),
    Case(
        name="phrase that is not utf-8",
        spoil=lambda worlds: worlds.tar.extra_lines.append(
            b'{"image_id": 13, "annotation_id": 1300, "phrase": "\xff"}'
        ),
        reason=Reason.PHRASE_NOT_UTF8,
        source="sa1b",
        where="phrases.jsonl: row",
        kept="sa1b-13",
    ),
    Case(
        name="unsure phrase",
        spoil=lambda worlds: worlds.tar.rows_of(14)[0].update(score=0.1),
        reason=Reason.BELOW_FLOOR,
        source="sa1b",
        where="annotation 1400",
        kept="sa1b-14",
    ),
    Case(
        name="row that stands twice",
        spoil=repeat_row,
        reason=Reason.DUPLICATE_ANNOTATION,
        source="sa1b",
        where="sa_15.json",
        kept="sa1b-15",
    ),
]


def _pixels(row: Mapping[str, object]) -> int:
    width, height = row["width"], row["height"]
    if not isinstance(width, int) or not isinstance(height, int):
        raise TypeError(row)
    return width * height


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoilt:
    """A build from everything that is bad at once."""

    recipe: Path
    out: Path
    manifest: Manifest

    def rejects(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = pq.read_table(self.out / "rejects.parquet").to_pylist()
        return found

    def planned(self) -> set[str]:
        return set(pq.read_table(self.out / "images.parquet")["key"].to_pylist())


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Spoilt:
    folder = tmp_path_factory.mktemp("spoilt")
    worlds = Worlds(
        coco=make_coco(40),
        lvis=make_coco(6, first_seed=7000),
        tar=make_sa1b(40),
        cut_tar=make_sa1b(4, first_id=801),
    )
    repaired(worlds)
    for case in CASES:
        case.spoil(worlds)
    worlds.coco.write(folder / "coco")
    worlds.lvis.write(folder / "lvis")
    worlds.cut_tar.write(folder / "second")
    worlds.tar.write(folder / "sa1b")
    os.replace(folder / "second" / "sa_000000.tar", folder / "sa1b" / "sa_000001.tar")
    (folder / "loose").mkdir()
    for name, data in worlds.loose.items():
        (folder / "loose" / name).write_bytes(data)
    os.truncate(folder / "loose" / "sa_900.jpg", 257 << 20)
    recipe = write_recipe(folder, **LOUD, **_all_sources())
    return Spoilt(recipe=recipe, out=folder / "out", manifest=build_world(recipe, folder / "out"))


def _all_sources() -> dict[str, object]:
    return {
        "splits": {"train": 1.0},
        "mix": {"sa1b": "rest", "coco": 0.4, "lvis": 0.05, "blank": 0.05},
        "prompts": {"absent_per_image": 4, "generated_per_image": 3},
        "sources": {
            "sa1b": {
                "format": "sa1b",
                "data": ["sa1b/sa_*.tar", "loose"],
                "phrases": "sa1b/phrases.jsonl",
                "exhaustive_over": ["coco"],
                "min_phrase_score": 0.5,
            },
            "coco": {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"},
            "lvis": {"format": "coco", "images": "lvis/pictures", "annotations": "lvis/instances.json"},
            "blank": {"format": "blank"},
        },
    }


def repaired(worlds: Worlds) -> None:
    """What is put right, and what is accepted as it is."""
    for image_id, name in ((30, "PNG"), (31, "GIF")):
        worlds.coco.pictures[f"{image_id:012d}.jpg"] = encoded(picture_of(worlds, image_id), name)
    worlds.coco.pictures[f"{32:012d}.jpg"] = encoded(picture_of(worlds, 32).convert("L"), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    worlds.coco.pictures[f"{33:012d}.jpg"] = encoded(picture_of(worlds, 33), "JPEG", exif=exif)
    worlds.coco.annotations_of(34)[0].update(area=1e6, iscrowd=0)
    worlds.coco.annotations_of(35)[0]["bbox"] = [-20.0, -20.0, 500.0, 500.0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_rejected_with_its_reason(spoilt: Spoilt, case: Case) -> None:
    rows = [
        row
        for row in spoilt.rejects()
        if row["reason"] == case.reason and row["source"] == case.source and case.where in row["where"]
    ]
    assert rows, [row for row in spoilt.rejects() if case.where in row["where"]]
    assert all(row["detail"] for row in rows)
    assert not case.lost or case.lost not in spoilt.planned()
    assert not case.kept or case.kept in spoilt.planned()


def test_every_reject_is_foreseen_and_counted(spoilt: Spoilt) -> None:
    foreseen = {(case.source, case.reason) for case in CASES}
    found = Counter(row["reason"] for row in spoilt.rejects())
    assert {(row["source"], row["reason"]) for row in spoilt.rejects()} <= foreseen
    assert dict(found) == spoilt.manifest.rejects.by_reason


def test_lost_pictures_are_counted_once(spoilt: Spoilt) -> None:
    found = spoilt.manifest.rejects
    assert found.rejected_images == found.images - len(set(_catalogued(spoilt)))
    rows_of_coco, rows_of_lvis, pairs, lone_members, of_second_tar, loose = 41, 6, 40, 5, 5, 1
    assert found.images == rows_of_coco + rows_of_lvis + pairs + lone_members + of_second_tar + loose


def _catalogued(spoilt: Spoilt) -> list[str]:
    parts = (spoilt.out / "work" / "catalog").glob("*.parquet")
    plain = [path for path in parts if path.name.count(".") == 1]
    return [key for path in plain for key in pq.read_table(path, columns=["key"])["key"].to_pylist()]


# reached by tests/unit/shards/test_mined.py: rows of a table of mined pairs that join nothing
OF_MINED_ROWS = {Reason.UNKNOWN_KEY, Reason.UNKNOWN_PHRASE, Reason.NOT_FINITE, Reason.EVIDENCE}


def test_every_reason_is_reached_by_a_case_or_is_the_miners() -> None:
    """`tests/unit/miners/test_judging.py` reaches every guard."""
    assert {case.reason for case in CASES} == set(Reason) - set(GUARDS) - OF_MINED_ROWS


def test_what_can_be_put_right_is_counted_and_not_rejected(spoilt: Spoilt) -> None:
    assert spoilt.manifest.rejects.repaired == {Repair.ENCODED: 2, Repair.AREA_RECOMPUTED: 1, Repair.BOX_CLIPPED: 1}
    assert set(spoilt.manifest.rejects.repaired) == set(Repair)
    assert {f"coco-{image_id}" for image_id in (30, 31, 34, 35)} <= spoilt.planned()


@pytest.mark.parametrize("image_id", [30, 31, 32, 33], ids=["png", "gif", "grey", "exif"])
def test_odd_pictures_stand_in_the_build_as_jpegs_of_their_unrotated_size(spoilt: Spoilt, image_id: int) -> None:
    scene = make_scene(1000 + image_id)
    rows = pq.read_table(spoilt.out / "samples.parquet").to_pylist()
    row = next(row for row in rows if row["image_key"] == f"coco-{image_id}")
    assert (row["width"], row["height"]) == (scene.width, scene.height)
    with (spoilt.out / row["shard"]).open("rb") as shard:
        shard.seek(row["offset"])
        data = shard.read(row["num_bytes"])
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.format, image.size) == ("JPEG", (scene.width, scene.height))
    source = (spoilt.recipe.parent / "coco" / "pictures" / f"{image_id:012d}.jpg").read_bytes()
    assert (data == source) == (image_id in (32, 33))


def test_a_rejected_annotation_is_never_asked_as_absent(spoilt: Spoilt) -> None:
    rows = pq.read_table(spoilt.out / "samples.parquet").to_pylist()
    absent = {(row["image_key"], row["phrase"]) for row in rows if not row["present"]}
    checked = 0
    for image_id in range(15, 21):
        key = f"coco-{image_id}"
        lost = {r["phrase"] for r in spoilt.rejects() if r["phrase"] and f"of image {image_id}" in r["where"]}
        assert lost
        assert not {(key, phrase) for phrase in lost} & absent
        checked += any(image_key == key for image_key, _ in absent)
    assert checked == 6


def test_above_the_allowed_share_the_build_stops_with_the_reasons(spoilt: Spoilt, tmp_path: Path) -> None:
    strict = write_recipe(spoilt.recipe.parent, "strict.toml", **{**LOUD, "max_reject_share": 0.05}, **_all_sources())
    with pytest.raises(BuildError) as caught:
        build_world(strict, tmp_path / "out")
    message = str(caught.value)
    assert "input images were rejected, more than max_reject_share = 0.05: " in message
    assert "rejects.parquet, mend the inputs, or raise max_reject_share" in message
    assert "\n" not in message
    assert not (tmp_path / "out" / "manifest.json").exists()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dogs:
    """What a build asks of COCO images, by whether they show a dog."""

    with_dog: set[str]
    absent: dict[str, set[str]]  # phrases asked as absent, by image


def _ask_about_dogs(folder: Path, segmentation: object) -> Dogs:
    """The build of a world in which every dog's mask is `segmentation`, or sound for None."""
    coco = make_coco(40)
    shown = set()
    for annotation in coco.annotations:
        if annotation["category_id"] == 18:
            shown.add(f"coco-{annotation['image_id']}")
            if segmentation is not None:
                annotation["segmentation"] = segmentation
    folder.mkdir()
    coco.write(folder / "coco")
    (folder / "words.txt").write_text("dog\nanimal\ncat\nkite\ncar\nperson\n")
    recipe = write_recipe(
        folder,
        max_reject_share=1.0,
        samples=40,
        splits={"train": 1.0},
        mix={"coco": "rest"},
        prompts={"absent_per_image": 6, "vocabulary": "words.txt", "kinds": {"random": 1.0}},
        sources={"coco": {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"}},
    )
    build_world(recipe, folder / "out")
    absent: dict[str, set[str]] = {}
    for row in pq.read_table(folder / "out" / "samples.parquet").to_pylist():
        asked = absent.setdefault(row["image_key"], set())
        if not row["present"]:
            asked.add(row["phrase"])
    return Dogs(with_dog=shown & absent.keys(), absent=absent)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [48, 64], "counts": "\x7f"},
        {"size": [1, 1], "counts": "1"},
        {"size": [48, 64], "counts": "PP"},
        [[1.0, 2.0]],
        "nothing",
    ],
    ids=["corrupt", "of the wrong size", "not filled", "of one point", "of the wrong type"],
)
def test_a_broken_dog_is_never_an_absent_dog_nor_an_absent_animal(tmp_path: Path, segmentation: object) -> None:
    dogs = _ask_about_dogs(tmp_path / "world", segmentation)
    assert len(dogs.with_dog) >= 8
    for key in dogs.with_dog:
        assert not dogs.absent[key] & {"dog", "animal"}, key
        assert dogs.absent[key], key
    without = dogs.absent.keys() - dogs.with_dog
    assert any("dog" in dogs.absent[key] for key in without)
    assert any("animal" in dogs.absent[key] for key in without)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"mix": {"sa1b": "rest", "coco": 1.3, "blank": 0.05, "noise": 0.05}},
            ["recipe.toml", "mix.coco = 1.3", "expected a share from 0 to 1"],
        ),
        ({"sample": 3}, ["recipe.toml", "unknown field `sample`", "did you mean `samples`?"]),
        ({"seed": "seven"}, ["recipe.toml", "Expected `int`, got `str` - at `$.seed`"]),
        ({"splits": {"train": 0.5, "val": 0.2}}, ["recipe.toml", "splits", "add up to 0.7", "add up to exactly 1"]),
        ({"mine": {"negatives": ["none.parquet"]}}, ["[mine]", "none.parquet", "does not exist"]),
        ({"prompts": {"kinds": {"near_text": 1}}}, ["recipe.toml", "asks for near_text", "no [mine] table; add one"]),
        ({"when_short": "stop", "samples": 5000}, ["sa1b", "samples"]),
        ({"prompts": {"vocabulary": "nowhere.txt"}}, ["prompts.vocabulary", "nowhere.txt"]),
    ],
    ids=["share", "misspelt key", "wrong type", "splits", "no mined table", "no mine", "short source", "no vocabulary"],
)
def test_a_wrong_recipe_stops_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: Mapping[str, object], expected: list[str]
) -> None:
    recipe = write_world(tmp_path, coco_images=12, sa1b_images=12, **changes)
    line = _stopped(recipe, capsys)
    assert all(words in line for words in expected), line


def _stopped(recipe: Path, capsys: pytest.CaptureFixture[str]) -> str:
    out = recipe.parent / "out"
    assert main([str(recipe), "--out", str(out), "--workers", "1"]) == 1
    assert not (out / "manifest.json").exists()
    return error_line(capsys.readouterr().err)


def _no_tars(folder: Path) -> None:
    (folder / "sa1b" / "sa_000000.tar").unlink()


def _no_pictures_at_all(folder: Path) -> None:
    for path in (folder / "coco" / "pictures").iterdir():
        path.write_bytes(b"")
    (folder / "sa1b" / "sa_000000.tar").write_bytes(b"\0" * 1024)


def _empty_annotations(folder: Path) -> None:
    (folder / "coco" / "instances.json").write_text('{"images": [], "annotations": [], "categories": []}')


def _no_annotations(folder: Path) -> None:
    (folder / "coco" / "instances.json").unlink()


def _no_folder(folder: Path) -> None:
    os.replace(folder / "coco" / "pictures", folder / "elsewhere")


def _no_sidecar(folder: Path) -> None:
    (folder / "sa1b" / "phrases.jsonl").unlink()


def _packed(folder: Path) -> None:
    (folder / "sa1b" / "sa_000000.tar").write_bytes(b"\x1f\x8b\x08" + b"\0" * 2000)


def _dangling(folder: Path) -> None:
    (folder / "sa1b" / "sa_000000.tar").unlink()
    (folder / "sa1b" / "sa_000000.tar").symlink_to(folder / "nowhere.tar")


def _broken_annotations(folder: Path) -> None:
    (folder / "coco" / "instances.json").write_text('{"images": [{"id": 1, ')


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (_no_tars, ["sources.sa1b", "sa_*.tar", "names no tar", "expected SA-1B tars", "Check the path"]),
        (_no_pictures_at_all, ["expected at least one", "rejects.parquet"]),
        (_empty_annotations, ["instances.json", "0 images and 0 annotations", "expected some of each", "Name another"]),
        (_no_annotations, ["sources.coco", "instances.json", "expected", "Check the path"]),
        (_no_folder, ["sources.coco", "pictures does not exist", "Check the path"]),
        (
            _no_sidecar,
            ["sources.sa1b", "phrases.jsonl does not exist", "expected a Parquet or JSONL", "Check the path"],
        ),
        (_packed, ["sa_000000.tar", "compressed with gzip", "need an uncompressed tar", "gunzip it"]),
        (_dangling, ["sources.sa1b", "sa_000000.tar is listed but not there", "Mend or remove the link"]),
        (
            _broken_annotations,
            ["instances.json: broken JSON at byte 22", "found the end of the file", "Mend or replace"],
        ),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_an_empty_or_unreadable_source_stops_with_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], None],
    expected: list[str],
) -> None:
    recipe = write_world(tmp_path, coco_images=12, sa1b_images=12, max_reject_share=1.0)
    harm(tmp_path)
    line = _stopped(recipe, capsys)
    assert all(words in line for words in expected), line


def test_a_missing_recipe_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _stopped(tmp_path / "none.toml", capsys)
    assert line == f"error: {tmp_path}/none.toml: no such recipe; expected a TOML file"
