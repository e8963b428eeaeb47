"""The draw: a mask stands first if there is any, near_image pictures come before others, repeats go round in order."""

import numpy as np
import pytest

from manifests.recipe import MINED_KINDS, Recipe
from manifests.recipe_file import parse_recipe
from manifests.sample import MaskState, NegativeKind
from shards.draw import GENERATED, SplitDraw, draw_splits
from shards.inventory import MASK_STATES, PRESENT, Inventory
from shards.mined import Mined
from shards.splits import Assignment
from tests.inventories import make_inventory
from tests.mined_rows import make_mined

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
    assert draw.mix.names[int(draw.mix.order[0])] == "s1"
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


def mined_of(inventory: Inventory, pictures: list[int], kind: NegativeKind = NegativeKind.NEAR_IMAGE) -> Mined:
    """One row of `kind` for each of `pictures`, which have a phrase that no label names."""
    image = np.array(pictures, np.int64)
    numbers = np.full(len(image), MINED_KINDS.index(kind))
    return make_mined(inventory, image, np.full(len(image), 3), numbers, np.random.default_rng(0))


def one_phrase_free(num: int = 60) -> Inventory:
    states = np.full((num, 4), PRESENT, np.int8)
    states[:, 3] = -1
    return make_inventory(states, source_n=(np.arange(num) % 2).astype(np.int16))


def drawn(inventory: Inventory, mined: Mined | None, samples: int = 20) -> SplitDraw:
    recipe = make_recipe(samples=samples)
    (draw,) = draw_splits(inventory, everything_in_train(inventory.num_images), recipe, where="r.toml", mined=mined)
    return draw


def real_of(draw: SplitDraw, source: int) -> list[int]:
    pictures = draw.picture_s[draw.picture_s != GENERATED]
    return [picture for picture in pictures.tolist() if picture % 2 == source]


def test_pictures_that_are_near_to_a_phrase_are_drawn_first_up_to_their_source_s_share() -> None:
    inventory = one_phrase_free()
    near = [8, 10, 50, 11, 13, 15, 17, 19, 21]
    draw = drawn(inventory, mined_of(inventory, near))
    assert {name: draw.mix.achieved[name] for name in draw.mix.names} == {"s0": 14, "s1": 4, "blank": 2}
    assert set(real_of(draw, 0)[:3]) == {8, 10, 50}
    assert set(real_of(draw, 1)) <= set(near)  # as many as the source's share holds
    assert real_of(draw, 0)[3:] == [p for p in real_of(drawn(inventory, None), 0) if p not in near][:11]


def test_the_better_rank_is_drawn_first_and_other_mined_kinds_move_nothing() -> None:
    inventory = one_phrase_free()
    mined = mined_of(inventory, [8, 10, 50])
    mined.rank_m[:] = [2, 0, 1]
    assert real_of(drawn(inventory, mined), 0)[:3] == [10, 50, 8]
    other = drawn(inventory, mined_of(inventory, [8, 10, 50], NegativeKind.NEAR_TEXT))
    np.testing.assert_array_equal(other.picture_s, drawn(inventory, None).picture_s)


@pytest.mark.parametrize("known", [True, False])
def test_a_picture_whose_absences_are_mined_alone_is_drawn_if_anything_is_known_of_it(known: bool) -> None:
    states = np.full((12, 4), PRESENT, np.int8)
    states[:4] = -1
    if known:
        states[:4, 0] = 2  # left open
    inventory = make_inventory(states, exhaustive_n=np.zeros(12, np.bool_), source_n=np.arange(12, dtype=np.int16) % 2)
    recipe = make_recipe(samples=5)
    mined = mined_of(inventory, [0, 2])
    (draw,) = draw_splits(inventory, everything_in_train(12), recipe, where="r.toml", mined=mined)
    assert (set(real_of(draw, 0)) >= {0, 2}) == known
