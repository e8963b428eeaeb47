"""Run the mining audit of a pool: hide, propose, judge, and read or choose the margins."""

# N pictures of the pool, A audited pictures

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from manifests.errors import BuildError
from manifests.recipe import Mine
from manifests.sample import MinedKind
from miners.candidates import NearKind
from miners.confusable import confusable_relation, find_confusable
from miners.context import can_vote
from miners.false_negatives import (
    ASSUMPTION,
    Audit,
    Hidden,
    Trial,
    audit_kind,
    choose_margin,
    hide_presences,
    margins_of,
)
from miners.judging import Knowledge, ScoreGuard
from miners.mining import survey, try_kind
from miners.pool import Pool
from miners.proposing import open_searcher, propose, wanted_of
from shards.inventory import Inventory
from shards.splits import seeded_hash

MAX_AUDITED = 20_000  # pictures, drawn by hash: their candidates are held in memory together
FEWEST_AUDITED = 20  # and never fewer than 1 ÷ rate, since conformal risk control adds one lost picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Audited:
    """How strict each kind is mined, and what an audit says of that."""

    guards: Mapping[MinedKind, ScoreGuard]
    audit: Audit | None = None
    no_audit: str = ""  # why there is none


def auditable(pool: Pool) -> NDArray[np.int64]:
    """Rows of the pool whose labels are exhaustive over any of its phrases, at most MAX_AUDITED of them."""
    inventory = pool.inventory
    exhaustive_g = np.any(inventory.vocabulary_g[:, pool.phrase_v], axis=1)
    rows = np.flatnonzero(exhaustive_g[inventory.group_n[pool.picture_n]])
    order = np.lexsort((rows, seeded_hash(inventory.content_n[pool.picture_n[rows]], "audit")))
    return np.sort(rows[order[:MAX_AUDITED]])


def run_trials(
    pool: Pool,
    kinds: Sequence[NearKind],
    knowledge: Knowledge,
    guard: ScoreGuard,
    settings: Mine,
    *,
    seed: int,
    folder: str,
) -> tuple[Hidden, list[Trial]]:
    """The candidates of each kind, mined from the pool's auditable pictures with a share of their presences hidden."""
    audited = pool.restricted(auditable(pool))
    rng = np.random.default_rng([seed, 5])
    hidden = hide_presences(pool.inventory, audited.picture_n, settings.hidden_share, rng)
    blind = audited.with_labels(hidden.inventory)
    searcher = open_searcher(blind, settings, folder, votes=can_vote(pool))
    blinded = _without_labels(knowledge, hidden.inventory, audited.picture_n)
    trials = []
    for kind in kinds:
        wanted = wanted_of(kind, blind, settings, seed)
        found = survey(blind, propose(kind, searcher, wanted), blinded, guard)
        trials.append(try_kind(kind, blind, found, pool.inventory, wanted))
    return hidden, trials


def _without_labels(knowledge: Knowledge, blind: Inventory, pictures: NDArray[np.int64]) -> Knowledge:
    """What the guards would know had the hidden labels never been there."""
    confused = confusable_relation(find_confusable(blind, pictures), len(blind.phrases))
    return replace(knowledge, relation=knowledge.meaning | confused, decided=None)


def audit_pool(
    pool: Pool,
    kinds: Sequence[NearKind],
    knowledge: Knowledge,
    guard: ScoreGuard,
    settings: Mine,
    *,
    rate: float | None,
    seed: int,
    split: str,
    folder: str,
) -> Audited:
    """The audit, and the score guard of each kind: with `rate` the hardest margin that keeps it, else `guard` itself.

    False alarms are not among the kinds: what a student answers is not proposed anew once labels are hidden.

    Raises:
        BuildError: there are too few exhaustive pictures to choose by, or no margin keeps the rate.
    """
    if not kinds:
        return Audited(guards={}, no_audit="only false alarms were mined, which no audit proposes anew")
    num_audited = len(auditable(pool))
    fewest = FEWEST_AUDITED if rate is None else max(FEWEST_AUDITED, math.ceil(1 / rate))
    if num_audited < fewest:
        if rate is not None:
            raise BuildError(
                f"split {split}: max_false_negative_rate = {rate:g} asks the audit to choose the margin, but only "
                f"{num_audited} pictures have exhaustive labels; expected at least {fewest}. Add a source whose "
                "labels are exhaustive (COCO), or give relative_margin or absolute_margin instead"
            )
        return Audited(guards=dict[MinedKind, ScoreGuard].fromkeys(kinds, guard), no_audit=_too_few(num_audited))
    hidden, trials = run_trials(pool, kinds, knowledge, guard, settings, seed=seed, folder=folder)
    rng = np.random.default_rng([seed, 6])
    guards: dict[MinedKind, ScoreGuard] = {
        kind: guard if rate is None else _chosen(trial, guard, rate) for kind, trial in zip(kinds, trials, strict=True)
    }
    audits = [audit_kind(trial, _margin(guards[kind]), rng) for kind, trial in zip(kinds, trials, strict=True)]
    audit = Audit(
        split=split,
        hidden_share=settings.hidden_share,
        num_hidden=hidden.num_hidden,
        max_false_negative_rate=rate,
        assumption=ASSUMPTION,
        kinds=audits,
    )
    return Audited(guards=guards, audit=audit)


def _too_few(num_audited: int) -> str:
    if not num_audited:
        return "no picture has exhaustive labels"
    return f"only {num_audited} pictures have exhaustive labels; it takes {FEWEST_AUDITED}"


def _chosen(trial: Trial, guard: ScoreGuard, rate: float) -> ScoreGuard:
    margin = choose_margin(trial, margins_of(trial).tolist(), rate)
    if margin is None:
        raise BuildError(
            f"{trial.kind}: no margin keeps the false negative rate at {rate:g} over {trial.num_pictures} audited "
            "pictures; expected one that mines anything. Raise max_false_negative_rate, or name a better encoder"
        )
    return replace(guard, margin=margin)


def _margin(guard: ScoreGuard) -> float:
    return -np.inf if guard.margin is None else guard.margin
