"""Which picture stands in which split: near-duplicates together, by a seeded hash that a rebuild does not move.

A group is a chain of pictures with equal bytes or perceptual hashes within 4 bits. It goes where a seeded hash of its
smallest content hash says, so an added picture can move only the group that it joins.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.recipe import SPLITS

# N pictures, U distinct perceptual hashes
NEAR_BITS = 4
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # start, width: 4 differing bits leave one of 5 bands equal
_PAIRS_AT_ONCE = 1 << 22
NOT_PINNED = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assignment:
    """Where every picture stands."""

    split_n: NDArray[np.int8]  # index into SPLITS
    group_n: NDArray[np.int64]  # the group's picture with the smallest content hash, as a row
    leaks: tuple[int, ...]  # groups that pins tear apart, as rows


def seeded_hash(words_n: NDArray[np.uint64], salt: str) -> NDArray[np.uint64]:
    """64 well-mixed bits per word, other ones for another salt. Source: SplitMix64 (Steele et al., 2014)."""
    start = np.uint64(int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8], "little"))
    z = words_n ^ start
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def split_of_hash(hash_n: NDArray[np.uint64], fractions: Mapping[str, float]) -> NDArray[np.int8]:
    """Index into SPLITS for every hash, in proportion to `fractions`."""
    edges = np.cumsum([fractions.get(split, 0.0) for split in SPLITS])
    place = hash_n.astype(np.float64) / 2.0**64 * edges[-1]
    place_n = np.searchsorted(edges, place, side="right")
    found: NDArray[np.int8] = np.minimum(place_n, _last_used(fractions)).astype(np.int8)
    return found


def _last_used(fractions: Mapping[str, float]) -> int:
    return max(index for index, split in enumerate(SPLITS) if fractions.get(split, 0.0) > 0)


def generated_splits(
    source: str, indices_n: NDArray[np.int64], fractions: Mapping[str, float], seed: int
) -> NDArray[np.int8]:
    """Split of generated pictures, by source and index alone."""
    return split_of_hash(seeded_hash(indices_n.astype(np.uint64), f"{seed} generated {source}"), fractions)


def assign_splits(
    content_n: NDArray[np.uint64],
    perceptual_n: NDArray[np.uint64],
    hashed_n: NDArray[np.bool_],
    pinned_n: NDArray[np.int8],
    fractions: Mapping[str, float],
    seed: int,
) -> Assignment:
    """Split and group of every picture.

    Args:
        content_n: First 64 bits of each picture's sha256; equal bytes, equal words.
        perceptual_n: 64-bit perceptual hashes.
        hashed_n: False where a picture has no structure to hash.
        pinned_n: Split that the recipe pins the picture's source to, or NOT_PINNED. A group goes where its first
            pinned picture must stand.
        fractions: Share of each split.
        seed: The recipe's.
    """
    group_n = group_duplicates(content_n, perceptual_n, hashed_n)
    split_n = split_of_hash(seeded_hash(content_n[group_n], f"{seed} split"), fractions)
    pinned_rows = np.flatnonzero(pinned_n != NOT_PINNED)
    if not len(pinned_rows):
        return Assignment(split_n=split_n, group_n=group_n, leaks=())
    lowest = np.full(len(content_n), len(SPLITS), np.int8)
    highest = np.full(len(content_n), -1, np.int8)
    np.minimum.at(lowest, group_n[pinned_rows], pinned_n[pinned_rows])
    np.maximum.at(highest, group_n[pinned_rows], pinned_n[pinned_rows])
    follows = highest[group_n] >= 0
    split_n[follows] = lowest[group_n][follows]
    split_n[pinned_rows] = pinned_n[pinned_rows]
    torn = np.flatnonzero((highest >= 0) & (lowest < highest))
    return Assignment(split_n=split_n, group_n=group_n, leaks=tuple(int(row) for row in torn))


def group_duplicates(
    content_n: NDArray[np.uint64], perceptual_n: NDArray[np.uint64], hashed_n: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """For every picture the row of its group's picture with the smallest content hash."""
    num = len(content_n)
    parent = np.arange(num, dtype=np.int64)
    _, first_same, same = np.unique(content_n, return_index=True, return_inverse=True)
    _join(parent, np.arange(num), first_same[same])
    hashed_rows = np.flatnonzero(hashed_n)
    hashes_u, first_u, of_row = np.unique(perceptual_n[hashed_rows], return_index=True, return_inverse=True)
    _join(parent, hashed_rows, hashed_rows[first_u][of_row])
    for left, right in _near_pairs(hashes_u):
        _join(parent, hashed_rows[first_u[left]], hashed_rows[first_u[right]])
    root_n = _roots(parent)
    order = np.lexsort((np.arange(num), content_n))
    smallest = np.full(num, -1, np.int64)
    reversed_order = order[::-1]
    smallest[root_n[reversed_order]] = reversed_order  # the last written, the smallest, stays
    return smallest[root_n]


def _near_pairs(hashes_u: NDArray[np.uint64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of distinct hashes within NEAR_BITS: they agree on one band, so only pairs within a band are compared."""
    found = []
    for start, width in _BANDS:
        band_u = (hashes_u >> np.uint64(start)) & np.uint64((1 << width) - 1)
        order = np.argsort(band_u, kind="stable")
        edges = np.flatnonzero(np.diff(band_u[order])) + 1
        for bucket in np.split(order, edges):
            found += _near_in_bucket(hashes_u, bucket)
    return found


def _near_in_bucket(
    hashes_u: NDArray[np.uint64], bucket: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    found = []
    rows = max(1, _PAIRS_AT_ONCE // max(1, len(bucket)))
    for start in range(0, len(bucket) - 1, rows):
        part = bucket[start : start + rows]
        bits = np.bitwise_count(hashes_u[part][:, None] ^ hashes_u[bucket[start:]][None, :])
        left, right = np.nonzero(bits <= NEAR_BITS)
        later = right > left
        if later.any():
            found.append((part[left[later]], bucket[start:][right[later]]))
    return found


def _join(parent: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
    """Put each left row and its right row into one tree of `parent`."""
    differ = left != right
    for a, b in zip(left[differ].tolist(), right[differ].tolist(), strict=True):
        root_a, root_b = _root(parent, a), _root(parent, b)
        if root_a != root_b:
            parent[max(root_a, root_b)] = min(root_a, root_b)


def _root(parent: NDArray[np.int64], row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = int(parent[row])
    return row


def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    roots = parent.copy()
    while True:
        above = roots[roots]
        if np.array_equal(above, roots):
            return roots
        roots = above
