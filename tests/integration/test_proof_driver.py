"""The proof from end to end, on few pictures and a small student."""

from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import proof
from student.readings import Evaluation, read_json
from student.run_record import read_run
from tests.coco_folder import make_coco_folder

SMALL = """batch_size = 16

[model]
image_encoder = "test_efficientnet"
pretrained = false
size = 64
width = 16
text_width = 16
text_layers = 1
text_heads = 1
"""


def test_an_arm_begins_with_the_phase_1_of_its_fold_and_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run_here(module: str, *line: str, log: Path) -> None:
        """As `proof.run`, in this process: eight commands would each import torch for some seconds."""
        ran.append(module)
        with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
            assert import_module(module).main(line) == 0, log.read_text()

    monkeypatch.setattr(proof, "run", run_here)
    coco, out, config = make_coco_folder(tmp_path / "coco", 120), tmp_path / "proof", tmp_path / "small.toml"
    config.write_text(SMALL)
    line = [str(coco), "--out", str(out), "--folds", "0", "--arms", "c", "--config", str(config)]
    line += ["--epochs", "1", "--phase-1", "1"]
    assert proof.main(line) == 0
    place = out / "fold-0"
    shared, arm = (read_run(str(place / name / "run")) for name in ("phase-1", "c"))
    assert shared is not None
    assert arm is not None
    assert (shared.phases, arm.phases) == ([1], [2])
    assert arm.init is not None
    assert arm.init.source == str(place / "phase-1" / "run")
    evaluation = read_json(str(place / "c" / "evaluation" / "evaluation.json"), Evaluation)
    assert evaluation.readings["hallucination_random"].num
    teacher = read_json(str(place / "phase-1" / "evaluation" / "evaluation.json"), Evaluation)
    assert teacher.counted["missing"] == 0
    assert teacher.threshold is not None
    assert teacher.readings["miou"].value is None, "it draws no masks"
    assert teacher.readings["hallucination_random"].num == evaluation.readings["hallucination_random"].num
    ran.clear()
    assert proof.main(line) == 0
    assert not [module for module in ran if module.startswith(("student", "miners"))]
