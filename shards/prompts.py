"""Which phrases each image is asked: absent ones by kind, in exact numbers, with a prior that gives nothing away.

The rules, in this order: (1) nothing present or left open is ever asked as absent; (2) the count per image; (3) the
shares of the kinds; (4) each phrase is asked absent in proportion to how often it is asked present. 1 is absolute, 2
and 3 are exact where candidates suffice, 4 is best effort and read by the audit. Kinds follow POPE (Li et al., 2023,
arXiv 2305.10355): random, popular, and co_occurring, which the paper calls adversarial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from manifests.recipe import Prompts
from manifests.sample import Evidence, NegativeKind
from shards.allotment import absent_by_source, count_absent, share_kinds
from shards.candidates import BLOCK_CELLS, Candidates, Statistics, hardness
from shards.inventory import Inventory
from shards.mixing import apportion

# N real samples of a split, Q prompts, V phrases, C candidate phrases (columns), B samples of a block
KINDS = tuple(NegativeKind)
NO_KIND = -1
NO_LABEL = -1
HARD_FIRST = (NegativeKind.CO_OCCURRING, NegativeKind.POPULAR, NegativeKind.RANDOM)
POOL_FACTOR = 4  # a hard kind chooses among this many times as many of its hardest phrases as it needs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """Prompts of a split's real samples, sorted by sample: presences first, then absences, hard kinds first."""

    sample_q: NDArray[np.int64]  # index of the sample among those given
    phrase_q: NDArray[np.int32]
    kind_q: NDArray[np.int8]  # index into KINDS, NO_KIND where present
    label_q: NDArray[np.int64]  # label row where present, else NO_LABEL
    notes: tuple[str, ...] = ()  # one sentence per shortfall
    requested: Mapping[str, float] = field(default_factory=dict)  # absent prompts by kind
    absent_requested: Mapping[int, float] = field(default_factory=dict)  # absent prompts by source


def asks_absences(settings: Prompts) -> bool:
    """Whether train asks any absence that labels can give."""
    return settings.absent_per_image > 0 and Evidence.ANNOTATED in settings.evidence


def choose_present(
    inventory: Inventory, pictures: NDArray[np.int64], limit: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Label rows to be asked as present and the sample of each: all, or `limit` per sample drawn at random."""
    rows, owner = inventory.present(pictures)
    if limit is None:
        return rows, owner
    order = np.lexsort((rng.random(len(rows)), owner))
    first = np.searchsorted(owner[order], owner[order], side="left")
    kept = np.sort(order[np.arange(len(order)) - first < limit])
    return rows[kept], owner[kept]


def ask_train(
    candidates: Candidates,
    statistics: Statistics,
    pictures: NDArray[np.int64],
    settings: Prompts,
    rng: np.random.Generator,
) -> Asked:
    """Prompts of the train samples, by the four rules."""
    inventory = candidates.inventory
    rows, owner = choose_present(inventory, pictures, settings.present_per_image, rng)
    num_present_n = np.bincount(owner, minlength=len(pictures))
    kinds = [kind for kind in HARD_FIRST if settings.kinds.get(kind, 0) > 0 and asks_absences(settings)]
    room_nk = _room(candidates, statistics, pictures, kinds)
    wanted_s = absent_by_source(inventory.source_n[pictures], num_present_n, room_nk.max(axis=1), settings)
    count_n = count_absent(inventory.source_n[pictures], wanted_s, room_nk.max(axis=1), num_present_n)
    shares = [settings.kinds[kind] for kind in kinds]
    count_nk = share_kinds(count_n, shares, room_nk)
    requested = apportion(round(sum(wanted_s.values())), shares) if shares else []
    present_c = _per_column(candidates, inventory.labels.phrase_l[rows])
    target_c = present_c * (count_n.sum() / max(1, len(rows)))
    sample, column, kind = _draw(candidates, statistics, pictures, kinds, count_nk, target_c, rng)
    notes = _shortfalls(kinds, requested, kind, inventory, wanted_s, count_n, inventory.source_n[pictures])
    return _assemble(
        inventory,
        rows,
        owner,
        (sample, candidates.columns[column], kind),
        notes=notes,
        requested={str(k): float(n) for k, n in zip(kinds, requested, strict=True)},
        absent_requested=wanted_s,
    )


def _room(
    candidates: Candidates, statistics: Statistics, pictures: NDArray[np.int64], kinds: Sequence[NegativeKind]
) -> NDArray[np.int64]:
    """How many candidates of each kind each sample has."""
    room_nk = np.zeros((len(pictures), max(1, len(kinds))), np.int64)
    for block in candidates.blocks(pictures):
        allowed_bc, present_bc = candidates.allowed(pictures[block]), candidates.present(pictures[block])
        for k, kind in enumerate(kinds):
            room_nk[block, k] = (allowed_bc & (hardness(kind, statistics, present_bc) > 0)).sum(axis=1)
    return room_nk


def _per_column(candidates: Candidates, phrases: NDArray[np.int32]) -> NDArray[np.int64]:
    column = candidates.column_v[phrases]
    return np.bincount(column[column >= 0], minlength=len(candidates.columns))


def _draw(
    candidates: Candidates,
    statistics: Statistics,
    pictures: NDArray[np.int64],
    kinds: Sequence[NegativeKind],
    count_nk: NDArray[np.int64],
    target_c: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    """Sample, column and kind of every absence; the softest kind is drawn last, to even out the prior."""
    asked_c = np.zeros(len(target_c), np.int64)
    taken: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]] = []
    drawn: dict[int, list[NDArray[np.int64]]] = {}
    for k, kind in enumerate(kinds):
        for number, block in enumerate(candidates.blocks(pictures)):
            allowed_bc = candidates.allowed(pictures[block])
            for earlier in drawn.get(number, ()):
                allowed_bc[tuple(earlier)] = False
            hardness_bc = hardness(kind, statistics, candidates.present(pictures[block]))
            pool_bc = _pool(allowed_bc, hardness_bc, count_nk[block, k], everything=kind is NegativeKind.RANDOM)
            picked = _pick(pool_bc, count_nk[block, k], target_c - asked_c, rng)
            drawn.setdefault(number, []).append(np.stack(picked))
            asked_c += np.bincount(picked[1], minlength=len(asked_c))
            taken.append((block[picked[0]], picked[1], np.full(len(picked[0]), KINDS.index(kind), np.int8)))
    if not taken:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8)
    sample, column, kind_q = (np.concatenate(c) for c in zip(*taken, strict=True))
    return sample, column, kind_q


def _pool(
    allowed_bc: NDArray[np.bool_], hardness_bc: NDArray[np.float64], count_b: NDArray[np.int64], *, everything: bool
) -> NDArray[np.bool_]:
    """The candidates that a kind draws from: the POOL_FACTOR × count hardest, ties by column; or all."""
    known_bc = allowed_bc & (hardness_bc > 0)
    if everything:
        return known_bc
    order = np.argsort(np.where(known_bc, -hardness_bc, np.inf), axis=1, kind="stable")
    rank_bc = np.empty_like(order)
    np.put_along_axis(rank_bc, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
    pool_bc: NDArray[np.bool_] = known_bc & (rank_bc < POOL_FACTOR * count_b[:, None])
    return pool_bc


def _pick(
    pool_bc: NDArray[np.bool_], count_b: NDArray[np.int64], lacking_c: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of `count_b` cells per row, without replacement, in proportion to what each column still lacks.

    Source: Gumbel top-k (Kool et al., 2019, arXiv 1903.06059).
    """
    noise_bc = rng.gumbel(size=pool_bc.shape)
    weight_c = np.log(np.maximum(lacking_c, 1e-3))
    priority_bc = np.where(pool_bc, weight_c + noise_bc, -np.inf)
    order = np.argsort(-priority_bc, axis=1, kind="stable")
    num_b = np.minimum(count_b, pool_bc.sum(axis=1))
    rows = np.repeat(np.arange(len(num_b)), num_b)
    ranks = np.arange(len(rows)) - np.repeat(np.cumsum(num_b) - num_b, num_b)
    return rows, order[rows, ranks]


def _shortfalls(
    kinds: Sequence[NegativeKind],
    requested: Sequence[int],
    kind_q: NDArray[np.int8],
    inventory: Inventory,
    wanted_s: Mapping[int, float],
    count_n: NDArray[np.int64],
    source_n: NDArray[np.int16],
) -> tuple[str, ...]:
    notes = [] if kinds else ["train: no absent prompts; prompts.absent_per_image or prompts.evidence leaves them out"]
    for kind, wanted in zip(kinds, requested, strict=True):
        achieved = int((kind_q == KINDS.index(kind)).sum())
        if achieved < wanted - 1:
            notes.append(f"train: {achieved} of {wanted} {kind} prompts; the candidates of that kind ran out")
    for source, absences in wanted_s.items():
        name = inventory.sources[source]
        achieved = int(count_n[source_n == source].sum())
        if not absences and kinds:
            notes.append(f"train: source {name} gets no absent prompts, because its labels deny nothing")
        elif achieved < round(absences):
            notes.append(
                f"train: source {name}: {achieved} of {round(absences)} absent prompts; its candidates ran out"
            )
    return tuple(notes)


def ask_benchmark(
    candidates: Candidates, statistics: Statistics, pictures: NDArray[np.int64], rng: np.random.Generator, split: str
) -> Asked:
    """Prompts of val or test: all presences, and on exhaustive images one absence of each POPE setting per presence.

    On images whose source denies phrases by name alone, all those phrases are asked, as random.
    """
    inventory = candidates.inventory
    rows, owner = choose_present(inventory, pictures, None, rng)
    num_present_n = np.bincount(owner, minlength=len(pictures))
    exhaustive_n = inventory.exhaustive_n()[pictures]
    denied_n = np.zeros(len(pictures), np.int64)  # phrases that sources without exhaustive labels deny by name
    taken, fallbacks, missing = [], 0, 0
    for block in candidates.blocks(pictures):
        allowed_bc, present_bc = candidates.allowed(pictures[block]), candidates.present(pictures[block])
        room_b = allowed_bc.sum(axis=1)
        count_b = np.where(exhaustive_n[block], np.minimum(num_present_n[block], room_b), room_b)
        denied_n[block] = np.where(exhaustive_n[block], 0, room_b)
        missing += int((np.where(exhaustive_n[block], num_present_n[block], 0) - count_b).clip(0).sum())
        for kind in (NegativeKind.RANDOM, NegativeKind.POPULAR, NegativeKind.CO_OCCURRING):
            num_b = count_b if kind is NegativeKind.RANDOM else np.where(exhaustive_n[block], count_b, 0)
            hardness_bc = hardness(kind, statistics, present_bc)
            tie_bc = rng.random(allowed_bc.shape)
            picked = _hardest(allowed_bc, hardness_bc, tie_bc, num_b)
            if kind is NegativeKind.CO_OCCURRING:
                fallbacks += int((hardness_bc[picked] <= 0).sum())
            taken.append((block[picked[0]], picked[1], np.full(len(picked[0]), KINDS.index(kind), np.int8)))
    absent = _joined(taken)
    notes = []
    if fallbacks:
        notes.append(f"{split}: {fallbacks} co_occurring prompts fell back to random; nothing stands beside")
    if missing:
        notes.append(f"{split}: {missing} absent prompts per setting are missing; the images' candidates ran out")
    return _assemble(
        inventory,
        rows,
        owner,
        (absent[0], candidates.columns[absent[1]], absent[2]),
        notes=tuple(notes),
        requested={
            str(kind): float((num_present_n * exhaustive_n).sum() + (kind is NegativeKind.RANDOM) * denied_n.sum())
            for kind in HARD_FIRST
        },
        absent_requested=_per_source(
            inventory.source_n[pictures], len(HARD_FIRST) * num_present_n * exhaustive_n + denied_n
        ),
    )


def _per_source(source_n: NDArray[np.int16], count_n: NDArray[np.int64]) -> dict[int, float]:
    """`count_n` summed by source."""
    totals = np.bincount(source_n, weights=count_n)
    return {source: float(totals[source]) for source in np.unique(source_n).tolist()}


def _joined(
    taken: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    if not taken:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8)
    sample, column, kind = (np.concatenate(c) for c in zip(*taken, strict=True))
    return sample, column, kind


def _hardest(
    allowed_bc: NDArray[np.bool_],
    hardness_bc: NDArray[np.float64],
    tie_bc: NDArray[np.float64],
    count_b: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the `count_b` hardest allowed cells of each row, ties by `tie_bc`."""
    order = np.lexsort((tie_bc, np.where(allowed_bc, -hardness_bc, np.inf)), axis=1)
    num_b = np.minimum(count_b, allowed_bc.sum(axis=1))
    rows = np.repeat(np.arange(len(num_b)), num_b)
    ranks = np.arange(len(rows)) - np.repeat(np.cumsum(num_b) - num_b, num_b)
    return rows, order[rows, ranks]


def _assemble(
    inventory: Inventory,
    label_rows: NDArray[np.int64],
    owner: NDArray[np.int64],
    absent: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]],
    *,
    notes: tuple[str, ...],
    requested: Mapping[str, float],
    absent_requested: Mapping[int, float],
) -> Asked:
    sample, phrase, kind = absent
    sample_q = np.concatenate([owner, sample])
    phrase_q = np.concatenate([inventory.labels.phrase_l[label_rows], phrase]).astype(np.int32)
    kind_q = np.concatenate([np.full(len(owner), NO_KIND, np.int8), kind])
    label_q = np.concatenate([label_rows, np.full(len(sample), NO_LABEL, np.int64)])
    order = np.lexsort((np.arange(len(sample_q)), kind_q, sample_q))
    return Asked(
        sample_q=sample_q[order],
        phrase_q=phrase_q[order],
        kind_q=kind_q[order],
        label_q=label_q[order],
        notes=notes,
        requested=requested,
        absent_requested=absent_requested,
    )


def ask_generated(
    num_samples: int, per_image: int, histogram_v: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Sample and phrase of generated pictures' prompts: `per_image` each, drawn from the real prompts' histogram."""
    phrases = np.flatnonzero(histogram_v)
    weight = np.log(histogram_v[phrases])
    count = min(per_image, len(phrases))
    rows = max(1, BLOCK_CELLS // max(1, len(phrases)))
    chosen = [np.empty((0, count), np.int64)]
    for start in range(0, num_samples, rows):
        priority = weight + rng.gumbel(size=(min(rows, num_samples - start), len(phrases)))
        chosen.append(np.argsort(-priority, axis=1, kind="stable")[:, :count].copy())
    picked = np.concatenate(chosen)
    return np.repeat(np.arange(num_samples), count), phrases[picked].reshape(-1).astype(np.int32)
