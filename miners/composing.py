"""Mining composed: the pool is surveyed, each kind is proposed, judged and capped, and audited for what it errs."""

# N pictures of the pool, V phrases, C crops or rows

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from manifests.errors import BuildError, NothingMinedError, Reason, TableError
from manifests.recipe import DEFAULT_RATE, SPLITS, Mine
from manifests.sample import MinedKind, NegativeKind
from miners.auditing import Audited, audit_pool
from miners.candidates import Candidates, NearKind, Searcher, false_alarms
from miners.context import can_vote
from miners.ground import Ground
from miners.judging import GUARDS, LOOSEN, ScoreGuard, Space
from miners.mined_table import MinedTable
from miners.mining import KindMined, mine_kind, survey
from miners.outside import Said
from miners.overlap import covered_share
from miners.pool import Pool, gather_pool
from miners.proposing import open_searcher, propose, require_enough, wanted_of
from miners.record import NO_INDEX, KindRecord, MiningRecord
from miners.vocabulary import load_vocabulary
from shards.inventory import Inventory
from shards.labels import phrase_id
from shards.mined import HARDEST_FIRST
from shards.splits import Assignment

log = logging.getLogger(__name__)


def mine(
    ground: Ground,
    settings: Mine,
    *,
    split: str,
    seed: int,
    folder: str,
    progress: Progress,
    kinds: Collection[NegativeKind] = HARDEST_FIRST,
) -> MinedTable:
    """The hard negatives of one split, of those of `kinds` that there is something to mine from.

    Indexes are kept in `folder`; false alarms alone need none.

    Raises:
        BuildError: the split or the vocabulary is empty or smaller than `num_negatives`, every candidate was rejected,
            or no margin keeps the rate.
        TableError: false alarms of another split.
    """
    pool = _pool_of(ground, split)
    require_enough(pool, settings)
    if ground.alarms is not None:
        _require_split(ground, ground.alarms, split)
    near = [kind for kind in HARDEST_FIRST if kind in kinds and kind is not NegativeKind.FALSE_ALARM]
    alarms = ground.alarms if NegativeKind.FALSE_ALARM in kinds else None
    bar = progress.add_task("mine", total=len(near) + (alarms is not None) + 1)
    guard, rate = score_guard(settings)
    audited = audit_pool(
        pool, near, ground.knowledge, guard, settings, rate=rate, seed=seed, split=split, folder=folder
    )
    progress.advance(bar)
    found: list[KindMined] = []
    index = NO_INDEX
    if near:
        searcher = open_searcher(pool, settings, folder, votes=can_vote(pool))
        index = str(searcher.index.record.kind)
        for kind in near:
            found.append(_mine_near(kind, ground, searcher, audited.guards[kind], settings, seed))
            progress.advance(bar)
    if alarms is not None:
        found.append(_mine_alarms(pool, ground, alarms, settings, seed))
        progress.advance(bar)
    _require_rows(found)
    record = _record(ground, pool, index, found, audited, settings, split)
    return MinedTable(pool=pool, kinds=found, record=record)


_UNGUARDED = ScoreGuard()  # a false alarm's score is a presence: no bound on likeness can be compared with it


def score_guard(settings: Mine) -> tuple[ScoreGuard, float | None]:
    """The score guard that the settings ask for, and the rate by which the audit chooses its margin, if it does.

    Where neither a margin nor a rate is given, the rate is DEFAULT_RATE.
    """
    space = Space(settings.margin_space)
    bounds = ScoreGuard(
        space=space, raw_bounds=space is Space.RAW, max_score=settings.max_score, min_score=settings.min_score
    )
    if settings.relative_margin is not None:
        return replace(bounds, relative=True, margin=settings.relative_margin), None
    if settings.absolute_margin is not None:
        return replace(bounds, margin=settings.absolute_margin), None
    rate = settings.max_false_negative_rate
    return replace(bounds, space=Space.EVIDENCE), DEFAULT_RATE if rate is None else rate


def _pool_of(ground: Ground, split: str) -> Pool:
    inventory = ground.inventory
    here = (ground.assignment.split_n == SPLITS.index(split)) & inventory.known_n()
    pictures = np.flatnonzero(here)
    if not len(pictures):
        raise BuildError(
            f"split {split} holds no picture of which anything is known; expected some. Choose another split"
        )
    if not len(ground.phrase_v):
        raise BuildError(
            f"split {split}: no phrase may be asked; expected some that the build's labels know. Choose another "
            "vocabulary"
        )
    return gather_pool(inventory, pictures, ground.phrase_v, ground.embedded, ground.texts_vd)


def _mine_near(
    kind: NearKind,
    ground: Ground,
    searcher: Searcher,
    guard: ScoreGuard,
    settings: Mine,
    seed: int,
) -> KindMined:
    wanted = wanted_of(kind, searcher.pool, settings, seed)
    surveyed = survey(searcher.pool, propose(kind, searcher, wanted), ground.knowledge, guard)
    return mine_kind(kind, surveyed, guard, wanted)


def _mine_alarms(pool: Pool, ground: Ground, alarms: Said, settings: Mine, seed: int) -> KindMined:
    kind: MinedKind = NegativeKind.FALSE_ALARM
    wanted = wanted_of(kind, pool, settings, seed)
    covered = partial(_covered, pool, alarms)
    surveyed = survey(pool, [false_alarms(pool, alarms)], ground.knowledge, _UNGUARDED, covered)
    return mine_kind(kind, surveyed, _UNGUARDED, wanted)


def _covered(pool: Pool, said: Said, candidates: Candidates) -> NDArray[np.float64]:
    image_c, phrase_c = pool.picture_n[candidates.row_c], pool.phrase_v[candidates.column_c]
    return covered_share(pool.inventory, said, image_c, phrase_c)


def _require_split(ground: Ground, alarms: Said, split: str) -> None:
    """Stop if the student was asked about pictures of another split: what it is tested on must not train it."""
    found = ground.assignment.split_n[alarms.image_p]
    strangers = np.flatnonzero(found != SPLITS.index(split))
    if len(strangers):
        row = int(alarms.image_p[strangers[0]])
        raise TableError(
            f"predictions: {ground.inventory.images['key'][row]} stands in split {SPLITS[found[strangers[0]]]}; "
            f"expected pictures of {split} alone, {len(strangers)} rows are not. Predict with --split {split}"
        )


def _require_rows(found: Sequence[KindMined]) -> None:
    """Stop if nothing at all was mined, and say what took most."""
    if any(len(kind.rows) for kind in found):
        return
    num = sum(kind.num_candidates for kind in found)
    if num_spare := sum(kind.num_spare for kind in found):
        raise NothingMinedError(
            f"{num_spare} of {num} candidates passed every guard, but none lies between range_min and range_max; "
            "expected some. Lower range_min, or raise range_max"
        )
    taken = {guard: sum(kind.num_rejected.get(guard, 0) for kind in found) for guard in GUARDS}
    inferred = {guard: num for guard, num in taken.items() if num and guard is not Reason.ANNOTATION}
    worst = max(inferred or taken, key=lambda guard: taken[guard])  # what labels call present, no setting changes
    others = ", ".join(f"{guard} {num}" for guard, num in taken.items() if num and guard is not worst)
    besides = f" (besides: {others})" if others else ""
    raise NothingMinedError(
        f"every one of {num} candidates was rejected, {taken[worst]} of them by the guard {str(worst)!r}{besides}; "
        f"expected some to pass. To loosen it: {LOOSEN[worst]}"
    )


def _record(
    ground: Ground,
    pool: Pool,
    index: str,
    found: Sequence[KindMined],
    audited: Audited,
    settings: Mine,
    split: str,
) -> MiningRecord:
    return MiningRecord(
        split=split,
        encoder=ground.encoder,
        encoder_why=ground.encoder_why,
        encoder_digest=ground.encoder_digest,
        embeddings_digest=ground.embedded.digest,
        pictures=pool.num_pictures,
        phrases=pool.num_phrases,
        index=index,
        settings=settings,
        kinds=[_kind_record(kind, audited.guards.get(kind.kind, _UNGUARDED)) for kind in found],
        audit=audited.audit,
        no_audit=audited.no_audit,
    )


def _kind_record(found: KindMined, guard: ScoreGuard) -> KindRecord:
    distance_c = found.rows.distance_c[np.isfinite(found.rows.distance_c)]
    return KindRecord(
        kind=str(found.kind),
        candidates=found.num_candidates,
        rejected={str(reason): num for reason, num in found.num_rejected.items()},
        spare=found.num_spare,
        rows=len(found.rows),
        short=found.num_short,
        margin=guard.margin if guard.margin is not None and np.isfinite(guard.margin) else None,
        mean_standard_score=float(found.rows.standard_c.mean()) if len(found.rows) else 0.0,
        mean_distance=float(distance_c.mean()) if len(distance_c) else 0.0,
    )


def vocabulary_of(inventory: Inventory, assignment: Assignment, vocabulary: str) -> NDArray[np.int32]:
    """Phrases that may be asked, as numbers in the order of their texts: those present in train, or those of a file.

    Raises:
        RecipeError: the file is no vocabulary.
    """
    if vocabulary == "present":
        rows, _ = inventory.present(np.flatnonzero(assignment.split_n == SPLITS.index("train")))
        found = np.unique(inventory.labels.phrase_l[rows]).tolist()
    else:
        read = load_vocabulary(vocabulary)
        wanted = {phrase_id(text) for text in read.phrases}
        found = [v for v, phrase in enumerate(inventory.phrases) if phrase_id(phrase) in wanted]
        passed_over = read.num_repeated, read.num_blank, len(wanted) - len(found)
        if any(passed_over):
            log.info(
                "vocabulary %s: %d repeated and %d blank lines and %d phrases that no label knows are passed over",
                vocabulary,
                *passed_over,
            )
    return np.array(sorted(found, key=lambda v: inventory.phrases[v]), np.int32)
