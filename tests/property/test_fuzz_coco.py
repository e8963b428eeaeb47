"""Whatever stands in a COCO file, the source stops with its one line or counts what it drops; it never crashes."""

import io
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests.errors import Reason, SourceError
from manifests.sample import MaskState, encode_masks
from shards.masks import check_masks
from shards.sources.coco import Coco
from shards.sources.source import Found, LabelState, Picture, Reject

SIDE = 24

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 30)
    | st.sampled_from([2**31, -(2**63), 10**30, 10**400])
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["\ud800", "\udcff", "1", "../x", "\0", "x" * 300, "1.jpg"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def mostly(sound: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """One value in eight is anything at all."""
    return st.integers(0, 7).flatmap(lambda number: anything if number == 7 else sound)


def fields(**sound: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """An object with these fields, of which some are left out at times; itself at times something else."""
    whole = st.fixed_dictionaries({name: mostly(values) for name, values in sound.items()})
    dropped = st.sets(st.sampled_from(sorted(sound)), max_size=2)
    return mostly(st.builds(lambda row, names: {k: v for k, v in row.items() if k not in names}, whole, dropped))


def lists(of: st.SearchStrategy[Json], *, most: int, least: int = 0) -> st.SearchStrategy[Json]:
    return cast(st.SearchStrategy[Json], st.lists(of, min_size=least, max_size=most))


def among(*values: Json) -> st.SearchStrategy[Json]:
    return st.sampled_from(values)


coordinates = st.integers(-3, SIDE + 3) | st.floats(-3, SIDE + 3) | st.floats()
runs = lists(st.integers(-2, SIDE * SIDE), most=6) | among([20, 30, SIDE * SIDE - 50], [SIDE * SIDE])
compressed = st.text(alphabet=[chr(code) for code in range(44, 115)], max_size=12) | among("d0n0^P1")
segmentations = lists(lists(coordinates, most=8), most=2) | fields(size=among([SIDE, SIDE]), counts=runs | compressed)
category_ids = among(1, 2, 1, 2, "1", 9)
numbers = among(1, 2, 3)
segments = lists(fields(id=numbers, category_id=category_ids, area=st.floats()), most=3)
instance = fields(
    image_id=among(1, 1, 1, 1, 2, "1"),
    category_id=category_ids,
    id=numbers,
    bbox=lists(coordinates, least=4, most=4),
    area=st.floats(),
    iscrowd=among(0, 1, True),
    segmentation=segmentations,
)
panoptic = fields(image_id=among(1, 2), segments_info=segments, file_name=among("1.png", "none.png", "../1.png"))
annotations = st.integers(0, 3).flatmap(lambda number: panoptic if number == 3 else instance)
images = fields(
    id=among(1, 2, "2"),
    width=among(SIDE, SIDE, SIDE, SIDE + 1),
    height=among(SIDE),
    file_name=among("1.jpg", "none.jpg"),
    license=numbers,
    neg_category_ids=lists(category_ids, most=2),
    not_exhaustive_category_ids=lists(category_ids, most=2),
)
SOUND_IMAGE: dict[str, Json] = {"id": 1, "width": SIDE, "height": SIDE, "file_name": "1.jpg"}
SOUND_BOX: dict[str, Json] = {"id": 900, "image_id": 1, "category_id": 2, "bbox": [1, 1, 5, 5]}
CATEGORIES: list[Json] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]


def write_pictures(folder: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(buffer, "JPEG")
    (folder / "1.jpg").write_bytes(buffer.getvalue())
    colours = Image.new("RGB", (SIDE, SIDE))
    colours.paste((1, 0, 0), (3, 3, 9, 9))
    colours.save(folder / "1.png")


def scan(*contents: bytes) -> list[Found]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_pictures(folder)
        for number, content in enumerate(contents):
            (folder / f"{number}.json").write_bytes(content)
        source = Coco(
            name="coco",
            root=temporary,
            annotations=tuple(str(folder / f"{number}.json") for number in range(len(contents))),
            panoptic=temporary,
            licence="",
            exhaustive=True,
        )
        prepared = source.prepare(str(folder / "work"))
        return [*prepared.rejects, *(found for part in prepared.parts for found in source.scan(part))]


def require_sound(found: Found) -> None:
    """What a scan gives can be written down: text is UTF-8, and masks are sound."""
    match found:
        case Picture():
            pa.array([found.image_id, found.uri, found.licence, *(label.phrase for label in found.labels)], pa.string())
            assert len({label.phrase.casefold() for label in found.labels}) == len(found.labels)
            for label in found.labels:
                assert (
                    label.mask_state is MaskState.NONE or bool(label.masks)
                ) or label.state is not LabelState.PRESENT
                encode_masks(label.masks)
                check = check_masks(
                    [m.counts for m in label.masks], [SIDE] * len(label.masks), [SIDE] * len(label.masks)
                )
                assert not check.faults.any()
        case Reject():
            pa.array([found.where, found.detail, found.phrase], pa.string())
            assert len(found.detail) < 3000
        case _:
            pa.array([found.where], pa.string())


@settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(st.lists(annotations, max_size=5), st.lists(images, max_size=3))
def test_rows_of_any_content_are_taken_or_counted(annotation_rows: list[Json], image_rows: list[Json]) -> None:
    document: dict[str, Json] = {
        "images": [SOUND_IMAGE, *image_rows],
        "annotations": [*annotation_rows, SOUND_BOX],
        "categories": CATEGORIES,
    }
    found = scan(json.dumps(document).encode())
    for one in found:
        require_sound(one)
    lost = [one for one in found if isinstance(one, Reject) and one.image]
    assert len(lost) + sum(isinstance(one, Picture) for one in found) == 1 + len(image_rows)


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(annotations.filter(lambda row: isinstance(row, dict)))
def test_a_dog_whose_annotation_is_dropped_is_never_absent(row: Json) -> None:
    shown = cast(dict[str, Json], row) | {"category_id": 1, "image_id": 1}
    shown.pop("segments_info", None)
    document = {"images": [SOUND_IMAGE], "annotations": [shown, SOUND_BOX], "categories": CATEGORIES}
    pictures = [one for one in scan(json.dumps(document).encode()) if isinstance(one, Picture)]
    states = {label.phrase: label.state for label in pictures[0].labels}
    assert states.get("dog") in (LabelState.PRESENT, LabelState.OPEN)


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(["images", "annotations", "categories", "licenses", "info"]), anything))
def test_files_of_any_content_stop_with_one_line(document: dict[str, Json]) -> None:
    _scan_or_stop(json.dumps(document).encode())


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with some bytes replaced, taken out or put in."""
    edit = st.tuples(st.integers(0, len(data)), st.integers(0, 3), st.binary(max_size=3))

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        found = data
        for place, length, new in edits:
            found = found[:place] + new + found[place + length :]
        return found

    return st.lists(edit, min_size=1, max_size=3).map(apply)


SOUND = json.dumps(
    {
        "images": [SOUND_IMAGE | {"neg_category_ids": [1]}],
        "annotations": [SOUND_BOX, SOUND_BOX | {"segmentation": [[2.0, 2.0, 9.0, 2.0, 9.0, 9.0]], "area": math.pi}],
        "categories": CATEGORIES,
        "licenses": [{"id": 1, "name": "free"}],
    }
).encode()


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(mutated(SOUND))
def test_damaged_bytes_stop_with_one_line_or_cost_some_rows(data: bytes) -> None:
    _scan_or_stop(data)


def _scan_or_stop(data: bytes) -> None:
    try:
        found = scan(data)
    except SourceError as error:
        message = str(error)
        assert "0.json: " in message
        assert "\n" not in message
        message.encode()
    else:
        for one in found:
            require_sound(one)


def test_the_rows_made_here_reach_the_parsers_branches() -> None:
    met: set[Reason] = set()

    # Hypothesis also draws constants of the modules that happen to be imported, so no seed fixes what it makes: many
    @settings(deadline=None, max_examples=500, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(annotations, max_size=5), st.lists(images, max_size=3))
    def run(annotation_rows: list[Json], image_rows: list[Json]) -> None:
        document = {
            "images": [SOUND_IMAGE, *image_rows],
            "annotations": [*annotation_rows, SOUND_BOX],
            "categories": CATEGORIES,
        }
        met.update(one.reason for one in scan(json.dumps(document).encode()) if isinstance(one, Reject))

    cast(Callable[[], None], run)()
    assert met >= {
        Reason.WRONG_FIELD,
        Reason.UNKNOWN_CATEGORY,
        Reason.UNKNOWN_IMAGE,
        Reason.DUPLICATE_ID,
        Reason.DUPLICATE_ANNOTATION,
        Reason.MISSING_FILE,
    }
