"""The draw: a split starts with a picture that has a mask if it has any, and repeats go round in order."""

import numpy as np

from manifests.recipe import Recipe
from manifests.recipe_file import parse_recipe
from manifests.sample import MaskState
from shards.draw import GENERATED, draw_splits
from shards.inventory import MASK_STATES, PRESENT, Inventory
from shards.splits import Assignment
from tests.inventories import make_inventory

TEXT = """
name = "x"
samples = {samples}
shard_samples = 10
when_short = "{when_short}"
splits = {{ train = 1.0 }}
[mix]
s0 = "rest"
s1 = 0.2
blank = 0.1
[sources.s0]
format = "build"
data = "a"
[sources.s1]
format = "build"
data = "b"
[sources.blank]
format = "blank"
"""


def make_recipe(samples: int = 40, when_short: str = "stop") -> Recipe:
    return parse_recipe(TEXT.format(samples=samples, when_short=when_short), where="r.toml", folder="/")


def with_boxes_alone(inventory: Inventory, source: int) -> Inventory:
    """The inventory, its labels of `source` without masks."""
    owner = np.repeat(np.arange(inventory.num_images), np.diff(inventory.labels.starts))
    boxes = inventory.source_n[owner] == source
    inventory.labels.mask_state_l[boxes] = MASK_STATES.index(MaskState.NONE)
    return inventory


def everything_in_train(num: int) -> Assignment:
    return Assignment(split_n=np.zeros(num, np.int8), group_n=np.arange(num), leaks=())


def two_sources(num: int = 60) -> Inventory:
    states = np.full((num, 3), PRESENT, np.int8)
    return make_inventory(states, source_n=(np.arange(num) % 2).astype(np.int16))


def test_the_first_sample_has_a_mask_though_the_largest_source_has_boxes_alone() -> None:
    inventory = with_boxes_alone(two_sources(), 0)
    (draw,) = draw_splits(inventory, everything_in_train(60), make_recipe(), where="r.toml")
    assert draw.source_of(0) == "s1"
    assert {name: draw.mix.achieved[name] for name in draw.mix.names} == {"s0": 28, "s1": 8, "blank": 4}


def test_no_picture_stands_twice_unless_the_recipe_repeats() -> None:
    (draw,) = draw_splits(two_sources(), everything_in_train(60), make_recipe(), where="r.toml")
    real = draw.picture_s[draw.picture_s != GENERATED]
    assert len(set(real.tolist())) == len(real)
    assert not draw.repeat_s.any()


def test_repeats_go_through_all_pictures_before_any_stands_again() -> None:
    recipe = make_recipe(samples=200, when_short="repeat")
    (draw,) = draw_splits(two_sources(), everything_in_train(60), recipe, where="r.toml")
    real = draw.picture_s != GENERATED
    counts = np.bincount(draw.picture_s[real], minlength=60)
    assert np.ptp(counts[::2]) <= 1
    assert np.ptp(counts[1::2]) <= 1
    pairs = set(zip(draw.picture_s[real].tolist(), draw.repeat_s[real].tolist(), strict=True))
    assert len(pairs) == real.sum()
