"""The shortcut audit: its AUCs against counting every pair, and what it says of leaks."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from shards.shortcuts import BOUND, audit, deciles, guessed_auc, worst_phrases


def naive_guessed_auc(groups: Sequence[object], present: Sequence[bool]) -> float:
    """Every present row compared with every absent one, by their groups' smoothed shares of presences."""
    share = Fraction(sum(present), len(present))
    scores = []
    for group in groups:
        members = [is_present for other, is_present in zip(groups, present, strict=True) if other == group]
        scores.append((sum(members) + 10 * share) / (len(members) + 10))
    wins = Fraction(0)
    pairs = 0
    for score, is_present in zip(scores, present, strict=True):
        for other, other_present in zip(scores, present, strict=True):
            if is_present and not other_present:
                pairs += 1
                wins += 1 if score > other else Fraction(1, 2) if score == other else 0
    return float(wins / pairs) if pairs else 0.5


def naive_deciles(values: Sequence[int]) -> list[int]:
    """How many of the nine inner tenths of the sorted values each value lies above (linear between neighbours)."""
    ordered = sorted(values)

    def quantile(tenth: int) -> Fraction:
        place = Fraction(tenth * (len(ordered) - 1), 10)
        below = ordered[int(place)]
        above = ordered[min(int(place) + 1, len(ordered) - 1)]
        return below + (place - int(place)) * (above - below)

    return [sum(value > quantile(tenth) for tenth in range(1, 10)) for value in values]


def prompts(*rows: tuple[str, str, str, bool], pixels: Sequence[int] = (), num_bytes: Sequence[int] = ()) -> pa.Table:
    """Rows of split, source, phrase and present, as the audit reads them."""
    split, source, phrase, present = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "split": pa.array(split, pa.string()),
            "source": pa.array(source, pa.string()),
            "phrase": pa.array(phrase, pa.string()),
            "present": pa.array(present, pa.bool_()),
            "width": pa.array(pixels or [10] * len(rows), pa.int32()),
            "height": pa.array([10] * len(rows), pa.int32()),
            "num_bytes": pa.array(num_bytes or [100] * len(rows), pa.int64()),
        }
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_auc_of_a_group_equals_counting_every_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group_q = rng.geometric(0.05 + 0.1 * seed, 90)  # few large groups and many small ones
    present_q = rng.random(90) < 0.3 + 0.05 * group_q
    assert guessed_auc(group_q, present_q) == pytest.approx(
        naive_guessed_auc(group_q.tolist(), present_q.tolist()), abs=5.1e-5
    )


def test_small_groups_are_smoothed_so_that_memory_of_single_rows_is_no_leak() -> None:
    rng = np.random.default_rng(0)
    group_q = np.arange(400)
    present_q = rng.random(400) < 0.5
    assert guessed_auc(group_q, present_q) == 1.0  # in-sample, each row tells its own answer
    many_q = np.arange(400) % 8
    assert 0.5 <= guessed_auc(many_q, present_q) < BOUND


@pytest.mark.parametrize(
    ("group", "present", "expected"),
    [
        ([0, 0, 1, 1], [True, True, False, False], 1.0),
        ([0, 1, 0, 1], [True, True, False, False], 0.5),
        ([0, 0, 0, 0], [True, True, False, False], 0.5),
        ([0, 1], [True, True], 0.5),
        ([], [], 0.5),
    ],
    ids=["leak", "balanced", "one group", "one class", "nothing"],
)
def test_known_aucs(group: list[int], present: list[bool], expected: float) -> None:
    assert guessed_auc(np.array(group, np.int64), np.array(present, np.bool_)) == expected


@pytest.mark.parametrize("seed", range(4))
def test_deciles_equal_the_naive_ones(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 + 10**seed, 137)
    assert deciles(values).tolist() == naive_deciles(values.tolist())


def test_deciles_hold_a_tenth_each_and_keep_equal_values_together() -> None:
    assert np.bincount(deciles(np.arange(1000))).tolist() == [100] * 10
    assert len(set(deciles(np.array([7] * 50 + [9] * 50)).tolist())) == 2
    assert deciles(np.empty(0, np.int64)).tolist() == []


def test_worst_phrases_come_by_how_many_answers_they_give_away() -> None:
    phrase_q = np.array([0] * 10 + [1] * 4 + [2] * 6)
    present_q = np.array([True] * 10 + [True, False] * 2 + [False] * 6)
    found = worst_phrases(phrase_q, present_q, ["dog", "cat", "kite"])
    assert [(w.phrase, w.present, w.absent) for w in found] == [("dog", 10, 0), ("kite", 0, 6), ("cat", 2, 2)]


def test_the_audit_reads_real_images_of_train_alone() -> None:
    fair = [("train", "coco", phrase, present) for phrase in ("dog", "cat") for present in (True, False)] * 20
    loud = [("val", "coco", "dog", True), ("test", "sa1b", "cat", False), ("train", "blank", "dog", False)] * 50
    assert audit(prompts(*fair, *loud), ["blank", "noise"]) == audit(prompts(*fair), ["blank", "noise"])
    assert audit(prompts(*fair), []).warnings == []
    assert audit(prompts(*fair, *loud), []).source > 0.5


def test_phrases_that_differ_in_case_alone_are_one() -> None:
    rows = [("train", "coco", "Dog", True), ("train", "coco", "dog", False)] * 30
    found = audit(prompts(*rows), [])
    assert found.phrase == 0.5
    assert [(w.present, w.absent) for w in found.worst_phrases] == [(30, 30)]


def test_each_shortcut_is_found_and_named_alone() -> None:
    present = [("train", "coco", "dog", True)] * 50
    absent = [("train", "coco", "dog", False)] * 50
    other = [("train", "coco", "cat", False)] * 50
    elsewhere = [("train", "sa1b", "dog", False)] * 50
    small_then_large = [10] * 50 + [90] * 50
    by_phrase = audit(prompts(*present, *other), [])
    by_source = audit(prompts(*present, *elsewhere), [])
    by_pixels = audit(prompts(*present, *absent, pixels=small_then_large), [])
    by_bytes = audit(prompts(*present, *absent, num_bytes=small_then_large), [])
    for found, name in ((by_phrase, "phrase"), (by_source, "source"), (by_pixels, "pixels"), (by_bytes, "num_bytes")):
        values = {field: getattr(found, field) for field in ("phrase", "source", "pixels", "num_bytes")}
        assert {field for field, value in values.items() if value == 1.0} == {name}
        assert {value for field, value in values.items() if field != name} == {0.5}
        assert any(name.replace("num_bytes", "byte count") in warning for warning in found.warnings)


def test_a_value_at_the_bound_is_no_warning_and_above_it_is_one() -> None:
    rows = [("train", "coco", "dog", True)] * 60 + [("train", "coco", "dog", False)] * 40
    rows += [("train", "coco", "cat", True)] * 40 + [("train", "coco", "cat", False)] * 60
    at = audit(prompts(*rows), [])
    assert at.phrase == BOUND
    assert at.warnings == []
    above = audit(prompts(*rows, *[("train", "coco", "dog", True)] * 5), [])
    assert above.phrase > BOUND
    assert above.warnings[0].startswith("presence can be guessed from the phrase alone: AUC 0.6")
    assert above.warnings[0].endswith("above 0.60; worst: cat, dog")


def test_a_source_that_always_says_the_same_is_named_with_a_cure() -> None:
    rows = [("train", "sa1b", "dog", True)] * 5 + [("train", "coco", "dog", False)] * 5
    warnings = audit(prompts(*rows), []).warnings
    assert any(w.startswith("every prompt of source sa1b is present") and "exhaustive_over" in w for w in warnings)
    assert any(w.startswith("every prompt of source coco is absent") for w in warnings)


def test_a_build_without_a_train_split_has_nothing_to_warn_of() -> None:
    found = audit(prompts(("test", "coco", "dog", True)), [])
    assert (found.phrase, found.source, found.pixels, found.num_bytes) == (0.5, 0.5, 0.5, 0.5)
    assert found.warnings == []
    assert found.worst_phrases == []
