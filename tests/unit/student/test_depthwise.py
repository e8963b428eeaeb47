"""Depthwise convolutions: the same as any, but in float32 where autocast on a CPU would make their gradient slow."""

import torch
from torch import nn

from student.config import ModelConfig
from student.depthwise import Depthwise, quicken
from student.model import Student

MAPS = torch.randn((2, 8, 6, 6), generator=torch.Generator().manual_seed(4))


def make_net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1))


def test_weights_names_and_values_stay() -> None:
    plain, quick = make_net(), make_net()
    quicken(quick)
    assert [type(module) for module in quick] == [Depthwise, nn.Conv2d]
    assert list(plain.state_dict()) == list(quick.state_dict())
    assert torch.equal(plain(MAPS), quick(MAPS))


def test_autocast_leaves_them_in_float32_while_they_learn() -> None:
    net = make_net()
    quicken(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net[0](MAPS)
        assert found.dtype == torch.float32
        assert net(MAPS).dtype == torch.bfloat16  # what is not depthwise
        net.requires_grad_(requires_grad=False)
        assert net[0](MAPS).dtype == torch.bfloat16
    assert torch.equal(found, make_net()[0](MAPS))


def test_all_of_the_student_are_such() -> None:
    student = Student(ModelConfig(size=64, pretrained=False))
    depthwise = [m for m in student.modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1]
    assert len(depthwise) > 10
    assert all(isinstance(module, Depthwise) for module in depthwise)
