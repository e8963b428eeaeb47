"""The recipe of a further round: shares that add up to 1 exactly, and the predictions by a path that is found."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.next_recipe import next_recipe, with_false_alarms
from manifests.errors import RecipeError
from manifests.recipe import Mine, Recipe
from manifests.recipe_file import parse_recipe
from manifests.sample import NegativeKind

RECIPE = """
name = "mix"
mix = { coco = "rest" }
[sources.coco]
format = "coco"
images = "pictures"
annotations = "instances.json"
"""
KINDS = [NegativeKind.RANDOM, NegativeKind.POPULAR, NegativeKind.CO_OCCURRING, NegativeKind.NEAR_IMAGE]


def parsed(more: str = "") -> Recipe:
    return parse_recipe(RECIPE + more, where="r.toml", folder="/data/loop/round_1")


def test_false_alarms_get_their_share_and_the_others_keep_their_proportions() -> None:
    kinds = with_false_alarms({NegativeKind.RANDOM: 0.75, NegativeKind.POPULAR: 0.25}, 0.2)
    assert kinds == {NegativeKind.RANDOM: 0.6, NegativeKind.POPULAR: 0.2, NegativeKind.FALSE_ALARM: 0.2}


def test_a_recipe_that_gives_them_a_share_keeps_it() -> None:
    kinds = {NegativeKind.RANDOM: 0.9, NegativeKind.FALSE_ALARM: 0.1}
    assert with_false_alarms(kinds, 0.5) == kinds


@given(st.lists(st.integers(1, 997), min_size=1, max_size=4), st.integers(1, 99))
def test_shares_add_up_to_one_exactly(parts: list[int], percent: int) -> None:
    kinds = {kind: part / sum(parts) for kind, part in zip(KINDS, parts, strict=False)}
    found = with_false_alarms(kinds, percent / 100)
    assert sum(Fraction(str(share)) for share in found.values()) == 1
    assert all(share > 0 for share in found.values())


def test_the_next_recipe_reads_the_predictions_of_the_round_before() -> None:
    found = next_recipe(parsed(), "/data/loop/round_1/predictions.parquet", "/data/loop/round_2", share=0.25)
    assert found.mine == Mine(predictions=["../round_1/predictions.parquet"])
    assert found.prompts.kinds[NegativeKind.FALSE_ALARM] == 0.25
    third = next_recipe(found, "/data/loop/round_2/predictions.parquet", "/data/loop/round_3")
    assert third.mine is not None
    assert third.mine.predictions == ["../round_1/predictions.parquet", "../round_2/predictions.parquet"]
    assert third.prompts.kinds == found.prompts.kinds
    assert third.resolve(third.mine.predictions[0]) == "/data/loop/round_1/predictions.parquet"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(RecipeError, match=r"share of false alarms .*; expected a number between 0 and 1, such as 0.25"):
        next_recipe(parsed(), "/data/p.parquet", "/data/loop/round_2", share=share)
