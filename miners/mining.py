"""Mine one kind in one pool: judge what is proposed, take what may be taken; the audit does so on hidden labels."""

# C candidates, Q queries, N pictures of the pool, V phrases

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from manifests.errors import Reason
from manifests.sample import MinedKind
from miners.candidates import Candidates, sides
from miners.false_negatives import Trial
from miners.guards import known_absent
from miners.judging import GUARDS, PASSED, Judged, Knowledge, ScoreGuard, gaps, judge, outside_range
from miners.pool import Pool
from miners.selection import Wanted, ranks, select
from shards.inventory import Inventory
from shards.labelled import blocked

REJECTS_A_GUARD = 1000  # of one kind, hardest first, that are kept to be looked at; all are counted
_SCORE = GUARDS.index(Reason.SCORE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surveyed:
    """Judged candidates of one kind, as columns."""

    row_c: NDArray[np.int64]
    column_c: NDArray[np.int64]
    score_c: NDArray[np.float64]
    standard_c: NDArray[np.float64]
    positive_score_c: NDArray[np.float64]
    gap_c: NDArray[np.float64]
    distance_c: NDArray[np.float64]  # positive minus score, both standard
    rank_c: NDArray[np.int32]  # among those that the labels do not call present; −1 for these
    verdict_c: NDArray[np.int8]  # without margin
    verified_c: NDArray[np.bool_]
    annotated_c: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.row_c)

    def taken(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Surveyed":
        """Some of the candidates."""
        return Surveyed(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KindMined:
    """What was mined of one kind."""

    kind: MinedKind
    rows: Surveyed
    rejects: Surveyed  # of each guard the hardest, with the verdict of that guard
    num_candidates: int
    num_rejected: dict[Reason, int]
    num_spare: int
    num_short: int  # queries that took fewer rows than they might have


def survey(
    pool: Pool,
    proposed: Iterable[Candidates],
    knowledge: Knowledge,
    guard: ScoreGuard,
    covered: Callable[[Candidates], NDArray[np.float64]] | None = None,
) -> Iterator[Surveyed]:
    """The candidates with their verdicts, block by block."""
    for candidates in proposed:
        judged = judge(pool, candidates, knowledge, None if covered is None else covered(candidates))
        verdict_c = judged.verdict_c.copy()
        verdict_c[(verdict_c == PASSED) & outside_range(candidates, judged, guard)] = _SCORE
        yield _surveyed(candidates, replace(judged, verdict_c=verdict_c), guard)


def _surveyed(candidates: Candidates, judged: Judged, guard: ScoreGuard) -> Surveyed:
    listed_c = judged.verdict_c != GUARDS.index(Reason.ANNOTATION)
    return Surveyed(
        row_c=candidates.row_c,
        column_c=candidates.column_c,
        score_c=candidates.score_c,
        standard_c=candidates.standard_c,
        positive_score_c=candidates.positive_score_c,
        gap_c=gaps(candidates, judged, guard),
        distance_c=candidates.positive_c - candidates.standard_c,
        rank_c=ranks(candidates.query_c, listed_c),
        verdict_c=judged.verdict_c,
        verified_c=judged.verified_c,
        annotated_c=judged.annotated_c,
    )


def mine_kind(
    kind: MinedKind,
    surveyed: Iterable[Surveyed],
    guard: ScoreGuard,
    wanted: Wanted,
) -> KindMined:
    """The rows of one kind: what every guard and the margin let pass, as far as numbers, range and caps allow."""
    counts: Counter[int] = Counter()
    passed: list[Surveyed] = []
    rejects: list[Surveyed] = []
    num_candidates = 0
    for block in surveyed:
        verdict_c = block.verdict_c.copy()
        if guard.margin is not None:
            verdict_c[(verdict_c == PASSED) & (block.gap_c < guard.margin)] = _SCORE
        counts.update(dict(zip(*(found.tolist() for found in np.unique(verdict_c, return_counts=True)), strict=True)))
        num_candidates += len(block)
        passed.append(block.taken(verdict_c == PASSED))
        rejects = [_hardest_rejects([*rejects, replace(block, verdict_c=verdict_c).taken(verdict_c != PASSED)])]
    free = _joined(passed)
    query_c, other_c = sides(kind, free.row_c, free.column_c)
    taken_c = select(query_c, other_c, free.rank_c, np.ones(len(free), np.bool_), wanted)
    num_q = np.bincount(query_c[taken_c], minlength=len(wanted.num_q))
    return KindMined(
        kind=kind,
        rows=free.taken(taken_c),
        rejects=_joined(rejects),
        num_candidates=num_candidates,
        num_rejected={reason: counts[number] for number, reason in enumerate(GUARDS) if counts[number]},
        num_spare=int((~taken_c).sum()),
        num_short=int((num_q < wanted.num_q).sum()),
    )


def try_kind(
    kind: MinedKind,
    pool: Pool,
    surveyed: Iterable[Surveyed],
    truth: Inventory,
    wanted: Wanted,
) -> Trial:
    """The same candidates with the truth beside them, for the audit; every picture of the pool is audited.

    Candidates of which the truth says nothing are left out: they would count as right.
    """
    found = _joined(list(surveyed))
    image_c, phrase_c = pool.picture_n[found.row_c], pool.phrase_v[found.column_c]
    shown_c = blocked(truth, image_c, phrase_c)
    told_c = shown_c | known_absent(truth, image_c, phrase_c)
    found, false_c = found.taken(told_c), (shown_c & (found.rank_c >= 0))[told_c]
    query_c, other_c = sides(kind, found.row_c, found.column_c)

    def take(kept_c: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return select(query_c, other_c, found.rank_c, kept_c, wanted)

    return Trial(
        kind=str(kind),
        picture_c=found.row_c,
        num_pictures=pool.num_pictures,
        false_c=false_c,
        standard_c=found.standard_c,
        gap_c=found.gap_c,
        distance_c=found.distance_c,
        rank_c=found.rank_c,
        passed_c=found.verdict_c == PASSED,
        take=take,
    )


def _hardest_rejects(blocks: list[Surveyed]) -> Surveyed:
    """Of each guard the hardest rejects."""
    found = _joined([_likely(block) for block in blocks])
    order = np.lexsort((found.column_c, found.row_c, -found.standard_c, found.verdict_c))
    place = np.arange(len(order)) - np.searchsorted(found.verdict_c[order], found.verdict_c[order], side="left")
    return found.taken(order[place < REJECTS_A_GUARD])


def _likely(block: Surveyed) -> Surveyed:
    """The rejects of a block that may be among the hardest of their guard: the rest need not be sorted."""
    kept_c = np.zeros(len(block), np.bool_)
    for verdict in np.unique(block.verdict_c):
        here = np.flatnonzero(block.verdict_c == verdict)
        if len(here) > REJECTS_A_GUARD:
            standard_c = block.standard_c[here]
            here = here[standard_c >= np.partition(standard_c, -REJECTS_A_GUARD)[-REJECTS_A_GUARD]]
        kept_c[here] = True
    return block.taken(kept_c)


def _joined(blocks: list[Surveyed]) -> Surveyed:
    """The candidates of some blocks; none for none."""
    if not blocks:
        none, flags = np.empty(0, np.float64), np.empty(0, np.bool_)
        return Surveyed(
            row_c=none.astype(np.int64),
            column_c=none.astype(np.int64),
            score_c=none,
            standard_c=none,
            positive_score_c=none,
            gap_c=none,
            distance_c=none,
            rank_c=none.astype(np.int32),
            verdict_c=none.astype(np.int8),
            verified_c=flags,
            annotated_c=flags,
        )
    names = [field.name for field in fields(Surveyed)]
    return Surveyed(**{name: np.concatenate([getattr(block, name) for block in blocks]) for name in names})
