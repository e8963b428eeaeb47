"""Whether a model knows what is there: precision, recall, F1, MCC, AUC, and false alarms by kind of absence.

One-sided labels leave presence undefined: a model that always says "present" is perfect where everything is.
"""

# N prompts, I images, D draws, P present prompts, A absent prompts

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from manifests.sample import KINDS
from manifests.statistics import auc
from student import confusion
from student.bootstrap import NUM_DRAWS, bounds, draw_weights, measure, per_image, ratio
from student.estimates import Estimate, Estimated, Estimates, Undefined, one_sided

_Bool = NDArray[np.bool_]
_Float = NDArray[np.float64]
_Images = NDArray[np.integer]

_AUC_BLOCK = 1 << 22  # weights of prompts that are held at once
_PRESENCE = {
    "presence_precision": confusion.precision,
    "presence_recall": confusion.recall,
    "presence_f1": confusion.f1,
    "absence_f1": confusion.absence_f1,
    "il_mcc": confusion.mcc,
    "il_fpr": confusion.false_positive_rate,
}


def says_present(presence_n: NDArray[np.floating], threshold: float) -> _Bool:
    """Where the answer is "present": from the threshold on, compared in float64."""
    said_n: _Bool = presence_n.astype(np.float64) >= threshold
    return said_n


def presence_metrics(
    said_n: _Bool, present_n: _Bool, image_n: _Images, *, rng: np.random.Generator, num_draws: int = NUM_DRAWS
) -> Estimates:
    """presence_precision, presence_recall, presence_f1, absence_f1, il_mcc and il_fpr of the answers `said_n`.

    Source: IL_MCC and IL_FPR are the image-level figures of SAM 3 (arXiv 2511.16719); an "image" there is a prompt.
    """
    num = one_sided(present_n) or len(present_n)
    counts_ic = confusion.count(said_n, present_n, image_n)
    return measure(counts_ic, _presence, dict.fromkeys(_PRESENCE, num), rng=rng, num_draws=num_draws)


def _presence(sums: _Float) -> _Float:
    counts = confusion.confusion_of(sums)
    return np.stack([confusion.only_two_sided(figure(counts), counts) for figure in _PRESENCE.values()], axis=-1)


def presence_auc(
    presence_n: NDArray[np.floating],
    present_n: _Bool,
    image_n: _Images,
    *,
    rng: np.random.Generator,
    num_draws: int = NUM_DRAWS,
) -> Estimated:
    """Probability that a present prompt scores above an absent one, ties counting half."""
    undefined = one_sided(present_n)
    if undefined:
        return undefined
    scores_n = presence_n.astype(np.float64)
    value = np.array([auc(scores_n, present_n)])
    images, place_n = np.unique(image_n, return_inverse=True)
    order = np.argsort(scores_n[~present_n], kind="stable")
    absent_a = scores_n[~present_n][order]
    image_a, image_p = place_n[~present_n][order], place_n[present_n]
    below_p = np.searchsorted(absent_a, scores_n[present_n], side="left")
    up_to_p = np.searchsorted(absent_a, scores_n[present_n], side="right")
    step = max(1, _AUC_BLOCK // len(present_n))
    drawn = [
        _weighted_auc(weights_di[start : start + step], image_p, image_a, below_p, up_to_p)
        for weights_di in draw_weights(len(images), rng, num_draws)
        for start in range(0, len(weights_di), step)
    ]
    low, high = bounds(np.concatenate(drawn)[:, None], value)
    return Estimate(value=float(value[0]), low=float(low[0]), high=float(high[0]), num=len(present_n))


def _weighted_auc(
    weights_di: _Float,
    image_p: NDArray[np.intp],
    image_a: NDArray[np.intp],
    below_p: NDArray[np.intp],
    up_to_p: NDArray[np.intp],
) -> _Float:
    """The AUC of each draw [D], NaN where one side was not drawn.

    `below_p` and `up_to_p` count the absent prompts, in order of score, that a present one beats, and those it at
    least equals.
    """
    absent_da = np.zeros((len(weights_di), len(image_a) + 1))
    np.cumsum(weights_di[:, image_a], axis=1, out=absent_da[:, 1:])
    present_dp = weights_di[:, image_p]
    beaten_dp = absent_da[:, below_p] + absent_da[:, up_to_p]
    pairs_d = present_dp.sum(axis=1) * absent_da[:, -1]
    return ratio(np.einsum("dp,dp->d", present_dp, beaten_dp) / 2, pairs_d, np.nan)


def hallucination(
    said_n: _Bool,
    present_n: _Bool,
    kind_n: Sequence[str] | NDArray[np.str_],
    image_n: _Images,
    *,
    rng: np.random.Generator,
    num_draws: int = NUM_DRAWS,
) -> Estimates:
    """hallucination_<kind> for every kind: the share of its absent prompts that were answered "present".

    Kinds are never pooled: blank pictures are easy, look-alikes are not.
    """
    kind_of_n = kind_codes(kind_n)
    columns: list[_Bool] = []
    asked: dict[str, int | Undefined] = {}
    for code, kind in enumerate(KINDS):
        here_n = (kind_of_n == code) & ~present_n
        columns += [here_n & said_n, here_n]
        asked[f"hallucination_{kind}"] = int(here_n.sum()) or Undefined(f"no {kind} prompt was asked")
    return measure(per_image(columns, image_n), _shares, asked, rng=rng, num_draws=num_draws)


def _shares(sums: _Float) -> _Float:
    return ratio(sums[..., 0::2], sums[..., 1::2], np.nan)


def kind_codes(kind_n: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
    """The place of each kind in `KINDS` [N]; -1 for a presence ("")."""
    kinds = np.asarray(kind_n, np.str_)
    code_n = np.full(len(kinds), -1, np.int64)
    for code, kind in enumerate(KINDS):
        code_n[kinds == str(kind)] = code
    return code_n
