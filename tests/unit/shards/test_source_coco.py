"""The COCO source on files made here, field by field, and on the real ones."""

import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import fsspec
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from manifests.errors import Reason, Repair, SourceError
from manifests.recipe import CocoSource, Recipe
from manifests.sample import Mask, MaskState
from shards import masks
from shards.sources.coco import Coco, open_coco
from shards.sources.source import Found, Label, LabelState, Picture, Prepared, Reject, Repaired
from tests.mask_overlap import iou

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"
real_data = [pytest.mark.real_data, pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")]

HEIGHT, WIDTH = 60, 80
SQUARE = [[10.0, 10.0, 50.0, 10.0, 50.0, 50.0, 10.0, 50.0]]
Row = dict[str, object]


@dataclass
class Scan:
    prepared: Prepared
    found: list[Found]

    @property
    def pictures(self) -> dict[str, Picture]:
        return {found.image_id: found for found in self.found if isinstance(found, Picture)}

    @property
    def rejects(self) -> list[Reject]:
        return [*self.prepared.rejects, *(found for found in self.found if isinstance(found, Reject))]

    @property
    def reasons(self) -> Counter[Reason]:
        return Counter(reject.reason for reject in self.rejects)

    @property
    def repairs(self) -> Counter[Repair]:
        return Counter(found.repair for found in self.found if isinstance(found, Repaired))

    def labels(self, image_id: str = "1") -> dict[str, Label]:
        return {label.phrase: label for label in self.pictures[image_id].labels}


def image_row(number: int = 1, **changes: object) -> Row:
    return {"id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"{number}.jpg"} | changes


def annotation(number: int = 1, category_id: object = 1, image_id: object = 1, **changes: object) -> Row:
    row: Row = {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [10.0, 10.0, 40.0, 40.0],
        "area": 1600.0,
        "iscrowd": 0,
        "segmentation": SQUARE,
    }
    return {name: value for name, value in (row | changes).items() if value != "left out"}


def document(annotations: Sequence[object], images: Sequence[object] | None = None, **changes: object) -> Row:
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "dining_table"}, {"id": 3, "name": "cat"}]
    return {
        "images": images or [image_row()],
        "annotations": list(annotations),
        "categories": categories,
    } | changes


def jpeg_bytes(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


def png_of_ids(ids_hw: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> bytes:
    buffer = io.BytesIO()
    colours = np.stack([ids_hw % 256, ids_hw // 256 % 256, ids_hw // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(buffer, "PNG")
    return buffer.getvalue()


def write_source(folder: Path, *documents: Row | bytes, names: Sequence[str] = ("1.jpg", "2.jpg")) -> Coco:
    """A source of the annotation files `documents` with pictures called `names`."""
    (folder / "images").mkdir(exist_ok=True)
    for name in names:
        (folder / "images" / name).write_bytes(jpeg_bytes())
    for number, content in enumerate(documents):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / f"part{number}.json").write_bytes(data)
    table = CocoSource(images="images", annotations=[f"part{n}.json" for n in range(len(documents))])
    return open_source(table, folder)


def open_source(table: CocoSource, folder: Path | str) -> Coco:
    recipe = Recipe(name="test", mix={"coco": "rest"}, sources={"coco": table}, folder=str(folder))
    return cast(Coco, open_coco("coco", table, recipe))


def scan(source: Coco, work: Path | str) -> Scan:
    prepared = source.prepare(str(work))
    return Scan(prepared, [found for part in prepared.parts for found in source.scan(part)])


def scan_one(folder: Path, *documents: Row | bytes) -> Scan:
    return scan(write_source(folder, *documents), folder / "work")


def rle_of(array: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> dict[str, object]:
    return masks_json(masks.mask_from_array(array))


def masks_json(mask: Mask) -> dict[str, object]:
    return {"size": list(mask.size), "counts": mask.counts}


def half_image() -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    array = np.zeros((HEIGHT, WIDTH), np.bool_)
    array[:, : WIDTH // 2] = True
    return array


def test_a_picture_has_its_present_phrases_and_the_file_closes_the_rest(tmp_path: Path) -> None:
    result = scan_one(tmp_path, document([annotation(), annotation(2, 2)], [image_row(), image_row(2)]))
    picture = result.pictures["1"]
    assert {label.phrase: label.mask_state for label in picture.labels} == {
        "dining table": MaskState.COMPLETE,
        "dog": MaskState.COMPLETE,
    }
    assert (picture.uri, picture.data, picture.claimed_size) == ("1.jpg", jpeg_bytes(), (WIDTH, HEIGHT))
    assert (picture.exhaustive_over, picture.open_over) == (("coco",), ())
    assert result.pictures["2"].labels == ()
    assert result.pictures["2"].exhaustive_over == ("coco",)
    assert result.prepared.vocabularies == {"coco": ("cat", "dining table", "dog")}
    assert result.rejects == []


def test_polygon_and_both_kinds_of_rle_give_the_same_mask(tmp_path: Path) -> None:
    drawn = masks.mask_from_polygons(SQUARE, HEIGHT, WIDTH)
    array = masks.mask_to_array(drawn)
    flat = array.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges.tolist(), flat.size]).tolist()
    plain = {"size": [HEIGHT, WIDTH], "counts": runs}
    rows = [
        annotation(),
        annotation(2, 2, segmentation=masks_json(drawn)),
        annotation(3, 3, segmentation=plain, iscrowd=1, area=3.0),
    ]
    result = scan_one(tmp_path, document(rows))
    assert {label.masks for label in result.labels().values()} == {(drawn,)}
    assert {label.mask_state for label in result.labels().values()} == {MaskState.COMPLETE}
    assert result.repairs == Counter()  # a crowd's area is not compared


def test_a_box_alone_is_present_without_masks(tmp_path: Path) -> None:
    rows = [annotation(segmentation="left out"), annotation(2, 2, segmentation=[]), annotation(3, 3, segmentation=None)]
    result = scan_one(tmp_path, document(rows))
    assert {label.mask_state for label in result.labels().values()} == {MaskState.NONE}
    assert len(result.labels()) == 3


def broken_annotations() -> list[tuple[Row, Reason, str]]:
    half = rle_of(half_image())
    return [
        (annotation(segmentation=half | {"counts": "0Z^"}), Reason.MASK_CORRUPT, "segmentation"),
        (annotation(segmentation=half | {"size": [HEIGHT, WIDTH + 1]}), Reason.MASK_SIZE, "segmentation.size"),
        (annotation(segmentation=rle_of(~half_image() & half_image())), Reason.MASK_EMPTY, "segmentation"),
        (annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": [1, 2]}), Reason.MASK_SIZE, "runs sum to 3"),
        (annotation(segmentation=[[1.0, 1.0, 5.0, 5.0]]), Reason.POLYGON_TOO_SHORT, "4 numbers"),
        (annotation(segmentation=[[5.0, 5.0, 5.0, 5.0, 5.0, 5.0]]), Reason.ZERO_AREA, "no pixel"),
        (annotation(bbox=[math.nan, 1.0, 2.0, 2.0]), Reason.BAD_BOX, "annotations[0].bbox"),
        (annotation(bbox=[1.0, 1.0, -2.0, 2.0]), Reason.BAD_BOX, "annotations[0].bbox"),
        (annotation(bbox=[90.0, 1.0, 2.0, 2.0], segmentation=[]), Reason.BAD_BOX, "outside the image"),
        (annotation(bbox=[1.0, 1.0, 0.0, 2.0], segmentation=[]), Reason.ZERO_AREA, "encloses nothing"),
        (annotation(bbox="left out", segmentation="left out"), Reason.WRONG_FIELD, "annotations[0].bbox: missing"),
        (annotation(bbox="wide"), Reason.WRONG_FIELD, "annotations[0].bbox: Expected `array"),
        (annotation(area="big"), Reason.WRONG_FIELD, "annotations[0].area"),
        (annotation(segmentation=[["x"]]), Reason.WRONG_FIELD, "annotations[0].segmentation[0][0]"),
    ]


@pytest.mark.parametrize(("row", "reason", "found"), broken_annotations())
def test_a_broken_annotation_is_counted_and_its_phrase_left_open(
    tmp_path: Path, row: Row, reason: Reason, found: str
) -> None:
    result = scan_one(tmp_path, document([row]))
    assert result.reasons == {reason: 1}
    assert found in result.rejects[0].detail
    assert "annotations[0] of image 1" in result.rejects[0].where
    assert result.rejects[0].phrase == "dog"
    assert result.labels()["dog"].state is LabelState.OPEN
    assert result.pictures["1"].exhaustive_over == ("coco",)  # a cat is still absent


@pytest.mark.parametrize(("row", "reason", "found"), broken_annotations())
def test_beside_a_sound_dog_a_broken_one_makes_the_masks_partial(
    tmp_path: Path, row: Row, reason: Reason, found: str
) -> None:
    result = scan_one(tmp_path, document([row, annotation(2)]))
    assert result.reasons == {reason: 1}
    dog = result.labels()["dog"]
    assert (dog.state, dog.mask_state, len(dog.masks)) == (LabelState.PRESENT, MaskState.PARTIAL, 1), found


@pytest.mark.parametrize(
    ("row", "reason", "found"),
    [
        (annotation(category_id=9), Reason.UNKNOWN_CATEGORY, "'9' is not among"),
        (annotation(category_id="left out"), Reason.WRONG_FIELD, "annotations[0].category_id"),
        (annotation(category_id=1.5), Reason.WRONG_FIELD, "annotations[0].category_id"),
        (annotation(category_id=True), Reason.WRONG_FIELD, "annotations[0].category_id"),
    ],
)
def test_where_the_category_cannot_be_told_nothing_is_absent(
    tmp_path: Path, row: Row, reason: Reason, found: str
) -> None:
    result = scan_one(tmp_path, document([row]))
    assert result.reasons == {reason: 1}
    assert found in result.rejects[0].detail
    assert result.pictures["1"].exhaustive_over == ()


@pytest.mark.parametrize(
    ("row", "reason", "found"),
    [
        (annotation(image_id=9), Reason.UNKNOWN_IMAGE, "9 is not among"),
        (annotation(image_id="left out"), Reason.WRONG_FIELD, "annotations[0].image_id"),
        (cast(Row, ["no", "object"]), Reason.WRONG_FIELD, "annotations[0].image_id"),
    ],
)
def test_an_annotation_of_no_image_is_counted(tmp_path: Path, row: Row, reason: Reason, found: str) -> None:
    result = scan_one(tmp_path, document([row, annotation(2)]))
    assert result.reasons == {reason: 1}
    assert found in result.rejects[0].detail
    assert not result.rejects[0].image
    assert result.labels()["dog"].mask_state is MaskState.COMPLETE


def test_an_annotation_id_that_stands_twice_is_counted(tmp_path: Path) -> None:
    equal = scan_one(tmp_path, document([annotation(), annotation()]))
    assert equal.reasons == {Reason.DUPLICATE_ANNOTATION: 1}
    assert equal.labels()["dog"].mask_state is MaskState.COMPLETE  # nothing is lost
    other = scan_one(tmp_path, document([annotation(), annotation(bbox=[10.0, 10.0, 41.0, 40.0])]))
    assert other.reasons == {Reason.DUPLICATE_ANNOTATION: 1}
    assert other.labels()["dog"].mask_state is MaskState.PARTIAL


@pytest.mark.parametrize(
    ("row", "reason", "found"),
    [
        (image_row(2, width="left"), Reason.WRONG_FIELD, "images[1].width"),
        (image_row(2, height=0), Reason.WRONG_FIELD, "images[1].height"),
        (image_row(2, id=None), Reason.WRONG_FIELD, "images[1].id"),
        (image_row(1), Reason.DUPLICATE_ID, "1 is taken already"),
        (image_row(2, file_name="../2.jpg"), Reason.UNSAFE_NAME, "'..'"),
        (image_row(2, file_name="/2.jpg"), Reason.UNSAFE_NAME, "expected a relative name"),
        (image_row(3, file_name="none.jpg"), Reason.MISSING_FILE, "'none.jpg', '000000000003.jpg'"),
        (image_row(3, file_name="."), Reason.UNREADABLE, "IsADirectoryError"),
        (image_row(2, file_name="\udcff.jpg"), Reason.UNSAFE_NAME, "printable"),
    ],
)
def test_a_broken_image_row_loses_one_picture(tmp_path: Path, row: Row, reason: Reason, found: str) -> None:
    result = scan_one(tmp_path, document([annotation(), annotation(2, image_id=2)], [image_row(), row]))
    lost = [reject for reject in result.rejects if reject.image]
    assert [reject.reason for reject in lost] == [reason]
    assert found in lost[0].detail
    assert set(result.pictures) == {"1"}
    assert result.labels()["dog"].mask_state is MaskState.COMPLETE


@pytest.mark.parametrize(
    ("category", "reason"),
    [
        ({"id": 4, "name": " "}, Reason.EMPTY_PHRASE),
        ({"id": 4, "name": "x" * 10_240}, Reason.PHRASE_TOO_LONG),
        ({"id": 4, "name": "\ud800"}, Reason.PHRASE_NOT_UTF8),
        ({"id": 1, "name": "wolf"}, Reason.DUPLICATE_ID),
        ({"id": 4}, Reason.WRONG_FIELD),
    ],
)
def test_a_category_that_gives_no_phrase_is_counted(tmp_path: Path, category: Row, reason: Reason) -> None:
    result = scan_one(tmp_path, document([annotation()], categories=[{"id": 1, "name": "dog"}, category]))
    assert result.reasons == {reason: 1}
    assert result.prepared.vocabularies == {"coco": ("dog",)}


def test_bytes_that_are_no_utf_8_cost_their_category_alone(tmp_path: Path) -> None:
    data = json.dumps(document([annotation()])).encode().replace(b'"cat"', b'"c\xff"')
    result = scan_one(tmp_path, data)
    assert result.reasons == {Reason.PHRASE_NOT_UTF8: 1}
    assert "dog" in result.labels()


def test_a_box_past_the_edge_and_a_wrong_area_are_put_right(tmp_path: Path) -> None:
    rows = [annotation(bbox=[10.0, 10.0, 90.0, 40.0]), annotation(2, 2, area=2000.0), annotation(3, 3, area=1590.0)]
    result = scan_one(tmp_path, document(rows))
    assert result.repairs == {Repair.BOX_CLIPPED: 1, Repair.AREA_RECOMPUTED: 1}
    assert result.rejects == []
    assert {label.mask_state for label in result.labels().values()} == {MaskState.COMPLETE}


def test_boxes_of_everything_and_masks_of_one_category_complete_each_other(tmp_path: Path) -> None:
    boxes = document([annotation(segmentation=[]), annotation(2, 2, segmentation=[])], [image_row(), image_row(2)])
    masked = document([annotation(7)], categories=[{"id": 1, "name": "dog"}])
    result = scan_one(tmp_path, boxes, masked)
    assert {label.phrase: label.mask_state for label in result.pictures["1"].labels} == {
        "dining table": MaskState.NONE,
        "dog": MaskState.COMPLETE,
    }
    assert result.pictures["1"].exhaustive_over == ("coco",)
    assert result.pictures["2"].exhaustive_over == ("coco",)  # the boxes alone cover all that the files know


def test_a_file_says_nothing_of_images_that_it_does_not_list(tmp_path: Path) -> None:
    first = document([annotation()], [image_row(), image_row(2)])
    second = document([annotation(7, 9)], categories=[{"id": 9, "name": "sky"}])
    result = scan_one(tmp_path, first, second)
    assert result.pictures["1"].exhaustive_over == ("coco",)
    assert result.pictures["2"].exhaustive_over == ("coco:part0.json",)
    assert "sky" not in result.prepared.vocabularies["coco:part0.json"]
    assert "sky" in result.prepared.vocabularies["coco"]


def test_a_file_whose_image_has_another_size_opens_its_phrases(tmp_path: Path) -> None:
    second = document([annotation(7, 3)], [image_row(width=WIDTH + 1)])
    result = scan_one(tmp_path, document([annotation()]), second)
    assert result.reasons == {Reason.SIZE_MISMATCH: 1}
    assert not result.rejects[0].image
    assert result.labels()["cat"].state is LabelState.OPEN
    assert result.labels()["dog"].mask_state is MaskState.COMPLETE


def test_a_source_that_was_not_searched_everywhere_denies_nothing(tmp_path: Path) -> None:
    result = scan(replace(write_source(tmp_path, document([annotation()])), exhaustive=False), tmp_path / "work")
    assert (result.pictures["1"].exhaustive_over, result.pictures["1"].open_over) == ((), ())
    assert result.labels()["dog"].state is LabelState.PRESENT


def lvis_document(**changes: object) -> Row:
    row = image_row(neg_category_ids=[2], not_exhaustive_category_ids=[1, 3], file_name="COCO_val2014_000000000001.jpg")
    categories = [
        {"id": 1, "name": "dog", "synonyms": ["dog"]},
        {"id": 2, "name": "car_(automobile)", "synonyms": ["car_(automobile)", "auto"]},
        {"id": 3, "name": "cat"},
        {"id": 4, "name": "bee"},
    ]
    return document([annotation(), annotation(2, 4)], [row | changes], categories=categories)


def test_lvis_denies_by_name_and_leaves_the_rest_open(tmp_path: Path) -> None:
    source = write_source(tmp_path, lvis_document(), names=["000000000001.jpg"])
    result = scan(source, tmp_path / "work")
    assert {label.phrase: label.state for label in result.pictures["1"].labels} == {
        "bee": LabelState.PRESENT,
        "car (automobile)": LabelState.ABSENT,
        "cat": LabelState.OPEN,
        "dog": LabelState.PRESENT,
    }
    assert result.labels()["dog"].mask_state is MaskState.PARTIAL
    assert result.labels()["bee"].mask_state is MaskState.COMPLETE
    assert (result.pictures["1"].exhaustive_over, result.pictures["1"].open_over) == ((), ("coco",))
    assert result.prepared.synonyms == (("car (automobile)", "auto"),)


def test_what_lvis_denies_and_annotates_is_a_contradiction(tmp_path: Path) -> None:
    result = scan_one(tmp_path, lvis_document(neg_category_ids=[1, 99], file_name="1.jpg"))
    assert result.reasons == {Reason.CONTRADICTION: 1, Reason.UNKNOWN_CATEGORY: 1}
    assert result.labels()["dog"].state is LabelState.OPEN


def test_lvis_beside_instances_keeps_the_vocabularies_apart(tmp_path: Path) -> None:
    result = scan_one(tmp_path, document([annotation()]), lvis_document(file_name="1.jpg", neg_category_ids=[4]))
    picture = result.pictures["1"]
    assert (picture.exhaustive_over, picture.open_over) == (("coco",), ("coco:lvis",))
    assert "bee" not in result.prepared.vocabularies["coco"]
    assert result.reasons == {Reason.CONTRADICTION: 1}  # a bee is annotated and denied


def panoptic_source(folder: Path, **changes: object) -> Coco:
    ids_hw = np.zeros((HEIGHT, WIDTH), np.int64)
    ids_hw[10:50, 10:50] = 70_000
    ids_hw[50:, :] = 300
    segments = [
        {"id": 70_000, "category_id": 1, "area": 1600, "bbox": [10, 10, 40, 40], "iscrowd": 0},
        {"id": 300, "category_id": 2, "area": 800, "bbox": [0, 50, 80, 10], "iscrowd": 0},
    ]
    row = {"image_id": 1, "file_name": "1.png", "segments_info": segments} | changes
    source = write_source(folder, document([row], [image_row(), image_row(2)]))
    (folder / "png").mkdir(exist_ok=True)
    (folder / "png" / "1.png").write_bytes(png_of_ids(ids_hw))
    (folder / "png" / "small.png").write_bytes(png_of_ids(ids_hw[:-1]))
    return replace(source, panoptic=str(folder / "png"))


def test_panoptic_segments_are_found_by_their_colour(tmp_path: Path) -> None:
    result = scan(panoptic_source(tmp_path), tmp_path / "work")
    assert result.rejects == []
    assert result.repairs == Counter()
    dog, table = result.labels()["dog"], result.labels()["dining table"]
    assert (dog.mask_state, masks.area(dog.masks[0]), masks.area(table.masks[0])) == (MaskState.COMPLETE, 1600, 800)
    assert masks.mask_to_array(dog.masks[0])[10:50, 10:50].all()
    assert result.pictures["1"].exhaustive_over == ("coco",)
    assert result.pictures["2"].exhaustive_over == ()  # no segmentation of it was ever made


@pytest.mark.parametrize(
    ("changes", "reason", "states"),
    [
        ({"file_name": "none.png"}, Reason.MISSING_FILE, ["open", "open"]),
        ({"file_name": "../1.png"}, Reason.UNSAFE_NAME, ["open", "open"]),
        ({"file_name": "small.png"}, Reason.MASK_SIZE, ["open", "open"]),
        ({"segments_info": [{"id": 5, "category_id": 1}]}, Reason.MASK_EMPTY, ["open"]),
        ({"segments_info": [{"id": 1 << 30, "category_id": 1}]}, Reason.MASK_EMPTY, ["open"]),
        ({"segments_info": [{"id": "5", "category_id": 1}]}, Reason.WRONG_FIELD, ["open"]),
        ({"segments_info": [7]}, Reason.WRONG_FIELD, []),
        ({"segments_info": 7}, Reason.WRONG_FIELD, []),
    ],
)
def test_a_broken_segmentation_leaves_its_phrases_open(
    tmp_path: Path, changes: Mapping[str, object], reason: Reason, states: list[str]
) -> None:
    result = scan(panoptic_source(tmp_path, **changes), tmp_path / "work")
    assert result.reasons == {reason: 1}
    assert [str(label.state) for label in result.pictures["1"].labels] == states
    assert (result.pictures["1"].exhaustive_over == ("coco",)) == bool(states)


def test_a_panoptic_file_without_its_folder_stops(tmp_path: Path) -> None:
    source = replace(panoptic_source(tmp_path), panoptic="")
    with pytest.raises(SourceError, match="`panoptic` is not set; expected the folder"):
        source.prepare(str(tmp_path / "work"))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "broken JSON at byte 0: expected a JSON object"),
        (json.dumps(document([annotation()])).encode()[:-40], "broken JSON at byte"),
        (b"[]", "expected a JSON object at the top"),
        (json.dumps(document([])).encode(), "1 images and 0 annotations; expected some of each"),
        (json.dumps({"images": [], "annotations": [], "categories": []}).encode(), "0 images and 0 annotations"),
        (json.dumps(document([annotation()], categories=[])).encode(), "no usable category"),
        (json.dumps(document([annotation()]) | {"images": {}}).encode(), "images is a dict; expected an array"),
    ],
)
def test_a_file_that_is_none_of_cocos_stops_with_its_name(tmp_path: Path, content: bytes, found: str) -> None:
    source = write_source(tmp_path, content)
    with pytest.raises(SourceError) as caught:
        source.prepare(str(tmp_path / "work"))
    assert str(caught.value).startswith(str(tmp_path / "part0.json"))
    assert found in str(caught.value)


def test_missing_pictures_or_annotations_stop(tmp_path: Path) -> None:
    source = write_source(tmp_path, document([annotation()]))
    with pytest.raises(SourceError, match=r"images: .*none does not exist"):
        replace(source, root=str(tmp_path / "none")).prepare(str(tmp_path / "work"))
    with pytest.raises(SourceError, match=r"annotations: nothing at .*none\*"):
        replace(source, annotations=(str(tmp_path / "none*"),)).prepare(str(tmp_path / "work"))
    with pytest.raises(SourceError, match="annotations is empty"):
        replace(source, annotations=()).prepare(str(tmp_path / "work"))


def test_licences_come_from_the_recipe_or_from_the_file(tmp_path: Path) -> None:
    licences = [{"id": 4, "name": "Attribution License", "url": "http://x"}]
    images = [image_row(license=4), image_row(2, license=9)]
    source = write_source(tmp_path, document([annotation()], images, licenses=licences))
    found = scan(source, tmp_path / "work").pictures
    assert [found[key].licence for key in "12"] == ["Attribution License", "9"]
    assert scan(replace(source, licence="ours"), tmp_path / "work").pictures["1"].licence == "ours"


def test_many_buckets_give_what_one_gives_and_each_part_its_own_pictures(tmp_path: Path) -> None:
    images = [image_row(number) for number in range(1, 41)]
    rows = [annotation(number, 1 + number % 3, number) for number in range(40, 0, -1)]
    source = write_source(tmp_path, document(rows, images), names=[f"{n}.jpg" for n in range(1, 41)])
    one = scan(source, tmp_path / "work")
    many = scan(replace(source, bucket_bytes=2000), tmp_path / "work")
    assert len(one.prepared.parts) == 1
    assert len(many.prepared.parts) > 4
    assert sum(part.weight for part in many.prepared.parts) == 40
    assert list(one.pictures) == [str(number) for number in range(1, 41)]
    assert one.pictures == many.pictures
    assert len(many.found) == 40


def test_a_spill_is_made_once_and_again_after_a_crash_or_a_change(tmp_path: Path) -> None:
    source = write_source(tmp_path, document([annotation()]))
    first = scan(source, tmp_path / "work")
    bucket = Path(first.prepared.parts[0].spill)
    made = bucket.stat().st_mtime_ns
    assert source.prepare(str(tmp_path / "work")).parts == first.prepared.parts
    assert bucket.stat().st_mtime_ns == made
    (bucket.parent / "layers.json").unlink()  # a killed run never wrote it
    assert scan(source, tmp_path / "work") == first
    (tmp_path / "images" / "1.jpg").write_bytes(jpeg_bytes(WIDTH + 1))
    assert source.prepare(str(tmp_path / "work")).parts[0].name != first.prepared.parts[0].name


def test_a_source_in_a_bucket_is_read_like_a_folder(tmp_path: Path) -> None:
    local = write_source(tmp_path, document([annotation()], [image_row(), image_row(2)]))
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path / "images"), "/coco-test/images", recursive=True)
    fs.put(str(tmp_path / "part0.json"), "/coco-test/part0.json")
    table = CocoSource(images="images", annotations="part*.json")
    remote = open_source(table, "memory://coco-test")
    found = scan(remote, "memory://coco-test/work")
    fs.rm("/coco-test", recursive=True)
    assert found.pictures == scan(local, tmp_path / "work").pictures


def real_source(folder: str, *annotations: str, images: str, panoptic: str = "") -> Coco:
    table = CocoSource(images=f"{folder}/{images}", annotations=[f"{folder}/{a}" for a in annotations])
    source = open_source(table, DATA)
    return replace(source, panoptic=str(DATA / folder / panoptic)) if panoptic else source


def quiet_coco(path: Path, capsys: pytest.CaptureFixture[str]) -> COCO:
    found = COCO(str(path))
    capsys.readouterr()
    return found


class TestRealData:
    pytestmark = real_data

    @pytest.mark.parametrize(
        ("folder", "split", "num_images", "num_annotations"),
        [("coco_train", "train2017", 343, 2974), ("coco_val", "val2017", 227, 1934)],
    )
    def test_real_instances_are_read_whole(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        folder: str,
        split: str,
        num_images: int,
        num_annotations: int,
    ) -> None:
        path = f"annotations/instances_{split}.json"
        result = scan(real_source(folder, path, images=split), tmp_path)
        truth = quiet_coco(DATA / folder / path, capsys)
        assert (result.rejects, result.repairs) == ([], Counter())
        assert len(result.pictures) == num_images
        counts = Counter(label.phrase for picture in result.pictures.values() for label in picture.labels)
        for category in truth.loadCats(truth.getCatIds()):
            assert counts[category["name"]] == len(truth.getImgIds(catIds=[category["id"]]))
        drawn = Counter(len(label.masks) for x in result.pictures.values() for label in x.labels)
        assert sum(size * number for size, number in drawn.items()) == num_annotations
        name = "person"
        for picture in list(result.pictures.values())[:20]:
            ids = truth.getAnnIds(imgIds=[int(picture.image_id)], catIds=truth.getCatIds(catNms=[name]))
            expected = [truth.annToRLE(row)["counts"].decode() for row in truth.loadAnns(ids)]
            found = [mask.counts for label in picture.labels if label.phrase == name for mask in label.masks]
            assert found == expected

    def test_real_panoptic_masks_agree_with_the_instances(self, tmp_path: Path) -> None:
        images, folder = "train2017", "annotations/panoptic_train2017"
        panoptic = scan(real_source("coco", f"{folder}.json", images=images, panoptic=folder), tmp_path)
        instances = scan(real_source("coco", "annotations/instances_train2017.json", images=images), tmp_path)
        assert (panoptic.rejects, panoptic.repairs) == ([], Counter())
        assert len(panoptic.prepared.vocabularies["coco"]) == 133
        compared = 0
        for image_id, picture in instances.pictures.items():
            for label in picture.labels:
                other = panoptic.labels(image_id)[label.phrase]
                assert iou(masks.union(label.masks), masks.union(other.masks)) > 0.99
                compared += 1
        assert compared > 250

    def test_real_boxes_are_completed_by_person_masks(self, tmp_path: Path) -> None:
        files = ("annotations/boxes_val2017.json", "annotations/persons_val2017.json")
        result = scan(real_source("coco_boxes", *files, images="val2017"), tmp_path)
        assert (result.rejects, result.repairs, len(result.pictures)) == ([], Counter(), 282)
        states: dict[bool, set[MaskState]] = {True: set(), False: set()}
        for picture in result.pictures.values():
            assert picture.exhaustive_over == ("coco",)
            for label in picture.labels:
                states[label.phrase == "person"].add(label.mask_state)
        assert states == {True: {MaskState.COMPLETE}, False: {MaskState.NONE}}

    def test_real_lvis_says_what_was_denied_and_what_was_not_searched(self, tmp_path: Path) -> None:
        result = scan(real_source("lvis", "lvis_val_with_images.json", images="val2017"), tmp_path)
        with (DATA / "lvis" / "lvis_val_with_images.json").open() as file:
            truth = json.load(file)
        names = {row["id"]: row["name"].replace("_", " ") for row in truth["categories"]}
        shown: dict[int, set[str]] = {row["id"]: set() for row in truth["images"]}
        for row in truth["annotations"]:
            shown[row["image_id"]].add(names[row["category_id"]])
        assert result.reasons == {Reason.MISSING_FILE: 4}  # these four stand in coco_val
        for row in truth["images"]:
            if (picture := result.pictures.get(str(row["id"]))) is None:
                continue
            by_state: dict[LabelState, set[str]] = {state: set() for state in LabelState}
            for label in picture.labels:
                by_state[label.state].add(label.phrase)
            partial = {label.phrase for label in picture.labels if label.mask_state is MaskState.PARTIAL}
            remarked = {names[i] for i in row["not_exhaustive_category_ids"]}
            assert by_state[LabelState.ABSENT] == {names[i] for i in row["neg_category_ids"]}
            assert by_state[LabelState.PRESENT] == shown[row["id"]]
            assert by_state[LabelState.OPEN] == remarked - shown[row["id"]]
            assert partial == remarked & shown[row["id"]]
            assert (picture.exhaustive_over, picture.open_over) == ((), ("coco",))

    def test_a_broken_dog_among_real_ones_is_never_called_absent(self, tmp_path: Path) -> None:
        with (DATA / "coco_train/annotations/instances_train2017.json").open() as file:
            truth = json.load(file)
        dogs = [row for row in truth["annotations"] if row["category_id"] == 18 and not row["iscrowd"]]
        number = Counter(row["image_id"] for row in dogs)
        sizes = {row["id"]: [row["height"], row["width"]] for row in truth["images"]}
        broken = {row["image_id"]: row for row in dogs}  # one dog of each image
        for image_id, row in broken.items():
            row["segmentation"] = {"size": sizes[image_id], "counts": "X0X"}
        path = tmp_path / "broken.json"
        path.write_text(json.dumps(truth))
        source = replace(
            real_source("coco_train", "annotations/instances_train2017.json", images="train2017"),
            annotations=(str(path),),
        )
        result = scan(source, tmp_path / "work")
        assert len(broken) > 3
        assert result.reasons == {Reason.MASK_CORRUPT: len(broken)}
        for image_id in broken:
            dog = result.labels(str(image_id))["dog"]
            if number[image_id] > 1:
                assert (dog.state, dog.mask_state) == (LabelState.PRESENT, MaskState.PARTIAL)
            else:
                assert dog.state is LabelState.OPEN
