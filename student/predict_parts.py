"""Predicts a split shard by shard: what a shard gave is kept until all are done, then one sorted table is written."""

# P phrases of one picture

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.progress import Progress

from manifests import files
from manifests.errors import PredictionError, TableError
from manifests.sorted_rows import write_sorted
from manifests.stage import Inline, run_stage
from manifests.tables import PREDICTED_IMAGES, PREDICTIONS, TableWriter, open_table, read_metadata, table_writer
from shards.blocks import SampleBytes, SampleIndex
from student.asking import Picture, Questions, Shelf
from student.mask_change import MOST_PROMPTS, mean_change
from student.mask_runs import cells_within, draw_masks
from student.pictures import letterbox_of, open_samples, read_batches
from student.predictor import Predicted, Predictor

PROMPTS_AT_ONCE = 512  # of a batch: bounds the masks that are held, however large the vocabulary
_VERSION = 1  # of how tables are made from answers; another makes every part stale


class PartRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A finished part."""

    pictures: int
    prompts: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictPart:
    """The pictures of one shard of which something is asked."""

    name: str
    pictures: list[Picture]

    @property
    def weight(self) -> int:
        """How many pictures it holds."""
        return len(self.pictures)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asking:
    """A model and what it is asked."""

    predictor: Predictor
    index: SampleIndex
    questions: Questions
    batch_size: int


def predict_parts(asking: Asking, shelves: Sequence[Shelf]) -> list[PredictPart]:
    """A part for each shard; its name holds the digest of all that decides its rows."""
    digest, threshold = asking.predictor.digest(), asking.predictor.mask_threshold
    parts = []
    for shelf in shelves:
        pictures = [picture for picture in shelf.pictures if asking.questions.of(picture.key)]
        asked = asking.questions.digest([picture.key for picture in pictures])
        decides = msgspec.json.encode([_VERSION, digest, threshold, asking.batch_size, shelf.sha256, asked])
        if pictures:
            name = f"{shelf.shard}-{hashlib.sha256(decides).hexdigest()[:16]}"
            parts.append(PredictPart(name=name, pictures=pictures))
    return parts


def write_predictions(
    asking: Asking,
    parts: Sequence[PredictPart],
    *,
    out: str,
    images: str,
    work: str,
    metadata: Mapping[str, str],
    progress: Progress,
) -> int:
    """The number of answers at `out`, sorted by key and phrase; finished parts lie in `work` until all are."""
    if not parts:
        raise PredictionError(
            f"{asking.index.folder}: nothing is asked of any picture of split {asking.index.split}; expected at least "
            "one phrase. Ask the vocabulary, or name another split"
        )
    stamp = {
        **metadata,
        "predictor": asking.predictor.name,
        "digest": asking.predictor.digest(),
        "split": asking.index.split,
        "samples": asking.index.digest,
        "parts": _digest_of_parts(parts),
    }
    if not _is_finished(out, PREDICTIONS, stamp) or not _is_finished(images, PREDICTED_IMAGES, stamp):
        run_parts(asking, parts, folder=work, progress=progress)
        join_parts(parts, folder=work, out=out, images=images, metadata=stamp)
    _remove_parts(work)
    return int(open_table(out, PREDICTIONS).metadata.num_rows)


def _is_finished(uri: str, schema: pa.Schema, stamp: Mapping[str, str]) -> bool:
    """Whether the table at `uri` is the one that would be written."""
    try:
        return read_metadata(uri, schema) == stamp
    except TableError:  # none, another, or damaged: it is written anew
        return False


def run_parts(asking: Asking, parts: Sequence[PredictPart], *, folder: str, progress: Progress) -> list[PartRecord]:
    """The record of each part, whose tables lie in `folder` then; finished ones are not run again."""
    for part in parts:  # a record whose tables were deleted does not say that the part is finished
        if not all(files.exists(uri) for uri in part_tables(folder, part)):
            files.remove(files.join(folder, f"{part.name}.json"))
    with open_samples(asking.index) as samples:
        run = partial(_run_part, asking=asking, samples=samples, folder=folder)
        return run_stage("predict", parts, run, PartRecord, folder=folder, executor=Inline(), progress=progress)


def part_tables(folder: str, part: PredictPart) -> tuple[str, str]:
    """A part's tables: predictions, and pictures."""
    return files.join(folder, f"{part.name}.parquet"), files.join(folder, f"{part.name}.images.parquet")


def _run_part(part: PredictPart, *, asking: Asking, samples: SampleBytes, folder: str) -> PartRecord:
    predictions, images = part_tables(folder, part)
    predictor = asking.predictor
    batches = read_batches(
        part.pictures,
        samples,
        asking.index,
        size=predictor.size,
        stretch=predictor.stretch,
        batch_size=asking.batch_size,
    )
    num_prompts = 0
    with (
        closing(batches),
        table_writer(predictions, PREDICTIONS) as rows,
        table_writer(images, PREDICTED_IMAGES) as pictures,
    ):
        for seen in batches:
            asked = [asking.questions.of(picture.key) for picture in seen.pictures]
            gathered: list[_Gathered] = [_Gathered(picture, predictor) for picture in seen.pictures]
            for phrases, found in _ask(asking, seen.images_b3ss, asked):
                for one, said, answer in zip(gathered, phrases, found, strict=True):
                    one.add(said, answer, rows)
            for one, said in zip(gathered, asked, strict=True):
                pictures.add(one.picture.key, one.sensitivity(), len(said))
                num_prompts += len(said)
    return PartRecord(pictures=len(part.pictures), prompts=num_prompts)


def _ask(
    asking: Asking, images_b3ss: NDArray[np.uint8], asked: Sequence[Sequence[str]]
) -> Iterator[tuple[list[Sequence[str]], list[Predicted]]]:
    """The phrases and answers of one round after another, until all were asked."""
    step = max(1, PROMPTS_AT_ONCE // asking.batch_size)
    most = max(map(len, asked))
    rounds = [[phrases[start : start + step] for phrases in asked] for start in range(0, most, step)]
    yield from zip(rounds, asking.predictor.predict_rounds(images_b3ss, rounds), strict=True)


class _Gathered:
    """What was answered of one picture so far."""

    def __init__(self, picture: Picture, predictor: Predictor) -> None:
        self.picture = picture
        self._side = predictor.size
        self._threshold = predictor.mask_threshold
        self._letterbox = letterbox_of(picture, predictor.size, stretch=predictor.stretch)
        self._where = f"{predictor.name}: {picture.key}"
        self._cells: list[NDArray[np.float32]] = []  # of the first prompts

    def add(self, phrases: Sequence[str], found: Predicted, rows: TableWriter) -> None:
        """Take the answers to `phrases`, whose rows go to `rows`."""
        if not phrases:
            return
        _require_answers(found, phrases, self._where)
        height, width = self.picture.height, self.picture.width
        counts = draw_masks(
            found.masks_phw, self._letterbox, self._side, height=height, width=width, threshold=self._threshold
        )
        masks = [{"size": [height, width], "counts": text} for text in counts]
        rows.add_columns([self.picture.key] * len(phrases), phrases, found.presence_p.tolist(), masks)
        if room := MOST_PROMPTS - sum(map(len, self._cells)):
            within = cells_within(found.masks_phw[:room], self._letterbox, self._side)
            self._cells.append(within.reshape(len(within), -1).copy())  # not a view of what was seen of the whole batch

    def sensitivity(self) -> float:
        """The picture's prompt sensitivity."""
        return mean_change(np.concatenate(self._cells))


def _require_answers(found: Predicted, phrases: Sequence[str], where: str) -> None:
    """Stop where a model answers with what is no probability; a table of it would be believed."""
    for presence, phrase in zip(found.presence_p.tolist(), phrases, strict=True):
        if not 0 <= presence <= 1:
            raise PredictionError(
                f"{where}: presence {presence} of {phrase!r}; expected a probability. The weights may have diverged: "
                "take another checkpoint"
            )
    if not np.isfinite(found.masks_phw).all():
        raise PredictionError(
            f"{where}: a mask holds numbers that are not finite; expected probabilities. The weights may have "
            "diverged: take another checkpoint"
        )


def join_parts(
    parts: Sequence[PredictPart], *, folder: str, out: str, images: str, metadata: Mapping[str, str]
) -> None:
    """Write the tables of all parts as one at `out` and one at `images`, sorted by key and phrase; `out` comes last."""
    predictions, pictures = zip(*(part_tables(folder, part) for part in parts), strict=True)
    write_sorted(pictures, images, PREDICTED_IMAGES, ["key"], work=folder, metadata=metadata)
    write_sorted(predictions, out, PREDICTIONS, ["key", "phrase"], work=folder, metadata=metadata)


def _remove_parts(folder: str) -> None:
    """Delete what the parts left, now that the joined tables hold it."""
    files.remove_unfinished(folder, below=())
    for name in files.names_in(folder):
        if name.endswith((".parquet", ".json", ".arrow")):
            files.remove(files.join(folder, name))
    if files.is_local(folder):
        with suppress(OSError):  # somebody put something there
            os.rmdir(folder)


def _digest_of_parts(parts: Sequence[PredictPart]) -> str:
    """Names the joined table: 16 hex digits over the names of its parts."""
    return hashlib.sha256("\n".join(part.name for part in parts).encode()).hexdigest()[:16]
