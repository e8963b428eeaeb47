from collections.abc import Mapping, Sequence

import pytest

from student.graphs import Graphs
from student.quantisation import Recipe, chosen_of, is_over, remedy, worst_drop
from student.readings import Drop, LayerCost, Variant

COSTS = [
    LayerCost(layer="text embedding", metric="il_mcc", drop=0.04),
    LayerCost(layer="decoder mask", metric="miou", drop=0.03),
    LayerCost(layer="text embedding", metric="miou", drop=0.01),
    LayerCost(layer="image neck", metric="miou", drop=0.005),
    LayerCost(layer="decoder presence", metric="miou", drop=0.0),
]


def make_variant(name: str, drops: Sequence[float], *, num_bytes: int = 10, bound: float = 0.02) -> Variant:
    """A variant with these drops, of each metric from each base in turn."""
    places = [("fp32", "miou"), ("fp32", "il_mcc"), ("fp16", "miou"), ("fp16", "il_mcc")]
    return Variant(
        name=name,
        num_bytes={"image.onnx": num_bytes},
        readings={},
        drops=[
            Drop(
                metric=metric,
                base=base,
                base_value=1.0,
                value=1 - drop,
                drop=drop,
                low=drop,
                high=drop,
                bound=bound,
                verdict="over" if drop > bound else "within",
            )
            for (base, metric), drop in zip(places, drops, strict=False)
        ],
        flipped_presences=0,
        num_prompts=10,
    )


class FakeTrial:
    """Tries what it is told, with the drops that it is told."""

    def __init__(self, drops: Mapping[str, float]) -> None:
        self.variants = [make_variant("int8-int4", [drops.get("int8-int4", 0.05)])]
        self._drops = drops

    def add(self, name: str, graphs: Graphs, remedy: str = "") -> Variant:
        variant = make_variant(name, [self._drops.get(name, 0.05)])
        self.variants.append(variant)
        return variant


class FakeQuantiser:
    """Notes the recipes."""

    def __init__(self) -> None:
        self.recipes: list[Recipe] = []

    def graphs_of(self, recipe: Recipe) -> Graphs:
        self.recipes.append(recipe)
        return {}


def tried(drops: Mapping[str, float]) -> list[Recipe]:
    quantiser = FakeQuantiser()
    remedy(FakeTrial(drops), quantiser, COSTS)
    return quantiser.recipes


def test_better_ranges_are_tried_first_and_nothing_after_what_helped() -> None:
    assert [recipe.name for recipe in tried({"int8-int4-percentile": 0.02})] == ["int8-int4-percentile"]
    assert [recipe.method for recipe in tried({"int8-int4-entropy": 0.0})] == ["percentile", "entropy"]


def test_then_the_costliest_layers_are_kept_in_float_with_the_best_ranges_so_far() -> None:
    recipes = tried({"int8-int4-entropy": 0.03, "int8-int4-float2": 0.01})
    assert [recipe.kept for recipe in recipes[2:]] == [("text embedding",), ("text embedding", "decoder mask")]
    assert {recipe.method for recipe in recipes[2:]} == {"entropy"}
    assert recipes[-1].remedy == "ranges by entropy, text embedding and decoder mask in float"


def test_at_most_three_groups_are_kept_and_none_that_cost_nothing() -> None:
    assert [recipe.name for recipe in tried({})][2:] == ["int8-int4-float1", "int8-int4-float2", "int8-int4-float3"]


def test_layers_that_cost_nothing_are_not_kept() -> None:
    quantiser = FakeQuantiser()
    remedy(FakeTrial({}), quantiser, [LayerCost(layer="image neck", metric="miou", drop=0.0)])
    assert [recipe.kept for recipe in quantiser.recipes] == [(), ()]


def test_a_variant_is_over_if_any_of_its_drops_is() -> None:
    assert is_over(make_variant("one", [0.0, 0.021]))
    assert not is_over(make_variant("two", [0.02, 0.0]))
    assert not is_over(make_variant("unknown", []))
    assert worst_drop(make_variant("one", [-0.1, 0.021])) == 0.021
    assert worst_drop(make_variant("unknown", [])) == -float("inf")


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([make_variant("int8-int4", [0.01] * 4, num_bytes=9)], "int8-int4"),
        ([make_variant("int8-int4", [0.03] * 4, num_bytes=9)], "fp16"),
        (
            [
                make_variant("int8-int4", [0.01, 0.03, 0.01, 0.01], num_bytes=9),
                make_variant("int8-int4-float1", [0.01] * 4, num_bytes=12),
            ],
            "int8-int4-float1",
        ),
        ([make_variant("int8-int4", [0.01] * 2, num_bytes=9)], "fp16"),  # one metric could not be judged
    ],
)
def test_the_smallest_variant_that_is_known_to_be_good_enough_is_chosen(others: list[Variant], chosen: str) -> None:
    bases = [make_variant("fp32", []), make_variant("fp16", [0.0, 0.0])]
    assert chosen_of([*bases, *others]) == chosen
