"""Splits: near-duplicates together, nothing moves on a rebuild, an added picture moves only its group, pins hold."""

import numpy as np
import pytest
from numpy.typing import NDArray

from manifests.recipe import SPLITS
from shards.splits import NEAR_BITS, NOT_PINNED, Assignment, assign_splits, generated_splits, group_duplicates

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def words(count: int, *, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def assigned(
    content: NDArray[np.uint64],
    hashes: NDArray[np.uint64] | None = None,
    *,
    hashed: NDArray[np.bool_] | None = None,
    pinned: NDArray[np.int8] | None = None,
    seed: int = 7,
) -> Assignment:
    num = len(content)
    return assign_splits(
        content,
        words(num, seed=1) if hashes is None else hashes,
        np.ones(num, np.bool_) if hashed is None else hashed,
        np.full(num, NOT_PINNED, np.int8) if pinned is None else pinned,
        FRACTIONS,
        seed,
    )


def naive_groups(content: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> list[int]:
    """Smallest content of each connected component, found by comparing all pairs."""
    num = len(content)
    group = list(range(num))
    for _ in range(num):
        for a in range(num):
            for b in range(num):
                near = int(hashes[a] ^ hashes[b]).bit_count() <= NEAR_BITS
                if content[a] == content[b] or near:
                    group[a] = group[b] = min(group[a], group[b])
    return [min((i for i in range(num) if group[i] == group[row]), key=lambda i: int(content[i])) for row in range(num)]


def test_shares_of_the_splits_are_those_asked_for() -> None:
    counts = np.bincount(assigned(words(20_000)).split_n, minlength=3) / 20_000
    np.testing.assert_allclose(counts, [0.8, 0.1, 0.1], atol=0.01)


def test_groups_agree_with_a_comparison_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    for trial in range(20):
        content = words(24, seed=trial)
        content[rng.integers(24, size=3)] = content[0]
        hashes = words(24, seed=100 + trial)
        for row in rng.integers(24, size=8):
            flips = rng.choice(64, size=int(rng.integers(1, 7)), replace=False)
            hashes[row] = hashes[0] ^ np.uint64(sum(1 << int(bit) for bit in flips))
        found = group_duplicates(content, hashes, np.ones(24, np.bool_))
        assert [int(content[row]) for row in found] == [int(content[row]) for row in naive_groups(content, hashes)]


def test_pictures_within_four_bits_stand_in_one_split_and_five_bits_do_not_bind() -> None:
    content, hashes = words(2000), words(2000, seed=5)
    hashes[1::2] = hashes[::2] ^ np.uint64(0b1111)
    near = assigned(content, hashes)
    assert (near.split_n[1::2] == near.split_n[::2]).all()
    hashes[1::2] = hashes[::2] ^ np.uint64(0b11111)
    far = assigned(content, hashes)
    assert (far.group_n[1::2] != far.group_n[::2]).all()


def test_flat_pictures_without_a_hash_are_not_one_group() -> None:
    found = assigned(words(50), np.zeros(50, np.uint64), hashed=np.zeros(50, np.bool_))
    assert len(set(found.group_n.tolist())) == 50


def test_an_added_picture_moves_only_the_group_that_it_joins() -> None:
    content, hashes = words(3000), words(3000, seed=9)
    before = assigned(content, hashes)
    joined_content = np.append(content, np.uint64(0))  # becomes the smallest of its group
    after = assigned(joined_content, np.append(hashes, hashes[17] ^ np.uint64(1)))
    others = np.delete(np.arange(3000), 17)
    np.testing.assert_array_equal(after.split_n[others], before.split_n[others])
    assert after.split_n[17] == after.split_n[3000]


def test_order_of_the_inputs_does_not_matter() -> None:
    content, hashes = words(500), words(500, seed=2)
    order = np.random.default_rng(0).permutation(500)
    np.testing.assert_array_equal(
        assigned(content[order], hashes[order]).split_n, assigned(content, hashes).split_n[order]
    )


def test_a_pinned_picture_takes_its_group_along() -> None:
    content, hashes = words(100), words(100, seed=4)
    hashes[1] = hashes[0]
    pinned = np.full(100, NOT_PINNED, np.int8)
    pinned[0] = SPLITS.index("test")
    found = assigned(content, hashes, pinned=pinned)
    assert found.split_n[:2].tolist() == [2, 2]
    assert found.leaks == ()


def test_a_group_that_two_pins_tear_apart_is_a_leak_that_is_named() -> None:
    content, hashes = words(10), words(10, seed=4)
    hashes[1] = hashes[0]
    pinned = np.full(10, NOT_PINNED, np.int8)
    pinned[:2] = [SPLITS.index("train"), SPLITS.index("test")]
    found = assigned(content, hashes, pinned=pinned)
    assert found.split_n[:2].tolist() == [0, 2]
    assert found.leaks == (int(found.group_n[0]),)


def test_another_seed_gives_another_split() -> None:
    content = words(1000)
    assert (assigned(content, seed=1).split_n != assigned(content, seed=2).split_n).any()


@pytest.mark.parametrize("fractions", [{"train": 1.0}, {"train": 0.5, "val": 0.0, "test": 0.5}])
def test_a_split_with_no_share_gets_nothing(fractions: dict[str, float]) -> None:
    found = generated_splits("noise", np.arange(5000), fractions, 7)
    assert set(found.tolist()) == {SPLITS.index(name) for name, share in fractions.items() if share}
