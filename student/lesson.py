"""A batch made ready to learn from: augmented, tokenized, with the teacher's rows and answers beside it."""

# B samples, P prompts, U distinct phrases, K of the teacher's phrases, L tokens, M side of masks, D width of the
# teacher's rows

from dataclasses import dataclass, replace

import msgspec
import torch
from torch import Tensor

from manifests.errors import TrainingError
from shards.batch import Batch
from student.augment import change_images, change_masks, draw_changes
from student.config import TrainConfig
from student.schedule import ALIGNMENT
from student.soft_targets import SoftTargets, blend_masks
from student.teacher import Teacher
from student.tokens import Asked, ask, token_ids, tokenize

MATCHED = 256  # phrases that the pictures of a step are matched with, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What one step learns from, on the device that trains."""

    batch: Batch
    asked: Asked
    soft_bp: Tensor | None = None  # the teacher's presence; NaN where it said nothing
    soft_bpmm: Tensor | None = None  # target masks that the teacher had a share in; NaN where it had none
    teacher_ud: Tensor | None = None  # the teacher's rows of the phrases
    taught_u: Tensor | None = None  # which of them it has
    matched_kl: Tensor | None = None  # tokens of those of the teacher's phrases that every picture is matched with
    match_bk: Tensor | None = None  # what the teacher says of them, as presence logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Tutor:
    """Makes lessons of batches."""

    config: TrainConfig
    device: torch.device
    teacher: Teacher | None = None
    soft: SoftTargets | None = None
    positives_only: bool = False

    def prepare(self, batch: Batch, phase: int, *, step: int = 0) -> Lesson:
        """The lesson of `batch` in a phase; `step` of the run draws the phrases that pictures are matched with.

        Raises:
            RecipeError: a phrase has more tokens than the context.
            TableError: a mask of the teacher's is not of its picture's size.
            TrainingError: the batch's masks are not of a size with the student's.
        """
        require_mask_size(batch)
        if self.positives_only:
            batch = replace(batch, valid=batch.valid & batch.present)
        asked = ask(batch.phrases, context=self.config.model.context)
        if phase == ALIGNMENT:
            return self._alignment(batch, asked, step)
        soft_bp = soft_bpmm = None
        if self.soft is not None:
            soft_bp = self.soft.presence(batch) if self.config.losses.soft_presence else None
            share = self.config.losses.soft_mask
            batch, soft_bpmm = blend_masks(batch, self.soft.masks(batch, beside_whole=share > 0), share=share)
        changes = draw_changes(batch, self.config.augmentation, seed=self.config.seed)
        batch = self._to_device(batch)
        images = change_images(batch.images, changes, mask_side=batch.masks.shape[-1])
        return Lesson(
            batch=replace(batch, images=images, masks=change_masks(batch.masks, changes)),
            asked=asked.to(self.device),
            soft_bp=None if soft_bp is None else soft_bp.to(self.device),
            soft_bpmm=None if soft_bpmm is None else change_masks(soft_bpmm.to(self.device), changes),
        )

    def _alignment(self, batch: Batch, asked: Asked, step: int) -> Lesson:
        """Without masks, and without crops: the teacher's row is of the whole picture."""
        whole = msgspec.structs.replace(self.config.augmentation, crop=0.0)
        changes = draw_changes(batch, whole, seed=self.config.seed)
        rows_ud, taught_u = self.teacher.phrase_rows(asked.phrases) if self.teacher else (None, None)
        matched_kl, match_bk = self._match(batch, step)
        batch = self._to_device(batch)
        return Lesson(
            batch=replace(batch, images=change_images(batch.images, changes, mask_side=batch.masks.shape[-1])),
            asked=asked.to(self.device),
            teacher_ud=None if rows_ud is None else rows_ud.to(self.device),
            taught_u=None if taught_u is None else taught_u.to(self.device),
            matched_kl=None if matched_kl is None else matched_kl.to(self.device),
            match_bk=None if match_bk is None else match_bk.to(self.device),
        )

    def _match(self, batch: Batch, step: int) -> tuple[Tensor | None, Tensor | None]:
        """Tokens [K, L] of some of the teacher's phrases, the same on all ranks, and its logits of them [B, K]."""
        if self.teacher is None or batch.features is None or not self.config.losses.align_match:
            return None, None
        context = self.config.model.context
        phrases = self.teacher.draw_phrases(MATCHED, seed=self.config.seed, step=step)
        fitting = [phrase for phrase in phrases if len(token_ids(phrase)) <= context]
        return tokenize(fitting, context=context), self.teacher.match(batch.features, fitting)

    def _to_device(self, batch: Batch) -> Batch:
        return batch if self.device.type == "cpu" else batch.to(self.device, non_blocking=True)


def require_mask_size(batch: Batch) -> None:
    """Stop at masks that the student's do not lie over.

    Raises:
        TrainingError: their side is not a quarter of the pictures'.
    """
    size, side = batch.images.shape[-1], batch.masks.shape[-1]
    if 4 * side != size:
        raise TrainingError(
            f"masks of {side} x {side} beside pictures of {size} x {size}; expected a quarter of their side. Open the "
            f"loader with mask_size={size // 4}"
        )
