"""Hugging Face data sets as a source: every builder, every way to say a phrase, and what a bad row loses."""

import io
import json
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco

from manifests.errors import Reason, RecipeError, Rejected, SourceError
from manifests.recipe import HfColumns, HfSource
from manifests.sample import MaskState
from shards.masks import mask_to_array
from shards.sources import hf
from shards.sources.hf import HfPictures, open_hf
from shards.sources.hf_rows import RowReader, read_picture
from shards.sources.source import Found, Label, LabelState, Picture, Reject
from tests.factories import make_jpeg, make_mask, make_recipe

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools.decode

WIDTH, HEIGHT = 64, 48


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A data set on this machine reaches for no other: `datasets` would count its users, and swallow the failure."""
    asked: list[object] = []

    def refuse(*found: object, **_: object) -> None:
        asked.append(found)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert not asked


def rows_of(num: int, **columns: Callable[[int], object]) -> list[dict[str, object]]:
    makers: dict[str, Callable[[int], object]] = {
        "image": lambda n: {"bytes": make_jpeg(seed=n), "path": None},
        **columns,
    }
    return [{name: make(n) for name, make in makers.items()} for n in range(num)]


def write_parquet(folder: Path, rows: list[dict[str, object]], features: object = None, *, name: str = "a") -> Path:
    """A Parquet file as `datasets` writes it, or as anybody does without `features`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    table = pa.Table.from_pylist(rows)
    if features is not None:
        schema = features.arrow_schema  # type: ignore[attr-defined]
        table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path)
    return path


def source(folder: Path, *, path: str = "parquet", data_files: str = "*.parquet", **fields: object) -> HfPictures:
    columns = fields.pop("columns", HfColumns(phrases="phrases"))
    table = HfSource(path=path, data_files=data_files or [], columns=columns, **fields)  # type: ignore[arg-type]
    return open_hf("hub", table, make_recipe(folder=str(folder)))


def found_in(opened: HfPictures, work: Path) -> list[Found]:
    return [found for part in opened.prepare(str(work)).parts for found in opened.scan(part)]


def pictures_in(opened: HfPictures, work: Path) -> list[Picture]:
    return [found for found in found_in(opened, work) if isinstance(found, Picture)]


def rejects_in(opened: HfPictures, work: Path) -> list[Reject]:
    return [found for found in found_in(opened, work) if isinstance(found, Reject)]


def said(picture: Picture) -> dict[str, str]:
    return {label.phrase: str(label.state) for label in picture.labels}


def one_row(tmp_path: Path, columns: HfColumns, features: object = None, **values: object) -> list[Found]:
    rows = [{"image": {"bytes": make_jpeg(), "path": None}, **values}]
    write_parquet(tmp_path / "data", rows, features)
    return found_in(source(tmp_path / "data", columns=columns), tmp_path / "work")


def labels_of(found: list[Found]) -> dict[str, Label]:
    (picture,) = [entry for entry in found if isinstance(entry, Picture)]
    return {label.phrase: label for label in picture.labels}


def reasons_of(found: list[Found]) -> list[tuple[Reason, str]]:
    return [(entry.reason, entry.phrase) for entry in found if isinstance(entry, Reject)]


def png(array: object) -> dict[str, object]:
    encoded = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(encoded, "PNG")
    return {"bytes": encoded.getvalue(), "path": None}


def write_format(name: str, folder: Path) -> dict[str, str]:
    """Three pictures showing a cat, as the builder `name` reads them; how a recipe names them."""
    folder.mkdir()
    rows = rows_of(3, phrases=lambda n: ["cat", f"thing {n}"])
    match name:
        case "parquet":
            write_parquet(folder, rows)
            return {"path": "parquet", "data_files": "*.parquet"}
        case "arrow":
            table = pa.Table.from_pylist(rows)
            with pa.OSFile(str(folder / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            return {"path": "arrow", "data_files": "*.arrow"}
        case "webdataset":
            with tarfile.open(folder / "a.tar", "w") as tar:
                for n in range(3):
                    text = json.dumps({"phrases": rows[n]["phrases"]}).encode()
                    for member, content in ((f"{n}.jpg", make_jpeg(seed=n)), (f"{n}.json", text)):
                        info = tarfile.TarInfo(member)
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
            return {"path": "webdataset", "data_files": "*.tar"}
        case _:
            pictures = folder / "pictures"
            pictures.mkdir()
            lines = []
            for n in range(3):
                (pictures / f"{n}.jpg").write_bytes(make_jpeg(seed=n))
                lines.append(json.dumps({"file_name": f"{n}.jpg", "phrases": rows[n]["phrases"]}))
            (pictures / "metadata.jsonl").write_text("\n".join(lines))
            return (
                {"path": "imagefolder", "data_files": "pictures"}
                if name == "imagefolder"
                else {"path": "pictures", "data_files": ""}
            )


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("name", ["parquet", "arrow", "webdataset", "imagefolder", "folder"])
def test_every_builder_gives_the_bytes_as_they_were(name: str, streaming: bool, tmp_path: Path) -> None:
    asked = write_format(name, tmp_path / "data")
    columns = (
        HfColumns(image="jpg", id="__key__", phrases="json.phrases")
        if name == "webdataset"
        else HfColumns(phrases="phrases")
    )
    opened = source(tmp_path / "data", columns=columns, streaming=streaming, licence="CC0", **asked)
    pictures = pictures_in(opened, tmp_path / "work")
    assert [picture.data for picture in pictures] == [make_jpeg(seed=n) for n in range(3)]
    assert [picture.image_id for picture in pictures] == ["0", "1", "2"]
    assert [said(picture) for picture in pictures] == [{"cat": "present", f"thing {n}": "present"} for n in range(3)]
    assert [picture.origin for picture in pictures] == [f"hf:{asked['path']}?rows=train#{n}" for n in range(3)]
    assert {(picture.licence, picture.exhaustive_over) for picture in pictures} == {("CC0", ())}
    for picture in pictures:
        with Path(opened.root, picture.uri).open("rb") as tar:
            tar.seek(picture.offset)
            assert tar.read(len(picture.data)) == picture.data


def test_rows_are_spilled_into_tars_of_a_bounded_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf, "ROWS_OF_PART", 3)
    write_parquet(tmp_path / "data", rows_of(7, phrases=lambda n: f"thing {n}"))
    opened = source(tmp_path / "data")
    prepared = opened.prepare(str(tmp_path / "work"))
    assert [part.weight for part in prepared.parts] == [3, 3, 1]
    members = []
    for part in prepared.parts:
        with tarfile.open(part.uri) as tar:
            members += tar.getnames()
    assert members == [f"{n:08d}.img" for n in range(7)]
    assert [picture.image_id for picture in pictures_in(opened, tmp_path / "work")] == [str(n) for n in range(7)]
    assert len({part.name for part in prepared.parts}) == 3


def test_a_data_set_is_written_once_until_it_or_its_columns_change(tmp_path: Path) -> None:
    data = tmp_path / "data"
    path = write_parquet(data, rows_of(2, phrases=lambda _: "cat", other=lambda _: "dog"))
    first = source(data).prepare(str(tmp_path / "work"))
    os.utime(first.parts[0].uri, ns=(1, 1))
    assert source(data).prepare(str(tmp_path / "work")) == first
    assert os.stat(first.parts[0].uri).st_mtime_ns == 1
    other = source(data, columns=HfColumns(phrases="other")).prepare(str(tmp_path / "work"))
    write_parquet(data, rows_of(2, phrases=lambda _: "kite"))
    os.utime(path, (5, 5))
    changed = source(data).prepare(str(tmp_path / "work"))
    assert len({prepared.parts[0].name for prepared in (first, other, changed)}) == 3


def test_what_is_found_does_not_depend_on_the_work_folder_or_on_when_files_were_written(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "data", rows_of(2, phrases=lambda _: "cat"))
    first = found_in(source(tmp_path / "data"), tmp_path / "work")
    os.utime(path, (5, 5))
    assert found_in(source(tmp_path / "data"), tmp_path / "elsewhere") == first


def test_a_spill_that_was_killed_is_made_again(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data", rows_of(2, phrases=lambda _: "cat"))
    first = source(tmp_path / "data").prepare(str(tmp_path / "work"))
    whole = Path(first.parts[0].uri).read_bytes()
    Path(first.parts[0].uri).write_bytes(b"half")
    (Path(first.parts[0].uri).parent / "spill.json").unlink()
    assert source(tmp_path / "data").prepare(str(tmp_path / "work")) == first
    assert Path(first.parts[0].uri).read_bytes() == whole


def test_phrases_may_be_text_or_classes_alone_or_listed(tmp_path: Path) -> None:
    import datasets

    one = datasets.ClassLabel(names=["red_car", "dog"])
    cases: list[tuple[object, object, set[str]]] = [
        (datasets.Value("string"), "  a  cat ", {"a cat"}),
        (datasets.List(datasets.Value("string")), ["cat", "dog"], {"cat", "dog"}),
        (one, 0, {"red car"}),
        (datasets.List(one), [1, 0, 1], {"red car", "dog"}),
        (datasets.List(one), [], set()),
        (datasets.Value("string"), None, set()),
    ]
    for number, (feature, value, phrases) in enumerate(cases):
        features = datasets.Features({"image": datasets.Image(), "phrases": feature})
        found = one_row(tmp_path / str(number), HfColumns(phrases="phrases"), features, phrases=value)
        labels = labels_of(found)
        assert set(labels) == phrases
        assert {(label.state, label.mask_state) for label in labels.values()} <= {(LabelState.PRESENT, MaskState.NONE)}


def test_masks_are_images_or_rle_beside_their_phrases(tmp_path: Path) -> None:
    first, second = make_mask(), make_mask(left=0, top=0, right=5, bottom=7)
    array = mask_to_array(first)
    columns = HfColumns(phrases="phrases", masks="masks")
    for number, values in enumerate((array * 255, array * 1)):
        found = one_row(tmp_path / f"png{number}", columns, phrases=["cat"], masks=[png(values)])
        assert labels_of(found)["cat"].masks == (first,)
        assert labels_of(found)["cat"].mask_state is MaskState.COMPLETE
    rle = [{"size": list(mask.size), "counts": mask.counts} for mask in (first, second)]
    labels = labels_of(one_row(tmp_path / "rle", columns, phrases=["cat", "dog"], masks=rle))
    assert (labels["cat"].masks, labels["dog"].masks) == ((first,), (second,))
    runs = coco.frPyObjects({"size": [HEIGHT, WIDTH], "counts": [5, 10, HEIGHT * WIDTH - 15]}, HEIGHT, WIDTH)
    plain = [{"size": [HEIGHT, WIDTH], "counts": [5, 10, HEIGHT * WIDTH - 15]}]
    labels = labels_of(one_row(tmp_path / "runs", columns, phrases=["cat"], masks=plain))
    assert labels["cat"].masks[0].counts == runs["counts"].decode()
    labels = labels_of(one_row(tmp_path / "several", columns, phrases=["cat"], masks=[rle]))
    assert labels["cat"].masks == (first, second)
    labels = labels_of(one_row(tmp_path / "one", columns, phrases="cat", masks=rle[0]))
    assert labels["cat"].masks == (first,)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ({"size": [HEIGHT, WIDTH], "counts": "\x7f"}, Reason.MASK_CORRUPT),
        ({"size": [HEIGHT, WIDTH - 1], "counts": make_mask().counts}, Reason.MASK_SIZE),
        ({"size": [HEIGHT, WIDTH], "counts": make_mask(right=8).counts}, Reason.MASK_EMPTY),
        ({"size": [HEIGHT, WIDTH], "counts": [3, -1]}, Reason.MASK_CORRUPT),
        ({"size": "large", "counts": "a"}, Reason.WRONG_FIELD),
        ({"bytes": b"no picture", "path": None}, Reason.NOT_AN_IMAGE),
        (png(np.zeros((HEIGHT, WIDTH))), Reason.MASK_EMPTY),
        (png(np.ones((HEIGHT, WIDTH + 1))), Reason.MASK_SIZE),
        ({"bytes": None, "path": "/etc/passwd"}, Reason.UNSAFE_NAME),
        (17, Reason.WRONG_FIELD),
    ],
)
def test_a_broken_mask_leaves_its_phrase_open(mask: object, reason: Reason, tmp_path: Path) -> None:
    columns = HfColumns(phrases="phrases", masks="masks")
    found = one_row(tmp_path, columns, phrases=["cat"], masks=[mask])
    assert labels_of(found)["cat"].state is LabelState.OPEN
    assert reasons_of(found) == [(reason, "cat")]


def test_more_masks_than_phrases_leave_them_all_open(tmp_path: Path) -> None:
    columns = HfColumns(phrases="phrases", masks="masks")
    rle = {"size": [HEIGHT, WIDTH], "counts": make_mask().counts}
    found = one_row(tmp_path, columns, phrases=["cat", "dog"], masks=[rle])
    assert {label.state for label in labels_of(found).values()} == {LabelState.OPEN}
    assert reasons_of(found) == [(Reason.WRONG_FIELD, "cat"), (Reason.WRONG_FIELD, "dog")]


def test_absent_phrases_are_denied_by_name_and_contradictions_left_open(tmp_path: Path) -> None:
    columns = HfColumns(phrases="phrases", absent="not_there")
    found = one_row(tmp_path, columns, phrases=["cat", "dog"], not_there=["kite", "Dog"])
    states = {phrase: label.state for phrase, label in labels_of(found).items()}
    assert states == {"cat": LabelState.PRESENT, "dog": LabelState.OPEN, "kite": LabelState.ABSENT}
    assert reasons_of(found) == [(Reason.CONTRADICTION, "dog")]


def test_objects_of_detection_sets_are_boxes_or_masks(tmp_path: Path) -> None:
    import datasets

    names = ["traffic_light", "dog", "kite"]
    box, triangle = [1.0, 2.0, 10.0, 10.0], [[2.0, 2.0, 30.0, 2.0, 2.0, 40.0]]
    inside = {
        "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
        "category": datasets.List(datasets.ClassLabel(names=names)),
    }
    features = datasets.Features({"image": datasets.Image(), "objects": inside})
    objects = {"bbox": [box, box, [1.0, float("nan"), 1.0, 1.0]], "category": [0, 1, 2]}
    found = one_row(tmp_path / "boxes", HfColumns(objects="objects"), features, objects=objects)
    labels = labels_of(found)
    assert {phrase: label.state for phrase, label in labels.items()} == {
        "traffic light": LabelState.PRESENT,
        "dog": LabelState.PRESENT,
        "kite": LabelState.OPEN,
    }
    assert labels["dog"].mask_state is MaskState.NONE
    assert reasons_of(found) == [(Reason.BAD_BOX, "kite")]
    listed = [{"name": "dog", "shape": triangle}, {"name": "kite", "shape": [[1.0, 1.0]]}]
    columns = HfColumns(objects="objects", category="name", segmentation="shape")
    found = one_row(tmp_path / "masks", columns, objects=listed)
    assert labels_of(found)["dog"].mask_state is MaskState.COMPLETE
    assert 400 < mask_to_array(labels_of(found)["dog"].masks[0]).sum() < 700
    assert reasons_of(found) == [(Reason.POLYGON_TOO_SHORT, "kite")]
    assert labels_of(found)["kite"].state is LabelState.OPEN


def test_an_exhaustive_set_names_its_vocabulary(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "phrases": datasets.ClassLabel(names=["red_car", "dog", "never_seen"])}
    )
    write_parquet(tmp_path / "classes", rows_of(2, phrases=lambda n: n), features)
    opened = source(tmp_path / "classes", exhaustive=True)
    assert opened.prepare(str(tmp_path / "work")).vocabularies == {"hub": ("red car", "dog", "never seen")}
    assert {picture.exhaustive_over for picture in pictures_in(opened, tmp_path / "work")} == {("hub",)}
    write_parquet(tmp_path / "text", rows_of(3, phrases=lambda n: ["zebra", f"thing {n}"]))
    prepared = source(tmp_path / "text", exhaustive=True).prepare(str(tmp_path / "work"))
    assert prepared.vocabularies == {"hub": ("thing 0", "thing 1", "thing 2", "zebra")}


def test_a_row_with_a_phrase_that_cannot_be_read_denies_nothing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data", rows_of(2, phrases=lambda n: ["cat", "dog"] if n else ["cat", " "]))
    opened = source(tmp_path / "data", exhaustive=True)
    first, second = pictures_in(opened, tmp_path / "work")
    assert (first.exhaustive_over, second.exhaustive_over) == ((), ("hub",))
    assert [reject.reason for reject in rejects_in(opened, tmp_path / "work")] == [Reason.EMPTY_PHRASE]


@pytest.mark.parametrize(
    ("phrases", "reason"),
    [
        ([""], Reason.EMPTY_PHRASE),
        (["x" * 10_000], Reason.PHRASE_TOO_LONG),
        ([17], Reason.WRONG_FIELD),
        ([True], Reason.WRONG_FIELD),
        ({"a": 1}, Reason.WRONG_FIELD),
    ],
)
def test_a_bad_phrase_is_dropped_alone(phrases: object, reason: Reason, tmp_path: Path) -> None:
    found = one_row(tmp_path, HfColumns(phrases="phrases"), phrases=phrases)
    assert reasons_of(found) == [(reason, "")]
    assert labels_of(found) == {}


def test_a_class_that_does_not_exist_is_dropped(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "phrases": datasets.ClassLabel(names=["cat", "dog"])})
    schema = features.arrow_schema
    (tmp_path / "data").mkdir()
    rows = [{"image": {"bytes": make_jpeg(), "path": None}, "phrases": -1}]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "data" / "a.parquet")
    found = found_in(source(tmp_path / "data"), tmp_path / "work")
    assert reasons_of(found) == [(Reason.UNKNOWN_CATEGORY, "")]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"bytes": None, "path": "/etc/passwd"}, Reason.UNSAFE_NAME),
        ({"bytes": None, "path": "{data}/../secret.jpg"}, Reason.UNSAFE_NAME),
        ({"bytes": None, "path": "{data}/gone.jpg"}, Reason.MISSING_FILE),
        ({"bytes": None, "path": None}, Reason.WRONG_FIELD),
        (None, Reason.WRONG_FIELD),
    ],
)
def test_a_row_without_a_usable_picture_is_a_reject(
    image: dict[str, object] | None, reason: Reason, tmp_path: Path
) -> None:
    (tmp_path / "secret.jpg").write_bytes(make_jpeg())
    if image and image["path"]:
        image = {**image, "path": str(image["path"]).format(data=tmp_path / "data")}
    rows: list[dict[str, object]] = [
        {"image": {"bytes": make_jpeg(seed=1), "path": "1.jpg"}, "phrases": "cat"},
        {"image": image, "phrases": "dog"},
    ]
    write_parquet(tmp_path / "data", rows)
    opened = source(tmp_path / "data")
    (lost,) = rejects_in(opened, tmp_path / "work")
    assert (lost.reason, lost.image, lost.where) == (reason, True, "hf:parquet?rows=train#1")
    assert [picture.image_id for picture in pictures_in(opened, tmp_path / "work")] == ["0"]


@pytest.mark.parametrize(
    "path", ["memory://set/data/../secret.jpg", "memory://other/1.jpg", "memory://set/data2/1.jpg"]
)
def test_a_remote_path_outside_the_data_set_is_not_opened(path: str) -> None:
    reader = RowReader(columns=HfColumns(), roots=("memory://set/data",))
    with pytest.raises(Rejected, match="lies outside the data set's folders memory://set/data") as caught:
        read_picture({"image": {"bytes": None, "path": path}}, reader)
    assert caught.value.reason is Reason.UNSAFE_NAME


def test_a_picture_that_is_none_is_left_to_the_catalog(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"image": {"bytes": b"no picture", "path": None}, "phrases": "cat"}]
    write_parquet(tmp_path / "data", rows)
    (found,) = found_in(source(tmp_path / "data"), tmp_path / "work")
    assert isinstance(found, Picture)
    assert (found.data, found.labels) == (b"no picture", ())


def test_ids_may_come_from_a_column(tmp_path: Path) -> None:
    ids: list[str | None] = ["a-7", "", None]
    write_parquet(tmp_path / "data", rows_of(3, phrases=lambda _: "cat", name=lambda n: ids[n]))
    opened = source(tmp_path / "data", columns=HfColumns(id="name", phrases="phrases"))
    assert [picture.image_id for picture in pictures_in(opened, tmp_path / "work")] == ["a-7"]
    assert [(lost.reason, lost.image) for lost in rejects_in(opened, tmp_path / "work")] == [
        (Reason.WRONG_FIELD, True)
    ] * 2


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data", rows_of(1, captions=lambda _: "cat"))
    opened = source(tmp_path / "data", columns=HfColumns(phrases="caption"))
    with pytest.raises(RecipeError) as caught:
        opened.prepare(str(tmp_path / "work"))
    assert str(caught.value) == (
        "sources.hub.columns.phrases = 'caption': sources.hub: parquet (rows train) has no such column; "
        "did you mean 'captions'? It has: image, captions"
    )


def test_what_cannot_be_opened_stops_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.parquet").write_bytes(b"no parquet")
    for fields in ({}, {"data_files": "gone.parquet"}, {"streaming": False}):
        with pytest.raises(SourceError, match=r"^sources\.hub: parquet \(rows train\): ") as caught:
            source(tmp_path / "data", **fields).prepare(str(tmp_path / "work"))
        assert "\n" not in str(caught.value)


def test_builders_that_may_run_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(SourceError, match=r"'pandas' builder, which may run code; expected parquet.*Convert it"):
        source(tmp_path / "data", path="pandas", data_files="a.pkl").prepare(str(tmp_path / "work"))


def test_an_empty_data_set_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    schema = pa.Table.from_pylist(rows_of(1, phrases=lambda _: "cat")).schema
    with pa.OSFile(str(tmp_path / "data" / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, schema):
        pass
    for streaming, found in ((True, "holds no row; expected at least one"), (False, "corresponds to no data")):
        opened = source(tmp_path / "data", path="arrow", data_files="a.arrow", streaming=streaming)
        with pytest.raises(SourceError, match=rf"sources\.hub: arrow \(rows train\): .*{found}"):
            opened.prepare(str(tmp_path / "work"))
