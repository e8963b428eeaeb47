"""What val and test are asked: every presence, and POPE's three settings beside it, so that a build is a benchmark."""

import numpy as np
from numpy.typing import NDArray

from manifests.ragged import rows_of_groups
from manifests.sample import KINDS, NegativeKind
from shards.candidates import LABELLED_HARD_FIRST, Candidates, Statistics, hardness
from shards.prompts import Absent, Asked, assemble, choose_present, joined

# N real samples of a split, C candidate phrases (columns), B samples of a block


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
        for kind in reversed(LABELLED_HARD_FIRST):
            num_b = count_b if kind is NegativeKind.RANDOM else np.where(exhaustive_n[block], count_b, 0)
            hardness_bc = hardness(kind, statistics, present_bc)
            tie_bc = rng.random(allowed_bc.shape)
            picked = _hardest(allowed_bc, hardness_bc, tie_bc, num_b)
            if kind is NegativeKind.CO_OCCURRING:
                fallbacks += int((hardness_bc[picked] <= 0).sum())
            taken.append((block[picked[0]], picked[1], np.full(len(picked[0]), KINDS.index(kind), np.int8)))
    sample, column, kind_q = joined(taken)
    notes = []
    if fallbacks:
        notes.append(f"{split}: {fallbacks} co_occurring prompts fell back to random; nothing stands beside")
    if missing:
        notes.append(f"{split}: {missing} absent prompts per setting are missing; the images' candidates ran out")
    return assemble(
        inventory,
        rows,
        owner,
        Absent(sample_q=sample, phrase_q=candidates.columns[column], kind_q=kind_q),
        notes=tuple(notes),
        requested={
            str(kind): float((num_present_n * exhaustive_n).sum() + (kind is NegativeKind.RANDOM) * denied_n.sum())
            for kind in LABELLED_HARD_FIRST
        },
        absent_requested=_per_source(
            inventory.source_n[pictures], len(LABELLED_HARD_FIRST) * num_present_n * exhaustive_n + denied_n
        ),
    )


def _per_source(source_n: NDArray[np.int16], count_n: NDArray[np.int64]) -> dict[int, float]:
    """`count_n` summed by source."""
    totals = np.bincount(source_n, weights=count_n)
    return {source: float(totals[source]) for source in np.unique(source_n).tolist()}


def _hardest(
    allowed_bc: NDArray[np.bool_],
    hardness_bc: NDArray[np.float64],
    tie_bc: NDArray[np.float64],
    count_b: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the `count_b` hardest allowed cells of each row, ties by `tie_bc`."""
    order = np.lexsort((tie_bc, np.where(allowed_bc, -hardness_bc, np.inf)), axis=1)
    num_b = np.minimum(count_b, allowed_bc.sum(axis=1))
    ranks, rows = rows_of_groups(np.zeros_like(num_b), num_b)
    return rows, order[rows, ranks]
