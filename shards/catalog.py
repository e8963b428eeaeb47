"""Scan the sources: every picture checked once, its labels set down, every drop counted with its reason.

Each part becomes four files in `work/catalog`: a catalog table, a table of labels whose masks are byte ranges, the
masks themselves, and the rejects. One picture is in memory at a time.
"""

import argparse
import contextlib
import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import IO

import msgspec
import pyarrow.compute as pc
from rich.progress import Progress

from manifests import files
from manifests.errors import BuildError, Reason, Rejected, Repair
from manifests.recipe import load_recipe
from manifests.sample import encode_masks
from manifests.stage import local_executor, progress_bar, run_command, run_stage
from manifests.tables import CATALOG, LABEL_RANGES, REJECTS, TableWriter, read_table, table_writer
from shards.images import inspect_image, perceptual_hash, verify_decodes
from shards.sources.source import Picture, Prepared, Reject, Repaired, ScanPart, Source

CATALOG_VERSION = 1  # part of every part's name: raise it when a scan's output changes
MAX_KEY_BYTES = 80  # leaves room for a repeat's `-r999` within 90
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]+")


class ScanRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one part held; written last, so it says that the part is finished."""

    images: int  # input pictures, rejected ones among them
    rejected_images: int
    rejects: dict[str, int]  # by reason
    repaired: dict[str, int]
    sha256: str  # of the catalog, the labels and the masks together


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTask:
    """One part of one source; the name is also that of its files."""

    name: str
    weight: int
    source: Source
    part: ScanPart


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedPart:
    """A finished part: where its files lie, and its record."""

    source: str
    stem: str  # of the four files, below `work/catalog`
    folder: str
    record: ScanRecord

    @property
    def catalog(self) -> str:
        """The catalog table."""
        return files.join(self.folder, f"{self.stem}.parquet")

    @property
    def labels(self) -> str:
        """The table of labels."""
        return files.join(self.folder, f"{self.stem}.labels.parquet")

    @property
    def masks(self) -> str:
        """The masks that the labels' byte ranges point into."""
        return files.join(self.folder, f"{self.stem}.masks")

    @property
    def rejects(self) -> str:
        """The rejects."""
        return files.join(self.folder, f"{self.stem}.rejects.parquet")


def image_key(source: str, image_id: str) -> str:
    """The `__key__` of a picture: `<source>-<image id>`, or a short hash of an id with other characters."""
    if _PLAIN_ID.fullmatch(image_id) and len(source) + 1 + len(image_id) <= MAX_KEY_BYTES:
        return f"{source}-{image_id}"
    return f"{source}-_{hashlib.sha256(image_id.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def duplicate_of(key: str) -> tuple[Reason, str]:
    """Reason and detail of a picture that is dropped because its key is taken."""
    return Reason.DUPLICATE_KEY, f"an earlier picture has the key {key!r}; expected image ids to be unique in a source"


def prepare_sources(sources: Sequence[Source], work: str) -> dict[str, Prepared]:
    """What each source holds, by its name, before any picture is read."""
    return {source.name: source.prepare(work) for source in sources}


def scan_sources(
    sources: Sequence[Source],
    prepared: dict[str, Prepared],
    *,
    work: str,
    verify: str,
    executor: Executor,
    progress: Progress,
) -> list[ScannedPart]:
    """Every part of every source, scanned; parts that were scanned before are not scanned again."""
    folder = files.join(work, "catalog")
    tag = hashlib.sha256(f"{CATALOG_VERSION} {verify}".encode()).hexdigest()[:8]
    tasks = [
        ScanTask(name=f"{part.name}-{tag}", weight=part.weight, source=source, part=part)
        for source in sources
        for part in prepared[source.name].parts
    ]
    run = partial(scan_part, folder=folder, verify=verify)
    records = run_stage("scan", tasks, run, ScanRecord, folder=folder, executor=executor, progress=progress)
    return [
        ScannedPart(source=task.source.name, stem=task.name, folder=folder, record=record)
        for task, record in zip(tasks, records, strict=True)
    ]


def require_few_rejects(parts: Sequence[ScannedPart], max_share: float) -> None:
    """Stop if too many of the input pictures were rejected.

    Raises:
        BuildError: with the reasons by number, and what to do.
    """
    images = sum(part.record.images for part in parts)
    rejected = sum(part.record.rejected_images for part in parts)
    if rejected > max_share * images:
        reasons = sum((Counter(part.record.rejects) for part in parts), Counter())
        listed = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(5))
        raise BuildError(
            f"{rejected} of {images} input images were rejected, more than max_reject_share = {max_share:g}: {listed}. "
            f"Look at {parts[0].folder}/*.rejects.parquet, mend the inputs, or raise max_reject_share"
        )


def scan_part(task: ScanTask, *, folder: str, verify: str) -> ScanRecord:
    """Write the four files of one part."""
    place = ScannedPart(
        source=task.source.name,
        stem=task.name,
        folder=folder,
        record=ScanRecord(images=0, rejected_images=0, rejects={}, repaired={}, sha256=""),
    )
    with _open_outputs(place) as outputs:
        for found in task.source.scan(task.part):
            outputs.take(found, verify=verify)
    digests = "".join(files.sha256_file(uri) for uri in (place.catalog, place.labels, place.masks))
    return ScanRecord(
        images=outputs.images,
        rejected_images=outputs.rejected_images,
        rejects=dict(sorted(outputs.reasons.items())),
        repaired=dict(sorted(outputs.repairs.items())),
        sha256=hashlib.sha256(digests.encode()).hexdigest(),
    )


@contextlib.contextmanager
def _open_outputs(place: ScannedPart) -> Iterator["_Outputs"]:
    with (
        table_writer(place.catalog, CATALOG) as catalog,
        table_writer(place.labels, LABEL_RANGES) as labels,
        files.commit(place.masks) as masks,
        table_writer(place.rejects, REJECTS) as rejects,
    ):
        yield _Outputs(place.source, catalog, labels, masks, rejects)


class _Outputs:
    """The open files of one part, and what was counted."""

    def __init__(
        self, source: str, catalog: TableWriter, labels: TableWriter, masks: IO[bytes], rejects: TableWriter
    ) -> None:
        self._source = source
        self._catalog, self._labels, self._masks, self._rejects = catalog, labels, masks, rejects
        self._masks_end = 0
        self._keys: set[str] = set()
        self.images = 0
        self.rejected_images = 0
        self.reasons: Counter[str] = Counter()
        self.repairs: Counter[str] = Counter()

    def take(self, found: Picture | Reject | Repaired, *, verify: str) -> None:
        """Set down one thing that the source found."""
        match found:
            case Picture():
                self.images += 1
                try:
                    self._take_picture(found, verify=verify)
                except Rejected as rejected:
                    self._reject(
                        Reject(
                            where=found.origin or found.uri, reason=rejected.reason, detail=rejected.detail, image=True
                        )
                    )
            case Reject():
                self.images += found.image
                self._reject(found)
            case Repaired():
                self.repairs[found.repair] += 1

    def _reject(self, reject: Reject) -> None:
        self.rejected_images += reject.image
        self.reasons[reject.reason] += 1
        self._rejects.add("scan", self._source, reject.where, reject.phrase, str(reject.reason), reject.detail)

    def _take_picture(self, picture: Picture, *, verify: str) -> None:
        facts = inspect_image(picture.data)
        if picture.claimed_size not in (None, (facts.width, facts.height)):
            raise Rejected(
                Reason.SIZE_MISMATCH,
                f"the annotations say {picture.claimed_size} pixels (width, height), the picture has "
                f"{(facts.width, facts.height)}",
            )
        if verify == "decode":
            verify_decodes(picture.data)
        key = picture.key or image_key(self._source, picture.image_id)
        if key in self._keys:
            raise Rejected(*duplicate_of(key))
        self._keys.add(key)
        self.repairs[Repair.ENCODED] += facts.encoded
        self._catalog.add(
            key,
            self._source,
            picture.uri,
            picture.offset,
            len(picture.data),
            hashlib.sha256(picture.data).hexdigest(),
            facts.width,
            facts.height,
            facts.format,
            facts.encoded,
            picture.licence,
            list(picture.exhaustive_over),
            list(picture.open_over),
            perceptual_hash(picture.data),
            picture.origin or picture.uri,
        )
        self._take_labels(key, picture)

    def _take_labels(self, key: str, picture: Picture) -> None:
        for label in picture.labels:
            data = encode_masks(label.masks)
            self._masks.write(data)
            self._labels.add(
                key, label.phrase, str(label.state), str(label.mask_state), self._masks_end, len(data), label.known_by
            )
            self._masks_end += len(data)


class SourceCount(msgspec.Struct, frozen=True, kw_only=True):
    """What the scan of one source found."""

    source: str
    images: int
    rejected_images: int
    awaiting_phrases: int  # catalogued, but nothing is known of them yet
    rejects: dict[str, int]
    repaired: dict[str, int]


def count_source(source: str, parts: Sequence[ScannedPart]) -> SourceCount:
    """The counts of one source over its parts."""
    records = [part.record for part in parts]
    waiting = 0
    for part in parts:
        images = read_table(part.catalog, CATALOG, ["key", "exhaustive_over"])
        labelled = read_table(part.labels, LABEL_RANGES, ["key"])["key"].unique()
        closed = pc.greater(pc.list_value_length(images["exhaustive_over"]), 0)
        known = pc.or_(pc.is_in(images["key"], labelled), closed)
        waiting += images.num_rows - (pc.sum(known).as_py() or 0)
    return SourceCount(
        source=source,
        images=sum(record.images for record in records),
        rejected_images=sum(record.rejected_images for record in records),
        awaiting_phrases=waiting,
        rejects=dict(sorted(sum((Counter(r.rejects) for r in records), Counter[str]()).items())),
        repaired=dict(sorted(sum((Counter(r.repaired) for r in records), Counter[str]()).items())),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command: scan the sources of a recipe and say what they hold."""
    from shards.sources.registry import open_sources  # imports this module's callers' formats, slow for --help

    parser = argparse.ArgumentParser(prog="python -m shards.catalog", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", metavar="RECIPE.toml", help="whose sources to scan; see docs/recipes.md")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the build; a later build goes on there")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON on stdout")
    options = parser.parse_args(argv)
    recipe = load_recipe(options.recipe)
    work = files.join(options.out, "work")
    sources = open_sources(recipe)
    with local_executor(options.workers) as executor, progress_bar() as progress:
        prepared = prepare_sources(sources, work)
        parts = scan_sources(sources, prepared, work=work, verify=recipe.verify, executor=executor, progress=progress)
    counts = [count_source(source.name, [p for p in parts if p.source == source.name]) for source in sources]
    if options.json:
        sys.stdout.write(msgspec.json.encode(counts).decode() + "\n")
        return 0
    for count in counts:
        dropped = ", ".join(f"{reason} {num}" for reason, num in count.rejects.items()) or "none"
        sys.stdout.write(
            f"{count.source}: {count.images} images, {count.rejected_images} rejected, {count.awaiting_phrases} "
            f"awaiting phrases; rejects: {dropped}\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
