"""Blind baselines: how well presence is guessed from the phrase alone, or from the source alone, without the picture.

A guesser knows of each other prompt whether it is present (leave-one-out) and bets on the share in the prompt's group.
Plainly done, that share is lower for a presence than for an absence of the same group, as the prompt itself is missing:
where all groups are alike, the AUC would be 0 where there is nothing to know. So one vote is no evidence: the guesser
bets only on the excess, beside the overall share, that goes beyond one prompt.
"""

# N prompts, G groups

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from student import confusion
from student.bootstrap import NUM_DRAWS, measure
from student.calibration import mcc_at
from student.estimates import Estimates, one_sided
from student.presence_metrics import presence_auc

SMOOTHING = 10  # as in the build's audit (shards.shortcuts)

_Bool = NDArray[np.bool_]
_Float = NDArray[np.float64]


def blind(
    group_n: NDArray[np.integer],
    present_n: _Bool,
    image_n: NDArray[np.integer],
    *,
    name: Literal["phrase", "source"],
    rng: np.random.Generator,
    num_draws: int = NUM_DRAWS,
) -> Estimates:
    """blind_<name>_auc, and blind_<name>_mcc at the threshold that is best for these very prompts."""
    auc_key, mcc_key = f"blind_{name}_auc", f"blind_{name}_mcc"
    undefined = one_sided(present_n)
    if undefined:
        return {auc_key: undefined, mcc_key: undefined}
    score_n = left_out_scores(group_n, present_n)
    found = {auc_key: presence_auc(score_n, present_n, image_n, rng=rng, num_draws=num_draws)}
    threshold_t = np.unique(score_n)
    threshold = threshold_t[np.argmax(mcc_at(threshold_t, score_n, present_n))]
    counts_ic = confusion.count(score_n >= threshold, present_n, image_n)
    return found | measure(counts_ic, _mcc, {mcc_key: len(present_n)}, rng=rng, num_draws=num_draws)


def left_out_scores(group_n: NDArray[np.integer], present_n: _Bool) -> _Float:
    """How far a group's other prompts lie above (or below) the overall share of presences [N], less one vote.

    Of the n other prompts p are present, and a share s of all other prompts: the score is the excess p - n s, moved
    towards 0 by 1, over n + 10.
    """
    _, place_n = np.unique(group_n, return_inverse=True)
    others_n = np.bincount(place_n)[place_n] - 1
    present_others_n = np.bincount(place_n, weights=present_n)[place_n] - present_n
    share_n = (present_n.sum() - present_n) / max(len(present_n) - 1, 1)
    excess_n = present_others_n - others_n * share_n
    beyond_n = np.sign(excess_n) * np.maximum(np.abs(excess_n) - 1, 0)
    score_n: _Float = np.round(beyond_n / (others_n + SMOOTHING), 12)  # equal scores are equal to the last bit
    return score_n


def _mcc(sums: _Float) -> _Float:
    counts = confusion.confusion_of(sums)
    return confusion.only_two_sided(confusion.mcc(counts), counts)[..., None]
