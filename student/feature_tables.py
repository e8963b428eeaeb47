"""A model's own rows of pictures and phrases as embeddings tables: what makes it a teacher.

`DIR/images` holds a table per shard and `DIR/phrases` one per block of phrases, as `miners.embed` lays them out. Rows
are unit vectors in float16; each file names the weights, the preprocessing and the input that it was made of.
"""

# B pictures, V phrases, D width

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from manifests import files
from manifests.errors import PredictionError
from manifests.stage import Inline, run_stage
from manifests.tables import EMBEDDINGS, read_metadata, table_writer
from shards.blocks import SampleBytes, SampleIndex
from student.asking import Picture, Shelf
from student.pictures import open_samples, read_batches
from student.predictor import FeatureGiver, Predictor

IMAGES, PHRASES = "images", "phrases"  # folders below --features
_VERSION = 1
_BLOCK = 4096  # phrases in one file
_AT_ONCE = 256  # phrases that the model reads


class FeatureRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A finished part."""

    rows: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeaturePart:
    """Pictures of a shard, or a block of phrases; one of them is empty."""

    name: str
    digest: str  # of the input
    pictures: list[Picture]
    phrases: Sequence[str]

    @property
    def weight(self) -> int:
        """How many rows it gives."""
        return len(self.pictures) + len(self.phrases)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Showing:
    """A model that shows its rows."""

    predictor: Predictor
    giver: FeatureGiver
    index: SampleIndex
    batch_size: int
    digest: str
    folder: str


def write_features(
    predictor: Predictor,
    index: SampleIndex,
    shelves: Sequence[Shelf],
    phrases: Sequence[str],
    *,
    folder: str,
    batch_size: int,
    progress: Progress,
) -> int:
    """The number of rows that lie in `folder` then: one for every picture of `shelves` and for every one of `phrases`.

    Raises:
        PredictionError: the model has no rows to show, or one that is no direction.
        ManifestError: a picture is gone or does not decode.
    """
    if not isinstance(predictor, FeatureGiver):
        raise PredictionError(
            f"--features: {predictor.name} shows no rows of pictures and phrases; expected a training run or sam3. "
            "Leave --features out"
        )
    showing = _Showing(
        predictor=predictor,
        giver=predictor,
        index=index,
        batch_size=batch_size,
        digest=predictor.digest(),
        folder=folder,
    )
    _require_own(folder, showing)
    images = [_image_part(showing, shelf) for shelf in shelves if shelf.pictures]
    blocks = [phrases[start : start + _BLOCK] for start in range(0, len(phrases), _BLOCK)]
    texts = [_phrase_part(showing, block) for block in blocks]
    with open_samples(index) as samples:
        num_images = _run(showing, IMAGES, images, samples, progress)
        return num_images + _run(showing, PHRASES, texts, samples, progress)


def _require_own(folder: str, showing: _Showing) -> None:
    """Stop if the folder holds rows of another model: a teacher must speak with one voice."""
    for kind in (IMAGES, PHRASES):
        for name in files.names_in(files.join(folder, kind)):
            uri = files.join(folder, kind, name)
            found = read_metadata(uri, EMBEDDINGS) if name.endswith(".parquet") else {"encoder_digest": showing.digest}
            if found.get("encoder_digest") != showing.digest:
                raise PredictionError(
                    f"{uri}: holds rows of {found.get('encoder')} ({found.get('encoder_digest')}); expected those of "
                    f"{showing.predictor.name} ({showing.digest}) alone. Choose another --features, or empty the folder"
                )


def _image_part(showing: _Showing, shelf: Shelf) -> FeaturePart:
    asked = [shelf.sha256, [picture.key for picture in shelf.pictures], showing.batch_size]
    digest = _digest(asked)
    name = f"{shelf.shard}-{_digest([showing.digest, digest])}"
    return FeaturePart(name=name, digest=digest, pictures=shelf.pictures, phrases=[])


def _phrase_part(showing: _Showing, phrases: Sequence[str]) -> FeaturePart:
    digest = _digest(list(phrases))
    return FeaturePart(name=_digest([showing.digest, digest]), digest=digest, pictures=[], phrases=phrases)


def _digest(asked: object) -> str:
    return hashlib.sha256(msgspec.json.encode([_VERSION, asked])).hexdigest()[:16]


def _run(showing: _Showing, kind: str, parts: Sequence[FeaturePart], samples: SampleBytes, progress: Progress) -> int:
    home = files.join(showing.folder, kind)
    for part in parts:
        if not files.exists(files.join(home, f"{part.name}.parquet")):
            files.remove(files.join(home, f"{part.name}.json"))
    run = partial(_run_part, showing=showing, samples=samples, home=home)
    records = run_stage(kind, parts, run, FeatureRecord, folder=home, executor=Inline(), progress=progress)
    return sum(record.rows for record in records)


def _run_part(part: FeaturePart, *, showing: _Showing, samples: SampleBytes, home: str) -> FeatureRecord:
    predictor = showing.predictor
    rows_rd = _rows_of_pictures(part, showing, samples) if part.pictures else _rows_of_phrases(part, showing)
    metadata = {
        "encoder": predictor.name,
        "encoder_digest": showing.digest,
        "weights_digest": showing.digest,
        "preprocessing_digest": _digest([predictor.size, predictor.stretch]),
        "input_digest": part.digest,
        "width": str(rows_rd.shape[1]),
    }
    with table_writer(files.join(home, f"{part.name}.parquet"), EMBEDDINGS, metadata) as writer:
        names = [(picture.key, "") for picture in part.pictures] or [("", phrase) for phrase in part.phrases]
        for (key, phrase), row_d in zip(names, rows_rd, strict=True):
            _require_direction(row_d, key or phrase, predictor.name)
            writer.add(key, phrase, [], row_d)
    return FeatureRecord(rows=len(rows_rd))


def _rows_of_pictures(part: FeaturePart, showing: _Showing, samples: SampleBytes) -> NDArray[np.float16]:
    predictor = showing.predictor
    batches = read_batches(
        part.pictures,
        samples,
        showing.index,
        size=predictor.size,
        stretch=predictor.stretch,
        batch_size=showing.batch_size,
    )
    with closing(batches):
        return np.concatenate([showing.giver.image_rows(seen.images_b3ss).astype(np.float16) for seen in batches])


def _rows_of_phrases(part: FeaturePart, showing: _Showing) -> NDArray[np.float16]:
    starts = range(0, len(part.phrases), _AT_ONCE)
    rows = [showing.giver.phrase_rows(part.phrases[start : start + _AT_ONCE]) for start in starts]
    return np.concatenate(rows).astype(np.float16)


def _require_direction(row_d: NDArray[np.float16], name: str, model: str) -> None:
    length = float(np.linalg.norm(row_d.astype(np.float32)))
    if not 0.99 <= length <= 1.01:
        raise PredictionError(
            f"{model}: the row of {name!r} has length {length:.4g}; expected a unit vector. The weights may have "
            "diverged: take another checkpoint"
        )
