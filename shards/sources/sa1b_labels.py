"""One SA-1B json and its sidecar rows become labels: masks of one phrase together, each drop with its reason.

Only masks that carry a phrase are checked; SA-1B's masks are no exhaustive list of anything, so a presence is partial
unless the recipe says over which vocabulary the labels are exhaustive.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import numpy as np

from manifests.errors import Reason, Rejected, Repair
from manifests.sample import Mask, MaskState
from shards.labels import Finding, Outcome, merge_labels, normalise_phrase, phrase_id
from shards.masks import check_masks_of, reason_of
from shards.rle import MaskFault
from shards.sources.sidecar import PhraseRows
from shards.sources.sidecar_rows import MAX_ID, NO_ANNOTATION, Rle
from shards.sources.source import Label, LabelState, Reject, Repaired

_CACHED_PHRASES = 1 << 14
_CACHED_PHRASE_BYTES = 1024
_UNTOLD = frozenset({Reason.EMPTY_PHRASE, Reason.PHRASE_TOO_LONG, Reason.PHRASE_NOT_UTF8})
_AREA_TOLERANCE = 1.0  # pixels by which a claimed area may differ from the mask's


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """One mask of an SA-1B json."""

    id: int
    segmentation: Rle
    predicted_iou: float
    stability_score: float
    area: float


class Image(msgspec.Struct, frozen=True, gc=False):
    """The picture of an SA-1B json."""

    image_id: Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
    width: int
    height: int


class Sa1bFile(msgspec.Struct, frozen=True):
    """A whole SA-1B json, without the fields that nothing here reads."""

    image: Image
    annotations: list[Annotation]


_decoder = msgspec.json.Decoder(Sa1bFile)


def decode_file(data: bytes) -> Sa1bFile:
    """The SA-1B json in `data`.

    Raises:
        Rejected: BROKEN_JSON, WRONG_FIELD.
    """
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise Rejected(Reason.WRONG_FIELD, f"{error}; expected the fields of an SA-1B json") from error
    except (ValueError, RecursionError) as error:
        raise Rejected(Reason.BROKEN_JSON, f"{error}; expected an SA-1B json") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """Below which a mask or a phrase is not believed."""

    predicted_iou: float
    stability_score: float
    area: float  # pixels
    phrase_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """The labels of one picture, and what was dropped or put right on the way."""

    labels: tuple[Label, ...]
    dropped: Sequence[Reject | Repaired]
    is_closed: bool = True  # False where a phrase could not be told: any phrase may be there


@dataclass(frozen=True, slots=True)
class _Phrase:
    text: str
    id: str  # equal for phrases that are equal


@dataclass(frozen=True, slots=True)
class _Claim:
    """One sidecar row: this mask shows that phrase."""

    phrase: _Phrase
    mask: int | bytes | None  # an annotation's place in the json, or the JSON of an RLE; None where there is neither
    score: float
    row: int
    annotation_id: int


@dataclass(slots=True)
class _Dropped:
    """Rejects and repairs of one picture."""

    where: str
    found: list[Reject | Repaired] = field(default_factory=list)

    def reject(self, place: str, rejected: Rejected, phrase: str = "") -> None:
        """Note a drop at `place` in the picture."""
        where = f"{self.where}: {place}"
        self.found.append(Reject(where=where, reason=rejected.reason, detail=rejected.detail, phrase=phrase))


def label_image(file: Sa1bFile, rows: PhraseRows, floors: Floors, where: str, *, exhaustive: bool) -> LabelledImage:
    """What the sidecar's `rows` say of the picture of `file`.

    A row whose mask is missing, corrupt or below a floor leaves its phrase open, or its presence partial.
    """
    labels = _all_sound(file, rows, floors, exhaustive=exhaustive)
    if labels is not None:
        return LabelledImage(labels=labels, dropped=())
    return judge_image(file, rows, floors, where, exhaustive=exhaustive)


def _all_sound(file: Sa1bFile, rows: PhraseRows, floors: Floors, *, exhaustive: bool) -> tuple[Label, ...] | None:
    """What `judge_image` gives where nothing is dropped or put right, column by column; None where something is.

    Nearly every picture is like that, and a word about each row would cost more than reading the json.
    """
    num_rows = len(rows.rows)
    if not num_rows:
        return ()
    annotations = {annotation.id: annotation for annotation in file.annotations}
    known = [_phrases[raw] for raw in rows.phrases if raw is not None]
    phrases = [phrase for phrase in known if isinstance(phrase, _Phrase)]
    claimed = [annotation for annotation in map(annotations.get, rows.annotation_ids) if annotation is not None]
    if len(annotations) < len(file.annotations) or not len(phrases) == len(claimed) == num_rows:
        return None
    phrase_ids = [phrase.id for phrase in phrases]
    if len(set(zip(rows.annotation_ids, phrase_ids, strict=True))) < num_rows:
        return None
    size = (file.image.height, file.image.width)
    if [score for score in rows.scores if not score >= floors.phrase_score] or not _are_sound(claimed, size, floors):
        return None
    masks: dict[str, list[Mask]] = defaultdict(list)
    for key, annotation in zip(phrase_ids, claimed, strict=True):
        masks[key].append(annotation.segmentation)
    spelling = {phrase.id: phrase.text for phrase in reversed(phrases)}  # the first one stays
    present, state = LabelState.PRESENT, MaskState.COMPLETE if exhaustive else MaskState.PARTIAL
    return tuple(
        [
            Label(phrase=spelling[key], state=present, mask_state=state, masks=tuple(masks[key]), known_by="sidecar")
            for key in sorted(masks)
        ]
    )


def _are_sound(claimed: Sequence[Annotation], size: tuple[int, int], floors: Floors) -> bool:
    """Whether every mask is sound, of this `size`, above the floors and of the area that it claims."""
    rles = [annotation.segmentation for annotation in claimed]
    if [rle for rle in rles if rle.size != size]:
        return False
    check = check_masks_of(size, [rle.counts for rle in rles])
    areas = np.array([annotation.area for annotation in claimed])
    return (
        not check.faults.any()
        and int(check.areas.min()) >= floors.area
        and float(np.abs(areas - check.areas).max()) <= _AREA_TOLERANCE
        and min([annotation.predicted_iou for annotation in claimed]) >= floors.predicted_iou
        and min([annotation.stability_score for annotation in claimed]) >= floors.stability_score
    )


def judge_image(file: Sa1bFile, rows: PhraseRows, floors: Floors, where: str, *, exhaustive: bool) -> LabelledImage:
    """As `label_image`, with a word about every row and mask that is not sound."""
    dropped = _Dropped(where)
    places: dict[int, int] = {}
    for place, annotation in enumerate(file.annotations):
        places.setdefault(annotation.id, place)
    claims = list(_claims(rows, places, dropped))
    is_told = not any(isinstance(one, Reject) and one.reason in _UNTOLD for one in dropped.found)
    repeated = _repeated(file, places, claims, dropped) if len(places) < len(file.annotations) else frozenset()
    masks = _judge(file, {claim.mask: claim for claim in claims}, floors, dropped)
    findings = []
    for claim in claims:
        mask = _shown(claim, masks, floors)
        phrase = claim.phrase.text
        if isinstance(mask, Rejected):
            named = isinstance(claim.mask, int)
            dropped.reject(f"annotation {claim.annotation_id}" if named else f"phrases row {claim.row}", mask, phrase)
            findings.append(Finding(phrase=phrase, outcome=Outcome.REJECTED, known_by="sidecar"))
            continue
        findings.append(Finding(phrase=phrase, outcome=Outcome.PRESENT, masks=(mask,), known_by="sidecar"))
        if not exhaustive or claim.mask in repeated:
            findings.append(Finding(phrase=phrase, outcome=Outcome.OPEN, known_by="sidecar"))
    return LabelledImage(
        labels=merge_labels(findings).labels, dropped=dropped.found, is_closed=is_told and None not in rows.phrases
    )


class _Phrases(dict[bytes, _Phrase | Rejected]):
    """Phrases as they stand in a sidecar, each read once; looked up in half of the time of `lru_cache`."""

    def __missing__(self, raw: bytes) -> _Phrase | Rejected:
        if len(raw) > _CACHED_PHRASE_BYTES:
            return _read_phrase(raw)
        if len(self) >= _CACHED_PHRASES:
            self.clear()
        return self.setdefault(raw, _read_phrase(raw))


_phrases = _Phrases()


def _read_phrase(raw: bytes) -> _Phrase | Rejected:
    try:
        text = normalise_phrase(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return Rejected(Reason.PHRASE_NOT_UTF8, f"phrase {raw[:40]!a} is not UTF-8; expected UTF-8 text")
    except Rejected as rejected:
        return rejected
    return _Phrase(text, phrase_id(text))


def _claims(rows: PhraseRows, places: Mapping[int, int], dropped: _Dropped) -> Iterator[_Claim]:
    """What each row says, without rows that name no phrase or repeat another."""
    seen: set[tuple[str, int | bytes | None]] = set()
    columns = zip(rows.rows, rows.annotation_ids, rows.phrases, rows.scores, rows.segmentations, strict=True)
    for row, annotation_id, raw, score, segmentation in columns:
        if raw is None:
            continue
        phrase = _phrases[raw]
        if isinstance(phrase, Rejected):
            dropped.reject(f"phrases row {row}", phrase)
            continue
        mask = places.get(annotation_id, segmentation or None)
        key = (phrase.id, annotation_id if mask is None else mask)
        if key in seen:
            detail = "the same phrase for the same mask again; expected one row"
            dropped.reject(f"phrases row {row}", Rejected(Reason.DUPLICATE_ANNOTATION, detail), phrase.text)
            continue
        seen.add(key)
        yield _Claim(phrase, mask, score, row, annotation_id)


def _repeated(
    file: Sa1bFile, places: Mapping[int, int], claims: Sequence[_Claim], dropped: _Dropped
) -> frozenset[int | bytes | None]:
    """Places of annotations with a phrase whose id stands in the json again; the first of each id is kept."""
    claimed = {claim.mask for claim in claims}
    repeated = set()
    for place, annotation in enumerate(file.annotations):
        first = places[annotation.id]
        if first != place and first in claimed:
            repeated.add(first)
            detail = "the id stands twice in the json; expected one annotation per id. The first is kept"
            dropped.reject(f"annotation {annotation.id}", Rejected(Reason.DUPLICATE_ANNOTATION, detail))
    return frozenset(repeated)


def _shown(claim: _Claim, masks: Mapping[int | bytes, Mask | Rejected], floors: Floors) -> Mask | Rejected:
    """The mask that shows the claim's phrase, or why it is not believed."""
    if claim.mask is None:
        if claim.annotation_id == NO_ANNOTATION:
            detail = "neither an annotation id nor an RLE; expected one of them"
        else:
            detail = f"annotation {claim.annotation_id} is not in the json; expected one of its ids"
        return Rejected(Reason.UNKNOWN_ANNOTATION, detail)
    if not claim.score >= floors.phrase_score:
        return Rejected(
            Reason.BELOW_FLOOR, f"phrase score {claim.score:g}; expected min_phrase_score = {floors.phrase_score:g}"
        )
    return masks[claim.mask]


def _judge(
    file: Sa1bFile, claims: Mapping[int | bytes | None, _Claim], floors: Floors, dropped: _Dropped
) -> dict[int | bytes, Mask | Rejected]:
    """Each claimed mask, or why it is not one."""
    judged: dict[int | bytes, Mask | Rejected] = {}
    rles: dict[int | bytes, Rle] = {}
    for key in claims:
        if isinstance(key, int):
            rles[key] = file.annotations[key].segmentation
        elif key is not None:
            try:
                rles[key] = msgspec.json.decode(key, type=Rle)
            except (ValueError, RecursionError) as error:
                judged[key] = Rejected(Reason.MASK_CORRUPT, f"no RLE: {error}; expected size and counts")
    size = (file.image.height, file.image.width)
    check = check_masks_of(size, [rle.counts for rle in rles.values()])
    for (key, rle), fault, area in zip(rles.items(), check.faults.tolist(), check.areas.tolist(), strict=True):
        annotation = file.annotations[key] if isinstance(key, int) else None
        if rle.size != size:
            judged[key] = Rejected(
                Reason.MASK_SIZE, f"RLE of height, width {list(rle.size)}; expected the picture's {list(size)}"
            )
        elif fault:
            judged[key] = _faulty(MaskFault(fault), size)
        else:
            judged[key] = _below(annotation, area, floors) or rle
            if annotation is not None and abs(annotation.area - area) > _AREA_TOLERANCE:
                dropped.found.append(
                    Repaired(repair=Repair.AREA_RECOMPUTED, where=f"{dropped.where}: annotation {annotation.id}")
                )
    return judged


def _faulty(fault: MaskFault, size: tuple[int, int]) -> Rejected:
    reason = reason_of(fault) or Reason.MASK_CORRUPT
    return Rejected(reason, f"RLE is {fault.name.lower().replace('_', ' ')}; expected runs that fill {list(size)}")


def _below(annotation: Annotation | None, area: int, floors: Floors) -> Rejected | None:
    """Which floor the mask is below, if any."""
    found = (
        ("min_area", area, floors.area),
        ("min_predicted_iou", np.inf if annotation is None else annotation.predicted_iou, floors.predicted_iou),
        ("min_stability_score", np.inf if annotation is None else annotation.stability_score, floors.stability_score),
    )
    for name, value, floor in found:
        if not value >= floor:
            return Rejected(Reason.BELOW_FLOOR, f"{value:g} is below {name} = {floor:g}")
    return None
