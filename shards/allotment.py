"""How many absences each sample carries, and of which kinds: totals exact, shares within one, room respected."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from manifests.recipe import Prompts
from shards.mixing import apportion, spread

# N real samples of a split, K kinds


def absent_by_source(
    source_n: NDArray[np.int16], num_present_n: NDArray[np.int64], room_n: NDArray[np.int64], settings: Prompts
) -> dict[int, float]:
    """Absences asked of each source, so that all have one ratio of present to absent and the mean is the recipe's.

    A source whose labels can deny nothing gets none; its share is not moved to others, whose ratio would break.
    """
    total = settings.absent_per_image * len(source_n)
    num_present = int(num_present_n.sum())
    wanted: dict[int, float] = {}
    for source in np.unique(source_n).tolist():
        here = source_n == source
        if not room_n[here].any():
            wanted[source] = 0.0
        elif num_present:
            wanted[source] = total * float(num_present_n[here].sum()) / num_present
        else:
            wanted[source] = settings.absent_per_image * float(here.sum())
    return wanted


def count_absent(
    source_n: NDArray[np.int16],
    wanted_s: Mapping[int, float],
    room_n: NDArray[np.int64],
    num_present_n: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Absences of each sample: its source's total spread within one, moved to others where candidates run out.

    A sample without presences is asked at least one absence, since it was planned to be asked something.
    """
    count_n = np.zeros(len(source_n), np.int64)
    for source, wanted in wanted_s.items():
        here = np.flatnonzero(source_n == source)
        base_n = np.maximum(spread(round(wanted), len(here)), num_present_n[here] == 0)
        count_n[here] = pour(round(wanted), base_n, room_n[here])
    return count_n


def pour(total: int, base_n: NDArray[np.int64], room_n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts near `base_n`, none above its room, that sum to `total` or to all the room that there is."""
    count_n = np.minimum(base_n, room_n)
    while (lacking := total - int(count_n.sum())) > 0:
        spare = np.flatnonzero(count_n < room_n)
        if not len(spare):
            break
        chosen = spare if lacking >= len(spare) else spare[np.arange(lacking) * len(spare) // lacking]
        count_n[chosen] += 1
    return count_n


def share_kinds(count_n: NDArray[np.int64], shares: Sequence[float], room_nk: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many absences of each kind each sample carries: totals by largest remainder, hard kinds placed first.

    What a sample's candidates lack of a kind is made up on other samples, then by the other kinds, the softest first.
    """
    total = int(count_n.sum())
    count_nk = np.zeros_like(room_nk)
    if not shares:
        return count_nk
    wanted = apportion(total, shares)
    running = np.concatenate([[0], np.cumsum(count_n)])
    for k, num in enumerate(wanted):
        edges = running * num // max(1, total)
        free_n = count_n - count_nk.sum(axis=1)
        room_n = np.minimum(free_n, room_nk[:, k])
        count_nk[:, k] = pour(num, np.diff(edges), room_n)
    for k in reversed(range(len(wanted))):
        free_n = count_n - count_nk.sum(axis=1)
        count_nk[:, k] += np.minimum(free_n, np.maximum(0, room_nk[:, k] - count_nk.sum(axis=1)))
    return count_nk
