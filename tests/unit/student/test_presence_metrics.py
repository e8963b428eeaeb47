"""Presence against cases that were computed by hand."""

import numpy as np
import pytest

from student.blind import blind, left_out_scores
from student.estimates import NO_ABSENT, NO_PRESENT, NO_PROMPT, Estimate, Estimated, Undefined
from student.pope import pope
from student.presence_metrics import hallucination, presence_auc, presence_metrics, says_present
from student.sensitivity import prompt_sensitivity

DRAWS = 50


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def answers(text: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([character == "+" for character in text], np.bool_)


def value(found: Estimated) -> float:
    assert isinstance(found, Estimate), found
    return found.value


def test_ten_prompts_by_hand() -> None:
    # tp 3, fn 1 among the present; fp 2, tn 4 among the absent
    said, present = answers("+++-++----"), answers("++++------")
    found = presence_metrics(said, present, np.arange(10), rng=rng(), num_draws=DRAWS)
    expected = {
        "presence_precision": 3 / 5,
        "presence_recall": 3 / 4,
        "presence_f1": 2 * 3 / (2 * 3 + 2 + 1),
        "absence_f1": 2 * 4 / (2 * 4 + 2 + 1),
        "il_mcc": (3 * 4 - 2 * 1) / (5 * 4 * 6 * 5) ** 0.5,
        "il_fpr": 2 / 6,
    }
    assert {name: value(figure) for name, figure in found.items()} == pytest.approx(expected)
    assert {figure.num for figure in found.values() if isinstance(figure, Estimate)} == {10}


def test_where_nothing_absent_was_asked_presence_is_undefined_even_of_a_perfect_model() -> None:
    found = presence_metrics(answers("++"), answers("++"), np.arange(2), rng=rng(), num_draws=DRAWS)
    assert set(found.values()) == {NO_ABSENT}
    assert presence_auc(np.ones(2), answers("++"), np.arange(2), rng=rng()) == NO_ABSENT


def test_where_nothing_present_was_asked_presence_is_undefined() -> None:
    found = presence_metrics(answers("+-"), answers("--"), np.arange(2), rng=rng(), num_draws=DRAWS)
    assert set(found.values()) == {NO_PRESENT}


@pytest.mark.parametrize(("said", "fpr"), [("++++", 1.0), ("----", 0.0)])
def test_a_model_that_always_says_the_same_has_no_mcc_but_zero(said: str, fpr: float) -> None:
    found = presence_metrics(answers(said), answers("++--"), np.arange(4), rng=rng(), num_draws=DRAWS)
    assert value(found["il_mcc"]) == 0.0
    assert value(found["il_fpr"]) == fpr
    assert value(found["presence_f1"]) == (2 / 3 if fpr else 0.0)  # 2 · 1/2 · 1 / (3/2)
    assert value(found["absence_f1"]) == (0.0 if fpr else 2 / 3)


def test_auc_by_hand() -> None:
    # present 0.9 beats 0.2, 0.4 and 0.9 by half; present 0.4 beats 0.2, and 0.4 by half: (2.5 + 1.5) / 6
    presence = np.array([0.9, 0.4, 0.2, 0.4, 0.9], np.float32)
    found = presence_auc(presence, answers("++---"), np.arange(5), rng=rng(), num_draws=DRAWS)
    assert value(found) == pytest.approx(4 / 6)


def test_presence_equal_to_the_threshold_says_present_in_double_precision() -> None:
    presence = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.6], np.float32)
    assert says_present(presence, 0.5).tolist() == [True, False, True]
    assert says_present(presence, 0.6).tolist() == [False, False, True]  # float32 0.6 is above 0.6


def test_hallucination_is_counted_by_kind_and_never_pooled() -> None:
    kinds = ["", "blank", "blank", "near_text", "near_text"]
    found = hallucination(answers("+---+"), answers("+----"), kinds, np.arange(5), rng=rng(), num_draws=DRAWS)
    assert value(found["hallucination_blank"]) == 0.0
    assert value(found["hallucination_near_text"]) == 0.5
    assert found["hallucination_noise"] == Undefined("no noise prompt was asked")
    assert len(found) == 8


def test_a_presence_is_no_hallucination_whatever_kind_stands_beside_it() -> None:
    found = hallucination(answers("+-"), answers("+-"), ["blank", "blank"], np.arange(2), rng=rng(), num_draws=DRAWS)
    assert value(found["hallucination_blank"]) == 0.0


def test_draws_without_an_absence_say_nothing_of_presence() -> None:
    # two pictures, one with presences alone, one with absences alone: half of the draws hold one of them twice
    found = presence_metrics(answers("++--"), answers("++--"), np.array([0, 0, 1, 1]), rng=rng(), num_draws=DRAWS)
    assert {figure.low for name, figure in found.items() if isinstance(figure, Estimate) and name != "il_fpr"} == {1.0}


def test_pope_pairs_presences_and_absences_image_by_image() -> None:
    said = answers("+-+++-+")
    present = answers("++--+--")
    kinds = ["", "", "random", "popular", "", "random", "random"]
    image = np.array([0, 0, 0, 0, 1, 1, 1])
    found = pope(said, present, kinds, image, rng=rng(), num_draws=DRAWS)
    # random: image 0 gives its first presence (said) and its one absence (said), image 1 its presence (said) and its
    # first absence (not said): tp 2, fp 1, fn 0, tn 1
    assert value(found["pope_random_accuracy"]) == 3 / 4
    assert value(found["pope_random_precision"]) == pytest.approx(2 / 3)
    assert value(found["pope_random_recall"]) == 1.0
    assert value(found["pope_random_f1"]) == pytest.approx(4 / 5)
    assert value(found["pope_random_mcc"]) == pytest.approx((2 * 1 - 1 * 0) / (3 * 2 * 2 * 1) ** 0.5)
    assert value(found["pope_random_yes_ratio"]) == 3 / 4
    # popular: the first presence of image 0 and its popular absence, both said
    assert value(found["pope_popular_accuracy"]) == 1 / 2
    assert value(found["pope_popular_mcc"]) == 0.0
    missing = found["pope_adversarial_f1"]
    assert isinstance(missing, Undefined)
    assert "co_occurring" in missing.why


def test_prompt_sensitivity_leaves_out_pictures_with_one_prompt() -> None:
    found = prompt_sensitivity(np.array([0.1, np.nan, 0.3], np.float32), rng=rng(), num_draws=DRAWS)
    assert value(found) == pytest.approx(0.2)
    assert isinstance(found, Estimate)
    assert found.num == 2


def test_prompt_sensitivity_without_a_pair_of_prompts_is_undefined() -> None:
    for known in ([], [np.nan]):
        found = prompt_sensitivity(np.array(known, np.float32), rng=rng(), num_draws=DRAWS)
        assert found == Undefined("no image was asked two prompts")


@pytest.mark.parametrize("num_groups", [1, 2, 40])
def test_where_all_groups_are_alike_a_blind_guesser_knows_nothing(num_groups: int) -> None:
    group = np.repeat(np.arange(num_groups), 4)
    found = blind(group, answers("+-+-" * num_groups), np.arange(len(group)), name="source", rng=rng(), num_draws=DRAWS)
    assert value(found["blind_source_auc"]) == 0.5
    assert value(found["blind_source_mcc"]) == 0.0


def test_where_phrases_are_asked_once_a_blind_guesser_knows_nothing() -> None:
    found = blind(np.arange(30), answers("++-" * 10), np.arange(30), name="phrase", rng=rng(), num_draws=DRAWS)
    assert value(found["blind_phrase_auc"]) == 0.5


def test_where_labels_are_drawn_at_random_a_blind_guesser_knows_nearly_nothing() -> None:
    draws = np.random.default_rng(3)
    aucs = [
        value(
            blind(
                draws.integers(0, 60, 600),
                draws.random(600) < 0.4,
                np.arange(600),
                name="phrase",
                rng=rng(),
                num_draws=2,
            )["blind_phrase_auc"]
        )
        for _ in range(20)
    ]
    assert abs(float(np.mean(aucs)) - 0.5) < 0.05


def test_where_the_source_gives_presence_away_a_blind_guesser_knows_all() -> None:
    group = np.repeat([0, 1], 50)
    found = blind(group, group == 0, np.arange(100), name="source", rng=rng(), num_draws=DRAWS)
    assert value(found["blind_source_auc"]) == value(found["blind_source_mcc"]) == 1.0


def test_the_blind_score_by_hand() -> None:
    # Five prompts of phrase 7, four of them present, and five absences of others, asked once each.
    group, present = np.array([7, 7, 7, 7, 7, 1, 2, 3, 4, 5]), answers("++++------")
    # The first: 4 others of its phrase, 3 present; of all 9 others 3 are. Excess 3 - 4/3 = 5/3, less one vote 2/3.
    # The absence of phrase 7: 4 others, 4 present; of all others 4/9. Excess 4 - 16/9 = 20/9, less one vote 11/9.
    expected = [2 / 3 / 14] * 4 + [11 / 9 / 14] + [0] * 5
    assert left_out_scores(group, present).tolist() == pytest.approx(expected)


def test_no_prompt_at_all_leaves_presence_undefined() -> None:
    empty, image = answers(""), np.zeros(0, np.int64)
    assert set(presence_metrics(empty, empty, image, rng=rng()).values()) == {NO_PROMPT}
    assert set(blind(image, empty, image, name="phrase", rng=rng()).values()) == {NO_PROMPT}
    for found in (pope(empty, empty, [], image, rng=rng()), hallucination(empty, empty, [], image, rng=rng())):
        assert all(isinstance(figure, Undefined) for figure in found.values())
