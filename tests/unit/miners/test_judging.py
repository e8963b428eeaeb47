"""The guards in their order on one pool: each takes the pair that was made for it, and no reason is left over."""

from collections import Counter

import numpy as np

from manifests.errors import Reason
from manifests.sample import NegativeKind
from miners.candidates import Candidates
from miners.judging import GUARDS, PASSED, ScoreGuard, judge, outside_range
from miners.pool import gather_pool
from shards.inventory import ABSENT, PRESENT
from tests.grounds import make_ground
from tests.unit.miners.test_hard_negatives import said

# picture 0 shows phrase 0; pictures 0 and 1 are near-copies; phrase 0 makes phrase 3 doubtful
PAIRS = {
    Reason.ANNOTATION: (0, 0),
    Reason.REVIEWER: (2, 4),
    Reason.VERIFIER: (2, 5),
    Reason.SEMANTIC: (0, 3),
    Reason.DUPLICATE: (1, 0),
    Reason.OVERLAP: (3, 4),
    Reason.SCORE: (3, 5),
    "": (3, 2),
}


def test_each_guard_takes_the_pair_made_for_it_and_the_last_pair_passes() -> None:
    states = np.full((4, 6), ABSENT, np.int8)
    states[0, 0] = PRESENT
    ground = make_ground(
        4,
        6,
        states_nv=states,
        group_n=np.array([0, 0, 2, 3]),
        doubtful=[(0, 3)],
        decided=said({PAIRS[Reason.REVIEWER]: 1.0}, 6),
        verifier=said({PAIRS[Reason.VERIFIER]: 0.9}, 6),
    )
    pool = gather_pool(ground.inventory, np.arange(4), ground.phrase_v, ground.embedded, ground.texts_vd)
    nothing = np.full(len(PAIRS), np.nan)
    candidates = Candidates(
        kind=NegativeKind.FALSE_ALARM,
        row_c=np.array([image for image, _ in PAIRS.values()]),
        column_c=np.array([phrase for _, phrase in PAIRS.values()]),
        score_c=np.where(np.array(list(PAIRS)) == Reason.SCORE, 0.99, 0.5),
        standard_c=nothing,
        evidence_c=nothing,
        positive_c=nothing,
        positive_score_c=nothing,
    )
    covered_c = np.where(np.array(list(PAIRS)) == Reason.OVERLAP, 0.0, 1.0)
    judged = judge(pool, candidates, ground.knowledge, covered_c)
    outside_c = outside_range(candidates, judged, ScoreGuard(raw_bounds=True, max_score=0.9))
    verdict_c = np.where((judged.verdict_c == PASSED) & outside_c, GUARDS.index(Reason.SCORE), judged.verdict_c)
    verdicts = ["" if verdict == PASSED else GUARDS[verdict] for verdict in verdict_c.tolist()]
    assert verdicts == list(PAIRS)
    assert Counter(verdicts).keys() - {""} == set(GUARDS)
    seen_c = judged.verified_c
    low_c = outside_range(candidates, judged, ScoreGuard(raw_bounds=True, min_score=0.6))
    assert np.array_equal(low_c, (candidates.score_c < 0.6) & ~seen_c)
    assert low_c.any()
    assert not outside_range(candidates, judged, ScoreGuard(raw_bounds=True)).any()
