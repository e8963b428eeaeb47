"""Encoders by name: what each name loads, what is refused, and that nothing is fetched that was not asked for."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from manifests.errors import RecipeError
from miners import open_clip_weights
from miners.encoders import DEFAULT, DEFAULT_REPOSITORY, Encoder, choose_encoder
from miners.templates import read_templates

SIDE, WIDTH = 32, 24
MODEL_CFG: dict[str, Any] = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": SIDE, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESS_CFG = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25], "resize_mode": "longest", "fill_color": 9}
REPOSITORY = "somebody/tiny-clip"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take many times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model small enough for a test, which open_clip knows meanwhile."""
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "tiny-clip.json").write_text(json.dumps(MODEL_CFG))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS, configs])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {**open_clip.factory._MODEL_CONFIGS})
    open_clip.factory._rescan_model_configs()
    return "tiny-clip"


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.model.CLIP(**MODEL_CFG)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def write_weights(path: Path, seed: int = 0) -> Path:
    save_file(random_weights(seed), str(path))
    return path


def write_folder(folder: Path) -> Path:
    """A folder as open_clip saves one for the hub."""
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG})
    )
    write_weights(folder / "open_clip_model.safetensors")
    return folder


def write_hub(cache: Path, repository: str, sources: dict[str, bytes]) -> None:
    """A repository in the hub's cache, laid out as the hub does: blobs, and a snapshot of links to them."""
    home = cache / f"models--{repository.replace('/', '--')}"
    revision = "1" * 40
    for folder in ("refs", "blobs", f"snapshots/{revision}"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(revision)
    for name, data in sources.items():
        blob = home / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (home / "snapshots" / revision / name).symlink_to(Path("..", "..", "blobs", blob.name))


def pixels(num: int = 3, views: int = 1, *, side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (num, views, side, side, 3), np.uint8)


def assert_is_encoder(encoder: Encoder) -> None:
    rows_bd, rows_vd = encoder.encode_images(pixels()), encoder.encode_texts(["cat", "red kite"])
    assert rows_bd.shape == (3, WIDTH)
    assert rows_vd.shape == (2, WIDTH)
    assert rows_bd.dtype == rows_vd.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows_bd, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows_vd, axis=1), 1, atol=1e-5)
    assert encoder.dim == WIDTH
    assert len(encoder.digest) == 16


def test_a_model_with_the_weights_of_a_file_gives_open_clips_own_rows(tiny_model: str, tmp_path: Path) -> None:
    file = write_weights(tmp_path / "weights.safetensors", seed=4)
    chosen = choose_encoder(f"{tiny_model}@{file}")
    assert_is_encoder(chosen.encoder)
    assert chosen.why == f"{tiny_model}@{file} was asked for by name."

    model, _, transform = open_clip.create_model_and_transforms(tiny_model, pretrained=str(file))
    model = model.eval()
    from PIL import Image

    shown = pixels()
    with torch.inference_mode():
        expected = model.encode_image(torch.stack([transform(Image.fromarray(p[0])) for p in shown]), normalize=True)
    np.testing.assert_allclose(chosen.encoder.encode_images(shown), expected.numpy(), atol=1e-5)


def test_text_rows_are_the_mean_over_the_templates(tiny_model: str, tmp_path: Path) -> None:
    file = write_weights(tmp_path / "weights.safetensors")
    said = tmp_path / "said.toml"
    rows = []
    for templates in (["{}"], ["a {}"], ["{}", "a {}"]):
        said.write_text(f"[open_clip]\ntemplates = {json.dumps(templates)}\n")
        rows.append(choose_encoder(f"{tiny_model}@{file}", templates=str(said)).encoder.encode_texts(["cat"]))
    mean = rows[0] + rows[1]
    np.testing.assert_allclose(rows[2], mean / np.linalg.norm(mean), atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


def test_views_of_a_picture_are_pooled(tiny_model: str, tmp_path: Path) -> None:
    encoder = choose_encoder(f"{tiny_model}@{write_weights(tmp_path / 'w.safetensors')}").encoder
    shown = pixels(2, 3)
    mean = np.mean([encoder.encode_images(shown[:, view : view + 1]) for view in range(3)], axis=0)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_images(shown), expected, atol=1e-5)


def test_the_digest_changes_with_weights_and_templates_and_with_nothing_else(tiny_model: str, tmp_path: Path) -> None:
    one, other = write_weights(tmp_path / "one.safetensors"), write_weights(tmp_path / "other.safetensors", seed=1)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(one.read_bytes())
    said = tmp_path / "said.toml"
    said.write_text('[open_clip]\ntemplates = ["{}"]\n')
    digests = [choose_encoder(f"{tiny_model}@{file}").encoder.digest for file in (one, copy, other)]
    templated = choose_encoder(f"{tiny_model}@{one}", templates=str(said)).encoder.digest
    assert digests[0] == digests[1]
    assert len({digests[0], digests[2], templated}) == 3


def test_weights_and_preprocessing_have_digests_of_their_own(tiny_model: str, tmp_path: Path) -> None:
    one, other = write_weights(tmp_path / "one.safetensors"), write_weights(tmp_path / "other.safetensors", seed=1)
    said = tmp_path / "said.toml"
    said.write_text('[open_clip]\ntemplates = ["{}"]\n')
    plain, heavier = (choose_encoder(f"{tiny_model}@{file}").encoder for file in (one, other))
    templated = choose_encoder(f"{tiny_model}@{one}", templates=str(said)).encoder
    assert plain.weights_digest == templated.weights_digest == hashlib.sha256(one.read_bytes()).hexdigest()[:16]
    assert plain.weights_digest != heavier.weights_digest
    assert plain.preprocessing_digest == heavier.preprocessing_digest != templated.preprocessing_digest


def test_a_folder_as_open_clip_saves_it_is_loaded_with_its_preprocessing(tmp_path: Path) -> None:
    encoder = choose_encoder(f"local-dir:{write_folder(tmp_path / 'saved')}").encoder
    assert_is_encoder(encoder)
    assert (encoder.geometry.resize, encoder.geometry.fill, encoder.geometry.width) == ("longest", 9, SIDE)


def test_a_repository_in_the_hubs_cache_is_loaded_without_network(hub: Path, tmp_path: Path) -> None:
    saved = write_folder(tmp_path / "saved")
    write_hub(hub, REPOSITORY, {file.name: file.read_bytes() for file in saved.iterdir()})
    from_hub = choose_encoder(f"hf-hub:{REPOSITORY}").encoder
    from_folder = choose_encoder(f"local-dir:{saved}").encoder
    assert_is_encoder(from_hub)
    assert from_hub.digest == from_folder.digest


def test_auto_takes_conse_where_the_default_is_not_at_hand_and_says_so() -> None:
    chosen = choose_encoder("auto")
    assert chosen.encoder.name == "conse"
    assert DEFAULT in chosen.why
    assert "not on this machine" in chosen.why


def test_the_defaults_repository_is_the_one_that_open_clip_names() -> None:
    model, _, tag = DEFAULT.rpartition("/")

    assert open_clip.pretrained.get_pretrained_cfg(model, tag)["hf_hub"] == f"{DEFAULT_REPOSITORY}/"


def test_auto_does_not_ask_open_clip_where_the_cache_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip_weights, "parse_name", lambda name: pytest.fail(f"open_clip was asked for {name}"))

    assert choose_encoder("auto").encoder.name == "conse"


def test_auto_takes_open_clips_default_where_its_weights_are_at_hand(
    hub: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = open_clip.factory._MODEL_CONFIGS[tiny_model]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-256", tiny)
    weights = write_weights(tmp_path / "w.safetensors")
    write_hub(hub, DEFAULT_REPOSITORY, {"open_clip_model.safetensors": weights.read_bytes()})
    chosen = choose_encoder("auto")
    assert chosen.encoder.name == DEFAULT
    assert chosen.why == f"auto took {DEFAULT}: its weights are on this machine."
    assert choose_encoder(DEFAULT).encoder.digest == chosen.encoder.digest


@pytest.mark.parametrize("name", [DEFAULT, f"hf-hub:{REPOSITORY}"])
def test_a_named_encoder_that_cannot_be_had_is_an_error_and_no_fallback(name: str) -> None:
    with pytest.raises(RecipeError, match="neither in the hub's cache nor to be fetched") as caught:
        choose_encoder(name)
    assert name in str(caught.value)
    assert "take conse" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "expected auto, conse, MODEL/PRETRAINED"),
        ("clip", "expected auto, conse, MODEL/PRETRAINED"),
        ("ViT-B-99/openai", "open_clip knows no model 'ViT-B-99'.*ViT-B-32"),
        ("ViT-B-32/nowhere", "ViT-B-32 has no pretrained tag 'nowhere'; its tags: .*laion2b_s34b_b79k"),
        ("hf-hub:tiny-clip", "expected hf-hub:ORG/NAME"),
        ("ViT-B-32@nowhere.safetensors", "nowhere.safetensors does not exist; expected the model's weights there"),
        ("local-dir:nowhere", "open_clip_config.json does not exist; expected a folder as open_clip saves it"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_what_was_expected(name: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        choose_encoder(name)


def test_a_pickle_is_refused_unless_that_very_file_is_allowed(tiny_model: str, tmp_path: Path) -> None:
    pickled = tmp_path / "weights.pt"
    torch.save(random_weights(), pickled)
    for allowed in ("", str(tmp_path / "another.pt"), "weights.pt"):
        with pytest.raises(RecipeError, match=r"weights.pt is no safetensors file, and a pickle can run code"):
            choose_encoder(f"{tiny_model}@{pickled}", allow_pickle=allowed)
    assert_is_encoder(choose_encoder(f"{tiny_model}@{pickled}", allow_pickle=str(pickled)).encoder)


def test_a_pickle_under_a_safe_name_is_refused(tiny_model: str, tmp_path: Path) -> None:
    pickled = tmp_path / "weights.safetensors"
    torch.save(random_weights(), pickled)
    with pytest.raises(RecipeError, match="is no safetensors file"):
        choose_encoder(f"{tiny_model}@{pickled}")


def test_a_repository_that_holds_a_pickle_alone_is_refused_unless_it_is_allowed(hub: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "weights.bin"
    torch.save(random_weights(), pickled)
    config = json.dumps({"model_cfg": MODEL_CFG}).encode()
    named = {"open_clip_pytorch_model.bin": pickled.read_bytes(), "open_clip_config.json": config}
    write_hub(hub, REPOSITORY, named)
    with pytest.raises(RecipeError, match=r"open_clip_model.safetensors of somebody/tiny-clip is neither"):
        choose_encoder(f"hf-hub:{REPOSITORY}")
    allowed = f"{REPOSITORY}/open_clip_pytorch_model.bin"
    assert_is_encoder(choose_encoder(f"hf-hub:{REPOSITORY}", allow_pickle=allowed).encoder)


def test_weights_of_another_model_and_damaged_ones_are_refused(tiny_model: str, tmp_path: Path) -> None:
    whole = write_weights(tmp_path / "whole.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    fewer = random_weights()
    fewer.pop("visual.proj")
    save_file(fewer, str(tmp_path / "fewer.safetensors"))
    for name in ("cut", "fewer"):
        with pytest.raises(RecipeError, match=f"{name}.safetensors does not load: .*expected the weights of this very"):
            choose_encoder(f"{tiny_model}@{tmp_path / name}.safetensors")


def test_a_research_licence_is_said() -> None:
    named = open_clip_weights.parse_name("MobileCLIP2-S0/dfndr2b")
    assert "research only" in open_clip_weights.licence_note(named)
    assert open_clip_weights.licence_note(open_clip_weights.parse_name(DEFAULT)) == ""


def test_the_activation_that_a_tag_was_trained_with_is_used(
    hub: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where open_clip itself only warns that they differ."""
    tag = {**open_clip.get_pretrained_cfg("ViT-B-32", "openai"), "hf_hub": f"{REPOSITORY}/"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny_model, {"openai": tag})
    weights = write_weights(tmp_path / "w.safetensors").read_bytes()
    write_hub(hub, REPOSITORY, {"open_clip_model.safetensors": weights})
    tagged = choose_encoder(f"{tiny_model}/openai").encoder.encode_images(pixels())
    plain = choose_encoder(f"{tiny_model}@{tmp_path / 'w.safetensors'}").encoder.encode_images(pixels())
    assert np.abs(tagged - plain).max() > 1e-4


def test_open_clips_log_lines_and_its_logging_setup_stay_out(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # as a fresh program has it
    choose_encoder(f"{tiny_model}@{write_weights(tmp_path / 'w.safetensors')}")
    assert root.handlers == []
    assert root.manager.disable == logging.NOTSET
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[conse]\ntemplates = ["{}"]\n', r"no templates for ViT-X; expected a table \[ViT-X\] or \[open_clip\]"),
        ("[open_clip]\ntemplates = []\n", "expected each to hold {} once, found none"),
        ('[open_clip]\ntemplates = ["a photo"]\n', "expected each to hold {} once, found 'a photo'"),
        ('[open_clip]\ntemplates = ["{} {}"]\n', "expected each to hold {} once, found '{} {}'"),
        ("[open_clip]\ntemplates = 3\n", "no file of templates: .*Expected `array`"),
        ("[open_clip]\nprompts = []\n", "no file of templates: .*prompts"),
        ("templates", "no file of templates"),
        ("\xff", "no file of templates"),
    ],
)
def test_a_file_of_templates_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "said.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecipeError, match=said):
        read_templates("ViT-X", family="open_clip", uri=str(file))
    with pytest.raises(RecipeError, match="the templates cannot be read"):
        read_templates("ViT-X", family="open_clip", uri=str(tmp_path / "nowhere.toml"))


def test_templates_of_an_encoder_by_its_name_go_before_those_of_its_family(tmp_path: Path) -> None:
    file = tmp_path / "said.toml"
    file.write_text('["ViT-X"]\ntemplates = ["x {}"]\n[open_clip]\ntemplates = ["y {}"]\n')
    assert read_templates("ViT-X", family="open_clip", uri=str(file)) == ("x {}",)
    assert read_templates("ViT-Y", family="open_clip", uri=str(file)) == ("y {}",)
    assert len(read_templates("ViT-Y", family="open_clip")) == 7
