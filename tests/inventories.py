"""Inventories made of random labels, for tests of planning that need no picture."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.tables import CATALOG
from shards.inventory import STATES, Inventory, Labels
from shards.sources.source import LabelState


def make_inventory(
    states_nv: NDArray[np.int8],
    *,
    exhaustive_n: NDArray[np.bool_] | None = None,
    source_n: NDArray[np.int16] | None = None,
    implies: Sequence[Sequence[int]] | None = None,
) -> Inventory:
    """An inventory whose label of picture n and phrase v is `states_nv[n, v]`, an index into STATES, or −1 for none.

    Pictures are exhaustive over all phrases where `exhaustive_n` says so, else over none.
    """
    num, num_phrases = states_nv.shape
    exhaustive = np.ones(num, np.bool_) if exhaustive_n is None else exhaustive_n
    sources = np.zeros(num, np.int16) if source_n is None else source_n
    picture, phrase = np.nonzero(states_nv >= 0)
    zeros = np.zeros(len(picture), np.int64)
    labels = Labels(
        starts=np.searchsorted(picture, np.arange(num + 1)),
        phrase_l=phrase.astype(np.int32),
        state_l=states_nv[picture, phrase],
        mask_state_l=zeros.astype(np.int8),
        part_l=zeros.astype(np.int32),
        offset_l=zeros,
        num_bytes_l=zeros.astype(np.int32),
        known_by_l=zeros.astype(np.int8),
    )
    rows = [np.array(row) for row in implies or [[v] for v in range(num_phrases)]]
    names = tuple(f"s{i}" for i in range(int(sources.max(initial=0)) + 1))
    keys = pa.array([f"{names[s]}-{i}" for i, s in enumerate(sources.tolist())])
    columns = {field.name: pa.nulls(num, field.type) for field in CATALOG} | {"key": keys}
    vocabulary_g = np.zeros((2, num_phrases), np.bool_)
    vocabulary_g[1] = True
    return Inventory(
        images=pa.table(columns),
        vocabularies={},
        sources=names,
        source_n=sources,
        content_n=np.arange(num, dtype=np.uint64),
        phrases=tuple(f"p{v}" for v in range(num_phrases)),
        labels=labels,
        parts=(),
        vocabulary_g=vocabulary_g,
        group_n=exhaustive.astype(np.int32),
        implied=np.concatenate(rows).astype(np.int32),
        implied_starts=np.cumsum([0, *map(len, rows)]),
        duplicates=(),
    )


def random_states(
    rng: np.random.Generator, num: int, num_phrases: int, *, share_present: float = 0.15, share_open: float = 0.02
) -> NDArray[np.int8]:
    """Labels as photographs have them: some phrases frequent, most rare, a few open."""
    frequency_v = share_present * 2.0 * np.linspace(1.6, 0.2, num_phrases)
    draw_nv = rng.random((num, num_phrases))
    states = np.full((num, num_phrases), -1, np.int8)
    states[draw_nv < frequency_v] = STATES.index(LabelState.PRESENT)
    states[draw_nv > 1 - share_open] = STATES.index(LabelState.OPEN)
    return states
