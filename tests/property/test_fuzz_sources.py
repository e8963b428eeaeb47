"""Broken bytes fed to the readers of SA-1B, its sidecar and SA-Co: rejects and one-line errors, never a crash.

`FUZZ_EXAMPLES` sets how long the search is; the default is a slice of some seconds for every test run.
"""

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests.errors import AbsentiaError
from manifests.recipe import Recipe, Sa1bSource, SacoSource
from manifests.sample import encode_masks
from shards import masks
from shards.sources.sa1b import open_sa1b
from shards.sources.sa1b_labels import Floors, decode_file, judge_image, label_image
from shards.sources.saco import open_saco
from shards.sources.sidecar import PhraseRows
from shards.sources.source import LabelState, Picture, Reject, Repaired, Source
from shards.sources.tars import Lost, Member, walk

SLICE = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "80")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
HEIGHT, WIDTH = 12, 16
Json = Any

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([10**30, "../x", "\ud800", -1, 0, 1, "1", [], {}, "a\x00b", "x" * 300]),
    st.lists(st.integers(-5, 300), max_size=4),
)
COUNTS_OF_7 = masks.mask_from_uncompressed([3, 7, 182], (HEIGHT, WIDTH)).counts
sound_counts = st.sampled_from([7, 7, 7, 7, 12]).map(
    lambda area: masks.mask_from_uncompressed([3, area, 189 - area], (12, 16)).counts
)
counts = st.one_of(
    sound_counts,
    sound_counts,
    sound_counts,
    st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12),
    junk,
)


@st.composite
def mutated(draw: st.DrawFn, value: Json) -> Json:
    """`value` with some of its fields replaced, lost or added, at any depth."""
    if draw(st.integers(0, 15)) == 0:
        return draw(junk)
    if isinstance(value, dict):
        kept = {key: draw(mutated(inner)) for key, inner in value.items() if draw(st.integers(0, 20))}
        return kept | (draw(st.dictionaries(st.text(max_size=4), junk, max_size=1)) if draw(st.booleans()) else {})
    if isinstance(value, list):
        return [draw(mutated(inner)) for inner in value for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2])))]
    return value


@st.composite
def rle(draw: st.DrawFn) -> Json:
    size = draw(st.sampled_from([[HEIGHT, WIDTH]] * 4 + [[WIDTH, HEIGHT], [0, 0], [-1, 5], [2**40, 2**40]]))
    return {"size": size, "counts": draw(counts)}


@st.composite
def sa1b_json(draw: st.DrawFn, annotations: int | None = None) -> bytes:
    """A json that may be bent, or one with exactly so many `annotations` that is not."""
    listed = [
        {
            "id": draw(st.integers(0, 4)),
            "segmentation": draw(rle()),
            "predicted_iou": 0.9,
            "stability_score": 0.9,
            "area": draw(st.sampled_from([7, 7, 7, 7, 7, 0, 1e300])),
            "bbox": [0.0, 0.0, 1.0, 1.0],
        }
        for _ in range(draw(st.integers(0, 4)) if annotations is None else annotations)
    ]
    image = {"image_id": draw(st.integers(0, 3)), "width": WIDTH, "height": HEIGHT, "file_name": "sa_1.jpg"}
    file = {"image": image, "annotations": listed}
    if annotations is not None:
        return json.dumps(file).encode()
    if draw(st.booleans()):
        file = draw(mutated(file))
    return draw(bent(json.dumps(file).encode()))


@st.composite
def bent(draw: st.DrawFn, data: bytes) -> bytes:
    """`data`, most often as it is, else cut short or with some bytes changed."""
    match draw(st.integers(0, 5)):
        case 0:
            return data[: draw(st.integers(0, len(data)))]
        case 1 if data:
            changed = bytearray(data)
            for place in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=6)):
                changed[place] = draw(st.integers(0, 255))
            return bytes(changed)
        case _:
            return data


@st.composite
def sa1b_tar(draw: st.DrawFn) -> bytes:
    out = io.BytesIO()
    tar_format = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    stems = st.sampled_from(["sa_1", "sa_2", "./sa_3", "../sa_4", "/sa_5", "x" * 120, "\udcff", "sa_1"])
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for _ in range(draw(st.integers(0, 6))):
            suffix = draw(st.sampled_from([".jpg", ".json", ".json", ".txt"]))
            data = draw(sa1b_json()) if suffix == ".json" else b"jpeg"
            info = tarfile.TarInfo(draw(stems) + suffix)
            info.size = len(data)
            if draw(st.integers(0, 9)) == 0:
                info.type, info.size = draw(st.sampled_from([tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])), 0
            try:
                tar.addfile(info, io.BytesIO(data))
            except (ValueError, UnicodeError):  # a name that this format cannot hold
                continue
    return draw(bent(out.getvalue()))


@st.composite
def sidecar_rows(draw: st.DrawFn) -> list[Json]:
    row = st.builds(
        lambda image_id, annotation_id, phrase, segmentation, score: {
            "image_id": image_id,
            "annotation_id": annotation_id,
            "phrase": phrase,
            "segmentation": segmentation,
            "score": score,
        },
        st.integers(0, 3),
        st.one_of(st.none(), st.integers(0, 5)),
        st.sampled_from(["dog", "Dog", " red  car", "", "x" * 10_000, "개"]),
        st.one_of(st.none(), rle()),
        st.floats(0, 1),
    )
    return draw(st.lists(row.flatmap(lambda made: st.one_of(st.just(made), mutated(made))), max_size=8))


def check(source: Source, work: str) -> None:
    """Scan all of it: what comes out can be written, and a presence has masks of the picture's size."""
    prepared = source.prepare(work)
    for part in prepared.parts:
        for found in source.scan(part):
            assert isinstance(found, Picture | Reject | Repaired)
            for text in texts_of(found):
                text.encode("utf-8")
            if isinstance(found, Picture):
                check_labels(found)


def texts_of(found: Picture | Reject | Repaired) -> Iterator[str]:
    match found:
        case Picture():
            yield from (found.image_id, found.uri, *(label.phrase for label in found.labels))
        case Reject():
            yield from (found.where, found.detail, found.phrase)
        case Repaired():
            yield found.where


def check_labels(picture: Picture) -> None:
    assert picture.claimed_size is not None
    width, height = picture.claimed_size
    for label in picture.labels:
        encode_masks(label.masks)
        assert bool(label.masks) <= (label.state is LabelState.PRESENT)
        for mask in label.masks:
            assert mask.size == (height, width)
            assert masks.area(mask) > 0


@SLICE
@given(data=sa1b_tar())
def test_any_tar_is_walked_to_its_end(data: bytes) -> None:
    try:
        for found in walk(io.BytesIO(data), "a.tar"):
            assert isinstance(found, Member | Lost)
            if isinstance(found, Member):
                assert 0 <= found.offset <= found.offset + found.num_bytes <= len(data)
    except AbsentiaError as error:
        assert "a.tar" in str(error)  # noqa: PT017 - no error is as good


@SLICE
@given(tar=sa1b_tar(), rows=sidecar_rows(), data=st.data(), as_parquet=st.booleans())
def test_any_sa1b_gives_pictures_and_rejects(
    tar: bytes, rows: list[Json], data: st.DataObject, as_parquet: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sa_0.tar").write_bytes(tar)
        name = "p.parquet" if as_parquet and write_parquet(rows, Path(folder, "p.parquet")) else "p.jsonl"
        if name == "p.jsonl":
            lines = b"\n".join(json.dumps(row).encode() for row in rows)
            Path(folder, name).write_bytes(data.draw(bent(lines)))
        table = Sa1bSource(data="*.tar", phrases=name)
        try:
            source = open_sa1b("sa1b", table, Recipe(name="r", mix={}, sources={}, folder=folder))
            check(source, f"{folder}/work")
            for reject in source.unmatched(source.prepare(f"{folder}/work")):
                assert isinstance(reject, Reject)
        except AbsentiaError as error:
            assert folder in str(error) or "sa_0.tar" in str(error)  # noqa: PT017


@st.composite
def nearly_sound(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, str, float]]]:
    """An SA-1B json of three masks with at most one thing wrong, and sidecar rows on them."""
    file: Json = json.loads(draw(sa1b_json(annotations=3)))
    wrong = draw(st.sampled_from(["nothing", "nothing", "id", "area", "counts", "size", "iou"]))
    for number, annotation in enumerate(file["annotations"]):
        spoilt = wrong if number == 1 else "nothing"
        annotation |= {
            "id": 0 if spoilt == "id" else number,
            "area": 99 if spoilt == "area" else 7,
            "predicted_iou": 0.1 if spoilt == "iou" else 0.9,
            "segmentation": {
                "size": [WIDTH, HEIGHT] if spoilt == "size" else [HEIGHT, WIDTH],
                "counts": "\x7f" if spoilt == "counts" else COUNTS_OF_7,
            },
        }
    ids = st.sampled_from([0, 1, 2, 2, 2, 3])
    phrases = st.sampled_from(["dog", "Dog", "cat", "owl", "bird", "fox", "hen"])
    scores = st.sampled_from([0.5] * 9 + [0.1, float("nan")])
    return json.dumps(file).encode(), draw(st.lists(st.tuples(ids, phrases, scores), max_size=3))


@SLICE
@given(made=nearly_sound())
def test_the_short_way_gives_what_the_careful_one_does(made: tuple[bytes, list[tuple[int, str, float]]]) -> None:
    decoded, rows = decode_file(made[0]), made[1]
    sidecar = PhraseRows(
        rows=list(range(1, len(rows) + 1)),
        annotation_ids=[row[0] for row in rows],
        phrases=[row[1].encode() for row in rows],
        scores=[row[2] for row in rows],
        segmentations=[b""] * len(rows),
    )
    floors = Floors(predicted_iou=0.5, stability_score=0.0, area=7.0, phrase_score=0.3)
    for exhaustive in (False, True):
        short = label_image(decoded, sidecar, floors, "x", exhaustive=exhaustive)
        careful = judge_image(decoded, sidecar, floors, "x", exhaustive=exhaustive)
        assert short.labels == careful.labels
        assert list(short.dropped) == list(careful.dropped)


def write_parquet(rows: list[Json], path: Path) -> bool:
    """Whether a table of `rows` could be written at all."""
    try:
        pq.write_table(pa.Table.from_pylist([row for row in rows if isinstance(row, dict)]), path)
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError, AttributeError):
        return False
    return True


@st.composite
def saco_json(draw: st.DrawFn) -> bytes:
    names = st.sampled_from(["1.jpg", "a/2.jpg", "../3.jpg", "\ud800.jpg", "a", "none.jpg"])
    pairs = [
        {
            "id": draw(st.integers(1, 4)),
            "file_name": draw(names),
            "text_input": draw(st.sampled_from(["dog", "Dog", "cat", "", "\ud800"])),
            "width": WIDTH,
            "height": HEIGHT,
            "is_instance_exhaustive": draw(st.integers(0, 1)),
            "is_pixel_exhaustive": draw(st.integers(0, 1)),
        }
        for _ in range(draw(st.integers(0, 4)))
    ]
    annotations = [
        {
            "id": number,
            "image_id": draw(st.integers(1, 5)),
            "segmentation": draw(rle()),
            "bbox": [0.0],
            "category_id": 1,
        }
        for number in range(draw(st.integers(0, 4)))
    ]
    file = {"images": pairs, "annotations": annotations}
    if draw(st.booleans()):
        file = draw(mutated(file))
    return draw(bent(json.dumps(file).encode()))


@SLICE
@given(data=saco_json())
def test_any_saco_gives_pictures_and_rejects(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("1.jpg", "a/2.jpg"):
            Path(folder, "images", name).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, "images", name).write_bytes(b"jpeg")
        Path(folder, "x.json").write_bytes(data)
        table = SacoSource(images="images", annotations="x.json")
        try:
            check(open_saco("saco", table, Recipe(name="r", mix={}, sources={}, folder=folder)), f"{folder}/work")
        except AbsentiaError as error:
            assert "x.json" in str(error)  # noqa: PT017
