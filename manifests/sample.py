"""What one training example is: an image, the phrases put to it, and what is known of each.

These types are the contract between the writer and every reader. Their JSON has no nulls, no unions and every field
always there, because stock loaders infer the schema from the first rows that they see.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from manifests.errors import ManifestError

SAMPLE_SCHEMA = 1
NO_RANK = -1
CALLED_PRESENT = 0.5  # presence from which on a model calls a phrase present, where no other threshold was chosen


class NegativeKind(StrEnum):
    """Why a phrase was asked of an image that does not show it."""

    BLANK = "blank"
    NOISE = "noise"
    RANDOM = "random"
    POPULAR = "popular"
    CO_OCCURRING = "co_occurring"
    NEAR_TEXT = "near_text"
    NEAR_IMAGE = "near_image"
    FALSE_ALARM = "false_alarm"


KINDS = tuple(NegativeKind)  # tables of numbers hold a kind as its place here
MinedKind = Literal[NegativeKind.NEAR_TEXT, NegativeKind.NEAR_IMAGE, NegativeKind.FALSE_ALARM]


class Evidence(StrEnum):
    """How it is known that a phrase is present or absent."""

    GENERATED = "generated"  # blank and noise: nothing was ever there
    ANNOTATED = "annotated"  # the source's labels say so
    VERIFIED = "verified"  # a second model or a person looked
    MINED = "mined"  # guards only; for a presence: retrieved


class MaskState(StrEnum):
    """How far the masks of a prompt go."""

    COMPLETE = "complete"  # the union of the masks is all of it
    PARTIAL = "partial"  # there may be more
    NONE = "none"  # present, but without a mask: boxes alone, a person's word


class Mask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One instance as COCO's compressed RLE, column by column from the top left."""

    size: tuple[int, int]  # height, width in pixels
    counts: str


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a picture's bytes came from; `uri` is relative to the source's root."""

    uri: str
    offset: int
    num_bytes: int
    sha256: str  # of the bytes at the origin
    licence: str
    encoded: bool  # True where the origin was no JPEG and had to be encoded as one


class Prompt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A phrase put to an image."""

    phrase: str
    present: bool
    mask_state: MaskState
    masks: tuple[Mask, ...] = ()
    kind: NegativeKind | None = None  # None exactly where the phrase is present
    evidence: Evidence
    score: float = 0.0
    standard_score: float = 0.0
    rank: int = NO_RANK
    positive_key: str = ""
    positive_score: float = 0.0
    miner: str = ""


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One image with its prompts (at least one)."""

    key: str
    source: str
    width: int
    height: int
    origin: Origin
    prompts: tuple[Prompt, ...]


class WirePrompt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `Prompt` as it stands in JSON: kind "" for None, masks as bytes that are copied and not parsed."""

    phrase: str
    present: bool
    mask_state: MaskState
    masks: msgspec.Raw
    kind: str
    evidence: Evidence
    score: float
    standard_score: float
    rank: int
    positive_key: str
    positive_score: float
    miner: str


class WireSample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `Sample` as it stands in JSON."""

    schema: int = SAMPLE_SCHEMA
    key: str
    source: str
    width: int
    height: int
    origin: Origin
    prompts: list[WirePrompt]


class _SchemaOnly(msgspec.Struct):
    schema: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(WireSample)
_masks_decoder = msgspec.json.Decoder(tuple[Mask, ...])
_schema_decoder = msgspec.json.Decoder(_SchemaOnly)


def encode_masks(masks: tuple[Mask, ...] | list[Mask]) -> bytes:
    """JSON of `masks`, as it stands in a sample and in a `.masks` file."""
    return _encoder.encode(masks)


def decode_masks(data: bytes) -> tuple[Mask, ...]:
    """The masks that `encode_masks` wrote."""
    return _masks_decoder.decode(data)


def encode_wire(sample: WireSample) -> bytes:
    """JSON of a sample whose masks are already JSON."""
    return _encoder.encode(sample)


def encode_sample(sample: Sample) -> bytes:
    """JSON of a sample, as it stands in a shard."""
    prompts = [
        WirePrompt(
            phrase=p.phrase,
            present=p.present,
            mask_state=p.mask_state,
            masks=msgspec.Raw(encode_masks(p.masks)),
            kind=p.kind or "",
            evidence=p.evidence,
            score=p.score,
            standard_score=p.standard_score,
            rank=p.rank,
            positive_key=p.positive_key,
            positive_score=p.positive_score,
            miner=p.miner,
        )
        for p in sample.prompts
    ]
    return encode_wire(
        WireSample(
            key=sample.key,
            source=sample.source,
            width=sample.width,
            height=sample.height,
            origin=sample.origin,
            prompts=prompts,
        )
    )


def decode_sample(data: bytes, *, where: str = "sample") -> Sample:
    """The sample in `data`; `where` names the shard and key in messages.

    Raises:
        ManifestError: `data` is no sample, or one of a newer version.
    """
    try:
        found = _schema_decoder.decode(data).schema
        if found > SAMPLE_SCHEMA:
            raise ManifestError(
                f"{where}: sample schema {found} is newer than {SAMPLE_SCHEMA}, which this version reads; "
                "upgrade absentia"
            )
        wire = _decoder.decode(data)
        return Sample(
            key=wire.key,
            source=wire.source,
            width=wire.width,
            height=wire.height,
            origin=wire.origin,
            prompts=tuple(_from_wire(p) for p in wire.prompts),
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise ManifestError(f"{where}: not a sample of schema {SAMPLE_SCHEMA}: {error}") from error


def _from_wire(prompt: WirePrompt) -> Prompt:
    return Prompt(
        phrase=prompt.phrase,
        present=prompt.present,
        mask_state=prompt.mask_state,
        masks=decode_masks(prompt.masks),
        kind=NegativeKind(prompt.kind) if prompt.kind else None,
        evidence=prompt.evidence,
        score=prompt.score,
        standard_score=prompt.standard_score,
        rank=prompt.rank,
        positive_key=prompt.positive_key,
        positive_score=prompt.positive_score,
        miner=prompt.miner,
    )
