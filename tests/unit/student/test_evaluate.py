"""The evaluation as a call: whose bars it draws, and what it calls the build that it judges by."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from manifests.manifest import MANIFEST_NAME, read_manifest
from student import failures
from student.evaluate import Options, evaluate_into
from student.failures import failures_uri
from student.readings import EVALUATION_NAME, IMAGES_NAME, SUMS_NAME, Evaluation, read_json
from student.truth import digest_of_build, read_truth
from tests.factories import make_build, make_recipe
from tests.predictions import oracle, write_predictions


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return make_build(tmp_path / "build")


def options_for(build: Path, folder: Path, *, quiet: bool) -> Options:
    rows = [*oracle(build), *oracle(build, "val")]
    source = write_predictions(folder / "said.parquet", rows, sensitivity=lambda _: 0.5)
    return Options(
        source=source,
        build=str(build),
        split="test",
        out=str(folder / "out"),
        val_predictions="",
        max_missing_share=0,
        name="mine",
        quiet=quiet,
    )


def test_the_callers_bars_are_drawn_and_no_others(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(console=Console(file=io.StringIO())) as progress:
        found = evaluate_into(options_for(build, tmp_path, quiet=False), progress)
        (bar,) = progress.tasks
    assert bar.finished
    assert capsys.readouterr() == ("", "")
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} >= {EVALUATION_NAME, SUMS_NAME, IMAGES_NAME}
    assert Path(failures_uri(str(out))).exists()
    assert read_json(str(out / EVALUATION_NAME), Evaluation) == found.evaluation


def test_without_bars_of_the_callers_it_draws_its_own_unless_it_is_to_be_quiet(build: Path, tmp_path: Path) -> None:
    (tmp_path / "loud").mkdir()
    loud = evaluate_into(options_for(build, tmp_path / "loud", quiet=False))
    quiet = evaluate_into(options_for(build, tmp_path, quiet=True))
    assert loud.evaluation == quiet.evaluation


def test_an_evaluation_names_its_build_by_recipe_and_inputs(build: Path, tmp_path: Path) -> None:
    digest = digest_of_build(read_manifest(str(build)))
    assert evaluate_into(options_for(build, tmp_path, quiet=True)).evaluation.build_sha256 == digest
    assert read_truth(str(build), "val").build_sha256 == digest
    other = make_build(tmp_path / "other", recipe=make_recipe(seed=99))
    assert digest_of_build(read_manifest(str(other))) != digest
    path = build / MANIFEST_NAME
    manifest = json.loads(path.read_bytes())
    path.write_text(json.dumps(manifest | {"inputs_sha256": "f" * 64}))
    assert digest_of_build(read_manifest(str(build))) != digest


def test_what_was_judged_before_does_not_vouch_for_the_files_of_a_run_that_ends_early(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_for(build, tmp_path, quiet=True)
    evaluate_into(options)
    assert (Path(options.out) / EVALUATION_NAME).exists()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(failures, "write_failures", full)
    with pytest.raises(OSError, match="no space left"):
        evaluate_into(options)

    assert not (Path(options.out) / EVALUATION_NAME).exists()
