"""One split of the demo world: its pictures in the formats of SA-1B and COCO, and the files that hold them."""

import io
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from demo_cutouts import load_cutouts
from demo_formats import (
    CocoAnnotation,
    CocoCategory,
    CocoFile,
    CocoImage,
    CocoInfo,
    CocoLicence,
    Sa1bFile,
    Sa1bImage,
    coco_annotation,
    sa1b_annotation,
)
from demo_scene import Scene, Segment, compose

FORMAT_VERSION = 4  # raise when the same arguments would give other bytes
STREAM = 3  # of those tried, the one whose default world has no look-alike fingerprints across splits by chance
HEAP_SIZE = 3
PHOTOGRAPHS_URL = "https://scikit-image.org/docs/stable/api/skimage.data.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture to be made."""

    seed: int
    split: str
    number: int  # of the whole world, from 1: also its image id
    coco: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One picture, ready to be written in its format."""

    job: Job
    jpeg: bytes
    width: int
    height: int
    phrases: frozenset[str]
    sa1b_json: bytes = b""
    rows: tuple[tuple[int, str, float], ...] = ()  # annotation id, phrase, score
    annotations: tuple[CocoAnnotation, ...] = ()


def make_picture(job: Job) -> Made:
    """The picture and its annotations; a function of the job alone."""
    rng = np.random.default_rng([job.seed, job.number, STREAM])
    scene = compose(job.split, rng)
    return _as_coco(job, scene, rng) if job.coco else _as_sa1b(job, scene, rng)


def write_split(folder: Path, pictures: Iterable[Made], presences: Counter[str]) -> None:
    """The split's tar, sidecar and COCO folder; counts the pictures that show each phrase."""
    sa1b, coco = folder / "sa1b", folder / "coco"
    for needed in (sa1b, coco / "images", coco / "annotations"):
        needed.mkdir(parents=True)
    named: list[tuple[int, int, str, float]] = []
    images: list[CocoImage] = []
    annotations: list[CocoAnnotation] = []
    with tarfile.open(sa1b / "sa_000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for made in pictures:
            presences.update(made.phrases)
            number = made.job.number
            if made.job.coco:
                file_name = f"{number:012d}.jpg"
                (coco / "images" / file_name).write_bytes(made.jpeg)
                images.append(CocoImage(id=number, width=made.width, height=made.height, file_name=file_name))
                annotations += made.annotations
            else:
                _add_member(tar, f"sa_{number}.jpg", made.jpeg)
                _add_member(tar, f"sa_{number}.json", made.sa1b_json)
                named += [(number, *row) for row in made.rows]
    _write_sidecar(sa1b / "phrases.parquet", named)
    (coco / "annotations" / "instances.json").write_bytes(msgspec.json.encode(_coco_file(images, annotations)))


def _as_sa1b(job: Job, scene: Scene, rng: np.random.Generator) -> Made:
    """The picture in SA-1B's format: every segment is masked, only the named ones have a row in the sidecar."""
    annotations, rows = [], []
    for index, segment in enumerate(scene.segments):
        annotation_id = job.number * 1000 + index
        annotations.append(sa1b_annotation(segment.mask_hw, annotation_id, rng))
        if segment.phrase:
            rows.append((annotation_id, segment.phrase, round(rng.uniform(0.8, 1.0), 4)))
    image = Sa1bImage(image_id=job.number, width=scene.width, height=scene.height, file_name=f"sa_{job.number}.jpg")
    return Made(
        job=job,
        jpeg=scene.jpeg,
        width=scene.width,
        height=scene.height,
        phrases=frozenset(phrase for _, phrase, _ in rows),
        sa1b_json=msgspec.json.encode(Sa1bFile(image=image, annotations=annotations)),
        rows=tuple(rows),
    )


def _as_coco(job: Job, scene: Scene, rng: np.random.Generator) -> Made:
    """The picture in COCO's format: named segments alone, heaps of one kind and some backgrounds as crowds."""
    category_ids = {phrase: index for index, phrase in enumerate(load_cutouts().categories(), start=1)}
    annotations = [
        coco_annotation(
            segment.mask_hw, job.number * 1000 + index, job.number, category_ids[segment.phrase], crowd=crowd
        )
        for index, (segment, crowd) in enumerate(_with_crowds(scene.segments, rng))
    ]
    return Made(
        job=job,
        jpeg=scene.jpeg,
        width=scene.width,
        height=scene.height,
        phrases=frozenset(segment.phrase for segment in scene.segments if segment.phrase),
        annotations=tuple(annotations),
    )


def _with_crowds(segments: tuple[Segment, ...], rng: np.random.Generator) -> Iterator[tuple[Segment, bool]]:
    """The named segments, and whether each is a crowd; a heap of one phrase may become one crowd."""
    by_phrase: dict[str, list[Segment]] = {}
    for segment in segments:
        if segment.phrase:
            by_phrase.setdefault(segment.phrase, []).append(segment)
    for phrase, found in by_phrase.items():
        if len(found) >= HEAP_SIZE and rng.random() < 0.5:
            yield Segment(phrase=phrase, mask_hw=np.any([segment.mask_hw for segment in found], axis=0)), True
            continue
        for segment in found:
            yield segment, segment.stuff and rng.random() < 0.3


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append a file whose header holds no clock and no user."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    tar.addfile(header, io.BytesIO(content))


def _write_sidecar(path: Path, rows: list[tuple[int, int, str, float]]) -> None:
    """The words for SA-1B's masks."""
    types = {"image_id": pa.int64(), "annotation_id": pa.int64(), "phrase": pa.string(), "score": pa.float64()}
    columns = {name: pa.array([row[index] for row in rows], types[name]) for index, name in enumerate(types)}
    pq.write_table(pa.table(columns), path)


def _coco_file(images: list[CocoImage], annotations: list[CocoAnnotation]) -> CocoFile:
    """The split's COCO json; every split lists all categories, as val2017 does."""
    categories = load_cutouts().categories().items()
    return CocoFile(
        info=CocoInfo(description="Absentia demo world", version=str(FORMAT_VERSION), year=2025),
        licenses=[CocoLicence(url=PHOTOGRAPHS_URL, id=1, name="scikit-image samples")],
        images=images,
        annotations=annotations,
        categories=[
            CocoCategory(supercategory=supercategory, id=index, name=phrase)
            for index, (phrase, supercategory) in enumerate(categories, start=1)
        ],
    )
