"""Which phrases each image is asked: absent ones by kind, in exact numbers, with a prior that gives nothing away.

The rules, in this order: (1) nothing present or left open is ever asked as absent; (2) the count per image; (3) the
shares of the kinds; (4) each phrase is asked absent in proportion to how often it is asked present. 1 is absolute, 2
and 3 are exact where candidates suffice, 4 is best effort and read by the audit. Kinds from labels follow POPE (Li et
al., 2023, arXiv 2305.10355): random, popular, and co_occurring, which the paper calls adversarial. Mined kinds are
placed first, since they have the fewest candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from manifests.ragged import rows_of_groups
from manifests.recipe import LABELLED_KINDS, Prompts
from manifests.sample import KINDS, Evidence, NegativeKind
from shards.allotment import Room, absent_by_source, count_absent, share_kinds
from shards.candidates import BLOCK_CELLS, LABELLED_HARD_FIRST, Candidates, Statistics, hardness
from shards.inventory import Inventory
from shards.mined import HARDEST_FIRST, Mined
from shards.mixing import apportion
from shards.offers import MULTIPLES, Offers, Taken, make_offers, take

# N real samples of a split, Q prompts, V phrases, C candidate phrases (columns), B samples of a block, K kinds
NO_KIND = -1
NO_LABEL = -1
NOT_MINED = -1
POOL_FACTOR = 4  # a hard kind chooses among this many times as many of its hardest phrases as it needs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """Prompts of a split's real samples, sorted by sample: presences first, then absences, hard kinds last."""

    sample_q: NDArray[np.int64]  # index of the sample among those given
    phrase_q: NDArray[np.int32]
    kind_q: NDArray[np.int8]  # index into KINDS, NO_KIND where present
    label_q: NDArray[np.int64]  # label row where present, else NO_LABEL
    mined_q: NDArray[np.int64]  # row of `Mined` where it was mined, else NOT_MINED
    notes: tuple[str, ...] = ()  # one sentence per shortfall
    requested: Mapping[str, float] = field(default_factory=dict)  # absent prompts by kind
    absent_requested: Mapping[int, float] = field(default_factory=dict)  # absent prompts by source


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Absent:
    """Absences of a split's samples."""

    sample_q: NDArray[np.int64]
    phrase_q: NDArray[np.int32]
    kind_q: NDArray[np.int8]  # index into KINDS
    mined_q: NDArray[np.int64] | None = None  # row of `Mined`, NOT_MINED for others; None: nothing is mined


def asks_absences(settings: Prompts) -> bool:
    """Whether train asks any absence that labels can give."""
    asked = any(settings.kinds.get(kind) for kind in LABELLED_KINDS)
    return asked and settings.absent_per_image > 0 and Evidence.ANNOTATED in settings.evidence


def kinds_of_train(settings: Prompts) -> list[NegativeKind]:
    """The kinds of absences that train is asked, hardest first."""
    mined = HARDEST_FIRST if settings.absent_per_image > 0 else ()
    kinds = [*mined, *(LABELLED_HARD_FIRST if asks_absences(settings) else ())]
    return [kind for kind in kinds if settings.kinds.get(kind)]


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
    mined: Mined | None = None,
) -> Asked:
    """Prompts of the train samples, by the four rules."""
    inventory = candidates.inventory
    source_n = inventory.source_n[pictures]
    rows, owner = choose_present(inventory, pictures, settings.present_per_image, rng)
    num_present_n = np.bincount(owner, minlength=len(pictures))
    kinds = kinds_of_train(settings)
    labelled = [kind for kind in kinds if kind in LABELLED_HARD_FIRST]
    offers = make_offers(mined, candidates, pictures, kinds[: len(kinds) - len(labelled)], len(labelled))
    labelled_nk = _room(candidates, statistics, pictures, labelled, offers)
    room_n = labelled_nk.max(axis=1, initial=0) + offers.beside_n(len(pictures))
    wanted_s = absent_by_source(source_n, num_present_n, room_n, settings)
    count_n = count_absent(source_n, wanted_s, room_n, num_present_n)
    shares = [settings.kinds[kind] for kind in kinds]
    totals = apportion(int(count_n.sum()), shares) if shares else []
    prior = _Prior(np.bincount(inventory.labels.phrase_l[rows], minlength=len(inventory.phrases)), int(count_n.sum()))
    taken = _take_mined(offers, labelled_nk, count_n, totals, shares, prior, rng)
    free_n = count_n - np.bincount(taken.sample_t, minlength=len(pictures))
    left_nk = labelled_nk - taken.lost_nl(len(pictures))
    count_nk = share_kinds(free_n, totals[len(offers.kinds) :], Room(room_nk=left_nk))
    sample, column, kind = _draw(candidates, statistics, pictures, labelled, count_nk, prior, taken, rng)
    absent = Absent(
        sample_q=np.concatenate([taken.sample_t, sample]),
        phrase_q=np.concatenate([taken.phrase_t, candidates.columns[column]]),
        kind_q=np.concatenate([taken.kind_t, kind]),
        mined_q=np.concatenate([taken.row_t, np.full(len(sample), NOT_MINED)]),
    )
    requested = apportion(round(sum(wanted_s.values())), shares) if shares else []
    by_kind = {kind: float(num) for kind, num in zip(kinds, requested, strict=True)}
    return assemble(
        inventory,
        rows,
        owner,
        absent,
        notes=_shortfalls(settings, by_kind, absent, inventory, wanted_s, source_n) + offers.notes(),
        requested={str(kind): num for kind, num in by_kind.items()},
        absent_requested=wanted_s,
    )


class _Prior:
    """How often each phrase should be asked absent, and how often it is by now."""

    def __init__(self, present_v: NDArray[np.int64], num_absent: int) -> None:
        ratio = num_absent / max(1, int(present_v.sum()))
        self.target_v: NDArray[np.float64] = present_v.astype(np.float64) * ratio
        self.asked_v = np.zeros(len(present_v), np.int64)


def _take_mined(
    offers: Offers,
    labelled_nk: NDArray[np.int64],
    count_n: NDArray[np.int64],
    totals: Sequence[int],
    shares: Sequence[float],
    prior: _Prior,
    rng: np.random.Generator,
) -> Taken:
    """The mined absences of every sample, as many of each kind as all kinds together allow."""
    num_kinds = len(offers.kinds)

    def allot(some: Offers) -> NDArray[np.int64]:
        room_nk = np.concatenate([some.room_nk(len(count_n)), labelled_nk], axis=1)
        return share_kinds(count_n, totals, Room(room_nk=room_nk, num_apart=num_kinds))

    count_nk = allot(offers)
    for multiple in MULTIPLES if num_kinds else ():
        fewer = offers.thinned(multiple, prior.target_v, [share / sum(shares) for share in shares])
        evener_nk = allot(fewer)
        if np.array_equal(evener_nk.sum(axis=0), count_nk.sum(axis=0)):
            offers, count_nk = fewer, evener_nk
            break
    return take(offers, count_nk, prior.target_v, prior.asked_v, rng)


def _room(
    candidates: Candidates,
    statistics: Statistics,
    pictures: NDArray[np.int64],
    kinds: Sequence[NegativeKind],
    offers: Offers,
) -> NDArray[np.int64]:
    """How many candidates of each kind from labels each sample has; which `offers` are among them is noted there.

    The candidates of a hard kind are among those of the softer ones.
    """
    room_nk = np.zeros((len(pictures), len(kinds)), np.int64)
    for block in candidates.blocks(pictures) if kinds else ():
        allowed_bc, present_bc = candidates.allowed(pictures[block]), candidates.present(pictures[block])
        for k, kind in enumerate(kinds):
            known_bc = allowed_bc & (hardness(kind, statistics, present_bc) > 0)
            room_nk[block, k] = known_bc.sum(axis=1)
            here, known = offers.among(known_bc, block)
            offers.known_ol[here, k] = known
    return room_nk


def _draw(
    candidates: Candidates,
    statistics: Statistics,
    pictures: NDArray[np.int64],
    kinds: Sequence[NegativeKind],
    count_nk: NDArray[np.int64],
    prior: _Prior,
    already: Taken,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    """Sample, column and kind of every absence from labels; the softest kind is drawn last, to even out the prior."""
    columns = candidates.columns
    lacking_c = prior.target_v[columns] - prior.asked_v[columns]
    taken: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]] = []
    drawn: dict[int, list[NDArray[np.int64]]] = {}
    for k, kind in enumerate(kinds):
        for number, block in enumerate(candidates.blocks(pictures)):
            allowed_bc = candidates.allowed(pictures[block])
            already.strike(allowed_bc, block)
            for earlier in drawn.get(number, ()):
                allowed_bc[tuple(earlier)] = False
            hardness_bc = hardness(kind, statistics, candidates.present(pictures[block]))
            pool_bc = _pool(allowed_bc, hardness_bc, count_nk[block, k], everything=kind is NegativeKind.RANDOM)
            picked = _pick(pool_bc, count_nk[block, k], lacking_c, rng)
            drawn.setdefault(number, []).append(np.stack(picked))
            lacking_c -= np.bincount(picked[1], minlength=len(lacking_c))
            taken.append((block[picked[0]], picked[1], np.full(len(picked[0]), KINDS.index(kind), np.int8)))
    return joined(taken)


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
    ranks, rows = rows_of_groups(np.zeros_like(num_b), num_b)
    return rows, order[rows, ranks]


def _shortfalls(
    settings: Prompts,
    requested: Mapping[NegativeKind, float],
    absent: Absent,
    inventory: Inventory,
    wanted_s: Mapping[int, float],
    source_n: NDArray[np.int16],
) -> tuple[str, ...]:
    notes = _left_out(settings, requested)
    for kind, wanted in requested.items():
        achieved = int((absent.kind_q == KINDS.index(kind)).sum())
        if achieved < wanted - 1:
            notes.append(f"train: {achieved} of {wanted:.0f} {kind} prompts; the candidates of that kind ran out")
    also = " and nothing was mined for it" if any(kind in HARDEST_FIRST for kind in requested) else ""
    asked_s = np.bincount(source_n[absent.sample_q], minlength=len(inventory.sources))
    for source, absences in wanted_s.items():
        name, achieved = inventory.sources[source], int(asked_s[source])
        if not absences and requested:
            notes.append(f"train: source {name} gets no absent prompts, because its labels deny nothing{also}")
        elif achieved < round(absences):
            notes.append(
                f"train: source {name}: {achieved} of {round(absences)} absent prompts; its candidates ran out"
            )
    return tuple(notes)


def _left_out(settings: Prompts, requested: Mapping[NegativeKind, float]) -> list[str]:
    """What the recipe's own settings leave out of train."""
    if not requested:
        return ["train: no absent prompts; prompts.absent_per_image or prompts.evidence leaves them out"]
    lost = [kind for kind in LABELLED_HARD_FIRST if settings.kinds.get(kind) and kind not in requested]
    return [f"train: no {' or '.join(lost)} prompts; prompts.evidence leaves out annotated"] if lost else []


def joined(
    taken: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    """Samples, columns and kinds of all pieces."""
    if not taken:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8)
    sample, column, kind = (np.concatenate(c) for c in zip(*taken, strict=True))
    return sample, column, kind


def assemble(
    inventory: Inventory,
    label_rows: NDArray[np.int64],
    owner: NDArray[np.int64],
    absent: Absent,
    *,
    notes: tuple[str, ...],
    requested: Mapping[str, float],
    absent_requested: Mapping[int, float],
) -> Asked:
    """Presences and absences as one list, sorted by sample."""
    num = len(absent.sample_q)
    sample_q = np.concatenate([owner, absent.sample_q])
    phrase_q = np.concatenate([inventory.labels.phrase_l[label_rows], absent.phrase_q]).astype(np.int32)
    kind_q = np.concatenate([np.full(len(owner), NO_KIND, np.int8), absent.kind_q])
    label_q = np.concatenate([label_rows, np.full(num, NO_LABEL, np.int64)])
    of_absent = absent.mined_q if absent.mined_q is not None else np.full(num, NOT_MINED, np.int64)
    mined_q = np.concatenate([np.full(len(owner), NOT_MINED, np.int64), of_absent])
    order = np.lexsort((np.arange(len(sample_q)), kind_q, sample_q))
    return Asked(
        sample_q=sample_q[order],
        phrase_q=phrase_q[order],
        kind_q=kind_q[order],
        label_q=label_q[order],
        mined_q=mined_q[order],
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
