"""Whether a presence of 0.8 is right eight times in ten; and the temperature and the threshold, fitted on val.

Labels of one side alone leave calibration undefined: who always says 1 is perfectly calibrated where all is present.
"""

# N prompts, B bins, T thresholds

import numpy as np
from numpy.typing import NDArray

from student import confusion
from student.bootstrap import NUM_DRAWS, measure, per_image
from student.estimates import Estimates, Value, one_sided
from student.readings import Bin

NUM_BINS = 15
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
CLIP = 1e-6  # presences are kept that far from 0 and 1 before they become logits
_HALVINGS = 60

_Bool = NDArray[np.bool_]
_Float = NDArray[np.float64]
_Presence = NDArray[np.floating]


def calibration(
    presence_n: _Presence,
    present_n: _Bool,
    image_n: NDArray[np.integer],
    *,
    rng: np.random.Generator,
    num_draws: int = NUM_DRAWS,
) -> Estimates:
    """ece, the expected calibration error over 15 bins of equal width, and brier, the mean squared error.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599), eq. 3, on the probability of
    presence; Brier (1950).
    """
    num = one_sided(present_n) or len(present_n)
    error_n = presence_n.astype(np.float64) - present_n
    bin_n = bins(presence_n)
    columns = [error_n * (bin_n == place) for place in range(NUM_BINS)]
    counts_ic = per_image([*columns, error_n**2, np.ones_like(error_n)], image_n)
    return measure(counts_ic, _errors, {"ece": num, "brier": num}, rng=rng, num_draws=num_draws)


def _errors(sums: _Float) -> _Float:
    num = sums[..., NUM_BINS + 1]
    return np.stack([np.abs(sums[..., :NUM_BINS]).sum(axis=-1) / num, sums[..., NUM_BINS] / num], axis=-1)


def bins(presence_n: _Presence) -> NDArray[np.int64]:
    """The bin of each presence [N]: bin b holds b/15 up to, but not including, (b + 1)/15, and the last one 1."""
    bin_n: NDArray[np.int64] = np.minimum((presence_n.astype(np.float64) * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    return bin_n


def reliability(presence_n: _Presence, present_n: _Bool) -> list[Bin]:
    """The reliability curve: every bin in which a presence lies."""
    bin_n = bins(presence_n)
    num_b = np.bincount(bin_n, minlength=NUM_BINS)
    presence_b = np.bincount(bin_n, weights=presence_n, minlength=NUM_BINS)
    present_b = np.bincount(bin_n, weights=present_n, minlength=NUM_BINS)
    return [
        Bin(
            mean_presence=float(presence_b[b] / num_b[b]),
            share_present=float(present_b[b] / num_b[b]),
            num=int(num_b[b]),
        )
        for b in np.flatnonzero(num_b)
    ]


def scaled(presence_n: _Presence, temperature: float) -> _Float:
    """The presences [N] whose logits are divided by `temperature`."""
    return _sigmoid(_logits(presence_n) / temperature)


def fit_temperature(presence_n: _Presence, present_n: _Bool) -> Value:
    """The temperature, 0.05 to 20, under which the labels are likeliest; 1 where every presence is 0.5.

    The likelihood has one maximum in 1/T, where Σ logit x (presence - label) crosses 0 from below.

    Source: Guo et al. (arXiv 1706.04599), section 4.2.
    """
    undefined = one_sided(present_n)
    if undefined:
        return undefined
    logit_n = _logits(presence_n)
    if not logit_n.any():
        return 1.0
    low, high = np.log(1 / MAX_TEMPERATURE), np.log(1 / MIN_TEMPERATURE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = float(logit_n @ (_sigmoid(np.exp(middle) * logit_n) - present_n))
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def choose_threshold(presence_n: _Presence, present_n: _Bool) -> Value:
    """The threshold of the largest MCC, of equal ones that nearest to 0.5; "present" is said from the threshold on.

    Tried are 0.5, the middle between any two neighbouring presences, and the smallest of all.
    """
    undefined = one_sided(present_n)
    if undefined:
        return undefined
    threshold_t = _thresholds(presence_n)
    mcc_t = mcc_at(threshold_t, presence_n, present_n)
    best = threshold_t[mcc_t >= mcc_t.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def mcc_at(threshold_t: _Float, score_n: _Presence, present_n: _Bool) -> _Float:
    """The MCC of "present from this threshold on" for each threshold [T]."""
    scores = score_n.astype(np.float64)
    present, absent = np.sort(scores[present_n]), np.sort(scores[~present_n])
    fn = np.searchsorted(present, threshold_t, side="left").astype(np.float64)
    tn = np.searchsorted(absent, threshold_t, side="left").astype(np.float64)
    return confusion.mcc(confusion.Confusion(tp=len(present) - fn, fp=len(absent) - tn, fn=fn, tn=tn))


def _thresholds(presence_n: _Presence) -> _Float:
    """What `choose_threshold` tries; a middle is a float32, as presences in tables are, so that both compare alike."""
    distinct = np.unique(presence_n.astype(np.float64))
    lower, upper = distinct[:-1], distinct[1:]
    middle = ((lower + upper) / 2).astype(np.float32).astype(np.float64)
    middle = np.where((middle > lower) & (middle <= upper), middle, upper)
    return np.concatenate(([0.5], distinct[:1], middle))


def _logits(presence_n: _Presence) -> _Float:
    clipped = np.clip(presence_n.astype(np.float64), CLIP, 1 - CLIP)
    logit_n: _Float = np.log(clipped) - np.log1p(-clipped)
    return logit_n


def _sigmoid(logit_n: _Float) -> _Float:
    sigmoid_n: _Float = 0.5 * (1 + np.tanh(logit_n / 2))
    return sigmoid_n
