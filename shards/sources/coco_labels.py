"""What one COCO annotation file says of one image: findings for `merge_labels`, rejects and repairs.

A crowd region is a region of several instances drawn as one: its mask is kept, belongs to the union, and the phrase
stays COMPLETE, since nothing of it lies outside. Its `area` is not compared, since in COCO it is not the pixel count.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from manifests.errors import Reason, Rejected, Repair
from manifests.sample import Mask
from shards.labels import Finding, Outcome
from shards.masks import check_masks, mask_from_polygons, mask_from_uncompressed, reason_of
from shards.rle import MaskFault
from shards.sources.coco_panoptic import read_segment_ids, segment_mask
from shards.sources.coco_rows import (
    AnnotationRow,
    Id,
    ImageRow,
    PanopticRow,
    RleRow,
    check_box,
    id_of,
    id_text,
    parse_value,
    read_row,
    require_id,
)
from shards.sources.coco_spill import Layer, SpilledRow
from shards.sources.source import Reject, Repaired

SMALL_PIXELS = 32 * 32  # below, the area of a polygon and its pixel count differ by more than AREA_TOLERANCE
AREA_TOLERANCE = 0.05


@dataclass(slots=True, kw_only=True)
class LayerWord:
    """What a file says of an image."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[Reject | Repaired] = field(default_factory=list)
    is_closed: bool = True  # False where a category could not be told: any phrase may be there


@dataclass(slots=True, kw_only=True)
class _Shown:
    """A sound annotation, its mask yet to be checked."""

    phrase: str
    where: str
    row: AnnotationRow
    mask: Mask | None  # None for a box alone


class LayerReader:
    """Reads one file's rows of one image."""

    def __init__(
        self, number: int, layer: Layer, image_id: str, size: tuple[int, int], read_png: Callable[[str], bytes]
    ) -> None:
        """`size` is (height, width); `read_png` gives a panoptic PNG's bytes or raises Rejected."""
        self._number = number
        self._layer = layer
        self._image_id = image_id
        self._height, self._width = size
        self._read_png = read_png
        self._ids: dict[str, object] = {}
        self.word = LayerWord()

    def remark(self, row: ImageRow, where: str) -> None:
        """Take LVIS's word on the image: what is not there, and what was not looked for to the end."""
        self._remark(row.neg_category_ids, Outcome.ABSENT, f"{where}.neg_category_ids")
        self._remark(row.not_exhaustive_category_ids, Outcome.OPEN, f"{where}.not_exhaustive_category_ids")

    def _remark(self, category_ids: Sequence[Id], outcome: Outcome, where: str) -> None:
        for place, category_id in enumerate(category_ids):
            phrase = self._layer.phrases.get(id_text(category_id))
            if phrase is None:
                detail = f"{where}[{place}]: category {category_id!r:.40} is not among `categories`"
                self._reject(where, Rejected(Reason.UNKNOWN_CATEGORY, detail))
            else:
                self._find(phrase, outcome)

    def block(self, rows: Sequence[SpilledRow]) -> None:
        """Take nothing of `rows` for certain: the file's image row does not fit the image."""
        self.word.is_closed = False
        for row in rows:
            value = parse_value(row.data)
            segments = value.get("segments_info") if isinstance(value, dict) else None
            for part in segments if isinstance(segments, list) else [value]:
                if phrase := self._layer.phrases.get(id_of(part, "category_id")):
                    self._find(phrase, Outcome.REJECTED)

    def read(self, rows: Sequence[SpilledRow]) -> None:
        """Take the annotations of the image."""
        shown: list[_Shown] = []
        num_panoptic = 0
        for row in rows:
            value = parse_value(row.data)
            if isinstance(value, dict) and "segments_info" in value:
                num_panoptic += 1
                shown.extend(self._read_panoptic(value, row.where))
            elif (found := self._read_annotation(value, row.where, self._outline)) is not None:
                shown.append(found)
        if self._layer.is_panoptic and num_panoptic != 1:
            self.word.is_closed = False
        self._check(shown)

    def _read_annotation(
        self, value: object, where: str, outline: Callable[[AnnotationRow, str], Mask | None]
    ) -> _Shown | None:
        """The annotation that `value` holds; None if it was rejected, and its phrase left open."""
        phrase = ""
        try:
            phrase = self._phrase(value, where)
            if self._is_repeated(value, where):
                return None
            row = read_row(value, AnnotationRow, where)
            mask = outline(row, where)
            is_clipped = check_box(row.bbox, self._width, self._height, is_alone=mask is None, where=where)
        except Rejected as rejected:
            self._lose(phrase, where, rejected)
            return None
        if is_clipped:
            self.word.notes.append(Repaired(repair=Repair.BOX_CLIPPED, where=self._place(where)))
        return _Shown(phrase=phrase, where=where, row=row, mask=mask)

    def _phrase(self, value: object, where: str) -> str:
        category_id = require_id(value, "category_id", where)
        phrase = self._layer.phrases.get(category_id)
        if phrase is None:
            raise Rejected(
                Reason.UNKNOWN_CATEGORY, f"{where}.category_id: {category_id!r:.40} is not among `categories`"
            )
        return phrase

    def _is_repeated(self, value: object, where: str) -> bool:
        """Whether the whole annotation stands there twice, which loses nothing.

        Raises:
            Rejected: DUPLICATE_ANNOTATION, another annotation of the image has its id.
        """
        annotation_id = id_of(value, "id")
        if not annotation_id or annotation_id not in self._ids:
            self._ids[annotation_id] = value
            return False
        rejected = Rejected(Reason.DUPLICATE_ANNOTATION, f"{where}.id: {annotation_id} is taken already in this image")
        if self._ids[annotation_id] != value:
            raise rejected
        self._reject(where, rejected)
        return True

    def _outline(self, row: AnnotationRow, where: str) -> Mask | None:
        """The mask of an instance; a compressed one is checked later, with all others."""
        segmentation = row.segmentation
        if isinstance(segmentation, RleRow):
            if segmentation.size != (self._height, self._width):
                raise Rejected(
                    Reason.MASK_SIZE,
                    f"{where}.segmentation.size: {segmentation.size}, expected {(self._height, self._width)}",
                )
            if isinstance(segmentation.counts, str):
                return Mask(size=segmentation.size, counts=segmentation.counts)
            return mask_from_uncompressed(segmentation.counts, segmentation.size)
        if not segmentation or not any(segmentation):
            return None
        return mask_from_polygons(segmentation, self._height, self._width)

    def _read_panoptic(self, value: object, where: str) -> Iterator[_Shown]:
        """The segments of an image."""
        try:
            row = read_row(value, PanopticRow, where)
        except Rejected as rejected:
            self._lose("", where, rejected)
            return
        segments = [(part, f"{where}.segments_info[{place}]") for place, part in enumerate(row.segments_info)]
        try:
            ids_hw = read_segment_ids(self._read_png(row.file_name), height=self._height, width=self._width)
        except Rejected as rejected:
            self._reject(where, Rejected(rejected.reason, f"{where}.file_name: {rejected.detail}"))
            for part, _ in segments:
                phrase = self._layer.phrases.get(id_of(part, "category_id"), "")
                self._lose(phrase, where, None)
            return

        def outline(row: AnnotationRow, where: str) -> Mask:
            if not isinstance(row.id, int) or row.segmentation is not None:
                raise Rejected(Reason.WRONG_FIELD, f"{where}.id: expected the number that the PNG's colour stands for")
            return segment_mask(ids_hw, row.id) if 0 < row.id < 1 << 24 else _no_segment(row.id)

        for part, place in segments:
            if (found := self._read_annotation(part, place, outline)) is not None:
                yield found

    def _check(self, shown: Sequence[_Shown]) -> None:
        """Judge all masks at once, and take what is sound."""
        masked = [found for found in shown if found.mask is not None]
        masks = [found.mask for found in masked if found.mask is not None]
        check = check_masks([m.counts for m in masks], [m.size[0] for m in masks], [m.size[1] for m in masks])
        faults = iter(check.faults.tolist())
        areas = iter(check.areas.tolist())
        for found in shown:
            if found.mask is None:
                self._find(found.phrase, Outcome.PRESENT)
                continue
            fault, area = MaskFault(next(faults)), next(areas)
            if (reason := reason_of(fault)) is not None:
                detail = f"{found.where}.segmentation: {fault.name.lower()} RLE {found.mask.counts[:32]!a}"
                self._lose(found.phrase, found.where, Rejected(reason, detail))
                continue
            self._find(found.phrase, Outcome.PRESENT, found.mask)
            if not found.row.iscrowd and _is_wrong_area(found.row.area, area):
                self.word.notes.append(Repaired(repair=Repair.AREA_RECOMPUTED, where=self._place(found.where)))

    def _find(self, phrase: str, outcome: Outcome, *masks: Mask) -> None:
        self.word.findings.append(Finding(phrase=phrase, outcome=outcome, masks=masks, layer=self._number))

    def _lose(self, phrase: str, where: str, rejected: Rejected | None) -> None:
        """Leave `phrase` open, or everything where none could be told; `rejected` is None where it was said before."""
        if rejected is not None:
            self._reject(where, rejected, phrase)
        if phrase:
            self._find(phrase, Outcome.REJECTED)
        else:
            self.word.is_closed = False

    def _reject(self, where: str, rejected: Rejected, phrase: str = "") -> None:
        self.word.notes.append(
            Reject(where=self._place(where), reason=rejected.reason, detail=rejected.detail, phrase=phrase)
        )

    def _place(self, where: str) -> str:
        return f"{self._layer.name}: {where} of image {self._image_id}"


def _no_segment(segment_id: int) -> Mask:
    raise Rejected(Reason.MASK_EMPTY, f"no pixel can have the colour of segment {segment_id}")


def _is_wrong_area(stated: float | None, area: int) -> bool:
    """Whether a stated area is not that of the mask, beyond what polygons of few pixels bring with them."""
    if stated is None:
        return False
    if not math.isfinite(stated) or stated <= 0:
        return True
    return max(stated, area) > SMALL_PIXELS and abs(stated - area) > AREA_TOLERANCE * stated
