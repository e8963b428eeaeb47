import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import Sam3Model, Sam3Processor

from manifests.errors import PredictionError, RecipeError
from student import sam3
from student.predict import open_predictor
from student.sam3 import Sam3Predictor
from tests.sam3 import SIDE, write_sam3

PHRASES = ["cat", "a red kite", "café chair", "zebra", "dog", "person", "car", "bird", "the ninth phrase"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("sam3") / "tiny"
    write_sam3(found)
    return found


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Sam3Predictor:
    found = open_predictor(f"sam3:{folder}", device="cpu")
    assert isinstance(found, Sam3Predictor)
    return found


def pictures(num: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (num, 3, SIDE, SIDE), np.uint8)


def test_answers_are_those_of_the_library_one_by_one(folder: Path, teacher: Sam3Predictor) -> None:
    images_b3ss = pictures()
    found = teacher.predict(images_b3ss, [PHRASES, ["zebra"]])
    model: torch.nn.Module = Sam3Model.from_pretrained(folder)
    model.eval()
    processor = Sam3Processor.from_pretrained(folder)
    expected_p = []
    for row, phrase in enumerate(PHRASES):
        inputs = processor(images=torch.from_numpy(images_b3ss[0]), text=phrase, return_tensors="pt")
        with torch.inference_mode():
            answer = model(**inputs)
        expected_p.append(float(answer.presence_logits.sigmoid()))
        expected_hw = answer.semantic_seg.sigmoid()[0, 0].numpy()
        np.testing.assert_allclose(found[0].masks_phw[row], expected_hw, atol=1e-4)
    np.testing.assert_allclose(found[0].presence_p, expected_p, atol=1e-4)
    assert np.ptp(found[0].presence_p) > 1e-3, "this SAM 3 answers everything alike, so the test would not see a mix-up"
    assert [found[0].masks_phw.shape, found[1].masks_phw.shape] == [(9, 32, 32), (1, 32, 32)]


def test_rounds_see_each_picture_once(teacher: Sam3Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    see = teacher._see

    def counted(image_3ss: NDArray[np.uint8]) -> object:
        seen.append(1)
        return see(image_3ss)

    monkeypatch.setattr(teacher, "_see", counted)
    rounds = list(teacher.predict_rounds(pictures(), [[["cat"], []], [["dog"], ["zebra", "cat"]]]))
    assert len(seen) == 2
    assert [[len(one.presence_p) for one in answers] for answers in rounds] == [[1, 0], [1, 2]]
    assert [len(one.masks_phw) for one in rounds[0]] == [1, 0]


def test_it_wants_pictures_as_its_own_processor_makes_them(teacher: Sam3Predictor) -> None:
    assert (teacher.size, teacher.stretch) == (SIDE, True)


def test_features_are_unit_rows_of_one_width(teacher: Sam3Predictor) -> None:
    images_bd, phrases_vd = teacher.image_rows(pictures(3)), teacher.phrase_rows(["cat", "dog"])
    assert (images_bd.shape, phrases_vd.shape) == ((3, 32), (2, 32))
    for rows in (images_bd, phrases_vd):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert abs(phrases_vd[0] - phrases_vd[1]).max() > 1e-3


def test_a_phrase_has_the_same_row_whatever_was_asked_before(folder: Path, teacher: Sam3Predictor) -> None:
    before = teacher.phrase_rows(["cat"])
    for start in range(3):
        teacher.phrase_rows([f"thing {start} {number}" for number in range(4)])
    fresh = open_predictor(f"sam3:{folder}", device="cpu")
    assert isinstance(fresh, Sam3Predictor)
    assert np.array_equal(fresh.phrase_rows(["dog", "cat"])[1:], before)


def test_the_digest_is_of_the_weights(tmp_path: Path, folder: Path, teacher: Sam3Predictor) -> None:
    write_sam3(tmp_path / "other", seed=1)
    assert open_predictor(f"sam3:{folder}", device="cpu").digest() == teacher.digest()
    assert open_predictor(f"sam3:{tmp_path / 'other'}", device="cpu").digest() != teacher.digest()


def test_a_phrase_longer_than_its_context_is_refused(teacher: Sam3Predictor) -> None:
    assert len(teacher.token_ids("a " * 29 + "cat")) == 32
    with pytest.raises(RecipeError, match=r"has 33 tokens for sam3 tiny; expected at most 32. Leave it out"):
        teacher.predict(pictures(1), [["a " * 30 + "cat"]])


def copy_of(folder: Path, tmp_path: Path) -> Path:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_one_sentence(folder: Path, tmp_path: Path, gone: str) -> None:
    copy = copy_of(folder, tmp_path)
    (copy / gone).unlink()
    if gone == "tokenizer.json":
        (copy / "vocab.json").unlink()
    with pytest.raises(PredictionError, match=rf"has no .*{gone.removeprefix('model')}; expected what save_pretrained"):
        open_predictor(f"sam3:{copy}", device="cpu")


def test_weights_that_were_cut_short_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = copy_of(folder, tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(PredictionError, match="cannot be loaded"):
        open_predictor(f"sam3:{tmp_path}", device="cpu")


def test_weights_that_lack_tensors_are_not_filled_with_chance(folder: Path, tmp_path: Path) -> None:
    weights = copy_of(folder, tmp_path) / "model.safetensors"
    tensors = load_file(weights)
    del tensors["text_projection.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(PredictionError, match=r"1 tensors are missing, text_projection.weight first"):
        open_predictor(f"sam3:{tmp_path}", device="cpu")


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path)
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(PredictionError, match=r"has no \*.safetensors; .*a pickle is not read"):
        open_predictor(f"sam3:{copy}", device="cpu")


def test_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (copy_of(folder, tmp_path) / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(PredictionError, match="its config is of a model 'bert', not of sam3"):
        open_predictor(f"sam3:{tmp_path}", device="cpu")


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam3, "find_spec", lambda _: None)
    with pytest.raises(PredictionError, match=r"pip install -e '\.\[sam3\]'"):
        open_predictor("sam3:facebook/sam3", device="cpu")


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"--device nonsense: .*expected auto, cpu"):
        open_predictor(f"sam3:{folder}", device="nonsense")
