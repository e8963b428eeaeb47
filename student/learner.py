"""The student in training: with the heads that align it to a teacher, and the losses of each phase."""

# B samples, P prompts, U distinct phrases, K of the teacher's phrases, L tokens, C width of the student, D of the
# teacher's rows, M side of masks

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from student.config import LossConfig, OptimiserConfig
from student.lesson import Lesson
from student.losses import Summed, alignment_loss, mask_losses, match_loss, presence_loss
from student.model import Answer, Student
from student.schedule import ALIGNMENT

Losses = dict[str, Summed]


class Learner(nn.Module):
    """The student and, where there is a teacher of phase 1, a linear head for pictures and one for phrases."""

    def __init__(self, student: Student, teacher_width: int | None) -> None:
        super().__init__()
        self.student = student
        width = student.config.width
        self.align = nn.ModuleDict(
            {name: nn.Linear(width, teacher_width) for name in ("image", "text")} if teacher_width else {}
        )

    def forward(
        self, phase: int, images_b3ss: Tensor, tokens_ul: Tensor, phrase_bp: Tensor, matched_kl: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """What the losses of a phase are of.

        Phase 1: aligned rows of pictures [B, D] and of prompts [B, P, D], and presence logits [B, K] of the phrases
        that every picture is matched with, if any. Phase 2: presence and mask logits.
        """
        if phase != ALIGNMENT:
            answer = self.student(images_b3ss, tokens_ul, phrase_bp)
            return answer.presence_bp, answer.masks_bphw
        seen = self.student.image(images_b3ss)
        image_bd = self.align["image"](seen.cells_bnc.mean(1))
        text_ud = self.align["text"](self.student.text(tokens_ul))
        if matched_kl is None:
            return image_bd, text_ud[phrase_bp]
        return image_bd, text_ud[phrase_bp], self.student.decoder.match(seen, self.student.text(matched_kl))

    def teach_only(self, phase: int, config: OptimiserConfig) -> None:
        """Let gradients reach what the phase trains, and nothing else."""
        aligns = phase == ALIGNMENT
        self.student.requires_grad_(requires_grad=True)
        decoder = self.student.decoder
        decoder.requires_grad_(requires_grad=not aligns)
        for matching in (decoder.query, decoder.presence):
            matching.requires_grad_(requires_grad=True)
        self.align.requires_grad_(requires_grad=aligns)
        encoder = self.student.image.encoder
        if not config.image_learning_rate:
            encoder.requires_grad_(requires_grad=False)
        elif config.image_frozen_stride:
            for parameter in encoder.layers_up_to(config.image_frozen_stride):
                parameter.requires_grad = False


def phase_losses(learner: nn.Module, phase: int, lesson: Lesson, config: LossConfig) -> Losses:
    """The losses of one lesson, by name; those of weight 0 are left out."""
    batch, asked = lesson.batch, lesson.asked
    if phase == ALIGNMENT:
        rows = learner(phase, batch.images, asked.tokens_ul, asked.phrase_bp, lesson.matched_kl)
        found = _alignment_losses(rows, lesson)
    else:
        presence_bp, masks_bphw = learner(phase, batch.images, asked.tokens_ul, asked.phrase_bp)
        answer = Answer(presence_bp=presence_bp, masks_bphw=masks_bphw)
        cross, dice = mask_losses(answer, batch, lesson.soft_bpmm)
        found = {
            "presence": presence_loss(answer, batch, config, lesson.soft_bp),
            "mask_bce": cross,
            "mask_dice": dice,
        }
    weights = weights_of(config)
    return {name: summed for name, summed in found.items() if weights[name]}


def _alignment_losses(rows: Sequence[Tensor], lesson: Lesson) -> Losses:
    """Over pictures, over prompts whose phrase the teacher has, and over all pairs of pictures and its phrases."""
    teacher_ud, taught_u, features_bd = lesson.teacher_ud, lesson.taught_u, lesson.batch.features
    if teacher_ud is None or taught_u is None or features_bd is None:
        return {}
    phrase_bp = lesson.asked.phrase_bp
    taught_bp = lesson.batch.valid & taught_u[phrase_bp]
    image_bd, text_bpd, *match = rows
    found = {
        "align_image": alignment_loss(image_bd, features_bd),
        "align_text": alignment_loss(text_bpd[taught_bp], teacher_ud[phrase_bp[taught_bp]]),
    }
    if lesson.match_bk is not None:
        found["align_match"] = match_loss(match[0], lesson.match_bk)
    return found


def weights_of(config: LossConfig) -> Mapping[str, float]:
    """The weight of each loss."""
    return {
        "presence": config.presence,
        "mask_bce": config.mask_bce,
        "mask_dice": config.mask_dice,
        "align_image": config.align_image,
        "align_text": config.align_text,
        "align_match": config.align_match,
    }


def objective(losses: Losses, num_n: Tensor, config: LossConfig, *, world_size: int) -> Tensor:
    """What is minimised: weighted means over `num_n`, what all ranks hold of each loss.

    Ranks average their gradients, hence the factor.
    """
    weights = weights_of(config)
    scaled = [
        weights[name] * world_size / max(num, 1.0) * summed.total
        for (name, summed), num in zip(losses.items(), num_n.tolist(), strict=True)
    ]
    return torch.stack(scaled).sum()
