"""The image encoder: four maps of any timm model, the last of them the one that its classifier reads."""

import pytest
import timm
import torch

from manifests.errors import RecipeError
from student.image_weights import LITE0, make_image_encoder

IMAGES = torch.randn((1, 3, 64, 64), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_any_model_with_levels_at_four_strides_serves(name: str) -> None:
    encoder = make_image_encoder(name, pretrained=False).eval()
    with torch.no_grad():
        maps = encoder(IMAGES)
    assert [found.shape[1] for found in maps] == encoder.channels
    assert [tuple(found.shape[2:]) for found in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]


def test_the_last_map_of_lite0_is_what_its_classifier_reads() -> None:
    encoder = make_image_encoder(LITE0, pretrained=True).eval()
    classifier = timm.create_model(LITE0, num_classes=0).eval()
    classifier.load_state_dict(encoder.net.state_dict())
    with torch.no_grad():
        last = encoder(IMAGES)[-1]
        assert torch.allclose(last.mean((2, 3)), classifier(IMAGES), atol=1e-5)
    assert last.shape[1] == 1280


def test_a_model_without_these_strides_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'test_vit' has levels at strides \(16, 16.*expected \(4, 8, 16, 32\)"):
        make_image_encoder("test_vit", pretrained=False)


def test_a_model_for_one_size_alone_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"cannot see a picture of 64 pixels: .*expected one for any size"):
        make_image_encoder("swin_tiny_patch4_window7_224", pretrained=False)


def test_a_model_whose_maps_lie_otherwise_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'test_mambaout' gives maps of .*expected channels, height and width"):
        make_image_encoder("test_mambaout", pretrained=False)
