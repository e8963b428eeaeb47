"""The student in training: with the heads that align it to a teacher, and the losses of each phase."""

# B samples, P prompts, U distinct phrases, C width of the student, D width of the teacher's rows, M side of masks

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from student.config import LossConfig, OptimiserConfig
from student.lesson import Lesson
from student.losses import Summed, alignment_loss, mask_losses, presence_loss
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

    def forward(self, phase: int, images_b3ss: Tensor, tokens_ul: Tensor, phrase_bp: Tensor) -> tuple[Tensor, Tensor]:
        """Aligned rows of pictures [B, D] and prompts [B, P, D] in phase 1; presence and mask logits in phase 2."""
        if phase == ALIGNMENT:
            image_bc = self.student.image(images_b3ss).cells_bnc.mean(1)
            text_ud = self.align["text"](self.student.text(tokens_ul))
            return self.align["image"](image_bc), text_ud[phrase_bp]
        answer = self.student(images_b3ss, tokens_ul, phrase_bp)
        return answer.presence_bp, answer.masks_bphw

    def teach_only(self, phase: int, config: OptimiserConfig) -> None:
        """Let gradients reach what the phase trains, and nothing else."""
        aligns = phase == ALIGNMENT
        self.student.requires_grad_(requires_grad=True)
        self.student.decoder.requires_grad_(requires_grad=not aligns)
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
    first, second = learner(phase, batch.images, asked.tokens_ul, asked.phrase_bp)
    if phase == ALIGNMENT:
        found = _alignment_losses(first, second, lesson)
    else:
        answer = Answer(presence_bp=first, masks_bphw=second)
        cross, dice = mask_losses(answer, batch, lesson.soft_bpmm)
        found = {
            "presence": presence_loss(answer, batch, config, lesson.soft_bp),
            "mask_bce": cross,
            "mask_dice": dice,
        }
    weights = weights_of(config)
    return {name: summed for name, summed in found.items() if weights[name]}


def _alignment_losses(image_bd: Tensor, text_bpd: Tensor, lesson: Lesson) -> Losses:
    """Over pictures, and over prompts whose phrase the teacher has."""
    teacher_ud, taught_u, features_bd = lesson.teacher_ud, lesson.taught_u, lesson.batch.features
    if teacher_ud is None or taught_u is None or features_bd is None:
        return {}
    phrase_bp = lesson.asked.phrase_bp
    taught_bp = lesson.batch.valid & taught_u[phrase_bp]
    return {
        "align_image": alignment_loss(image_bd, features_bd),
        "align_text": alignment_loss(text_bpd[taught_bp], teacher_ud[phrase_bp[taught_bp]]),
    }


def weights_of(config: LossConfig) -> Mapping[str, float]:
    """The weight of each loss."""
    return {
        "presence": config.presence,
        "mask_bce": config.mask_bce,
        "mask_dice": config.mask_dice,
        "align_image": config.align_image,
        "align_text": config.align_text,
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
