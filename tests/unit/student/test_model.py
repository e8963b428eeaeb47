"""The student's shape: its size, what runs once, which answers depend on what, and what training leaves alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from student.config import ModelConfig
from student.model import STRIDE, Answer, Match, Student, num_parameters
from student.tokens import ask
from tests.exports import TINY, tiny_student

IMAGES = torch.randint(0, 256, (2, 3, TINY.size, TINY.size), generator=torch.Generator().manual_seed(1))


def answer_of(student: Student, *phrases: list[str], images: Tensor = IMAGES) -> Answer:
    asked = ask(phrases, context=TINY.context)
    with torch.inference_mode():
        answer: Answer = student(images[: len(phrases)], asked.tokens_ul, asked.phrase_bp)
    return answer


def test_the_default_student_has_less_than_twelve_million_parameters() -> None:
    assert 1_000_000 < num_parameters(Student(ModelConfig(pretrained=False))) < 12_000_000


@pytest.mark.parametrize("num_phrases", [1, 5])
def test_the_image_tower_runs_once_and_each_distinct_phrase_is_read_once(num_phrases: int) -> None:
    student = tiny_student()
    calls: list[tuple[str, int]] = []
    handles = [
        module.register_forward_hook(lambda _, given, __, name=name: calls.append((name, len(given[0]))))
        for name, module in (("image", student.image), ("encoder", student.image.encoder), ("text", student.text))
    ]
    phrases = [f"thing {number}" for number in range(num_phrases)]
    answer = answer_of(student, phrases, phrases[::-1])
    for handle in handles:
        handle.remove()
    assert calls == [("encoder", 2), ("image", 2), ("text", num_phrases)]
    assert answer.presence_bp.shape == (2, num_phrases)
    assert answer.masks_bphw.shape == (2, num_phrases, TINY.size // STRIDE, TINY.size // STRIDE)


def test_an_answer_depends_on_its_own_phrase_and_picture_alone() -> None:
    student = tiny_student()
    alone, among = answer_of(student, ["a red kite"]), answer_of(student, ["owl", "a red kite", "the sea"], ["x"] * 3)
    assert torch.allclose(among.presence_bp[0, 1], alone.presence_bp[0, 0], atol=1e-5)
    assert torch.allclose(among.masks_bphw[0, 1], alone.masks_bphw[0, 0], atol=1e-4)
    assert not torch.isclose(among.presence_bp[0, 0], among.presence_bp[0, 1], atol=1e-3)
    other = answer_of(student, ["a red kite"], images=IMAGES.flip(0))
    assert not torch.isclose(other.presence_bp[0, 0], alone.presence_bp[0, 0], atol=1e-5)


def test_presence_is_decided_with_the_phrase_and_not_read_off_the_mask() -> None:
    student = Student(TINY).eval()
    student.load_state_dict(tiny_student().state_dict())
    before = answer_of(student, ["cat", "dog"])
    with torch.no_grad():
        for parameter in (*student.decoder.kernel.parameters(), *student.image.smooth[0].parameters()):
            parameter.zero_()
        student.decoder.mask_bias.fill_(9)
    after = answer_of(student, ["cat", "dog"])
    assert (after.masks_bphw == 9).all()  # over everything, whatever is asked
    assert torch.equal(after.presence_bp, before.presence_bp)
    assert before.presence_bp[0, 0] != before.presence_bp[0, 1]


def test_presence_looks_at_every_cell_of_the_picture() -> None:
    student = tiny_student()
    asked = ask([["cat"]], context=TINY.context)
    with torch.no_grad():
        seen = student.image(IMAGES[:1])
        cells = seen.cells_bnc.clone().requires_grad_()
    answer = student.decoder(replace(seen, cells_bnc=cells), student.text(asked.tokens_ul)[None])
    (gradient,) = torch.autograd.grad(answer.presence_bp.sum(), [cells])
    assert gradient.abs().sum(dim=2).gt(0).all()  # every one of them


def test_a_match_lies_between_the_mean_of_the_scores_and_the_largest() -> None:
    match = Match()
    phrases, cells = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    scores = phrases @ cells.transpose(1, 2) * match.log_scale.exp() / 8**0.5
    for log_sharpness, expected in ((-9.0, scores.mean(-1)), (6.0, scores.amax(-1))):
        with torch.no_grad():
            match.log_sharpness.fill_(log_sharpness)
            found = match(phrases, cells) - match.bias
        assert torch.allclose(found, expected, atol=0.02)


def test_phrases_differ_before_anything_is_learnt() -> None:
    torch.manual_seed(0)
    student = Student(ModelConfig(pretrained=False)).eval()
    asked = ask([["cat", "dog", "traffic light", "wine glass", "teddy bear"]], context=student.config.context)
    with torch.no_grad():
        rows = nn.functional.normalize(student.text(asked.tokens_ul), dim=1)
        alone = nn.functional.normalize(student.text.transformer(asked.tokens_ul), dim=1)
    apart = ~torch.eye(5, dtype=torch.bool)
    without_words = (alone @ alone.T)[apart].mean()
    assert (rows @ rows.T)[apart].mean() < without_words - 0.1


def test_batch_statistics_stay_as_they_were_pretrained() -> None:
    student = Student(TINY).train()
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    asked = ask([["cat"], ["dog"]], context=TINY.context)
    student(IMAGES, asked.tokens_ul, asked.phrase_bp)
    assert norms
    assert student.training
    after = [norm.running_mean for norm in norms if norm.running_mean is not None]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
