import json
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from manifests.errors import ManifestError, PredictionError, RecipeError, TableError
from manifests.sample import Mask
from manifests.tables import PREDICTED_IMAGES, PREDICTIONS, SAMPLES, VOCABULARIES, read_metadata, read_table
from shards.images import letterbox_geometry
from shards.masks import mask_to_array
from shards.reader import open_pass
from student import predict, predict_parts
from student.predictor import Predicted
from tests.factories import PHRASES, make_build
from tests.predictors import CELLS, SIZE, Brightness, run
from tests.worlds import build_world, write_world


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("predict")
    out = folder / "build"
    build_world(write_world(folder, samples=90), out)
    return str(out)


def test_every_planned_prompt_is_answered_once_and_rows_are_sorted(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build")
    summary = run(Brightness(), str(build), tmp_path / "p.parquet")
    rows = read_table(str(tmp_path / "p.parquet"), PREDICTIONS)
    found = list(zip(rows["key"].to_pylist(), rows["phrase"].to_pylist(), strict=True))
    samples = [row for row in read_table(f"{build}/samples.parquet", SAMPLES).to_pylist() if row["split"] == "train"]
    assert any(row["key"] != row["image_key"] for row in samples)  # a repeat, which is asked with the first
    planned = {(row["image_key"], row["phrase"]) for row in samples}
    assert found == sorted(planned)
    assert rows["presence"].to_pylist() == [pytest.approx(len(phrase) / 100) for _, phrase in found]
    assert (summary.prompts, summary.pictures) == (len(planned), len({key for key, _ in planned}))
    said = read_metadata(str(tmp_path / "p.parquet"), PREDICTIONS)
    assert (said["predictor"], said["masks"]) == ("brightness", "drawn")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".parts")] == []


def test_masks_lie_where_the_model_saw_them(build: str, tmp_path: Path) -> None:
    run(Brightness(), build, tmp_path / "p.parquet")
    rows = {
        (row["key"], row["phrase"]): row["mask"]
        for row in read_table(str(tmp_path / "p.parquet"), PREDICTIONS).to_pylist()
    }
    checked = 0
    for batch in open_pass(build, batch_size=4, split="train", size=SIZE):
        for image_3ss, size, key, phrases in zip(
            batch.images, batch.sizes.tolist(), batch.keys, batch.phrases, strict=True
        ):
            for phrase in phrases:
                mask = rows.get((key, phrase))
                if mask is None or not mask["counts"]:
                    continue
                assert mask["size"] == size
                drawn_hw = mask_to_array(Mask(size=tuple(size), counts=mask["counts"]))
                cells_hw = np.clip(image_3ss[0, 2::4, 2::4].numpy().astype(np.float32) / 255 * len(phrase) / 6, 0, 1)
                assert agreement(drawn_hw, cells_hw, size) == 1
                checked += 1
    assert checked > 20


def agreement(drawn_hw: NDArray[np.bool_], cells_hw: NDArray[np.float32], size: list[int]) -> float:
    """Share of cells well inside of the picture whose centre's pixel says what the cell says."""
    height, width = size
    box = letterbox_geometry(width, height, SIZE)
    right = total = 0
    for row in range(CELLS):
        for column in range(CELLS):
            y = ((row + 0.5) * SIZE / CELLS - box.top) * height / box.scaled_height
            x = ((column + 0.5) * SIZE / CELLS - box.left) * width / box.scaled_width
            if 0 <= y < height and 0 <= x < width and abs(cells_hw[row, column] - 0.5) > 0.3:
                right += drawn_hw[int(y), int(x)] == (cells_hw[row, column] > 0.5)
                total += 1
    return right / total if total else 1.0


def test_sensitivity_is_the_mean_over_all_pairs(build: str, tmp_path: Path) -> None:
    run(Brightness(), build, tmp_path / "p.parquet")
    images = read_table(str(tmp_path / "p.images.parquet"), PREDICTED_IMAGES).to_pylist()
    assert [row["key"] for row in images] == sorted({row["key"] for row in images})
    by_key = {row["key"]: row for row in images}
    for batch in open_pass(build, batch_size=4, split="train", size=SIZE):
        for image_3ss, size, key, phrases in zip(
            batch.images, batch.sizes.tolist(), batch.keys, batch.phrases, strict=True
        ):
            if key not in by_key:
                continue  # a repeat
            box = letterbox_geometry(size[1], size[0], SIZE)
            centres = (np.arange(CELLS) + 0.5) * SIZE / CELLS
            rows = (centres >= box.top) & (centres <= box.top + box.scaled_height)
            columns = (centres >= box.left) & (centres <= box.left + box.scaled_width)
            cells_hw = image_3ss[0, 2::4, 2::4].numpy()[rows][:, columns].astype(np.float64) / 255
            masks = [np.clip(cells_hw * len(phrase) / 6, 0, 1) for phrase in set(phrases)]
            pairs = [abs(one - other).mean() for place, one in enumerate(masks) for other in masks[:place]]
            found = by_key[key]
            assert found["num_prompts"] == len(masks)
            assert (
                found["prompt_sensitivity"] == pytest.approx(np.mean(pairs), abs=1e-6)
                if pairs
                else math.isnan(found["prompt_sensitivity"])
            )


def test_a_stopped_run_goes_on_to_the_same_bytes(build: str, tmp_path: Path) -> None:
    run(Brightness(), build, tmp_path / "whole.parquet", batch_size=4)
    stopped = Brightness(stop_after=12)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, build, tmp_path / "p.parquet", batch_size=4)
    assert not (tmp_path / "p.parquet").exists()
    again = Brightness()
    run(again, build, tmp_path / "p.parquet", batch_size=4)
    assert 0 < again.num_seen < len(read_table(str(tmp_path / "p.images.parquet"), PREDICTED_IMAGES))
    for name in ("{}.parquet", "{}.images.parquet"):
        assert (tmp_path / name.format("p")).read_bytes() == (tmp_path / name.format("whole")).read_bytes()


def test_what_was_done_of_another_question_is_not_taken_over(build: str, tmp_path: Path) -> None:
    ask = tmp_path / "ask.txt"
    ask.write_text("zebra")
    with pytest.raises(KeyboardInterrupt):
        run(Brightness(stop_after=20), build, tmp_path / "p.parquet", ask=str(ask), batch_size=4)
    assert list((tmp_path / "p.parts").glob("*.json"))
    ask.write_text("gnu")
    summary = run(Brightness(), build, tmp_path / "p.parquet", ask=str(ask), batch_size=4)
    rows = read_table(str(tmp_path / "p.parquet"), PREDICTIONS)
    assert rows["phrase"].to_pylist() == ["gnu"] * summary.pictures


def test_pixels_are_set_above_the_models_own_threshold(build: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Brightness(stop_after=20), build, tmp_path / "p.parquet", batch_size=4)
    run(Brightness(mask_threshold=0.2), build, tmp_path / "p.parquet", batch_size=4)
    assert read_metadata(str(tmp_path / "p.parquet"), PREDICTIONS)["mask_threshold"] == "0.2"
    run(Brightness(), build, tmp_path / "half.parquet", batch_size=4)
    low, half = (_areas(tmp_path / name) for name in ("p.parquet", "half.parquet"))
    assert len(low) == len(half)
    assert all(one >= other for one, other in zip(low, half, strict=True)), "nothing is left of the other threshold"
    assert sum(low) > 1.2 * sum(half)
    again = Brightness()
    run(again, build, tmp_path / "p.parquet", batch_size=4)
    assert again.num_seen > 0, "a finished table of another threshold is another table"
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "half.parquet").read_bytes()


def _areas(table: Path) -> list[int]:
    masks = read_table(str(table), PREDICTIONS)["mask"].to_pylist()
    return [
        int(mask_to_array(Mask(size=tuple(mask["size"]), counts=mask["counts"])).sum()) if mask["counts"] else 0
        for mask in masks
    ]


def test_a_finished_table_is_not_computed_again_and_another_question_is(build: str, tmp_path: Path) -> None:
    run(Brightness(), build, tmp_path / "p.parquet")
    before = (tmp_path / "p.parquet").read_bytes()
    again = Brightness()
    run(again, build, tmp_path / "p.parquet")
    assert again.num_seen == 0
    (tmp_path / "p.images.parquet").unlink()
    run(again, build, tmp_path / "p.parquet")
    assert again.num_seen > 0
    assert (tmp_path / "p.parquet").read_bytes() == before
    run(again, build, tmp_path / "p.parquet", ask="vocabulary")
    assert (tmp_path / "p.parquet").read_bytes() != before


def test_the_vocabulary_is_asked_of_each_picture_in_rounds(
    build: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Brightness(), build, tmp_path / "once.parquet", ask="vocabulary")
    monkeypatch.setattr(predict_parts, "PROMPTS_AT_ONCE", 12)
    rounds = Brightness()
    run(rounds, build, tmp_path / "rounds.parquet", ask="vocabulary", batch_size=4)
    vocabulary = sorted(set(read_table(f"{build}/vocabularies.parquet", VOCABULARIES)["phrase"].to_pylist()))
    assert max(map(len, rounds.asked)) == 3 < len(vocabulary)
    rows = read_table(str(tmp_path / "once.parquet"), PREDICTIONS)
    assert rows.equals(read_table(str(tmp_path / "rounds.parquet"), PREDICTIONS))
    images = read_table(str(tmp_path / "rounds.images.parquet"), PREDICTED_IMAGES)
    assert images.equals(read_table(str(tmp_path / "once.images.parquet"), PREDICTED_IMAGES))
    assert rows["phrase"].to_pylist() == vocabulary * len(images)


def test_a_file_of_lines_is_asked_of_each_picture(build: str, tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("red kite\n\n  Red   Kite \nzebra\n", encoding="utf-8")
    summary = run(Brightness(), build, tmp_path / "p.parquet", ask=str(tmp_path / "ask.txt"))
    rows = read_table(str(tmp_path / "p.parquet"), PREDICTIONS)
    assert rows["phrase"].to_pylist() == ["red kite", "zebra"] * summary.pictures


def test_a_table_is_asked_pair_by_pair(build: str, tmp_path: Path) -> None:
    keys = sorted(
        {
            row["image_key"]
            for row in read_table(f"{build}/samples.parquet", SAMPLES).to_pylist()
            if row["split"] == "train"
        }
    )
    pairs = {"key": [keys[3], keys[0], keys[0]], "phrase": ["zebra", "zebra", "ape"], "score": [1.0, 2.0, 3.0]}
    pq.write_table(pa.table(pairs), tmp_path / "ask.parquet")
    run(Brightness(), build, tmp_path / "p.parquet", ask=str(tmp_path / "ask.parquet"))
    rows = read_table(str(tmp_path / "p.parquet"), PREDICTIONS)
    assert list(zip(rows["key"].to_pylist(), rows["phrase"].to_pylist(), strict=True)) == [
        (keys[0], "ape"),
        (keys[0], "zebra"),
        (keys[3], "zebra"),
    ]


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: None, "there is no such file; expected plan, vocabulary"),
        (lambda path: path.write_bytes(b"\n \n"), "is empty; expected one phrase a line"),
        (lambda path: path.write_bytes(b"caf\xe9"), "not a vocabulary, which has one phrase a line in UTF-8"),
        (lambda path: path.write_bytes(b"x" * 3000), "phrase_too_long"),
        (
            lambda path: pq.write_table(pa.table({"key": ["nobody"], "phrase": ["ape"]}), path),
            "'nobody' first; expected",
        ),
        (lambda path: pq.write_table(pa.table({"key": ["nobody"]}), path), "expected"),
        (lambda path: path.write_bytes(b"PAR1"), "expected a Parquet table"),
    ],
)
def test_a_question_that_is_none_is_refused(
    build: str, tmp_path: Path, write: Callable[[Path], object], said: str
) -> None:
    ask = tmp_path / ("ask.parquet" if "Parquet" in said or "expected" in said[-9:] else "ask.txt")
    write(ask)
    with pytest.raises((RecipeError, TableError), match=said):
        run(Brightness(), build, tmp_path / "p.parquet", ask=str(ask))


def test_a_split_that_the_build_has_not_is_refused(build: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="has no samples of split 'nothing'"):
        run(Brightness(), build, tmp_path / "p.parquet", split="nothing")


@pytest.mark.parametrize("name", ["samples.parquet", "predictions.csv"])
def test_a_place_that_is_not_its_own_is_refused(build: str, name: str) -> None:
    with pytest.raises(PredictionError, match=r"--out .*expected"):
        run(Brightness(), build, Path(build) / name)


def test_answers_that_are_no_probabilities_stop_the_run(build: str, tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("zebra")
    masks_phw = np.full((1, CELLS, CELLS), np.nan, np.float32)
    for presence, said in ((np.nan, "presence nan of 'zebra'"), (1.5, "presence 1.5 of 'zebra'"), (0.5, "not finite")):
        bad = Brightness(always=Predicted(presence_p=np.array([presence], np.float32), masks_phw=masks_phw))
        with pytest.raises(PredictionError, match=said):
            run(bad, build, tmp_path / "p.parquet", ask=str(tmp_path / "ask.txt"))


def test_no_thread_is_left_behind(build: str, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run(Brightness(stop_after=2), build, tmp_path / "p.parquet", batch_size=2)
    assert set(threading.enumerate()) <= before


def test_a_stretched_picture_fills_the_square(build: str, tmp_path: Path) -> None:
    class Stretched(Brightness):
        def predict(self, images_b3ss: NDArray[np.uint8], phrases: Sequence[Sequence[str]]) -> list[Predicted]:
            assert (images_b3ss.max((1, 3)) > 0).all()  # no row of padding
            assert (images_b3ss.max((1, 2)) > 0).all()
            return super().predict(images_b3ss, phrases)

    run(Stretched(stretch=True), build, tmp_path / "p.parquet", split="val")


def test_the_command_prints_what_it_wrote(
    build: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "open_predictor", lambda *_, **__: Brightness())
    argv = ["RUN", build, "--split", "test", "--out", str(tmp_path / "p.parquet"), "--quiet"]
    assert predict.main([*argv, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["prompts"] == pq.read_metadata(summary["out"]).num_rows
    assert predict.main(argv) == 0
    assert f"{summary['prompts']} answers of brightness" in capsys.readouterr().out


def test_a_folder_without_a_model_is_one_error_line(
    build: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(tmp_path), build, "--out", str(tmp_path / "p.parquet")]) == 1
    assert "error: " in (said := capsys.readouterr().err)
    assert "holds no model; expected the folder of a training run" in said


@pytest.mark.parametrize("option", [["--batch-size", "0"], ["--threads", "0"], ["--split", "all"]])
def test_a_wrong_option_is_a_usage_error(option: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        predict.main(["RUN", "BUILD", "--out", "p.parquet", *option])


def test_phrases_that_stand_in_no_vocabulary_belong_to_it_where_the_split_asks_them(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build")  # its `tars` say "tree", which no vocabulary holds
    run(Brightness(), str(build), tmp_path / "p.parquet", ask="vocabulary", split="val")
    rows = read_table(str(tmp_path / "p.parquet"), PREDICTIONS)
    assert "tree" not in read_table(str(build / "vocabularies.parquet"), VOCABULARIES)["phrase"].to_pylist()
    assert set(rows["phrase"].to_pylist()) == {*PHRASES, "tree"}
