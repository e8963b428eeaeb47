"""SA-1B: tars and folders read alike, phrases brought to their masks, and every bad input met by its reason."""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import Reason, Repair, SourceError
from manifests.recipe import Recipe, Sa1bSource
from manifests.sample import MaskState
from shards.masks import mask_from_array
from shards.sources import pairs, sidecar
from shards.sources.sa1b import Sa1b, open_sa1b
from shards.sources.source import Found, Label, LabelState, Picture, Prepared, Reject, Repaired

HEIGHT, WIDTH = 30, 40
Json = dict[str, Any]


def some_rle(seed: int = 0, *, height: int = HEIGHT, width: int = WIDTH) -> Json:
    array = np.zeros((height, width), np.bool_)
    array[seed % 20 : seed % 20 + 5, 3:9] = True
    mask = mask_from_array(array)
    return {"size": list(mask.size), "counts": mask.counts}


def some_annotation(annotation_id: int, **changes: object) -> Json:
    return {
        "bbox": [3.0, 0.0, 6.0, 5.0],
        "area": 30,
        "segmentation": some_rle(annotation_id),
        "predicted_iou": 0.9,
        "point_coords": [[4.0, 2.0]],
        "crop_box": [0.0, 0.0, WIDTH, HEIGHT],
        "id": annotation_id,
        "stability_score": 0.95,
    } | changes


def some_json(number: int, annotations: Iterable[Json] | None = None, **changes: object) -> bytes:
    image = {"image_id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{number}.jpg"} | changes
    listed = [some_annotation(number * 10 + k) for k in range(3)] if annotations is None else list(annotations)
    return json.dumps({"image": image, "annotations": listed}).encode()


def some_members(*image_ids: int) -> list[tuple[str, bytes]]:
    return [
        member
        for image_id in image_ids
        for member in ((f"sa_{image_id}.jpg", b"jpeg %d" % image_id), (f"sa_{image_id}.json", some_json(image_id)))
    ]


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())
    return out.getvalue()


def write_sidecar(path: Path, rows: Sequence[tuple[int, int, str]], score: float = 0.5) -> None:
    columns = [[row[place] for row in rows] for place in range(3)]
    names = ("image_id", "annotation_id", "phrase")
    types = (pa.int64(), pa.int64(), pa.string())
    table = {name: pa.array(column, kind) for name, column, kind in zip(names, columns, types, strict=True)}
    pq.write_table(pa.table(table | {"score": pa.array([score] * len(rows), pa.float64())}), path)


def open_source(folder: Path | str, **changes: object) -> Sa1b:
    table = Sa1bSource(**{"data": "sa1b/sa_*.tar"} | changes)  # type: ignore[arg-type]
    return open_sa1b("sa1b", table, Recipe(name="r", mix={}, sources={}, folder=str(folder)))


def scan_all(source: Sa1b, work: Path) -> tuple[list[Found], Prepared]:
    prepared = source.prepare(str(work))
    found = [one for part in prepared.parts for one in source.scan(part)]
    return [*found, *prepared.rejects, *source.unmatched(prepared)], prepared


def scan(folder: Path, **changes: object) -> list[Found]:
    return scan_all(open_source(folder, **changes), folder / "work")[0]


def pictures(found: Iterable[Found]) -> list[Picture]:
    return [one for one in found if isinstance(one, Picture)]


def reasons(found: Iterable[Found]) -> list[Reason]:
    return [one.reason for one in found if isinstance(one, Reject)]


def lost_images(found: Iterable[Found]) -> int:
    return sum(one.image for one in found if isinstance(one, Reject))


def labels_of(
    folder: Path, annotations: list[Json], rows: list[tuple[int, int, str]], **changes: object
) -> list[Found]:
    write_tar(folder / "sa1b/sa_0.tar", [("sa_1.jpg", b"jpeg"), ("sa_1.json", some_json(1, annotations))])
    write_sidecar(folder / "p.parquet", rows)
    return scan(folder, phrases="p.parquet", **changes)


def only_label(found: Iterable[Found]) -> Label:
    ((label,),) = [picture.labels for picture in pictures(found)]
    return label


def test_pictures_carry_their_bytes_and_place(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "sa1b/sa_000000.tar", some_members(1, 2))
    found = pictures(scan(tmp_path))
    assert [(one.image_id, one.data, one.claimed_size) for one in found] == [
        ("1", b"jpeg 1", (WIDTH, HEIGHT)),
        ("2", b"jpeg 2", (WIDTH, HEIGHT)),
    ]
    for one in found:
        assert one.uri == "sa_000000.tar"
        assert data[one.offset : one.offset + len(one.data)] == one.data
        assert one.licence == "SA-1B research"


def test_an_image_without_phrases_is_no_reject_and_has_no_labels(tmp_path: Path) -> None:
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1))
    write_sidecar(tmp_path / "p.parquet", [])
    for phrases in ("", "retrieve", "p.parquet"):
        (found,) = scan(tmp_path, phrases=phrases)
        assert isinstance(found, Picture)
        assert found.labels == ()


@pytest.mark.parametrize("phrases", ["", "p.parquet"])
def test_an_image_without_phrases_is_exhaustive_over_nothing(tmp_path: Path, phrases: str) -> None:
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1, 2))
    write_sidecar(tmp_path / "p.parquet", [(2, 20, "tree")])
    one, two = pictures(scan(tmp_path, phrases=phrases, exhaustive_over=["words"]))
    assert one.exhaustive_over == ()
    assert two.exhaustive_over == (("words",) if phrases else ())


@pytest.mark.parametrize("phrase", [" ", "dog " * 100])
def test_a_row_whose_phrase_cannot_be_told_leaves_every_phrase_open(tmp_path: Path, phrase: str) -> None:
    annotations = [some_annotation(5), some_annotation(6)]
    found = labels_of(tmp_path, annotations, [(1, 5, "cat"), (1, 6, phrase)], exhaustive_over=["words"])
    assert len(reasons(found)) == 1
    assert pictures(found)[0].exhaustive_over == ()


@pytest.mark.parametrize(
    "line",
    [
        b'{"image_id": 1, "phrase": 5}',
        b'{"image_id": 1, "phrase": "dog", "score": "x"}',
        b'{"image_id": 1, "phrase": "d\xffg"}',
    ],
)
def test_a_line_that_cannot_be_read_leaves_every_phrase_of_its_image_open(tmp_path: Path, line: bytes) -> None:
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1, 2))
    rows = [b'{"image_id": 1, "annotation_id": 10, "phrase": "cat"}', line]
    rows.append(b'{"image_id": 2, "annotation_id": 20, "phrase": "cat"}')
    (tmp_path / "p.jsonl").write_bytes(b"\n".join(rows))
    found = scan(tmp_path, phrases="p.jsonl", exhaustive_over=["words"])
    assert len(reasons(found)) == 1
    assert [(one.exhaustive_over, len(one.labels)) for one in pictures(found)] == [((), 1), (("words",), 1)]


def test_masks_of_one_phrase_become_one_label_with_all_instances(tmp_path: Path) -> None:
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1))
    write_sidecar(tmp_path / "p.parquet", [(1, 12, "red  Car"), (1, 10, "tree"), (1, 11, "red car")])
    (found,) = scan(tmp_path, phrases="p.parquet")
    assert isinstance(found, Picture)
    car, tree = found.labels
    assert (car.phrase, car.state, car.known_by, car.mask_state) == (
        "red Car",
        LabelState.PRESENT,
        "sidecar",
        MaskState.PARTIAL,
    )
    assert [mask.counts for mask in car.masks] == [some_rle(12)["counts"], some_rle(11)["counts"]]
    assert [mask.counts for mask in tree.masks] == [some_rle(10)["counts"]]


def test_masks_are_complete_where_the_recipe_says_exhaustive(tmp_path: Path) -> None:
    found = labels_of(tmp_path, [some_annotation(5)], [(1, 5, "cat")], exhaustive_over=["words"])
    assert only_label(found).mask_state is MaskState.COMPLETE
    assert pictures(found)[0].exhaustive_over == ("words",)


@pytest.mark.parametrize("order", [[0, 2, 1, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
@pytest.mark.parametrize("held", [0, 1 << 20])
def test_members_pair_up_in_any_order(
    tmp_path: Path, order: list[int], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "MAX_HELD_BYTES", held)
    members = some_members(1, 2)
    write_tar(tmp_path / "sa1b/sa_0.tar", [members[place] for place in order])
    found = scan(tmp_path)
    assert {one.image_id: one.data for one in pictures(found)} == {"1": b"jpeg 1", "2": b"jpeg 2"}
    assert not reasons(found)


def test_an_unpacked_folder_gives_the_same_pictures_as_the_tar(tmp_path: Path) -> None:
    members = some_members(*range(1, 30))
    write_tar(tmp_path / "sa1b/sa_0.tar", members)
    (tmp_path / "loose/sub").mkdir(parents=True)
    for number, (name, data) in enumerate(members):
        (tmp_path / "loose" / ("sub" if number < 20 else ".") / name).write_bytes(data)
    write_sidecar(tmp_path / "p.parquet", [(image_id, image_id * 10, "cat") for image_id in range(1, 30)])
    packed = pictures(scan(tmp_path, phrases="p.parquet"))
    for pattern in ("loose", ["loose/*"], ["loose/sub/*.*", "loose/sa_*"]):
        loose = pictures(scan(tmp_path, data=pattern, phrases="p.parquet"))
        assert {one.image_id: (one.data, one.labels) for one in loose} == {
            one.image_id: (one.data, one.labels) for one in packed
        }
        for one in loose:
            assert (tmp_path / "loose" / one.uri).read_bytes() == one.data or pattern != "loose"
            assert one.offset == 0


def test_a_folder_is_cut_into_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.sources.sa1b.FOLDER_PICTURES", 4)
    (tmp_path / "loose").mkdir()
    for name, data in some_members(*range(1, 11)):
        (tmp_path / "loose" / name).write_bytes(data)
    found, prepared = scan_all(open_source(tmp_path, data="loose"), tmp_path / "work")
    assert [len(part.items) for part in prepared.parts] == [8, 8, 4]
    assert len(pictures(found)) == 10


def test_part_names_follow_what_decides_them_and_not_the_folder(tmp_path: Path) -> None:
    def name_in(folder: Path, **changes: object) -> str:
        data = write_tar(folder / "sa1b/sa_0.tar", some_members(1))
        write_sidecar(folder / "p.parquet", [(1, 10, "cat")])
        assert data
        for file in (folder / "sa1b/sa_0.tar", folder / "p.parquet"):
            os.utime(file, ns=(10**18, 10**18))
        return open_source(folder, phrases="p.parquet", **changes).prepare(str(folder / "work")).parts[0].name

    first = name_in(tmp_path / "a")
    assert first == name_in(tmp_path / "b")
    others = [name_in(tmp_path / "c", min_area=5), name_in(tmp_path / "d", licence="x")]
    assert len({first, *others}) == 3


def test_bucket_urls_are_read_as_files_are(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "sa_0.tar", some_members(1, 2))
    write_sidecar(tmp_path / "p.parquet", [(1, 10, "cat")])
    memory = fsspec.filesystem("memory")
    memory.pipe("/sa1bbucket/x/sa_0.tar", data)
    memory.pipe("/sa1bbucket/loose/sa_1.jpg", b"jpeg 1")
    memory.pipe("/sa1bbucket/loose/sa_1.json", some_json(1))
    memory.pipe("/sa1bbucket/p.parquet", (tmp_path / "p.parquet").read_bytes())
    try:
        for where in ("x/sa_*.tar", "loose"):
            source = open_source("memory://sa1bbucket", data=where, phrases="p.parquet")
            found, _ = scan_all(source, tmp_path / "work" / where[0])
            first = pictures(found)[0]
            assert first.data == b"jpeg 1"
            assert [label.phrase for label in first.labels] == ["cat"]
            assert first.uri == ("sa_0.tar" if where[0] == "x" else "sa_1.jpg")
    finally:
        memory.rm("/sa1bbucket", recursive=True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", Reason.BROKEN_JSON),
        (b"\xff", Reason.BROKEN_JSON),
        (b"[]", Reason.WRONG_FIELD),
        (b'{"image": {}, "annotations": []}', Reason.WRONG_FIELD),
        (some_json(1, image_id="one"), Reason.WRONG_FIELD),
        (some_json(1, image_id=2**63 - 1), Reason.WRONG_FIELD),
        (some_json(1, [some_annotation(1, area="big")]), Reason.WRONG_FIELD),
        (some_json(1, [some_annotation(1, bbox=[float("nan")] * 4)]), Reason.BROKEN_JSON),
        (b"[" * 100_000, Reason.WRONG_FIELD),
    ],
)
def test_a_bad_json_loses_its_picture_and_no_other(tmp_path: Path, data: bytes, reason: Reason) -> None:
    write_tar(tmp_path / "sa1b/sa_0.tar", [("sa_1.jpg", b"jpeg"), ("sa_1.json", data), *some_members(2)])
    write_sidecar(tmp_path / "p.parquet", [(1, 10, "cat")])
    found = scan(tmp_path, phrases="p.parquet")
    assert reasons(found) == [reason]
    assert lost_images(found) == 1
    assert [one.image_id for one in pictures(found)] == ["2"]


def test_a_jpg_or_json_alone_is_a_lost_picture(tmp_path: Path) -> None:
    members = some_members(1, 2, 3)
    del members[5], members[2]
    write_tar(tmp_path / "sa1b/sa_0.tar", members)
    (tmp_path / "loose").mkdir()
    for name, data in members:
        (tmp_path / "loose" / name).write_bytes(data)
    for pattern in ("sa1b/*.tar", "loose"):
        found = scan(tmp_path, data=pattern)
        assert sorted(reasons(found)) == [Reason.NO_ANNOTATION_FILE, Reason.NO_IMAGE_FILE]
        assert lost_images(found) == 2
        assert len(pictures(found)) == 1


def test_a_tar_cut_short_keeps_the_pictures_before_the_cut(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1, 2))
    place = whole.index(b'"image_id": 2')
    (tmp_path / "sa1b/sa_0.tar").write_bytes(whole[:place])
    found = scan(tmp_path)
    assert reasons(found) == [Reason.TAR_CUT_SHORT]
    assert lost_images(found) == 1
    assert [one.image_id for one in pictures(found)] == ["1"]


def test_unsafe_members_count_one_picture_and_leave_the_others(tmp_path: Path) -> None:
    members = [("../sa_1.jpg", b"jpeg"), ("../sa_1.json", some_json(1)), *some_members(2)]
    write_tar(tmp_path / "sa1b/sa_0.tar", members)
    found = scan(tmp_path)
    assert reasons(found) == [Reason.UNSAFE_NAME, Reason.UNSAFE_NAME]
    assert lost_images(found) == 1
    assert len(pictures(found)) == 1


def test_a_picture_that_is_a_link_is_lost_once(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "sa_0.tar", "w") as tar:
        info = tarfile.TarInfo("./sa_1.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
        data = tarfile.TarInfo("./sa_1.json")
        data.size = len(some_json(1))
        tar.addfile(data, io.BytesIO(some_json(1)))
    found = scan(tmp_path, data="sa_0.tar")
    assert reasons(found) == [Reason.NOT_A_FILE]
    assert lost_images(found) == 1


def test_a_second_member_of_a_name_is_a_duplicate(tmp_path: Path) -> None:
    members = some_members(1)
    write_tar(tmp_path / "sa1b/sa_0.tar", [members[0], members[0], members[1]])
    found = scan(tmp_path)
    assert reasons(found) == [Reason.DUPLICATE_ID]
    assert len(pictures(found)) == 1


def test_a_member_of_too_many_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAX_JSON_BYTES", 100)
    (tmp_path / "loose").mkdir()
    for name, data in some_members(1):
        (tmp_path / "loose" / name).write_bytes(data)
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1))
    for pattern in ("sa1b/*.tar", "loose"):
        found = scan(tmp_path, data=pattern)
        assert reasons(found) == [Reason.TOO_MANY_BYTES]
        assert lost_images(found) == 1


BROKEN: dict[Reason, Json] = {
    Reason.MASK_CORRUPT: {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "\x7f~"}},
    Reason.MASK_SIZE: {"segmentation": some_rle(height=HEIGHT - 5)},
    Reason.MASK_EMPTY: {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "`U1"}, "area": 0},
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_mask_leaves_its_phrase_open(tmp_path: Path, reason: Reason) -> None:
    found = labels_of(tmp_path, [some_annotation(5, **BROKEN[reason])], [(1, 5, "dog")], exhaustive_over=["words"])
    assert reasons(found) == [reason]
    assert only_label(found).state is LabelState.OPEN
    (reject,) = [one for one in found if isinstance(one, Reject)]
    assert (reject.phrase, reject.where, reject.image) == ("dog", "sa_0.tar: sa_1.json: annotation 5", False)


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_mask_beside_a_sound_one_leaves_the_presence_partial(tmp_path: Path, reason: Reason) -> None:
    annotations = [some_annotation(5, **BROKEN[reason]), some_annotation(6)]
    found = labels_of(tmp_path, annotations, [(1, 5, "dog"), (1, 6, "dog")], exhaustive_over=["words"])
    label = only_label(found)
    assert (label.state, label.mask_state, len(label.masks)) == (LabelState.PRESENT, MaskState.PARTIAL, 1)


def test_a_mask_with_swapped_sides_is_of_the_wrong_size(tmp_path: Path) -> None:
    rle = some_rle() | {"size": [WIDTH, HEIGHT]}
    assert reasons(labels_of(tmp_path, [some_annotation(5, segmentation=rle)], [(1, 5, "dog")])) == [Reason.MASK_SIZE]


def test_masks_without_a_phrase_are_not_judged(tmp_path: Path) -> None:
    annotations = [some_annotation(5), *(some_annotation(6 + k, **broken) for k, broken in enumerate(BROKEN.values()))]
    assert not reasons(labels_of(tmp_path, annotations, [(1, 5, "dog")]))


@pytest.mark.parametrize(
    ("floor", "value"), [("min_area", 31.0), ("min_predicted_iou", 0.91), ("min_stability_score", 0.96)]
)
def test_a_mask_below_a_floor_is_counted_and_leaves_its_phrase_open(tmp_path: Path, floor: str, value: float) -> None:
    found = labels_of(tmp_path, [some_annotation(5)], [(1, 5, "dog")], **{floor: value})
    assert reasons(found) == [Reason.BELOW_FLOOR]
    assert only_label(found).state is LabelState.OPEN
    found = labels_of(
        tmp_path, [some_annotation(5)], [(1, 5, "dog")], **{floor: value - 0.01 * (value < 1) - (value > 1)}
    )
    assert only_label(found).state is LabelState.PRESENT


def test_a_phrase_below_its_floor_is_left_open(tmp_path: Path) -> None:
    found = labels_of(tmp_path, [some_annotation(5)], [(1, 5, "dog")], min_phrase_score=0.6)
    assert reasons(found) == [Reason.BELOW_FLOOR]
    assert only_label(found).state is LabelState.OPEN


def test_a_wrong_area_is_recomputed_and_counted(tmp_path: Path) -> None:
    annotations = [some_annotation(5, area=77), some_annotation(6, area=29.5), some_annotation(7, area=0)]
    found = labels_of(tmp_path, annotations, [(1, 5, "dog"), (1, 6, "dog"), (1, 7, "cat")], min_area=30)
    repaired = [one for one in found if isinstance(one, Repaired)]
    assert [one.repair for one in repaired] == [Repair.AREA_RECOMPUTED] * 2
    assert not reasons(found)


def test_a_repeated_annotation_id_is_counted_and_leaves_the_presence_partial(tmp_path: Path) -> None:
    annotations = [some_annotation(5), some_annotation(5), some_annotation(6), some_annotation(6)]
    found = labels_of(tmp_path, annotations, [(1, 5, "dog")], exhaustive_over=["words"])
    assert reasons(found) == [Reason.DUPLICATE_ANNOTATION]
    assert only_label(found).mask_state is MaskState.PARTIAL


def test_rows_for_what_is_not_there_are_counted(tmp_path: Path) -> None:
    rows = [(1, 5, "dog"), (1, 99, "cat"), (7, 70, "cat"), (7, 71, "cat"), (8, 80, "cat")]
    found = labels_of(tmp_path, [some_annotation(5)], rows)
    assert reasons(found) == [Reason.UNKNOWN_ANNOTATION, Reason.UNKNOWN_IMAGE, Reason.UNKNOWN_IMAGE]
    assert {label.phrase: label.state for label in pictures(found)[0].labels} == {
        "dog": LabelState.PRESENT,
        "cat": LabelState.OPEN,
    }
    details = [one.detail for one in found if isinstance(one, Reject)]
    assert details[1].startswith("2 rows")


def test_many_missing_images_are_named_up_to_a_bound_and_counted_beyond(tmp_path: Path) -> None:
    rows = [(image_id, 1, "cat") for image_id in range(2, 3000)]
    found = labels_of(tmp_path, [], rows)
    assert reasons(found) == [Reason.UNKNOWN_IMAGE] * 1001
    last = found[-1]
    assert isinstance(last, Reject)
    assert last.detail.startswith("1998 rows on 1998 further images")


def test_bad_and_repeated_phrases_are_counted_row_by_row(tmp_path: Path) -> None:
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1))
    phrases = [b"dog", b"Dog ", b"  ", b"\xff\xfe", b"x" * 10_000, "e\u0301t\u00e9".encode(), None]
    table = pa.table(
        {
            "image_id": pa.array([1] * 7),
            "annotation_id": pa.array([10] * 7),
            "phrase": pa.array(phrases, pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    found = scan(tmp_path, phrases="p.parquet")
    assert reasons(found) == [
        Reason.DUPLICATE_ANNOTATION,
        Reason.EMPTY_PHRASE,
        Reason.PHRASE_NOT_UTF8,
        Reason.PHRASE_TOO_LONG,
        Reason.EMPTY_PHRASE,
    ]
    assert [label.phrase for label in pictures(found)[0].labels] == ["dog", "\u00e9t\u00e9"]
    where = [one.where for one in found if isinstance(one, Reject)]
    assert where[0] == "sa_0.tar: sa_1.json: phrases row 2"


def sidecar_lines(*rows: object) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def test_json_lines_are_read_and_their_bad_lines_counted(tmp_path: Path) -> None:
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1))
    lines = sidecar_lines(
        {"image_id": "sa_1", "annotation_id": "10", "phrase": "dog", "score": 1},
        b"\n",
        {"image_id": 1, "segmentation": some_rle(4), "phrase": "cat"},
        {"image_id": 1, "segmentation": json.dumps(some_rle(5)), "phrase": "cat"},
        b"{broken\n",
        b'{"image_id": 1, "annotation_id": 10, "phrase": "\xff"}\n',
        {"image_id": 1, "phrase": 7},
        {"image_id": "one", "annotation_id": 10, "phrase": "bird"},
        {"image_id": 1, "phrase": "bird"},
        {"image_id": 1, "segmentation": "no rle", "phrase": "fox"},
        {"image_id": 1, "segmentation": some_rle(height=7), "phrase": "owl"},
    )
    (tmp_path / "p.jsonl").write_bytes(lines)
    found = scan(tmp_path, phrases="p.jsonl")
    assert sorted(reasons(found)) == sorted(
        [
            Reason.BROKEN_JSON,
            Reason.PHRASE_NOT_UTF8,
            Reason.WRONG_FIELD,
            Reason.UNKNOWN_IMAGE,
            Reason.UNKNOWN_ANNOTATION,
            Reason.MASK_CORRUPT,
            Reason.MASK_SIZE,
        ]
    )
    labels = {label.phrase: label for label in pictures(found)[0].labels}
    assert {phrase: len(label.masks) for phrase, label in labels.items()} == {
        "dog": 1,
        "cat": 2,
        "bird": 0,
        "fox": 0,
        "owl": 0,
    }
    assert {label.state for phrase, label in labels.items() if phrase in ("bird", "fox", "owl")} == {LabelState.OPEN}
    assert "p.jsonl: row 5" in {one.where for one in found if isinstance(one, Reject)}


@pytest.mark.parametrize(
    "columns",
    [
        {"image_id": pa.array(["1", "sa_1"]), "annotation_id": pa.array([10.0, 11.0])},
        {"image_id": pa.array([1.0, 1.0]), "annotation_id": pa.array(["10", "11"])},
        {"image_id": pa.array([1, 1], pa.uint64()), "annotation_id": pa.array([10, 11], pa.int32())},
        {"image_id": pa.array([1, 1]).dictionary_encode(), "annotation_id": pa.array([10, 11])},
        {"image_id": pa.array([1, 1]), "segmentation": pa.array([some_rle(10), some_rle(11)])},
        {"image_id": pa.array([1, 1]), "segmentation": pa.array([json.dumps(some_rle(n)) for n in (10, 11)])},
        {
            "image_id": pa.array([1, 1]),
            "annotation_id": pa.array([10, None], pa.int64()),
            "segmentation": pa.array([None, some_rle(11) | {"counts": some_rle(11)["counts"].encode()}]),
        },
    ],
)
def test_ids_and_masks_are_understood_as_tools_write_them(tmp_path: Path, columns: dict[str, pa.Array]) -> None:
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1))
    pq.write_table(pa.table(columns | {"phrase": pa.array(["dog", "dog"]).dictionary_encode()}), tmp_path / "p.parquet")
    found = scan(tmp_path, phrases="p.parquet")
    assert not reasons(found)
    assert [mask.counts for mask in only_label(found).masks] == [some_rle(10)["counts"], some_rle(11)["counts"]]


def test_rows_whose_image_id_is_none_are_counted(tmp_path: Path) -> None:
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1))
    columns = {"image_id": pa.array([1.5, 1.0, None, -1.0]), "annotation_id": pa.array([10] * 4)}
    pq.write_table(pa.table(columns | {"phrase": pa.array(["dog"] * 4)}), tmp_path / "p.parquet")
    found = scan(tmp_path, phrases="p.parquet")
    assert reasons(found) == [Reason.UNKNOWN_IMAGE] * 3
    assert next(one.where for one in found if isinstance(one, Reject)) == "p.parquet: row 1"


def test_a_sidecar_in_any_order_and_many_buckets_gives_the_same_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    image_ids = [1, 600, 601, 5000, 123_456, 10**12]
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(*image_ids))
    rows = [(i, i * 10 + k, f"thing {k}") for i in image_ids for k in range(3)]
    write_sidecar(tmp_path / "p.parquet", rows)
    sorted_labels = {one.image_id: one.labels for one in pictures(scan(tmp_path, phrases="p.parquet"))}
    assert all(len(labels) == 3 for labels in sorted_labels.values())
    monkeypatch.setattr(sidecar, "_BUCKET_BYTES", 100)
    monkeypatch.setattr(sidecar, "_BUFFER_BYTES", 100)
    monkeypatch.setattr(sidecar, "_OPEN_BUCKETS", 2)
    write_sidecar(tmp_path / "q.parquet", [rows[place] for place in rng.permutation(len(rows))])
    shuffled = {one.image_id: one.labels for one in pictures(scan(tmp_path, phrases="q.parquet"))}
    assert shuffled == sorted_labels


def test_a_spilled_sidecar_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1))
    write_sidecar(tmp_path / "p.parquet", [(1, 10, "dog")])
    first = scan(tmp_path, phrases="p.parquet")

    def fail(_: Sequence[str]) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(sidecar, "read_rows", fail)
    assert scan(tmp_path, phrases="p.parquet") == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "none/*.tar"}, r"sources\.sa1b: data = .*none/\*\.tar names no tar .* expected SA-1B tars"),
        ({"data": "sa_0.tar.gz"}, r"sa_0\.tar\.gz: is compressed; byte ranges need an uncompressed tar; gunzip"),
        ({"phrases": "none.parquet"}, r'phrases = .*none\.parquet does not exist; expected .* or "retrieve"'),
        ({"phrases": "text.parquet"}, r"text\.parquet: cannot be read as Parquet"),
        ({"phrases": "columns.parquet"}, r"expected columns image_id.*found image_id, word"),
        ({"phrases": "types.parquet"}, r"types\.parquet: phrase: column of type int64; expected text"),
        ({"phrases": "long.jsonl"}, r"long\.jsonl: line 1 is longer than 1000 bytes"),
        ({"phrases": "bad.jsonl"}, r"bad\.jsonl: row 1: .* and 10 more rows are bad"),
    ],
)
def test_a_wrong_source_stops_with_one_sentence(
    tmp_path: Path, changes: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar, "MAX_BAD_ROWS", 10)
    monkeypatch.setattr("shards.sources.sidecar_rows._MAX_LINE_BYTES", 1000)
    write_tar(tmp_path / "sa1b/sa_0.tar", some_members(1))
    (tmp_path / "sa_0.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "long.jsonl").write_text("x" * 2000)
    (tmp_path / "bad.jsonl").write_text("{\n" * 20)
    pq.write_table(pa.table({"image_id": [1], "word": ["a"]}), tmp_path / "columns.parquet")
    pq.write_table(pa.table({"image_id": [1], "annotation_id": [1], "phrase": [1]}), tmp_path / "types.parquet")
    with pytest.raises(SourceError, match=message):
        scan(tmp_path, **changes)


def test_a_gzip_that_is_called_a_tar_stops_the_scan(tmp_path: Path) -> None:
    (tmp_path / "sa1b").mkdir()
    (tmp_path / "sa1b/sa_0.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(SourceError, match=r"sa_0\.tar: is compressed with gzip.*gunzip it"):
        scan(tmp_path)
