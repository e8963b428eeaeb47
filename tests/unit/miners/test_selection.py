"""Ranks, ranges, numbers and caps against a naive reference."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from miners.selection import Wanted, ranks, select


def choose(
    queries: list[int],
    others: list[int],
    *,
    num: int = 100,
    cap: int = 100,
    kept: list[bool] | None = None,
    range_min: int = 0,
    range_max: int | None = None,
    random: bool = False,
    seed: int = 0,
) -> list[int]:
    query_c, other_c = np.array(queries, np.int64), np.array(others, np.int64)
    kept_c = np.ones(len(queries), np.bool_) if kept is None else np.array(kept, np.bool_)
    num_queries = int(query_c.max(initial=-1)) + 1
    wanted = Wanted(
        num_q=np.full(num_queries, num),
        cap=cap,
        range_min=range_min,
        range_max=range_max,
        strategy="random" if random else "top",
        seed=seed,
    )
    rank_c = ranks(query_c, np.ones(len(queries), np.bool_))
    return np.flatnonzero(select(query_c, other_c, rank_c, kept_c, wanted)).tolist()


def test_ranks_count_only_the_listed_and_start_anew_for_each_query() -> None:
    found = ranks(np.array([0, 0, 0, 2, 2]), np.array([True, False, True, True, True]))
    assert found.tolist() == [0, -1, 1, 0, 1]


def test_the_hardest_are_taken_up_to_the_number() -> None:
    assert choose([0, 0, 0, 1, 1], [5, 6, 7, 5, 6], num=2) == [0, 1, 3, 4]


def test_what_a_guard_took_is_passed_over_and_the_next_is_taken_instead() -> None:
    assert choose([0, 0, 0], [1, 2, 3], num=1, kept=[False, True, True]) == [1]


def test_the_range_bounds_ranks_and_not_what_is_left_of_them() -> None:
    assert choose([0, 0, 0, 0], [1, 2, 3, 4], num=4, range_min=1, range_max=3) == [1, 2]
    assert choose([0, 0, 0, 0], [1, 2, 3, 4], num=1, range_min=1, kept=[True, False, True, True]) == [2]


def test_a_hub_is_named_by_many_and_taken_by_as_many_as_its_cap_allows() -> None:
    # other 9 is everybody's nearest; the queries that are refused take their next one
    assert choose([0, 0, 1, 1, 2, 2], [9, 1, 9, 2, 9, 3], num=1, cap=1) == [0, 3, 5]


def test_a_refused_query_with_nothing_left_goes_without() -> None:
    assert choose([0, 1], [9, 9], num=1, cap=1) == [0]


def test_random_takes_from_the_whole_range_and_the_same_for_the_same_seed() -> None:
    queries, others = [0] * 50, list(range(50))
    drawn = [choose(queries, others, num=5, random=True, seed=seed) for seed in range(8)]
    assert drawn[0] == choose(queries, others, num=5, random=True, seed=0)
    assert len({tuple(rows) for rows in drawn}) == 8
    assert max(max(rows) for rows in drawn) > 25
    assert all(len(rows) == 5 for rows in drawn)


def test_a_verdict_on_one_candidate_does_not_reshuffle_the_others() -> None:
    queries, others = [0] * 30, list(range(30))
    before = choose(queries, others, num=5, random=True)
    dropped = before[2]
    after = choose(queries, others, num=5, random=True, kept=[row != dropped for row in range(30)])
    assert set(before) - {dropped} <= set(after)


def test_nothing_comes_from_nothing() -> None:
    assert choose([], []) == []


def naive(
    query_c: NDArray[np.int64], other_c: NDArray[np.int64], kept_c: NDArray[np.bool_], num: int, cap: int
) -> set[int]:
    """Round after round in plain Python."""
    waiting = {q: [int(c) for c in np.flatnonzero((query_c == q) & kept_c)] for q in sorted(set(query_c.tolist()))}
    left, used, taken = dict.fromkeys(waiting, num), dict.fromkeys(set(other_c.tolist()), 0), set()
    while any(waiting[q] and left[q] for q in waiting):
        for q, mine in waiting.items():
            if mine and left[q]:
                candidate = mine.pop(0)
                other = int(other_c[candidate])
                if used[other] < cap:
                    used[other] += 1
                    left[q] -= 1
                    taken.add(candidate)
    return taken


@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.booleans()), max_size=40),
    num=st.integers(1, 5),
    cap=st.integers(1, 4),
)
def test_the_rounds_are_those_of_the_naive_reference(pairs: list[tuple[int, int, bool]], num: int, cap: int) -> None:
    pairs.sort(key=lambda pair: pair[0])
    query_c = np.array([pair[0] for pair in pairs], np.int64)
    other_c = np.array([pair[1] for pair in pairs], np.int64)
    kept_c = np.array([pair[2] for pair in pairs], np.bool_)
    found = choose(query_c.tolist(), other_c.tolist(), num=num, cap=cap, kept=kept_c.tolist())
    assert set(found) == naive(query_c, other_c, kept_c, num, cap)
