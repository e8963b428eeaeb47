"""The guards in their order: what each candidate was taken out by, and what is known of those that stay.

Every candidate has one verdict, that of the first guard that takes it. Labels come first, then a person, then a second
model, then what is inferred. What a person found absent passes all that comes after labels; what a second model did,
the guards on false alarms and scores.
"""

# C candidates, P alarms

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from manifests.errors import Reason
from manifests.sample import NegativeKind
from miners import guards
from miners.candidates import Candidates
from miners.outside import Said
from miners.pool import Pool
from miners.relation import Relation

GUARDS = (
    Reason.ANNOTATION,
    Reason.REVIEWER,
    Reason.VERIFIER,
    Reason.SEMANTIC,
    Reason.DUPLICATE,
    Reason.OVERLAP,
    Reason.SCORE,
)
PASSED = -1
LOOSEN: Mapping[Reason, str] = {
    Reason.ANNOTATION: "the labels already say that nearly everything is present; mine with a larger vocabulary",
    Reason.REVIEWER: "leave out the decisions file",
    Reason.VERIFIER: "leave out the verifier's predictions",
    Reason.SEMANTIC: "mine with a vocabulary of phrases that differ more in meaning",
    Reason.DUPLICATE: "mine pictures that are not copies of each other",
    Reason.OVERLAP: "give predictions that have masks, for pictures whose objects are labelled",
    Reason.SCORE: "raise max_false_negative_rate, or lower the margin or min_score, or raise max_score",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knowledge:
    """What the guards know beside labels and scores."""

    relation: Relation  # phrases that make each other's absence doubtful
    meaning: Relation  # those of them that follow from language alone, and not from this data's labels
    group_n: NDArray[np.int64]  # group of near-duplicates of each picture of the inventory
    verifier: Said | None = None
    decided: Said | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """The verdict on each candidate, without the score guard's."""

    verdict_c: NDArray[np.int8]  # index into GUARDS, or PASSED
    verified_c: NDArray[np.bool_]  # by a person or a second model
    annotated_c: NDArray[np.bool_]  # absent by the labels themselves


def judge(
    pool: Pool, candidates: Candidates, knowledge: Knowledge, covered_c: NDArray[np.float64] | None = None
) -> Judged:
    """The verdicts on some candidates; `covered_c` is the share of each false alarm that lies on known objects."""
    inventory = pool.inventory
    image_c, phrase_c = pool.picture_n[candidates.row_c], pool.phrase_v[candidates.column_c]
    verdict_c = np.full(len(candidates), PASSED, np.int8)

    def take(reason: Reason, rejected_c: NDArray[np.bool_]) -> None:
        verdict_c[(verdict_c == PASSED) & rejected_c] = GUARDS.index(reason)

    seen_c = modelled_c = np.zeros(len(candidates), np.bool_)
    take(Reason.ANNOTATION, guards.annotation(inventory, image_c, phrase_c))
    if knowledge.decided is not None:
        said = guards.reviewer(knowledge.decided, image_c, phrase_c)
        take(Reason.REVIEWER, said.rejected_c)
        seen_c = said.verified_c
    if knowledge.verifier is not None:
        said = guards.verifier(knowledge.verifier, image_c, phrase_c)
        take(Reason.VERIFIER, said.rejected_c & ~seen_c)
        modelled_c = said.verified_c
    take(Reason.SEMANTIC, guards.semantic(knowledge.relation, inventory, image_c, phrase_c) & ~seen_c)
    near_c = guards.duplicate(inventory, knowledge.group_n, image_c, phrase_c, relation=knowledge.relation)
    take(Reason.DUPLICATE, near_c & ~seen_c)
    if candidates.kind is NegativeKind.FALSE_ALARM and covered_c is not None:
        take(Reason.OVERLAP, guards.overlap(covered_c) & ~(seen_c | modelled_c))
    return Judged(
        verdict_c=verdict_c,
        verified_c=(seen_c | modelled_c) & (verdict_c == PASSED),
        annotated_c=guards.known_absent(inventory, image_c, phrase_c),
    )


class Space(StrEnum):
    """What the score guard compares."""

    STANDARD = "standard"  # standard scores with those of positives
    RAW = "raw"  # cosines with those of positives, as sentence-transformers does
    EVIDENCE = "evidence"  # the evidence of presence with one bound for all phrases


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreGuard:
    """How strict the score guard is, and on which scores it acts."""

    space: Space = Space.STANDARD
    relative: bool = False  # the margin is a share of the positive's score
    margin: float | None = None
    raw_bounds: bool = False  # the two below are cosines; else standard scores
    max_score: float | None = None
    min_score: float | None = None


def gaps(candidates: Candidates, judged: Judged, guard: ScoreGuard) -> NDArray[np.float64]:
    """How far each candidate lies below what its margin is compared with: its positive's score, or zero evidence.

    NaN where there is no positive, infinite for what was verified: both pass every margin. Margins on positives let one
    odd positive decide for its phrase; at equal hardness that costs about twice the false negatives of one bound on the
    evidence (decision 9), which is why the audit chooses that bound.
    """
    match guard.space:
        case Space.EVIDENCE:
            gap_c = -candidates.evidence_c
        case Space.STANDARD:
            gap_c = _below(candidates.positive_c, candidates.standard_c, relative=guard.relative)
        case Space.RAW:
            gap_c = _below(candidates.positive_score_c, candidates.score_c, relative=guard.relative)
    found: NDArray[np.float64] = np.where(judged.verified_c, np.inf, gap_c)
    return found


def _below(positive_c: NDArray[np.float64], score_c: NDArray[np.float64], *, relative: bool) -> NDArray[np.float64]:
    gap_c = positive_c - score_c
    return gap_c / np.maximum(np.abs(positive_c), np.finfo(np.float64).tiny) if relative else gap_c


def outside_range(candidates: Candidates, judged: Judged, guard: ScoreGuard) -> NDArray[np.bool_]:
    """Candidates above `max_score` or below `min_score`."""
    score_c = candidates.score_c if guard.raw_bounds else candidates.standard_c
    highest = np.inf if guard.max_score is None else guard.max_score
    lowest = -np.inf if guard.min_score is None else guard.min_score
    return ((score_c > highest) | (score_c < lowest)) & ~judged.verified_c
