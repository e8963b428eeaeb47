from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from manifests.errors import PredictionError, RecipeError
from manifests.tables import EMBEDDINGS, SAMPLES, read_metadata, read_table
from miners.embedding_files import read_embeddings
from shards.blocks import read_index
from shards.features import read_features
from shards.reader import open_pass
from student.model import Student
from student.predict import open_predictor
from student.tokens import ask
from student.torch_predictor import TorchPredictor
from tests.factories import make_build
from tests.predictors import SIZE, Brightness, make_student, run, write_run_of


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_build(tmp_path_factory.mktemp("students") / "build"))


@pytest.fixture(scope="module")
def student() -> Student:
    return make_student()


def test_the_student_answers_as_its_forward_does(build: str, student: Student) -> None:
    batch = next(iter(open_pass(build, batch_size=4, split="train", size=SIZE)))
    found = TorchPredictor(student).predict(batch.images.numpy(), batch.phrases)
    asked = ask(batch.phrases, context=student.config.context)
    with torch.inference_mode():
        answer = student(batch.images, asked.tokens_ul, asked.phrase_bp)
    for row, (one, phrases) in enumerate(zip(found, batch.phrases, strict=True)):
        expected_p, expected_phw = (
            answer.presence_bp[row, : len(phrases)].sigmoid(),
            answer.masks_bphw[row, : len(phrases)].sigmoid(),
        )
        torch.testing.assert_close(torch.from_numpy(one.presence_p), expected_p)
        torch.testing.assert_close(torch.from_numpy(one.masks_phw), expected_phw)


def test_rounds_give_the_answers_of_one_call_and_see_once(build: str, student: Student) -> None:
    batch = next(iter(open_pass(build, batch_size=3, split="train", size=SIZE)))
    images_b3ss = batch.images.numpy()
    predictor = TorchPredictor(student)
    calls = []
    hook = student.image.register_forward_hook(lambda *_: calls.append(1))
    rounds = list(predictor.predict_rounds(images_b3ss, [[["cat"]] * 3, [["dog", "a red kite"], [], ["dog"]]]))
    hook.remove()
    assert len(calls) == 1
    assert [len(one.presence_p) for one in rounds[1]] == [2, 0, 1]
    whole = predictor.predict(images_b3ss, [["cat", "dog", "a red kite"]] * 3)
    np.testing.assert_allclose(rounds[1][0].presence_p, whole[0].presence_p[1:], rtol=1e-5)
    np.testing.assert_allclose(rounds[0][2].masks_phw, whole[2].masks_phw[:1], rtol=1e-5)


def test_the_rows_of_phrases_are_dropped_when_the_student_learns(build: str) -> None:
    student = make_student(3)
    predictor = TorchPredictor(student)
    before, digest = predictor.phrase_rows(["cat"]), predictor.digest()
    assert predictor.digest() == digest
    optimiser = torch.optim.SGD(student.text.parameters(), lr=1.0)
    student.text(torch.tensor([[49406, 320, 49407] + [0] * 29])).square().sum().backward()
    optimiser.step()
    assert not np.allclose(predictor.phrase_rows(["cat"]), before, atol=1e-3)
    assert predictor.digest() != digest


def test_a_phrase_longer_than_the_context_is_refused(build: str, student: Student, tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("a " * 60 + "cat")
    with pytest.raises(RecipeError, match="has 63 tokens with its ends; expected at most 32"):
        run(TorchPredictor(student), build, tmp_path / "p.parquet", ask=str(tmp_path / "ask.txt"))


def test_features_are_unit_rows_that_the_reader_and_a_miner_take(build: str, student: Student, tmp_path: Path) -> None:
    features = tmp_path / "features"
    predictor = TorchPredictor(student)
    summary = run(predictor, build, tmp_path / "p.parquet", split="val", features=str(features))
    index = read_index(build, "val")
    (rows,) = read_features([str(features)], [index])
    assert rows.rows_rd.dtype == np.float16
    batch = next(iter(open_pass(build, batch_size=1, split="val", size=SIZE)))
    np.testing.assert_allclose(rows.of(0), predictor.image_rows(batch.images.numpy())[0], atol=1e-3)
    files = sorted(features.rglob("*.parquet"))
    found = [read_embeddings(str(path)) for path in files]
    assert sum(len(one.rows_rd) for one in found) == summary.features
    phrases = [phrase for one in found for phrase in one.phrases.to_pylist() if phrase]
    assert phrases == sorted(
        {row["phrase"] for row in read_table(f"{build}/samples.parquet", SAMPLES).to_pylist() if row["split"] == "val"}
    )
    stamp = read_metadata(str(files[0]), EMBEDDINGS)
    assert stamp["encoder_digest"] == predictor.digest()
    assert {"weights_digest", "preprocessing_digest", "input_digest", "width", "encoder"} <= stamp.keys()
    before = {path: path.read_bytes() for path in files}
    run(predictor, build, tmp_path / "q.parquet", split="val", features=str(features))
    assert {path: path.read_bytes() for path in sorted(features.rglob("*.parquet"))} == before


def test_features_of_two_models_do_not_mix(build: str, student: Student, tmp_path: Path) -> None:
    run(TorchPredictor(student), build, tmp_path / "p.parquet", split="val", features=str(tmp_path / "f"))
    with pytest.raises(PredictionError, match=r"holds rows of student .*expected those of other"):
        run(
            TorchPredictor(make_student(1), name="other"),
            build,
            tmp_path / "q.parquet",
            split="val",
            features=str(tmp_path / "f"),
        )


def test_a_model_without_features_says_so(build: str, tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="brightness shows no rows"):
        run(Brightness(), build, tmp_path / "p.parquet", features=str(tmp_path / "f"))


def test_rows_that_are_no_direction_are_refused(build: str, tmp_path: Path) -> None:
    class Blank(TorchPredictor):
        def image_rows(self, images_b3ss: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.zeros((len(images_b3ss), 16), np.float32)

    with pytest.raises(PredictionError, match="has length 0; expected a unit vector"):
        run(Blank(make_student()), build, tmp_path / "p.parquet", features=str(tmp_path / "f"))


def test_a_run_is_opened_and_answers_as_the_student_that_it_holds(tmp_path: Path) -> None:
    student = make_student(7)
    opened = open_predictor(str(write_run_of(tmp_path / "mine", student)), device="cpu")
    held = TorchPredictor(student, name="mine")
    assert (opened.name, opened.size, opened.digest()) == (held.name, held.size, held.digest())
    images_b3ss = np.random.default_rng(1).integers(0, 256, (2, 3, SIZE, SIZE), np.uint8)
    for one, other in zip(
        opened.predict(images_b3ss, [["cat", "dog"], ["a red kite"]]),
        held.predict(images_b3ss, [["cat", "dog"], ["a red kite"]]),
        strict=True,
    ):
        assert np.array_equal(one.presence_p, other.presence_p)
        assert np.array_equal(one.masks_phw, other.masks_phw)
