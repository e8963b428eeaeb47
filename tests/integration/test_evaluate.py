"""The command of the evaluation: a model's table, or a run that it predicts with first."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from manifests.manifest import read_manifest
from manifests.tables import PREDICTED_IMAGES, PREDICTIONS, read_table
from student import predict
from student.evaluate import main
from student.predictor import Predicted, Predictor
from student.readings import Evaluation, Latency, read_json, write_json
from student.run_record import RunRecord, write_run
from tests.factories import make_build
from tests.predictions import oracle, write_predictions
from tests.worlds import REPOSITORY, error_line

SIZE = 64
FILES = {"evaluation.json", "failures.html", "sums.parquet"}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("evaluate") / "build")


@pytest.fixture
def predictions(build: Path, tmp_path: Path) -> str:
    return write_predictions(tmp_path / "oracle.parquet", [*oracle(build), *oracle(build, "val")])


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_table_of_any_model_is_judged(
    build: Path, predictions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([predictions, str(build), "--out", str(out), "--name", "mine", "--quiet"]) == 0
    found = read_json(str(out / "evaluation.json"), Evaluation)
    assert (found.name, found.split, found.start, found.latency) == ("mine", "test", "", None)
    assert found.readings["il_mcc"].value == 1.0
    assert found.build == read_manifest(str(build)).name
    assert names_in(out) == FILES
    shown = capsys.readouterr().out
    assert f"{out}/failures.html" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["il_mcc", "│", "1.000", "│", "1.000", "to", "1.000", "│", "1.000"] in [row[:9] for row in rows]
    assert any(row[:1] == ["blind_phrase_auc"] for row in rows)
    assert "Undefined: saco_cgf1, saco_pmf1, saco_il_mcc, because no prompt is of an SA-Co" in shown


def test_the_same_predictions_give_the_same_bytes(build: Path, predictions: str, tmp_path: Path) -> None:
    for name in ("one", "other"):
        assert main([predictions, str(build), "--out", str(tmp_path / name), "--json"]) == 0
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_json_is_the_evaluation(
    build: Path, predictions: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main([predictions, str(build), "--out", str(tmp_path / "out"), "--split", "val", "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out) == json.loads((tmp_path / "out" / "evaluation.json").read_bytes())


@dataclass(slots=True)
class Sky(Predictor):
    """Says that everything is there, in the upper half."""

    name: str = "sky"
    size: int = SIZE
    stretch: bool = False

    def predict(self, images_b3ss: NDArray[np.uint8], phrases: Sequence[Sequence[str]]) -> list[Predicted]:
        half = np.zeros((16, 16), np.float32)
        half[:8] = 1
        return [
            Predicted(presence_p=np.full(len(asked), 0.75, np.float32), masks_phw=np.stack([half] * len(asked)))
            for asked in phrases
        ]

    def digest(self) -> str:
        return "0123456789abcdef"


def make_run(folder: Path) -> Path:
    record = RunRecord(
        name="first try",
        start="resume",
        began="scratch",
        builds=[],
        teacher=[],
        phases=[1, 2],
        epochs=[1, 1],
        num_parameters=1,
        num_present=1,
        num_absent=1,
        one_class=False,
        positives_only=False,
        versions={},
    )
    folder.mkdir()
    write_run(str(folder), record)
    return folder


@pytest.fixture
def opens_sky(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "open_predictor", lambda _: Sky())


@pytest.mark.usefixtures("opens_sky")
def test_a_run_predicts_val_and_test_into_its_folder_and_is_judged(build: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_json(str(run / "latency.json"), Latency(ms=12.5))
    assert main([str(run), str(build), "--json", "--quiet"]) == 0
    found = read_json(str(run / "evaluation" / "evaluation.json"), Evaluation)
    assert (found.name, found.start, found.latency) == ("first try", "resume", Latency(ms=12.5))
    assert found.predictor_sha256 == Sky().digest()
    assert found.readings["il_fpr"].value == 1.0
    assert found.readings["prompt_sensitivity"].value == 0.0
    assert (found.fitted_on, found.counted["missing"]) == ("val", 0)
    tables = {"predictions.parquet", "predictions.images.parquet", "images.parquet"}
    assert names_in(run / "evaluation") >= FILES | tables | {"val-predictions.parquet"}
    of_test = set(read_table(str(run / "evaluation" / "predictions.parquet"), PREDICTIONS)["key"].to_pylist())
    images = read_table(str(run / "evaluation" / "images.parquet"), PREDICTED_IMAGES)
    assert set(images["key"].to_pylist()) == of_test
    assert all("-val" not in key for key in of_test)


@pytest.mark.usefixtures("opens_sky")
def test_a_colon_in_a_runs_name_does_not_make_it_sam_3(build: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "12:30")
    assert main([str(run), str(build), "--json", "--quiet"]) == 0
    found = read_json(str(run / "evaluation" / "evaluation.json"), Evaluation)
    assert (found.name, found.start) == ("first try", "resume")


@pytest.mark.usefixtures("opens_sky")
def test_a_run_is_judged_on_val_alone_where_that_is_asked(build: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert main([str(run), str(build), "--split", "val", "--out", str(tmp_path / "out"), "--json", "--quiet"]) == 0
    found = read_json(str(tmp_path / "out" / "evaluation.json"), Evaluation)
    assert (found.split, found.fitted_on) == ("val", "val")
    assert "val-predictions.parquet" not in names_in(tmp_path / "out")


def test_another_table_in_the_same_folder_leaves_nothing_of_the_one_before(build: Path, tmp_path: Path) -> None:
    rows, out = oracle(build), str(tmp_path / "out")
    told = write_predictions(tmp_path / "told.parquet", rows, sensitivity=lambda _: 0.5)
    assert main([told, str(build), "--out", out, "--json"]) == 0
    assert "images.parquet" in names_in(tmp_path / "out")
    silent = write_predictions(tmp_path / "silent.parquet", rows)
    assert main([silent, str(build), "--out", out, "--json"]) == 0
    assert "images.parquet" not in names_in(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            lambda build, _, table: [table, str(build / "nowhere")],
            "nowhere/manifest.json: not found; expected a finished build",
        ),
        (
            lambda build, folder, _: [str(folder / "gone.parquet"), str(build)],
            "gone.parquet: not found; expected the predictions table",
        ),
        (
            lambda build, folder, _: [str(folder / "few.parquet"), str(build)],
            "prompts of split test have no usable row",
        ),
        (lambda build, folder, _: [str(folder), str(build)], "holds no model; expected the folder of a training run"),
        (
            lambda build, folder, table: [table, str(build), "--val-predictions", str(folder / "gone.parquet")],
            "gone.parquet: not found; expected the predictions table",
        ),
    ],
)
def test_a_mistake_is_one_line(
    build: Path,
    predictions: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Callable[[Path, Path, str], list[str]],
    said: str,
) -> None:
    write_predictions(tmp_path / "few.parquet", [replace(row, presence=None) for row in oracle(build)])
    out = tmp_path / "out"
    assert main([*arguments(build, tmp_path, predictions), "--out", str(out), "--quiet"]) == 1
    assert said in error_line(capsys.readouterr().err)
    assert not out.exists() or not (names_in(out) & FILES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["said.parquet", "build"], "--out DIR is needed: said.parquet is no folder"),
        (["sam3:weights", "build"], "--out DIR is needed"),
        (["said.parquet", "build", "--out", "x", "--max-missing-share", "1"], "--max-missing-share 1.0: expected"),
        (["said.parquet", "build", "--out", "x", "--split", "dev"], "invalid choice"),
    ],
)
def test_a_wrong_option_exits_with_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert said in capsys.readouterr().err


def test_help_and_a_table_need_no_torch(build: Path, predictions: str, tmp_path: Path) -> None:
    script = (
        "import sys; from student.evaluate import main; "
        f"main([{predictions!r}, {str(build)!r}, '--out', {str(tmp_path / 'out')!r}, '--json']); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True, capture_output=True, timeout=400)
