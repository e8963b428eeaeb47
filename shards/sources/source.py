"""What every source gives: parts to scan, and from each part pictures with labels, rejects and repairs.

A source is a small frozen value that travels to worker processes. `prepare` lists its parts cheaply (and may spill a
huge annotation file into one file per part); `scan` reads one part, one picture in memory at a time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

import msgspec

from manifests.errors import Reason, Repair
from manifests.sample import Evidence, Mask, MaskState

SYNONYMS = "synonyms"  # in the metadata of vocabularies.parquet: JSON of `Prepared.synonyms`
KnownBy = Literal["source", "sidecar", "retrieved", "model", "reviewer"]
EVIDENCE_OF: dict[KnownBy, Evidence] = {  # of a presence
    "source": Evidence.ANNOTATED,
    "sidecar": Evidence.ANNOTATED,
    "retrieved": Evidence.MINED,
    "model": Evidence.VERIFIED,
    "reviewer": Evidence.VERIFIED,
}


class LabelState(StrEnum):
    """What is known of a phrase in an image; without a label it is unknown, or absent by an exhaustive vocabulary."""

    PRESENT = "present"
    ABSENT = "absent"  # the source denies it by name
    OPEN = "open"  # asked and left open, or its annotation was rejected: never absent


class Label(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One phrase of one image; `phrase` is already normalised (`shards.labels.normalise_phrase`)."""

    phrase: str
    state: LabelState
    mask_state: MaskState = MaskState.COMPLETE  # read where present only
    masks: tuple[Mask, ...] = ()
    known_by: KnownBy = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image that a source holds, unchecked: its bytes, and what is known of it."""

    image_id: str  # unique in the source; becomes the key's second half
    uri: str  # of the file that holds the bytes, below the source's root
    offset: int  # of the first byte in that file; 0 for a file of its own
    data: bytes
    labels: tuple[Label, ...]  # one per phrase
    claimed_size: tuple[int, int] | None = None  # width, height by the annotations
    exhaustive_over: tuple[str, ...] = ()
    open_over: tuple[str, ...] = ()
    licence: str = ""
    origin: str = ""  # what a sample says of its origin where that is not `uri`
    key: str = ""  # kept as it is where a source already has keys (a finished build)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """An input that was dropped: `image` where a whole picture was lost, else an annotation or a phrase."""

    where: str  # place below the source's root, with the picture or annotation named
    reason: Reason
    detail: str  # what was expected and found
    phrase: str = ""
    image: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """Something that was put right without dropping anything."""

    repair: Repair
    where: str


Found = Picture | Reject | Repaired


class ScanPart(msgspec.Struct, frozen=True, kw_only=True):
    """The unit of scanning: one tar, or some pictures of a folder."""

    name: str  # `<source>-<label>-<16 hex of everything that decides the output>`
    weight: int  # bytes or pictures; only its share of the whole matters
    uri: str  # the tar, or the folder, that the part reads
    items: tuple[str, ...] = ()  # names below `uri`, or other hints of the source's own
    spill: str = ""  # file under `work/` with this part's annotations, if the source spilled them


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a source holds, before any picture was read."""

    parts: tuple[ScanPart, ...]
    vocabularies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by name; phrases normalised
    synonyms: tuple[tuple[str, ...], ...] = ()  # groups of phrases that the source itself calls the same
    rejects: tuple[Reject, ...] = ()


class Source(Protocol):
    """One exact public format."""

    @property
    def name(self) -> str:
        """The source's name in the recipe."""

    @property
    def root(self) -> str:
        """The folder, prefix or archive folder that uris are relative to."""

    def prepare(self, work: str) -> Prepared:
        """The parts, listed without reading pictures; spilled annotations go below `work`.

        Raises:
            SourceError: nothing is there, or the source as a whole cannot be read.
        """

    def scan(self, part: ScanPart) -> Iterator[Found]:
        """Everything in `part`, in a fixed order, one picture in memory at a time."""
