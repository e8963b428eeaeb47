from dataclasses import replace

import pytest
import torch

from manifests.sample import MaskState
from shards.batch import MASK_STATE_CODES, Batch
from student.augment import LEAST_KEPT, Change, change_images, change_masks, draw_changes, keeps
from student.config import AugmentConfig

# B 1, P 2 prompts: a present one that is masked, and an absent one; S 64, M 16

SIDE = 16
WHOLE = Change(flip=False, top=0, left=0, side=SIDE, brightness=1.0)


def make_batch(key: str = "a-1", *, epoch: int = 0, state: MaskState = MaskState.COMPLETE) -> Batch:
    masks = torch.zeros(1, 2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 0, 5:11, 5:11] = True
    codes = [MASK_STATE_CODES[state], MASK_STATE_CODES[MaskState.COMPLETE]]
    return Batch(
        images=torch.arange(3 * 64 * 64).remainder(256).to(torch.uint8).reshape(1, 3, 64, 64),
        sizes=torch.tensor([[64, 64]]),
        phrases=[["cat", "dog"]],
        present=torch.tensor([[True, False]]),
        masks=masks,
        mask_state=torch.tensor([codes], dtype=torch.int8),
        kinds=torch.tensor([[-1, 2]], dtype=torch.int8),
        valid=torch.ones(1, 2, dtype=torch.bool),
        keys=[key],
        epochs=torch.tensor([epoch]),
        position=1,
        features=None,
    )


ALWAYS = AugmentConfig(flip=0.5, crop=1.0, least_scale=0.3, brightness=0.3)


def test_a_crop_is_taken_only_where_every_present_thing_keeps_most_of_its_mask() -> None:
    batch = make_batch()
    cropped = 0
    for epoch in range(200):
        (change,) = draw_changes(replace(batch, epochs=torch.tensor([epoch])), ALWAYS, seed=0)
        cropped += change.side < SIDE
        window = batch.masks[0, 0, change.top : change.top + change.side, change.left : change.left + change.side]
        assert window.sum() >= LEAST_KEPT * batch.masks[0, 0].sum()
    assert 20 < cropped < 200  # some were refused, and some were taken


@pytest.mark.parametrize("state", [MaskState.NONE, MaskState.PARTIAL])
def test_a_present_thing_that_is_not_masked_whole_blocks_every_crop(state: MaskState) -> None:
    changes = [draw_changes(make_batch(epoch=epoch, state=state), ALWAYS, seed=0)[0] for epoch in range(30)]
    assert {change.side for change in changes} == {SIDE}


def test_absent_prompts_and_padding_block_no_crop() -> None:
    batch = make_batch(state=MaskState.NONE)
    for hidden in (replace(batch, valid=torch.tensor([[False, True]])), replace(batch, present=batch.present & False)):
        changes = [draw_changes(replace(hidden, epochs=torch.tensor([e])), ALWAYS, seed=0)[0] for e in range(10)]
        assert any(change.side < SIDE for change in changes)


def test_a_mask_that_is_empty_at_this_size_counts_as_lost() -> None:
    assert not keeps(torch.zeros(1, SIDE, SIDE, dtype=torch.bool), 0, 0, SIDE)
    assert keeps(torch.zeros(0, SIDE, SIDE, dtype=torch.bool), 0, 0, 4)


def test_changes_depend_on_seed_epoch_and_key_alone() -> None:
    (one,) = draw_changes(make_batch(), ALWAYS, seed=1)
    assert draw_changes(make_batch(), ALWAYS, seed=1) == [one]
    others = [
        draw_changes(make_batch(), ALWAYS, seed=2)[0],
        draw_changes(make_batch(epoch=1), ALWAYS, seed=1)[0],
        draw_changes(make_batch("a-2"), ALWAYS, seed=1)[0],
    ]
    assert all(other.brightness != one.brightness for other in others)


def test_masks_stay_over_what_they_mask() -> None:
    batch = make_batch()
    images = torch.where(batch.masks[:, :1].repeat_interleave(4, 2).repeat_interleave(4, 3), 200, 20).to(torch.uint8)
    images = images.expand(1, 3, 64, 64).clone()
    change = Change(flip=True, top=3, left=2, side=11, brightness=1.0)
    changed = change_images(images, [change], mask_side=SIDE)
    masks = change_masks(batch.masks, [change])
    bright = torch.nn.functional.avg_pool2d(changed[:, :1].float(), 4)[0, 0] > 110
    overlap = (bright & masks[0, 0]).sum() / (bright | masks[0, 0]).sum()
    assert overlap > 0.8
    assert masks[0, 0].sum() > batch.masks[0, 0].sum()  # it came nearer


def test_no_change_is_none_at_all_and_the_batch_stays_as_it_was() -> None:
    batch = make_batch()
    before = batch.images.clone()
    assert torch.equal(change_images(batch.images, [WHOLE], mask_side=SIDE), before)
    assert torch.equal(change_masks(batch.masks, [WHOLE]), batch.masks)
    change_images(batch.images, [WHOLE._replace(brightness=0.5, flip=True)], mask_side=SIDE)
    assert torch.equal(batch.images, before)


def test_brightness_keeps_to_what_a_byte_holds_and_black_bars_stay_black() -> None:
    images = torch.tensor([0, 100, 250], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 64, 64)
    changed = change_images(images, [WHOLE._replace(brightness=1.2)], mask_side=SIDE)
    assert changed[0, :, 0, 0].tolist() == [0, 120, 255]


def test_brightness_rounds_to_the_nearest_byte() -> None:
    images = torch.tensor([5, 9, 101], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 64, 64)
    changed = change_images(images, [WHOLE._replace(brightness=0.9)], mask_side=SIDE)
    assert changed[0, :, 0, 0].tolist() == [4, 8, 91]  # 4.5 to the even one, 8.1, 90.9


@pytest.mark.parametrize("phrase", ["cat on the left", "Right-hand drawer", "leftmost car"])
def test_what_is_left_or_right_of_something_is_never_mirrored(phrase: str) -> None:
    always = AugmentConfig(flip=1.0)
    assert draw_changes(replace(make_batch(), phrases=[["bright copyright", "dog"]]), always, seed=0)[0].flip
    assert not draw_changes(replace(make_batch(), phrases=[["dog", phrase]]), always, seed=0)[0].flip
