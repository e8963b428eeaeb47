"""What val chooses is kept in the checkpoint, is what the evaluation comes to, and is moved by no label of test."""

import shutil
from pathlib import Path

import msgspec
import pytest
import torch

from manifests.stage import progress_bar
from student.checkpoint import CheckpointState, load_student, read_checkpoint, write_checkpoint
from student.choosing import choose_on_val
from student.evaluate import Options, evaluate_into
from student.exporting import Wanted, record_of
from student.history import ValLine, read_history
from student.model import Student
from student.predict import open_predictor
from student.preparing import Request, prepare
from student.readings import Evaluation
from student.run_record import RunRecord, ValChoice, build_used, read_run, write_run
from student.torch_predictor import TorchPredictor
from tests.exports import TINY, make_choice, tiny_student
from tests.exports import write_run as write_run_of
from tests.factories import Made, make_build, present
from tests.students import coloured_boxes, run_training, tiny_config, write_teacher

CONFIG = tiny_config(batch_size=2, optimiser=msgspec.structs.replace(tiny_config().optimiser, learning_rate=1e-2))


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures to learn, six to choose by and six to be judged by."""
    folder = tmp_path_factory.mktemp("choosing")
    made = [*coloured_boxes("train", 8), *coloured_boxes("val", 6), *coloured_boxes("test", 6)]
    return make_build(folder / "build", made)


@pytest.fixture(scope="module")
def run(boxes: Path) -> Path:
    """Trained until it knows most of what is there."""
    run_training(boxes, boxes.parent / "run", config=CONFIG, epochs=(5,))
    return boxes.parent / "run"


def state_of(run: Path, which: str = "best") -> CheckpointState:
    return read_checkpoint(str(run / f"{which}.safetensors")).state


def choice_of(run: Path) -> ValChoice:
    choice = state_of(run).choice
    assert choice is not None
    return choice


def evaluation_of(run: Path, build: Path, out: Path) -> Evaluation:
    options = Options(
        source=str(run),
        build=str(build),
        split="test",
        out=str(out),
        val_predictions="",
        max_missing_share=0,
        name="",
        quiet=True,
    )
    return evaluate_into(options).evaluation


def choose(run: Path, *builds: Path, why_not: str = "") -> ValChoice:
    used = {str(build): build_used(str(build), None) for build in builds}
    with progress_bar(quiet=True) as progress:
        return choose_on_val(str(run), used, device=torch.device("cpu"), progress=progress, why_not=why_not)


def without_choice(run: Path, out: Path) -> Path:
    """A copy whose record keeps no choice."""
    shutil.copytree(run, out)
    record = read_run(str(run))
    assert record is not None
    write_run(str(out), msgspec.structs.replace(record, choice=None))
    return out


def turned(made: Made) -> Made:
    """The same picture, whose labels say of everything the opposite of what they said."""
    here = [prompt for prompt in made.sample.prompts if not prompt.present]
    masks = next(prompt.masks for prompt in made.sample.prompts if prompt.present)
    gone = [prompt for prompt in made.sample.prompts if prompt.present]
    prompts = [present(prompt.phrase, *masks) for prompt in here]
    prompts += [msgspec.structs.replace(here[0], phrase=prompt.phrase) for prompt in gone]
    return Made(
        sample=msgspec.structs.replace(made.sample, prompts=tuple(prompts)),
        jpeg=made.jpeg,
        split=made.split,
        image_key=made.image_key,
    )


def test_the_checkpoint_and_the_record_keep_what_val_chose(boxes: Path, run: Path) -> None:
    choice, record = choice_of(run), read_run(str(run))
    assert record is not None
    assert record.choice == choice == state_of(run, "last").choice
    assert choice.student == TorchPredictor(load_student(str(run)).student).digest()
    assert choice.builds == [record.builds[0].sha256] == [build_used(str(boxes), None).sha256]
    assert (choice.num_prompts, choice.why_not) == (18, "")
    assert choice.threshold is not None
    assert choice.temperature is not None
    assert 0 < choice.threshold < 1
    assert not (run / "val").exists()


def test_an_evaluation_comes_to_the_same_figures_and_asks_val_only_where_they_are_not_kept(
    boxes: Path, run: Path, tmp_path: Path
) -> None:
    choice = choice_of(run)
    kept = evaluation_of(run, boxes, tmp_path / "kept")
    assert (kept.temperature, kept.threshold, kept.fitted_on) == (choice.temperature, choice.threshold, "val")
    assert not (tmp_path / "kept" / "val-predictions.parquet").exists()
    asked = evaluation_of(without_choice(run, tmp_path / "run"), boxes, tmp_path / "asked")
    assert (tmp_path / "asked" / "val-predictions.parquet").exists()
    assert asked == msgspec.structs.replace(kept, name=asked.name)


def test_another_builds_val_is_asked_again(run: Path, tmp_path: Path) -> None:
    made = [turned(one) for one in coloured_boxes("val", 6)]
    other = make_build(tmp_path / "other", [*made, *coloured_boxes("test", 6)])
    found = evaluation_of(run, other, tmp_path / "out")
    assert (tmp_path / "out" / "val-predictions.parquet").exists()
    assert found.temperature != choice_of(run).temperature


def test_the_labels_of_test_do_not_move_what_is_kept_and_those_of_val_do(
    boxes: Path, run: Path, tmp_path: Path
) -> None:
    splits = {split: coloured_boxes(split, 6 if split != "train" else 8) for split in ("train", "val", "test")}
    for moved in ("test", "val"):
        samples = [turned(one) if split == moved else one for split, made in splits.items() for one in made]
        build = make_build(tmp_path / moved / "build", samples)
        run_training(build, tmp_path / moved / "run", config=CONFIG, epochs=(5,))
    expected = msgspec.structs.replace(choice_of(run), builds=[])
    by_test = msgspec.structs.replace(choice_of(tmp_path / "test" / "run"), builds=[])
    assert by_test == expected
    assert choice_of(tmp_path / "test" / "run").builds != choice_of(run).builds
    assert choice_of(tmp_path / "val" / "run").temperature != expected.temperature


def test_keeping_a_choice_moves_no_weight_and_the_same_run_has_the_same_bytes(
    boxes: Path, run: Path, tmp_path: Path
) -> None:
    again = tmp_path / "run"
    run_training(boxes, again, config=CONFIG, epochs=(5,))
    assert (again / "best.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()
    assert state_of(run).step == (state_of(run).best or state_of(run)).step
    if state_of(run).step == state_of(run, "last").step:
        best, last = (read_checkpoint(str(run / f"{name}.safetensors")).tensors for name in ("best", "last"))
        assert all(torch.equal(tensor, last[name]) for name, tensor in best.items())


def test_vals_of_several_builds_choose_together(boxes: Path, run: Path, tmp_path: Path) -> None:
    other = make_build(tmp_path / "other", coloured_boxes("val", 3))
    found = choose(run, boxes, other)
    assert found.num_prompts == 18 + 9
    assert found.builds == sorted(build_used(str(build), None).sha256 for build in (boxes, other))


def test_what_val_cannot_choose_says_why(run: Path, tmp_path: Path) -> None:
    made = coloured_boxes("val", 3)
    only = [
        Made(
            sample=msgspec.structs.replace(one.sample, prompts=tuple(p for p in one.sample.prompts if not p.present)),
            jpeg=one.jpeg,
            split="val",
            image_key=one.image_key,
        )
        for one in made
    ]
    found = choose(run, make_build(tmp_path / "absent", only))
    assert (found.temperature, found.threshold, found.why_not) == (None, None, "no present prompt was evaluated")
    assert (found.num_prompts, choose(run, why_not="no").why_not) == (6, "no")


def test_phase_1_alone_chooses_nothing(boxes: Path, tmp_path: Path) -> None:
    teacher = write_teacher(boxes, tmp_path)
    run_training(boxes, tmp_path / "run", config=CONFIG, teacher=(str(teacher),), phases=(1,), epochs=(1,))
    found = choice_of(tmp_path / "run")
    assert (found.temperature, found.threshold) == (None, None)
    assert found.why_not == "phase 1 alone teaches no presence"


def test_a_run_that_was_killed_while_val_chose_goes_on_to_the_same_bytes(
    boxes: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> ValChoice:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr("student.training.choose_on_val", killed)
        with pytest.raises(KeyboardInterrupt):
            run_training(boxes, out, config=CONFIG, epochs=(5,))
    assert state_of(out).choice is None
    assert not state_of(out, "last").finished
    run_training(boxes, out, config=None, epochs=None, resume=True)
    assert choice_of(out) == choice_of(run)
    assert (out / "best.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()


def test_a_run_that_was_killed_before_its_record_was_written_is_told_to_its_end(
    boxes: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    before = read_run(str(run))
    assert before is not None
    write_run(str(out), msgspec.structs.replace(before, name="run", finished=False, steps=1, best=None, choice=None))
    found = prepare(Request(builds={str(boxes): None}, out=str(out), config=CONFIG, epochs=(5,)))
    assert isinstance(found, RunRecord)
    assert found == read_run(str(out)) == before


def test_weights_that_nothing_was_chosen_for_are_exported_without(tmp_path: Path) -> None:
    student, other = tiny_student(), Student(TINY).eval()
    for choice, expected in ((make_choice(student), 0.375), (make_choice(other), None), (None, None)):
        folder = tmp_path / f"run-{expected}-{choice is None}"
        wanted = Wanted(
            run=str(write_run_of(folder, student, choice)),
            which="best",
            out="",
            num_phrases=3,
            build="",
            split="test",
            quantised=False,
            bound=0.02,
            num_calibration=1,
            threads=1,
        )
        assert record_of(wanted, load_student(str(folder))).threshold == expected


def test_masks_are_drawn_above_what_val_chose_for_these_very_weights(boxes: Path, run: Path, tmp_path: Path) -> None:
    best = state_of(run).best
    assert best is not None
    lines = [line for line in read_history(str(run)) if isinstance(line, ValLine) and line.step == best.step]
    assert best.mask_threshold == lines[0].val["mask_threshold"]
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    for which in ("best", "last"):
        found = read_checkpoint(str(moved / f"{which}.safetensors"))
        state = msgspec.structs.replace(found.state, best=msgspec.structs.replace(best, mask_threshold=0.15))
        write_checkpoint(found.uri, found.tensors, state)
    assert open_predictor(str(moved), device="cpu").mask_threshold == 0.15
    note = "a pixel of a mask is set above 0.15, which val chose when the model was trained"
    assert note in evaluation_of(moved, boxes, tmp_path / "out").notes
    last = state_of(moved, "last")
    assert last.mask_threshold == (0.15 if last.step == best.step else 0.5)
