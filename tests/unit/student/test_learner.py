from dataclasses import replace

import pytest
import torch

from manifests.errors import RecipeError, TrainingError
from manifests.sample import MaskState
from shards.batch import MASK_STATE_CODES, Batch
from student.config import AugmentConfig, LossConfig, OptimiserConfig
from student.distributed import Ranks
from student.learner import Learner, Losses, objective, phase_losses
from student.lesson import Tutor
from student.model import Student
from student.optimiser import make_optimiser, set_rate
from student.schedule import Place, make_schedule
from student.soft_targets import blend_masks
from student.stepping import Stepper
from student.teacher import Teacher
from student.tokens import ask
from tests.students import TINY, make_batch, tiny_config

PLAIN = AugmentConfig(flip=0, crop=0, brightness=0)
COMPLETE, NONE = MASK_STATE_CODES[MaskState.COMPLETE], MASK_STATE_CODES[MaskState.NONE]


def make_learner(teacher_width: int | None = None) -> Learner:
    torch.manual_seed(0)
    return Learner(Student(TINY), teacher_width).train()


def tutor(**changes: object) -> Tutor:
    return replace(
        Tutor(config=tiny_config(augmentation=PLAIN), device=torch.device("cpu")),
        **changes,  # type: ignore[arg-type]
    )


def refined(learner: Learner, batch: Batch, config: LossConfig | None = None) -> Losses:
    return phase_losses(learner, 2, tutor().prepare(batch, 2), config or LossConfig())


def means(losses: Losses) -> dict[str, float]:
    return {name: found.total.item() / found.num.item() for name, found in losses.items()}


def test_padding_prompts_change_no_loss() -> None:
    learner = make_learner()
    narrow, wide = means(refined(learner, make_batch())), means(refined(learner, make_batch(padding=3)))
    assert narrow == pytest.approx(wide, rel=1e-5)
    assert set(narrow) == {"presence", "mask_bce", "mask_dice"}


def test_absent_prompts_give_no_gradient_to_masks() -> None:
    learner = make_learner()
    batch = make_batch()
    losses = refined(learner, replace(batch, present=batch.present & False))
    assert losses["mask_bce"].num == 0
    torch.autograd.backward(objective(losses, torch.tensor([3.0, 0, 0]), LossConfig(), world_size=1))
    decoder = learner.student.decoder
    for of_masks in (decoder.kernel, learner.student.image.smooth[0]):
        assert all(p.grad is None or not p.grad.any() for p in of_masks.parameters())
    assert any(p.grad is not None and p.grad.any() for p in decoder.presence.parameters())


def test_a_loss_of_weight_nothing_is_left_out() -> None:
    assert set(refined(make_learner(), make_batch(), LossConfig(mask_dice=0))) == {"presence", "mask_bce"}


def test_what_is_minimised_are_weighted_means_over_what_all_ranks_hold() -> None:
    learner = make_learner()
    losses = refined(learner, make_batch())
    config = LossConfig(presence=2.0, mask_bce=0.5, mask_dice=3.0)
    whole = objective(losses, torch.tensor([3.0, 1, 1]), config, world_size=1)
    mean = means(losses)
    expected = 2 * mean["presence"] + 0.5 * mean["mask_bce"] + 3 * mean["mask_dice"]
    assert whole.item() == pytest.approx(expected, rel=1e-5)
    assert objective(losses, torch.tensor([6.0, 2, 2]), config, world_size=2).item() == pytest.approx(whole.item())


def test_alignment_leaves_out_phrases_that_the_teacher_lacks_and_pulls_on_the_others() -> None:
    learner = make_learner(teacher_width=6)
    rows = torch.eye(6, dtype=torch.float16)[:1]
    teacher = Teacher(parts=[], row_of={"cat": 0}, rows_vd=rows, mean=0.0, deviation=1.0)
    batch = replace(make_batch(), features=torch.eye(6, dtype=torch.float16)[1:3])
    losses = phase_losses(learner, 1, tutor(teacher=teacher).prepare(batch, 1), LossConfig())
    assert {name: int(found.num) for name, found in losses.items()} == {
        "align_image": 2,
        "align_text": 2,
        "align_match": 2,
    }
    assert 0 < means(losses)["align_text"] < 2


def test_matching_teaches_presence_what_the_teacher_thinks_of_every_phrase_in_every_picture() -> None:
    learner = make_learner(teacher_width=2)
    rows = torch.eye(2, dtype=torch.float16)
    teacher = Teacher(parts=[], row_of={"cat": 0, "kite": 1}, rows_vd=rows, mean=0.5, deviation=0.5)
    batch = replace(make_batch(), features=rows.flip(0))  # a kite and a cat, whatever the labels say
    lesson = tutor(teacher=teacher).prepare(batch, 1)
    learner.teach_only(1, OptimiserConfig())
    optimiser = torch.optim.AdamW([weight for weight in learner.parameters() if weight.requires_grad], lr=3e-3)
    for _ in range(40):
        optimiser.zero_grad()
        found = phase_losses(learner, 1, lesson, LossConfig())["align_match"]
        (found.total / found.num).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    tokens = ask([["cat", "kite"], ["cat", "kite"]], context=TINY.context)
    presence_bp, _ = learner(2, batch.images, tokens.tokens_ul, tokens.phrase_bp)
    torch.testing.assert_close(presence_bp, torch.tensor([[-3.0, 1.0], [1.0, -3.0]]), atol=0.5, rtol=0)


def test_without_matching_a_lesson_has_nothing_to_match() -> None:
    learner = make_learner(teacher_width=2)
    rows = torch.eye(2, dtype=torch.float16)
    teacher = Teacher(parts=[], row_of={"cat": 0, "dog": 1}, rows_vd=rows, mean=0.0, deviation=1.0)
    config = tiny_config(augmentation=PLAIN, losses=LossConfig(align_match=0))
    lesson = tutor(teacher=teacher, config=config).prepare(replace(make_batch(), features=rows), 1)
    assert lesson.matched_kl is None
    assert set(phase_losses(learner, 1, lesson, config.losses)) == {"align_image", "align_text"}


def test_phrases_that_are_too_long_are_not_matched() -> None:
    rows = torch.eye(2, dtype=torch.float16)
    teacher = Teacher(parts=[], row_of={"cat": 0, "cat " * 40: 1}, rows_vd=rows, mean=0.0, deviation=1.0)
    lesson = tutor(teacher=teacher).prepare(replace(make_batch(), features=rows), 1)
    assert lesson.matched_kl is not None
    assert lesson.match_bk is not None
    assert len(lesson.matched_kl) == lesson.match_bk.shape[1] == 1


def test_positives_only_leaves_absent_prompts_out_of_every_loss() -> None:
    lesson = tutor(positives_only=True).prepare(make_batch(), 2)
    losses = phase_losses(make_learner(), 2, lesson, LossConfig())
    assert losses["presence"].num == 1


def test_phases_train_what_is_theirs() -> None:
    learner = make_learner(teacher_width=6)
    learner.teach_only(1, OptimiserConfig())
    decoder = learner.student.decoder
    taught = {name.partition(".")[0] for name, weight in decoder.named_parameters() if weight.requires_grad}
    assert taught == {"query", "presence"}
    assert all(p.requires_grad for p in learner.align.parameters())
    learner.teach_only(2, OptimiserConfig(image_learning_rate=0))
    assert all(p.requires_grad for p in learner.student.decoder.parameters())
    assert not any(p.requires_grad for p in learner.align.parameters())
    assert not any(p.requires_grad for p in learner.student.image.encoder.parameters())
    assert all(p.requires_grad for p in learner.student.image.sideways.parameters())


def test_the_first_layers_of_the_encoder_may_stay_as_they_are() -> None:
    learner = make_learner()
    learner.teach_only(2, OptimiserConfig(image_frozen_stride=8))
    encoder = learner.student.image.encoder
    changes = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    assert changes
    assert len(changes) < len(list(encoder.parameters()))
    images = torch.randn((1, 3, 64, 64), generator=torch.Generator().manual_seed(3))
    before = encoder(images)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    after = encoder(images)
    assert [bool(torch.equal(old, new)) for old, new in zip(before, after, strict=True)] == [True, True, False, False]
    learner.teach_only(2, OptimiserConfig())
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_the_encoder_has_its_own_rate_and_vectors_do_not_decay() -> None:
    learner = make_learner()
    config = OptimiserConfig(learning_rate=0.1, image_learning_rate=0.01, weight_decay=0.5)
    learner.teach_only(2, config)
    optimiser = make_optimiser(learner, config)
    set_rate(optimiser, 0.5)
    group_of = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in learner.named_parameters():
        group = group_of[id(parameter)]
        assert group["lr"] == pytest.approx(0.005 if ".encoder." in name else 0.05)
        assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0)


def test_a_loss_that_is_no_number_names_the_step_and_the_samples() -> None:
    learner = make_learner()
    with torch.no_grad():
        learner.student.decoder.presence.bias.fill_(torch.nan)
    stepper = Stepper(learner, tutor(), Ranks())
    place = _first_place()
    stepper.begin(place, None)
    with pytest.raises(TrainingError) as caught:
        stepper.learn(make_batch(), place, step=41, stop=False)
    assert str(caught.value).startswith("step 42: the loss (presence) is no finite number over the samples a, b;")


def test_a_gradient_that_is_no_number_stops_before_the_weights_are_touched() -> None:
    learner = make_learner()
    stepper = Stepper(learner, tutor(), Ranks())
    place = _first_place()
    stepper.begin(place, None)
    learner.student.decoder.presence.bias.register_hook(lambda grad: grad * torch.nan)  # type: ignore[no-untyped-call]
    before = learner.student.decoder.presence.bias.clone()
    with pytest.raises(TrainingError, match="step 1: the gradient is no finite number over the samples a, b"):
        stepper.learn(make_batch(), place, step=0, stop=False)
    assert torch.equal(learner.student.decoder.presence.bias, before)


def _first_place() -> Place:

    return make_schedule((2,), (1,), epoch_samples=20, batch_size=2).at(3)


def test_masks_of_another_size_are_refused() -> None:
    batch = make_batch()
    with pytest.raises(TrainingError, match=r"masks of 8 x 8 beside pictures of 64 x 64; .* mask_size=16"):
        tutor().prepare(replace(batch, masks=batch.masks[..., :8, :8]), 2)


def test_a_phrase_longer_than_the_context_is_refused() -> None:
    batch = replace(make_batch(), phrases=[["cat", "dog"], ["one " * 20]])
    with pytest.raises(RecipeError, match="has 22 tokens with its ends; expected at most 16"):
        tutor().prepare(batch, 2)


def test_the_teachers_mask_stands_in_where_none_is_whole_and_counts_for_its_share_elsewhere() -> None:
    batch = make_batch()
    batch.present[1, 0] = True
    batch.mask_state[1, 0] = NONE
    soft, has = torch.zeros_like(batch.masks), torch.zeros_like(batch.present)
    soft[0, 0, :8] = soft[1, 0, 2:5] = True
    has[0, 0] = has[1, 0] = True
    filled, target = blend_masks(batch, (soft, has), share=0.25)
    assert torch.equal(filled.masks[1, 0], soft[1, 0])
    assert filled.mask_state[1, 0] == COMPLETE
    assert torch.equal(filled.masks[0, 0], batch.masks[0, 0])
    assert target is not None
    assert torch.equal(target[0, 0], 0.25 * soft[0, 0].float() + 0.75 * batch.masks[0, 0].float())
    assert target[1].isnan().all()
    assert blend_masks(batch, (soft, has), share=0)[1] is None
