"""Words for the masks of a source without text: each mask's crop is looked up among the phrases of a vocabulary.

Part by part below `work/phrases`, and within a part by blocks of pictures, so that a killed run loses a minute at most.
What was looked up is kept apart from what is accepted of it: another threshold needs no encoder again.
"""

# C crops, V phrases of the vocabulary, R of the reference, D width

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.progress import Progress

from manifests import files
from manifests.errors import RecipeError
from manifests.recipe import Retrieve
from manifests.stage import Inline, run_stage
from manifests.tables import PHRASES, iterate_table, read_table, table_writer
from miners.embed_rows import embed_phrases
from miners.encoders import Encoder
from miners.lookup import look_up, related_phrases, standard_scores
from miners.mask_crops import FADES, CropLimits, CropRows, embed_masks
from miners.vocabulary import Vocabulary, load_vocabulary
from shards.labels import Lexicon
from shards.sources.sa1b import Retrieved, Sa1b
from shards.sources.sa1b_labels import Sa1bFile
from shards.sources.source import ScanPart

FOLDER = "phrases"  # below work/
BLOCK_PICTURES = 64  # looked up before they are set down
_CHUNK = 1024  # crops whose scores with every phrase are in memory at once
_VERSION = 1  # of how masks are looked up; a change makes every table stale
_T = TypeVar("_T")


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """What a mask's best phrase must reach to be believed."""

    min_score: float
    min_margin: float


# By the encoder's name, measured as docs/phrases.md says. Scores of another encoder lie elsewhere.
MEASURED = {"conse": Thresholds(min_score=5.0, min_margin=3.0)}


class LookupRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one part held; written last, so it says that its table is whole."""

    pictures: int
    masks: int
    looked_up: int  # masks that were large and sound enough


class Accepted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is believed of one part."""

    masks: int
    phrases: dict[str, int]  # accepted masks by phrase


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Retriever:
    """All that decides which phrase a mask is given."""

    encoder: Encoder
    vocabulary: Vocabulary
    texts_vd: NDArray[np.float32]
    reference_rd: NDArray[np.float32]
    related: Sequence[NDArray[np.int64]]  # by phrase: see `related_phrases`
    settings: Retrieve
    digest: str  # 16 hex over all of the above but the thresholds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Retrieval:
    """A source whose masks were looked up."""

    source: Sa1b  # reads the accepted phrases
    looked_up: tuple[str, ...]  # tables of all that was looked up, part by part
    accepted: tuple[str, ...]  # tables of what was accepted of it: sidecars
    records: tuple[LookupRecord, ...]
    found: tuple[Accepted, ...]

    @property
    def phrase_counts(self) -> Counter[str]:
        """Accepted masks by phrase."""
        return sum((Counter(part.phrases) for part in self.found), Counter[str]())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One part, whose masks are looked up and then judged."""

    name: str
    weight: int
    part: ScanPart
    looked_up: str  # the table of all its masks


def open_retriever(settings: Retrieve, encoder: Encoder, lexicon: Lexicon, *, work: str) -> Retriever:
    """The phrases embedded, and what contradicts what; `settings` with paths as they are opened.

    Raises:
        RecipeError: the vocabulary is none.
        BuildError: the encoder gives a row that is no direction.
    """
    vocabulary = load_vocabulary(settings.vocabulary)
    folder = files.join(work, FOLDER, "texts")
    texts_vd = embed_phrases(encoder, vocabulary.phrases, folder=folder).astype(np.float32)
    reference_rd = embed_phrases(encoder, load_vocabulary().phrases, folder=folder).astype(np.float32)
    related = related_phrases(vocabulary.phrases, lexicon)
    decides = [
        _VERSION,
        encoder.digest,
        vocabulary.digest,
        load_vocabulary().digest,
        [places.tolist() for places in related],
        FADES,
        settings.min_area,
        settings.max_masks,
    ]
    return Retriever(
        encoder=encoder,
        vocabulary=vocabulary,
        texts_vd=texts_vd,
        reference_rd=reference_rd,
        related=related,
        settings=settings,
        digest=_digest(decides),
    )


def thresholds_of(settings: Retrieve, encoder: Encoder) -> Thresholds:
    """The thresholds that were asked for, or those that were measured for the encoder.

    Raises:
        RecipeError: neither.
    """
    measured = MEASURED.get(encoder.name)
    score, margin = settings.min_score, settings.min_margin
    if measured is not None:
        score = measured.min_score if score is None else score
        margin = measured.min_margin if margin is None else margin
    if score is None or margin is None:
        raise RecipeError(
            f"encoder {encoder.name}: no thresholds were measured for it (only for {', '.join(MEASURED)}); expected "
            "min_score and min_margin. Run python -m miners.phrases with --truth on pictures whose phrases are known, "
            "which prints the precision at each"
        )
    return Thresholds(min_score=score, min_margin=margin)


def retrieve(source: Sa1b, retriever: Retriever, thresholds: Thresholds, *, work: str, progress: Progress) -> Retrieval:
    """The masks of `source` with their phrases; parts that were looked up before are not looked up again.

    Raises:
        SourceError: the source as a whole cannot be read.
        BuildError: the encoder gives a row that is no direction.
    """
    folder = files.join(work, FOLDER)
    looked_digest = _digest([retriever.digest, msgspec.to_builtins(source.floors)])
    digest = _digest([looked_digest, thresholds])
    retrieved = Retrieved(folder=files.join(folder, digest), digest=digest)
    source = replace(source, phrases="", retrieved=retrieved)
    tasks = []
    for part in source.prepare(work).parts:
        name = f"{part.spill.rpartition('/')[2]}-{looked_digest}"
        tasks.append(_Task(name=name, weight=part.weight, part=part, looked_up=files.join(folder, f"{name}.parquet")))
    shown = progress.add_task("masks", total=None)
    look = partial(_look_up_part, source=source, retriever=retriever, advance=partial(progress.advance, shown))
    records = run_stage("phrases", tasks, look, LookupRecord, folder=folder, executor=Inline(), progress=progress)
    accept = partial(
        _accept_part, retrieved=retrieved, thresholds=thresholds, metadata=_metadata(retriever, thresholds)
    )
    found = run_stage("accept", tasks, accept, Accepted, folder=retrieved.folder, executor=Inline(), progress=progress)
    return Retrieval(
        source=source,
        looked_up=tuple(task.looked_up for task in tasks),
        accepted=tuple(retrieved.sidecar(task.part) for task in tasks),
        records=tuple(records),
        found=tuple(found),
    )


def write_sidecar(retrieval: Retrieval, retriever: Retriever, thresholds: Thresholds, uri: str) -> int:
    """Write all accepted phrases to `uri` as the sidecar of the source; how many rows they are."""
    with table_writer(uri, PHRASES, _metadata(retriever, thresholds)) as writer:
        for table in retrieval.accepted:
            for rows in iterate_table(table, PHRASES):
                writer.add_table(rows)
    return writer.num_rows


def _metadata(retriever: Retriever, thresholds: Thresholds) -> dict[str, str]:
    """What a table of phrases says of where they come from."""
    return {
        "encoder": retriever.encoder.name,
        "encoder_digest": retriever.encoder.digest,
        "vocabulary_digest": retriever.vocabulary.digest,
        "min_score": f"{thresholds.min_score:g}",
        "min_margin": f"{thresholds.min_margin:g}",
    }


def _look_up_part(task: _Task, *, source: Sa1b, retriever: Retriever, advance: Callable[[int], None]) -> LookupRecord:
    """Write the best phrase of every mask of a part; blocks that a killed run wrote are not looked up again."""
    limits = CropLimits(
        floors=source.floors, min_area=retriever.settings.min_area, max_masks=retriever.settings.max_masks
    )
    pictures = masks = 0
    blocks = []
    for number, block in enumerate(batched(source.pictures(task.part), BLOCK_PICTURES)):
        uri = f"{task.looked_up}.{number:06d}"
        if not files.exists(uri):
            _look_up_block(block, retriever, limits, uri)
        blocks.append(uri)
        pictures += len(block)
        here = sum(len(file.annotations) for file, _ in block)
        masks += here
        advance(here)
    with table_writer(task.looked_up, PHRASES, {"encoder": retriever.encoder.name}) as writer:
        for uri in blocks:
            writer.add_table(read_table(uri, PHRASES))
    for uri in blocks:
        files.remove(uri)
    return LookupRecord(pictures=pictures, masks=masks, looked_up=writer.num_rows)


def _look_up_block(
    pictures: Sequence[tuple[Sa1bFile, bytes]], retriever: Retriever, limits: CropLimits, uri: str
) -> None:
    rows = embed_masks(pictures, retriever.encoder, limits)
    with table_writer(uri, PHRASES) as writer:
        writer.add_table(look_up_rows(rows, retriever))


def look_up_rows(rows: CropRows, retriever: Retriever) -> pa.Table:
    """The best phrase of every crop, as the PHRASES table."""
    tables = [PHRASES.empty_table()]
    for start in range(0, len(rows.image_id_c), _CHUNK):
        here = slice(start, start + _CHUNK)
        scores_cv = standard_scores(rows.crops_cd[here], retriever.texts_vd, retriever.reference_rd)
        best = look_up(scores_cv, retriever.related)
        phrases = [retriever.vocabulary.phrases[phrase] for phrase in best.phrase_c.tolist()]
        columns = [rows.image_id_c[here], rows.annotation_id_c[here], phrases, best.score_c, best.margin_c]
        tables.append(pa.table(dict(zip(PHRASES.names, columns, strict=True)), schema=PHRASES))
    return pa.concat_tables(tables)


def _accept_part(task: _Task, *, retrieved: Retrieved, thresholds: Thresholds, metadata: Mapping[str, str]) -> Accepted:
    """Write what is believed of a part's masks, as its sidecar."""
    counts: Counter[str] = Counter()
    with table_writer(retrieved.sidecar(task.part), PHRASES, metadata) as writer:
        for rows in iterate_table(task.looked_up, PHRASES):
            kept = accepted(rows, thresholds)
            counts.update(kept["phrase"].to_pylist())
            writer.add_table(kept)
    return Accepted(masks=writer.num_rows, phrases=dict(sorted(counts.items())))


def accepted(rows: pa.Table, thresholds: Thresholds) -> pa.Table:
    """The rows that reach both thresholds."""
    reaches = pc.and_(
        pc.greater_equal(rows["score"], thresholds.min_score), pc.greater_equal(rows["margin"], thresholds.min_margin)
    )
    return rows.filter(reaches)


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        yield block


def _digest(decides: object) -> str:
    return hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:16]
