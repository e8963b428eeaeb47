"""Whether a model knows where things are: mean IoU, and gIoU and cIoU, in which a wrong presence costs the mask.

`miou` looks at masks of present prompts whatever the presence head said; beside it stands what the whole picture as
mask would have scored. In gIoU and cIoU an answer "absent" is an empty mask.

Source: Liu et al., "GRES: Generalized Referring Expression Segmentation" (arXiv 2306.00968), section 3.1. Its code adds
to cIoU, where a presence was answered "absent", the union with the mask that was not given; here it adds the truth.
"""

# N prompts

import numpy as np
from numpy.typing import NDArray

from student.bootstrap import NUM_DRAWS, measure, per_image, ratio
from student.estimates import NO_ABSENT, NO_PRESENT, NO_PROMPT, Estimates, Undefined
from student.overlaps import Overlaps

_Bool = NDArray[np.bool_]
_Float = NDArray[np.float64]

NO_MASK = Undefined("no present prompt with complete masks was evaluated")


def mask_metrics(
    overlaps: Overlaps,
    *,
    present_n: _Bool,
    complete_n: _Bool,
    said_n: _Bool,
    image_n: NDArray[np.integer],
    rng: np.random.Generator,
    num_draws: int = NUM_DRAWS,
) -> Estimates:
    """miou, miou_everything, giou, ciou, n_acc and t_acc.

    Args:
        overlaps: Predicted masks, not gated by presence, beside the truth.
        present_n: The labels.
        complete_n: Where the masks of a present prompt are all of it; other presences count in `t_acc` alone.
        said_n: The answers.
        image_n: The image of each prompt.
        rng: Draws the images.
        num_draws: How many times.
    """
    masked_n = present_n & complete_n
    judged_n = masked_n | ~present_n
    given_n = masked_n & said_n
    iou_n = overlaps.iou_n
    generalised_n = np.where(masked_n, iou_n * said_n, ~said_n)
    area_n = np.where(given_n, overlaps.union_n, masked_n * overlaps.truth_n)
    columns = (
        iou_n * masked_n,
        ratio(overlaps.truth_n.astype(np.float64), overlaps.pixels_n.astype(np.float64), 0.0) * masked_n,
        masked_n,
        generalised_n * judged_n,
        judged_n,
        overlaps.intersection_n * given_n,
        area_n + overlaps.predicted_n * (~present_n & said_n),
        ~present_n & ~said_n,
        ~present_n,
        present_n & said_n,
        present_n,
    )
    asked = _asked(masked_n, judged_n, present_n, empty=not columns[6].any())
    return measure(per_image(columns, image_n), _figures, asked, rng=rng, num_draws=num_draws)


def _asked(masked_n: _Bool, judged_n: _Bool, present_n: _Bool, *, empty: bool) -> dict[str, int | Undefined]:
    """What each figure rests on, in the order of `_figures`."""
    num_masked, num_judged = int(masked_n.sum()), int(judged_n.sum())
    num_present = int(present_n.sum())
    no_pixel = Undefined("no pixel was predicted or true") if num_judged else NO_PROMPT
    return {
        "miou": num_masked or NO_MASK,
        "miou_everything": num_masked or NO_MASK,
        "giou": num_judged or NO_PROMPT,
        "ciou": no_pixel if empty else num_judged,
        "n_acc": len(present_n) - num_present or NO_ABSENT,
        "t_acc": num_present or NO_PRESENT,
    }


def _figures(sums: _Float) -> _Float:
    iou, everything, masked, generalised, judged, intersection, union, quiet, absent, found, present = np.moveaxis(
        sums, -1, 0
    )
    figures = (
        ratio(iou, masked, np.nan),
        ratio(everything, masked, np.nan),
        ratio(generalised, judged, np.nan),
        ratio(intersection, union, np.nan),
        ratio(quiet, absent, np.nan),
        ratio(found, present, np.nan),
    )
    return np.stack(figures, axis=-1)
