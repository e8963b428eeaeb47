"""The predictions of a run through the real commands: killed and resumed, and as a miner's verifier and alarms."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manifests.errors import Reason
from manifests.stage import Inline, progress_bar
from manifests.tables import NEGATIVES, PREDICTED_IMAGES, PREDICTIONS, REJECTS, read_table
from miners import hard_negatives
from miners.encoders import Chosen
from miners.outside import read_predictions
from shards.reopened import reopen
from student import predict
from tests.colours import Colours
from tests.factories import make_build, make_samples
from tests.predictors import make_student, write_run_of
from tests.worlds import REPOSITORY


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predictions") / "build"
    return make_build(folder, make_samples({"train": 40, "val": 3, "test": 3}))


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_of(tmp_path_factory.mktemp("run") / "student", make_student())


@pytest.fixture(scope="module")
def predictions(build: Path, student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table") / "predictions.parquet"
    argv = [str(student), str(build), "--ask", "vocabulary", "--device", "cpu", "--out", str(out), "--quiet"]
    assert predict.main(argv) == 0
    return out


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(_settings: object, *, allow_pickle: str = "") -> Chosen:
        return Chosen(encoder=Colours(), why=f"a test asked for it {allow_pickle}")

    monkeypatch.setattr(hard_negatives, "choose", choose)


def mine(build: Path, out: Path, *options: str) -> int:
    loose = ["--absolute-margin=-1000000000", "--work", str(out.parent / "work"), "--quiet"]
    return hard_negatives.main([str(build), "--out", str(out), *loose, *options])


def test_a_miner_reads_every_row_with_its_mask(build: Path, predictions: Path, tmp_path: Path) -> None:
    with progress_bar(quiet=True) as progress:
        opened = reopen(str(build), str(tmp_path), executor=Inline(), progress=progress)
    said = read_predictions([str(predictions)], opened.inventory)
    rows = read_table(str(predictions), PREDICTIONS).to_pylist()
    real = set(opened.inventory.images["key"].to_pylist())
    mine_them = [row for row in rows if row["key"] in real]
    assert len(said.presence_p) == len(mine_them) > 100
    assert len(said.masks) == sum(bool(row["mask"]["counts"]) for row in mine_them) > 50
    assert set(said.num_rejects) <= {Reason.UNKNOWN_KEY}  # blank pictures, of which nothing is mined


@pytest.mark.usefixtures("colours")
def test_what_the_student_calls_present_is_mined_by_nobody(build: Path, predictions: Path, tmp_path: Path) -> None:
    assert mine(build, tmp_path / "free.parquet") == 0
    assert mine(build, tmp_path / "verified.parquet", "--verifier", str(predictions)) == 0
    presence = {
        (row["key"], row["phrase"]): row["presence"] for row in read_table(str(predictions), PREDICTIONS).to_pylist()
    }
    free, verified = (
        [(row["key"], row["phrase"]) for row in read_table(str(tmp_path / name), NEGATIVES).to_pylist()]
        for name in ("free.parquet", "verified.parquet")
    )
    assert any(presence[pair] >= 0.5 for pair in free), "this student calls nothing present; take another"
    assert verified
    assert all(presence[pair] < 0.5 for pair in verified)
    rejects = read_table(str(tmp_path / "verified.rejects.parquet"), REJECTS).to_pylist()
    assert any(row["reason"] == Reason.VERIFIER for row in rejects)


@pytest.mark.usefixtures("colours")
def test_false_alarms_of_the_student_are_mined(build: Path, predictions: Path, tmp_path: Path) -> None:
    assert mine(build, tmp_path / "n.parquet", "--predictions", str(predictions)) == 0
    rejects = read_table(str(tmp_path / "n.rejects.parquet"), REJECTS).to_pylist()
    rows = read_table(str(tmp_path / "n.parquet"), NEGATIVES).to_pylist()
    assert any(row["kind"] == "false_alarm" for row in rows) or any(row["reason"] == Reason.OVERLAP for row in rejects)


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(build: Path, student: Path, tmp_path: Path) -> None:
    """Each run in a process of its own with one thread: another number of threads may round otherwise."""
    out, parts = tmp_path / "predictions.parquet", tmp_path / "predictions.parts"
    argv = [str(student), str(build), "--ask", "vocabulary", "--device", "cpu", "--threads", "1", "--quiet", "--out"]
    command = [sys.executable, "-m", "student.predict", *argv]
    subprocess.run([*command, str(tmp_path / "whole.parquet")], cwd=REPOSITORY, check=True)
    process = subprocess.Popen([*command, str(out)], cwd=REPOSITORY, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(parts.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    if out.exists():
        pytest.fail("the run was over before it could be killed; give it more pictures")
    done = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert done
    subprocess.run([*command, str(out)], cwd=REPOSITORY, check=True)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    images = "predictions.images.parquet"
    assert (tmp_path / images).read_bytes() == (tmp_path / "whole.images.parquet").read_bytes()
    assert not parts.exists()


def test_the_help_answers_without_torch() -> None:
    code = "import sys; from student import predict; predict._parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_the_json_summary_stands_alone_on_stdout(
    build: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.parquet"
    argv = [str(student), str(build), "--split", "val", "--out", str(out), "--json", "--quiet", "--device", "cpu"]
    assert predict.main([*argv, "--features", str(tmp_path / "features")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["pictures"] == read_table(summary["images"], PREDICTED_IMAGES).num_rows
    assert summary["features"] > summary["pictures"]
