"""Scan one part of a source: every picture checked once, its labels set down, every drop counted with its reason.

A part becomes four files: a catalog table, a table of labels whose masks are byte ranges, the masks themselves, and the
rejects. One picture is in memory at a time.
"""

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import IO

import msgspec

from manifests import files
from manifests.errors import Reason, Rejected, Repair
from manifests.sample import encode_masks
from manifests.tables import CATALOG, LABEL_RANGES, REJECTS, TableWriter, table_writer
from shards.images import inspect_image, perceptual_hash, verify_decodes
from shards.sources.source import Label, Picture, Reject, Repaired, ScanPart, Source

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
        yield _Outputs(place.source, catalog, LabelFiles(labels, masks), rejects)


class LabelFiles:
    """An open table of labels, and the open file of masks that its byte ranges point into."""

    def __init__(self, rows: TableWriter, masks: IO[bytes]) -> None:
        self._rows, self._masks = rows, masks
        self._end = 0

    def add(self, key: str, labels: Sequence[Label]) -> None:
        """Set down the labels of one picture."""
        encoded = [encode_masks(label.masks) for label in labels]
        sizes = [len(data) for data in encoded]
        *offsets, self._end = accumulate(sizes, initial=self._end)
        self._masks.write(b"".join(encoded))
        self._rows.add_columns(
            [key] * len(labels),
            [label.phrase for label in labels],
            [label.state for label in labels],
            [label.mask_state for label in labels],
            offsets,
            sizes,
            [label.known_by for label in labels],
        )


class _Outputs:
    """The open files of one part, and what was counted."""

    def __init__(self, source: str, catalog: TableWriter, labels: LabelFiles, rejects: TableWriter) -> None:
        self._source = source
        self._catalog, self._labels, self._rejects = catalog, labels, rejects
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
        if not _PLAIN_ID.fullmatch(key) or len(key) > MAX_KEY_BYTES:
            raise Rejected(
                Reason.UNSAFE_NAME,
                f"its key is {key[:MAX_KEY_BYTES]!a}; expected 1 to {MAX_KEY_BYTES} of the characters A-Z, a-z, 0-9, _ "
                "and -",
            )
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
        self._labels.add(key, picture.labels)
