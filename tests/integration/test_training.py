import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from manifests import tables
from manifests.errors import AbsentiaError
from student import training
from student.checkpoint import load_student, read_checkpoint, write_checkpoint
from student.history import LossLine, ValLine, read_history
from student.run_record import Best, read_run
from student.train import main
from tests.factories import absent, make_build, make_mask, make_sample, present
from tests.students import (
    COLOURS,
    coloured_boxes,
    losses_of,
    prepared,
    run_training,
    tiny_config,
    vals_of,
    write_config,
    write_teacher,
)
from tests.worlds import REPOSITORY, build_world, error_line, write_world


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    build_world(write_world(folder), folder / "build")
    return folder / "build"


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures to learn, and six to be judged by."""
    folder = tmp_path_factory.mktemp("boxes")
    return make_build(folder / "build", [*coloured_boxes("train", 8), *coloured_boxes("val", 6)])


@pytest.fixture(scope="module")
def whole(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over both phases that nobody stopped, workers on."""
    folder = tmp_path_factory.mktemp("whole")
    teacher = write_teacher(build, folder, without=["car"])
    run_training(build, folder / "run", teacher=(str(teacher),), epochs=(1, 2), num_workers=2)
    return folder / "run"


def test_the_loss_falls_on_eight_samples_and_the_student_knows_what_is_absent(boxes: Path, tmp_path: Path) -> None:
    faster = msgspec.structs.replace(tiny_config().optimiser, learning_rate=1e-2)
    config = tiny_config(optimiser=faster, batch_size=2)
    standing = run_training(boxes, tmp_path / "run", config=config, epochs=(15,))
    losses = losses_of(tmp_path / "run")
    assert sum(losses[-1].values()) < 0.5 * sum(losses[0].values())
    assert standing.best is not None
    assert standing.best.metric == "il_mcc + miou"
    assert standing.best.value > 0.8


def test_a_run_leaves_what_its_folder_promises(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {
        "run.json",
        "config.toml",
        "history.jsonl",
        "last.safetensors",
        "best.safetensors",
        "curves.png",
        "tensorboard",
    }
    record = read_run(str(whole))
    assert record is not None
    assert (record.start, record.began, record.finished, record.one_class) == ("scratch", "scratch", True, False)
    assert (record.phases, record.epochs, record.not_taught) == ([1, 2], [1, 2], 1)
    assert [build.name for build in record.builds] == ["build"]
    assert record.best is not None
    lines = read_history(str(whole))
    losses = [line for line in lines if isinstance(line, LossLine)]
    assert [line.step for line in losses] == list(range(1, record.steps + 1))
    assert [line.position for line in losses] == [8 * line.step for line in losses]
    assert {line.phase: set(line.losses) for line in losses} == {
        1: {"align_image", "align_text", "align_match"},
        2: {"presence", "mask_bce", "mask_dice"},
    }
    assert [line.epoch for line in lines if isinstance(line, ValLine)] == [0, 1]
    assert load_student(str(whole)).state.step == record.best.step
    assert load_student(str(whole), "last").state.finished
    assert list((whole / "tensorboard").iterdir())


def test_a_run_is_not_finished_before_its_curves_are_drawn(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nobody would draw them after that
    monkeypatch.setattr(training, "draw_curves", lambda _: pytest.fail("drawn"))

    with pytest.raises(pytest.fail.Exception, match="drawn"):
        run_training(build, tmp_path / "run", epochs=(1,))

    record = read_run(str(tmp_path / "run"))
    assert record is not None
    assert not record.finished


@pytest.mark.parametrize("stop_after", [3, 7, 12])  # within a phase, between the two, within the second
def test_a_resumed_run_has_the_losses_of_one_that_nobody_stopped(
    build: Path, whole: Path, tmp_path: Path, stop_after: int
) -> None:
    teacher = (str(whole.parent / "teacher.parquet"),)
    out = tmp_path / "run"
    stopped = run_training(build, out, teacher=teacher, epochs=(1, 2), num_workers=2, stop_after=stop_after)
    assert (stopped.finished, stopped.step) == (False, stop_after)
    run_training(build, out, teacher=teacher, config=None, epochs=None, num_workers=1, resume=True)
    assert len(losses_of(out)) == len(losses_of(whole))
    for found, expected in zip(losses_of(out), losses_of(whole), strict=True):
        assert found == pytest.approx(expected, abs=1e-6)
    assert vals_of(out) == [pytest.approx(val, abs=1e-6) for val in vals_of(whole)]
    record = read_run(str(out))
    assert record is not None
    assert (record.start, record.began, record.num_resumed) == ("resume", "scratch", 1)
    assert read_checkpoint(str(out / "last.safetensors")).state.start == "resume"


def test_a_killed_run_goes_on_from_its_last_checkpoint_and_does_steps_again_once(build: Path, tmp_path: Path) -> None:
    config = tiny_config(checkpoint_steps=3, log_steps=2)
    run_training(build, tmp_path / "whole", config=config, epochs=(1,))
    out = tmp_path / "run"
    run_training(build, out, config=config, epochs=(1,), stop_after=3)
    kept = (out / "last.safetensors").read_bytes()
    run_training(build, out, config=None, epochs=None, resume=True, stop_after=2)
    (out / "last.safetensors").write_bytes(kept)  # as if what came after had been lost
    with (out / "history.jsonl").open("ab") as file:
        file.write(b'{"phase":2,"ep')  # and a line cut
    run_training(build, out, config=None, epochs=None, resume=True)
    steps, expected = ([line.step for line in read_history(str(run))] for run in (out, tmp_path / "whole"))
    assert steps == expected
    assert losses_of(out) == [pytest.approx(line, abs=1e-6) for line in losses_of(tmp_path / "whole")]


@pytest.mark.parametrize(("asks", "expected"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_stop_saves_and_says_how_to_go_on(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asks: signal.Signals, expected: int
) -> None:
    out = tmp_path / "run"
    history = out / "history.jsonl"
    done = threading.Event()

    def end() -> None:
        while not done.is_set() and not (history.exists() and history.read_bytes().count(b"\n") > 2):
            time.sleep(0.01)
        if not done.is_set():
            os.kill(os.getpid(), asks)

    thread = threading.Thread(target=end)
    thread.start()
    argv = [str(build), "--out", str(out), "--config", write_config(tmp_path, tiny_config()), "--quiet"]
    try:
        code = main([*argv, "--epochs", "90", "--workers", "0"])
    finally:
        done.set()
        thread.join()
    assert code == expected
    said = capsys.readouterr().err
    assert "resume with python -m student.train " in said
    assert said.strip().endswith("--resume")
    record = read_run(str(out))
    assert record is not None
    assert not record.finished
    assert 3 <= record.steps < 90
    assert read_checkpoint(str(out / "last.safetensors")).state.step == record.steps


@pytest.mark.parametrize(("asks", "expected"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_saves_too(
    build: Path, tmp_path: Path, asks: signal.Signals, expected: int
) -> None:
    out = tmp_path / "run"
    config = write_config(tmp_path, tiny_config())
    command = [sys.executable, "-W", "error", "-m", "student.train", str(build), "--out", str(out), "--config", config]
    history = out / "history.jsonl"
    with subprocess.Popen(
        [*command, "--epochs", "900", "--workers", "1", "--device", "cpu", "--quiet"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        while running.poll() is None and not (history.exists() and history.read_bytes().count(b"\n") > 2):
            time.sleep(0.01)
        os.killpg(running.pid, asks)
        said = running.communicate(timeout=240)[1]
    assert (running.returncode, said.count("\n")) == (expected, 1), said
    assert "steps; resume with python -m student.train " in said
    state = read_checkpoint(str(out / "last.safetensors")).state
    assert state.step >= 2
    assert not state.finished


def test_ctrl_c_before_the_first_checkpoint_promises_no_resumption(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("student.preparing.prepare", cut)
    assert main([str(build), "--out", str(tmp_path / "run"), "--quiet"]) == 130
    assert capsys.readouterr().err == "stopped by the keyboard; there is no checkpoint yet; run the command again\n"


def test_init_begins_with_another_runs_weights_and_says_so(
    build: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    config = write_config(tmp_path, tiny_config())
    argv = [str(build), "--out", str(out), "--config", config, "--init", str(whole), "--epochs", "1", "--workers", "0"]
    assert main([*argv, "--json", "--quiet"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["start"], record["began"], record["finished"]) == ("init", "init", True)
    assert record["init"]["source"] == str(whole)
    assert (record["init"]["missing"], record["init"]["unexpected"]) == ([], [])
    assert load_student(str(out)).state.began == "init"
    again = main([*argv, "--quiet"])  # a finished run is not trained again
    assert again == 0
    assert read_run(str(out)) is not None
    other = tmp_path / "other"
    wide = write_config(tmp_path, tiny_config(model=msgspec.structs.replace(tiny_config().model, width=32)))
    assert main([str(build), "--out", str(other), "--config", wide, "--init", str(whole), "--quiet"]) == 1
    assert "it is of another model" in error_line(capsys.readouterr().err)
    assert not other.exists()


@pytest.fixture
def stopped(build: Path, tmp_path: Path) -> Path:
    run_training(build, tmp_path / "run", epochs=(1,), stop_after=2)
    return tmp_path / "run"


def refusal(build: Path, out: Path, **changes: object) -> str:
    with pytest.raises(AbsentiaError) as caught:
        prepared(build, out, **changes)
    return str(caught.value)


def test_resume_refuses_another_run(build: Path, boxes: Path, whole: Path, stopped: Path) -> None:
    resume = {"resume": True, "config": None, "epochs": None}
    assert "was trained on build" in refusal(boxes, stopped, **resume)
    other = refusal(build, stopped, **{**resume, "config": tiny_config(batch_size=4)})
    assert "config is not what the run began with (batch_size: 4 is not 8)" in other
    assert "epochs is not what the run began with (found [2], began with [1])" in refusal(
        build, stopped, **{**resume, "epochs": (2,)}
    )
    positives = refusal(build, stopped, **{**resume, "positives_only": True})
    assert "positives_only is not" in positives
    assert positives.endswith("Leave --positives-only out")
    teacher = str(whole.parent / "teacher.parquet")
    assert "had other teacher tables" in refusal(build, stopped, **{**resume, "teacher": (teacher,)})
    finished = refusal(build, whole, **{**resume, "teacher": (teacher,)})
    assert "this run is finished after" in finished
    assert f"--init {whole}" in finished
    assert "there is no such checkpoint" in refusal(build, stopped.parent / "none", **resume)


def test_resume_refuses_a_run_whose_best_weights_are_gone(build: Path, stopped: Path) -> None:
    # it would train to the end, and fail there
    resume = {"resume": True, "config": None, "epochs": None}
    last = read_checkpoint(str(stopped / "last.safetensors"))
    best = Best(step=1, value=0.5, metric="il_mcc + miou", mask_threshold=0.5)
    write_checkpoint(last.uri, last.tensors, msgspec.structs.replace(last.state, best=best))

    said = refusal(build, stopped, **resume)

    assert said.startswith(f"{stopped}/best.safetensors: is gone, though val found the best weights so far at step 1")
    assert f"Put it back, or delete {stopped} and train anew" in said


def test_a_folder_that_holds_another_run_is_not_written_over(
    build: Path, boxes: Path, whole: Path, stopped: Path
) -> None:
    assert "was stopped after 2 steps; expected an empty folder. Go on with --resume" in refusal(build, stopped)
    teacher = str(whole.parent / "teacher.parquet")
    asked = {"teacher": (teacher,), "epochs": (1, 2)}
    assert "was trained on" in refusal(boxes, whole, **asked)
    assert "began with other weights" in refusal(build, whole, **asked, init=str(whole))


def test_one_class_is_refused_unless_the_user_insists(tmp_path: Path) -> None:
    mask = make_mask()
    made = [make_sample(f"photos-{split}", present("cat", mask), split=split) for split in ("train", "val")]
    only_present = make_build(tmp_path / "present", made)
    said = refusal(only_present, tmp_path / "run")
    assert "train has 1 present and 0 absent prompts" in said
    assert "Build with absent prompts, or insist with --allow-one-class" in said
    made = [make_sample(f"photos-{split}", absent("cat"), split=split) for split in ("train", "val")]
    only_absent = make_build(tmp_path / "absent", made)
    assert "Build with present prompts" in refusal(only_absent, tmp_path / "run")
    standing = run_training(only_present, tmp_path / "run", allow_one_class=True, epochs=(1,))
    assert standing.best is not None
    assert standing.best.metric == "miou"
    record = read_run(str(tmp_path / "run"))
    assert record is not None
    assert record.one_class


def test_positives_only_trains_without_absences_and_is_recorded(boxes: Path, tmp_path: Path) -> None:
    run_training(boxes, tmp_path / "run", positives_only=True, epochs=(1,))
    record = read_run(str(tmp_path / "run"))
    assert record is not None
    assert (record.positives_only, record.one_class) == (True, True)
    assert record.best is not None
    assert record.best.metric == "miou"
    (line,) = [line for line in read_history(str(tmp_path / "run")) if isinstance(line, ValLine)]
    assert line.val["num_absent"] == 12  # val asks them all the same


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    for missing, split in (("val", "train"), ("train", "val")):
        folder = make_build(tmp_path / missing, coloured_boxes(split, 2))
        assert f"split {missing} is empty" in refusal(folder, tmp_path / "run")


def test_builds_with_one_split_each_train_together(tmp_path: Path) -> None:
    learnt = make_build(tmp_path / "learnt", coloured_boxes("train", 8))
    judged = make_build(tmp_path / "judged", coloured_boxes("val", 2))
    for name, weights in (("plain", (None, None)), ("weighted", (1.0, 2.0))):
        builds = dict(zip((str(learnt), str(judged)), weights, strict=True))
        assert run_training(learnt, tmp_path / name, builds=builds, epochs=(1,)).finished


def test_predictions_that_teach_nothing_are_warned_of(
    boxes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tables.table_writer(str(tmp_path / "p.parquet"), tables.PREDICTIONS) as writer:
        writer.add("photos-train_0", "red box", 0.75, None)
    predictions = str(tmp_path / "p.parquet")
    argv = [str(boxes), "--epochs", "1", "--workers", "0", "--quiet", "--teacher-predictions", predictions]
    assert main([*argv, "--out", str(tmp_path / "run"), "--config", write_config(tmp_path, tiny_config())]) == 0
    assert [text for text in caplog.messages if "losses.soft_presence and losses.soft_mask are both 0" in text]
    losses = msgspec.structs.replace(tiny_config().losses, soft_presence=0.5)
    assert not prepared(boxes, tmp_path / "a", predictions=predictions, config=tiny_config(losses=losses)).soft_unused
    bare = [make_sample(f"photos-{split}", present("cat"), absent("dog"), split=split) for split in ("train", "val")]
    build = make_build(tmp_path / "bare", bare)
    assert not prepared(build, tmp_path / "b", predictions=predictions).soft_unused


def test_a_phrase_longer_than_the_context_is_refused_before_the_first_step(tmp_path: Path) -> None:
    long = make_sample("photos-1", present("one " * 20 + "more", make_mask()), absent("cat"))
    folder = make_build(tmp_path / "build", [long, *coloured_boxes("val", 2)])
    assert "tokens with its ends; expected at most 16" in refusal(folder, tmp_path / "run")


def test_masks_of_another_size_than_their_picture_are_refused(tmp_path: Path) -> None:
    wrong = make_sample("photos-1", present("cat", make_mask(32, 24, right=20, bottom=20)), absent("dog"))
    folder = make_build(tmp_path / "build", [wrong, *coloured_boxes("val", 2)])
    with pytest.raises(AbsentiaError, match="mask_size"):
        run_training(folder, tmp_path / "run")


def test_what_does_not_add_up_is_refused(build: Path, tmp_path: Path) -> None:
    assert "expected --teacher FEATURES" in refusal(build, tmp_path / "run", phases=(1,))
    assert "teach in phase 1 alone" in refusal(build, tmp_path / "run", phases=(2,), teacher=("t.parquet",))
    assert "2 numbers of epochs for 1 phases" in refusal(build, tmp_path / "run", epochs=(1, 2))
    losses = msgspec.structs.replace(tiny_config().losses, presence=0, mask_bce=0, mask_dice=0)
    assert "so phase 2 has nothing to learn" in refusal(build, tmp_path / "run", config=tiny_config(losses=losses))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--phases", "3"], "--phases 3: expected 1, 2 or 1,2"),
        (["--phases", "2,1"], "--phases 2,1: expected 1, 2 or 1,2"),
        (["--epochs", "0"], "'0': expected numbers from 1"),
        (["--workers", "-1"], "--workers -1: expected 0 or more"),
        (["--processes", "0"], "--processes 0: expected 1 or more"),
        (["other=2"], "some builds have a weight and some have none"),
        (["build"], "build is given twice"),
        (["other=-1"], "other=-1: expected a weight above 0"),
        (["--init", "a", "--resume"], "not allowed with argument"),
        (["--out", "s3://bucket/run"], "a run is written to a folder of this machine"),
    ],
)
def test_wrong_options_exit_with_two(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    builds, options = ([], given) if given[0].startswith("--") else (given, [])
    with pytest.raises(SystemExit) as caught:
        main(["build", *builds, "--out", "run", *options])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_one_bad_device_or_precision_is_one_line(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(build), "--out", str(tmp_path / "run"), "--quiet"]
    assert main([*argv, "--device", "abacus"]) == 1
    assert error_line(capsys.readouterr().err).startswith("error: --device abacus: ")
    half = write_config(tmp_path, tiny_config(precision="float16"))
    assert main([*argv, "--device", "cpu", "--config", half]) == 1
    assert "expected a GPU. Use bfloat16 or float32" in error_line(capsys.readouterr().err)


def test_half_precision_trains_on_a_cpu_too(boxes: Path, tmp_path: Path) -> None:
    standing = run_training(boxes, tmp_path / "run", config=tiny_config(precision="bfloat16"), epochs=(1,))
    assert standing.finished


def test_weighted_builds_train_as_one(build: Path, boxes: Path, tmp_path: Path) -> None:
    run_training(build, tmp_path / "run", builds={str(build): 1.0, str(boxes): 3.0}, epochs=(1,))
    record = read_run(str(tmp_path / "run"))
    assert record is not None
    assert [found.weight for found in record.builds] == [1.0, 3.0]


def test_a_teachers_answers_are_learnt_from_where_its_table_has_them(boxes: Path, tmp_path: Path) -> None:
    rows = [(f"photos-train_{number}", phrase) for number in range(6) for phrase in COLOURS]
    with tables.table_writer(str(tmp_path / "p.parquet"), tables.PREDICTIONS) as writer:
        for key, phrase in rows:
            mask = make_mask(left=2, top=2, right=60, bottom=40)
            writer.add(key, phrase, 0.75, {"size": list(mask.size), "counts": mask.counts})
    losses = msgspec.structs.replace(tiny_config().losses, soft_presence=0.5, soft_mask=0.5)
    predictions = str(tmp_path / "p.parquet")
    run_training(boxes, tmp_path / "soft", predictions=predictions, epochs=(1,), config=tiny_config(losses=losses))
    run_training(boxes, tmp_path / "hard", epochs=(1,))
    (soft,), (hard,) = losses_of(tmp_path / "soft"), losses_of(tmp_path / "hard")
    assert soft["presence"] != hard["presence"]
    assert soft["mask_bce"] != hard["mask_bce"]
    record = read_run(str(tmp_path / "soft"))
    assert record is not None
    assert [(table.name, table.role) for table in record.teacher] == [("p.parquet", "predictions")]
