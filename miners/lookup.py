"""Which phrase of a vocabulary a crop shows: the best one, and how far off the next that says something else is.

Pure functions over arrays. Scores are standard scores: how many standard deviations a crop's cosine with a phrase lies
above its mean over a fixed set of phrases, so that they mean the same whatever vocabulary is asked. A synonym of the
best phrase, or one that is broader or narrower, is no rival of it: a dog is an animal, and may be a puppy.
"""

# C crops, V phrases of the vocabulary, R phrases of the reference, D width

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.labels import Lexicon

_FLAT = 1e-6  # a deviation of cosines that is nothing but rounding
NO_RIVAL = np.float32(np.inf)  # the margin where every other phrase says the same


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lookup:
    """The best phrase of every crop."""

    phrase_c: NDArray[np.int64]
    score_c: NDArray[np.float32]
    margin_c: NDArray[np.float32]  # to the best rival; NO_RIVAL where there is none


def related_phrases(vocabulary: Sequence[str], lexicon: Lexicon) -> list[NDArray[np.int64]]:
    """For each phrase the sorted places of those that do not contradict it: itself, synonyms, broader and narrower."""
    broader = lexicon.closure(vocabulary)
    related = [set(places.tolist()) for places in broader]
    for place, above in enumerate(broader):
        for other in above.tolist():
            related[other].add(place)
    return [np.array(sorted(places), np.int64) for places in related]


def standard_scores(
    crops_cd: NDArray[np.float32], texts_vd: NDArray[np.float32], reference_rd: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores of every crop with every phrase [C, V], standardised crop by crop over the reference.

    A crop that is equally near to all of the reference scores 0 with every phrase.
    """
    reference_cr = crops_cd @ reference_rd.T
    mean_c1 = reference_cr.mean(1, keepdims=True)
    deviation_c1 = reference_cr.std(1, keepdims=True)
    deviation_c1[deviation_c1 < _FLAT] = np.inf
    scores_cv: NDArray[np.float32] = (crops_cd @ texts_vd.T - mean_c1) / deviation_c1
    return scores_cv


def look_up(scores_cv: NDArray[np.float32], related: Sequence[NDArray[np.int64]]) -> Lookup:
    """The best phrase of every crop; of equal scores the first phrase wins. `scores_cv` is overwritten."""
    rows = np.arange(len(scores_cv))
    phrase_c = scores_cv.argmax(1)
    score_c = scores_cv[rows, phrase_c]
    for phrase in np.unique(phrase_c).tolist():
        scores_cv[np.ix_(phrase_c == phrase, related[phrase])] = -np.inf
    return Lookup(phrase_c=phrase_c, score_c=score_c, margin_c=(score_c - scores_cv.max(1)).astype(np.float32))
