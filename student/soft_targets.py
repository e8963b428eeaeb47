"""The teacher of phase 2: what a predictions table says of presence and masks, as targets for a batch.

A mask of the teacher's stands in where a present phrase has none that is whole, so that boxes alone teach masks, too;
beside a whole mask it counts for the share that the config gives it.
"""

# B samples, P prompts, M side of masks

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifests import tables
from manifests.errors import Rejected, TableError
from manifests.sample import CALLED_PRESENT, Mask, MaskState
from shards.batch import MASK_STATE_CODES, Batch
from shards.images import letterbox_geometry
from shards.labels import phrase_id
from shards.masks import resize_mask_groups

_COMPLETE = MASK_STATE_CODES[MaskState.COMPLETE]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftTargets:
    """A predictions table, by picture and phrase."""

    uri: str
    row_of: Mapping[str, Mapping[str, int]]  # by image key, then by casefolded phrase
    presence_n: NDArray[np.float32]  # by row
    mask_n: pa.ChunkedArray  # by row; null where the teacher itself says absent, or drew nothing
    image_keys: Mapping[str, str]  # of repeated samples

    def _rows(self, batch: Batch, sample: int) -> list[tuple[int, int]]:
        """Place in the batch and row of the table of each prompt of `sample` that the table has."""
        rows = self.row_of.get(self.image_keys.get(batch.keys[sample], batch.keys[sample]), {})
        asked = [rows.get(phrase_id(phrase), -1) for phrase in batch.phrases[sample]]
        return [(place, row) for place, row in enumerate(asked) if row >= 0]

    def presence(self, batch: Batch) -> Tensor:
        """The teacher's presence [B, P]; NaN where it said nothing."""
        soft_bp = torch.full(batch.present.shape, torch.nan)
        for sample in range(len(batch.keys)):
            for place, row in self._rows(batch, sample):
                soft_bp[sample, place] = float(self.presence_n[row])
        return soft_bp

    def masks(self, batch: Batch, *, beside_whole: bool) -> tuple[Tensor, Tensor]:
        """The teacher's masks bool [B, P, M, M] of present prompts, and which prompts have one [B, P].

        Args:
            batch: Whose prompts.
            beside_whole: Those of prompts that have a whole mask of their own, too.

        Raises:
            TableError: a mask is not of its picture's size.
        """
        masks = np.zeros(batch.masks.shape, np.bool_)
        has = np.zeros(batch.present.shape, np.bool_)
        wanted_bp = batch.present if beside_whole else batch.present & (batch.mask_state != _COMPLETE)
        for sample, (height, width) in enumerate(batch.sizes.tolist()):
            found = [
                (place, mask)
                for place, row in self._rows(batch, sample)
                if wanted_bp[sample, place] and (mask := self._mask(row)) is not None
            ]
            if not found:
                continue
            places = [place for place, _ in found]
            self._require_sizes(batch.keys[sample], [mask for _, mask in found], (height, width))
            letterbox = letterbox_geometry(width, height, masks.shape[-1])
            try:
                masks[sample, places] = resize_mask_groups([[mask] for _, mask in found], letterbox, masks.shape[-1])
            except Rejected as error:
                raise TableError(f"{self.uri}: {batch.keys[sample]}: {error}; predict again") from error
            has[sample, places] = True
        return torch.from_numpy(masks), torch.from_numpy(has)

    def _mask(self, row: int) -> Mask | None:
        found = self.mask_n[row].as_py()
        return None if found is None else Mask(size=tuple(found["size"]), counts=found["counts"])

    def _require_sizes(self, key: str, masks: list[Mask], size: tuple[int, int]) -> None:
        for mask in masks:
            if tuple(mask.size) != size:
                raise TableError(
                    f"{self.uri}: {key} has a mask of {mask.size[0]} x {mask.size[1]}, its picture is {size[0]} x "
                    f"{size[1]} (height x width); expected masks at the picture's own size. Predict again"
                )


def blend_masks(batch: Batch, soft: tuple[Tensor, Tensor], *, share: float) -> tuple[Batch, Tensor | None]:
    """The batch with the teacher's masks where it has no whole ones, and targets [B, P, M, M] for the others.

    Targets are NaN where the batch's own masks stand; None where `share` is 0.
    """
    masks_bpmm, has_bp = soft
    annotated_bp = batch.mask_state == _COMPLETE
    filled_bp = has_bp & ~annotated_bp & batch.present
    filled = replace(
        batch,
        masks=torch.where(filled_bp[..., None, None], masks_bpmm | batch.masks, batch.masks),
        mask_state=torch.where(filled_bp, _COMPLETE, batch.mask_state).to(batch.mask_state.dtype),
    )
    if not share:
        return filled, None
    blended_bpmm = share * masks_bpmm.float() + (1 - share) * batch.masks.float()
    return filled, torch.where((has_bp & annotated_bp)[..., None, None], blended_bpmm, torch.nan)


def read_soft_targets(uri: str, image_keys: Mapping[str, str]) -> SoftTargets:
    """The predictions table at `uri` (a file, or a folder of parts).

    Raises:
        TableError: it is no predictions table, or a presence is outside 0 to 1.
    """
    parts = [name for name in tables.list_tables(uri) if ".images." not in name]
    if not parts:
        raise TableError(f"{uri}: no Parquet file there; expected a predictions table")
    row_of: dict[str, dict[str, int]] = {}
    presences, masks, num_rows = [np.zeros(0, np.float32)], [tables.PREDICTIONS.empty_table().select(["mask"])], 0
    ids: dict[str, str] = {}  # so that a phrase is held once, however many pictures are asked it
    for part in parts:
        begun = num_rows
        for rows in tables.iterate_table(part, tables.PREDICTIONS):
            presence_n = rows["presence"].to_numpy().astype(np.float32)
            _require_probabilities(part, rows, presence_n, first=num_rows - begun)
            drawn = pc.greater(pc.binary_length(pc.struct_field(rows["mask"], "counts")), 0)
            held = pc.if_else(pc.and_(drawn, pa.array(presence_n >= CALLED_PRESENT)), rows["mask"], None)
            for row, (key, phrase) in enumerate(_pairs(rows), start=num_rows):
                row_of.setdefault(key, {})[ids.setdefault(phrase, phrase)] = row
            presences.append(presence_n)
            masks.append(pa.table({"mask": held}))
            num_rows += rows.num_rows
    return SoftTargets(
        uri=uri,
        row_of=row_of,
        presence_n=np.concatenate(presences),
        mask_n=pa.concat_tables(masks).combine_chunks()["mask"],
        image_keys=image_keys,
    )


def _pairs(rows: pa.Table) -> Iterator[tuple[str, str]]:
    """Image key and casefolded phrase of each row."""
    return zip(rows["key"].to_pylist(), map(phrase_id, rows["phrase"].to_pylist()), strict=True)


def _require_probabilities(uri: str, rows: pa.Table, presence_n: NDArray[np.float32], *, first: int) -> None:
    wrong = np.flatnonzero(~((presence_n >= 0) & (presence_n <= 1)))
    if len(wrong):
        row = int(wrong[0])
        raise TableError(
            f"{uri}: row {first + row} ({rows['key'][row]}, {rows['phrase'][row]}) has presence {presence_n[row]}; "
            "expected 0 to 1. Apply a sigmoid to logits"
        )
