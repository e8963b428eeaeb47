"""Whether an export says what the student says: the largest difference of their logits over pictures."""

# N pictures, S side of pictures, P phrases, U distinct phrases

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from manifests.errors import ExportError
from student.export_record import Difference
from student.model import Student
from student.onnx_predictor import OnnxPredictor
from student.tokens import tokenize

BOUND = 1e-3  # of a logit
_MADE_PHRASES = ("a person", "dog", "red car", "a slice of lemon", "zebra")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """A picture and what is asked of it."""

    image_3ss: NDArray[np.uint8]
    phrases: tuple[str, ...]
    present: tuple[bool, ...]


def made_pictures(size: int, num: int = 4) -> list[Asked]:
    """Soft blobs and a few phrases, where there is no build to take pictures from."""
    rng = np.random.default_rng(0)
    coarse_n3hw = torch.from_numpy(rng.integers(0, 256, (num, 3, 8, 8)).astype(np.float32))
    soft = torch.nn.functional.interpolate(coarse_n3hw, size=(size, size), mode="bicubic").clamp(0, 255)
    false = (False,) * len(_MADE_PHRASES)
    return [Asked(image_3ss=one, phrases=_MADE_PHRASES, present=false) for one in soft.numpy().astype(np.uint8)]


@torch.no_grad()
def difference(student: Student, predictor: OnnxPredictor, asked: Sequence[Asked]) -> Difference:
    """How far `predictor` is from `student` on pictures of which something is asked."""
    far = np.zeros(4)
    for one in asked:
        tokens_ul = tokenize(one.phrases, context=student.config.context)
        answer = student(torch.from_numpy(one.image_3ss)[None], tokens_ul, torch.arange(len(one.phrases))[None])
        presence_p, masks_phw = predictor.decode(predictor.see(one.image_3ss), one.phrases)
        pairs = (
            (answer.presence_bp[0], torch.from_numpy(presence_p)),
            (answer.masks_bphw[0], torch.from_numpy(masks_phw)),
        )
        found = [float((ours - theirs).abs().max()) for ours, theirs in pairs]
        found += [float((ours.sigmoid() - theirs.sigmoid()).abs().max()) for ours, theirs in pairs]
        far = np.maximum(far, found)  # NaN stays
    presence_logit, mask_logit, presence, mask = far.tolist()
    return Difference(
        variant=predictor.record.name,
        presence_logit=presence_logit,
        mask_logit=mask_logit,
        presence=presence,
        mask=mask,
    )


def require_parity(found: Difference, bound: float = BOUND) -> None:
    """Stop where an export is farther than `bound` from its student, or no number at all.

    Raises:
        ExportError: it is.
    """
    worst = float(np.max([found.presence_logit, found.mask_logit]))  # NaN where one is
    if not worst <= bound:
        raise ExportError(
            f"the {found.variant} export strays from its student by {worst:.2g} in a logit; expected at most "
            f"{bound:g}. Try another onnxruntime; its versions that work are in constraints.txt"
        )
