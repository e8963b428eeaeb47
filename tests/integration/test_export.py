"""The commands that export and time a student, on a small world, and what they leave."""

import json
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from manifests.errors import ExportError
from student import export, latency
from student.calibration_set import calibration_set, require_both, split_pictures
from student.drops import METRICS, verdict_of
from student.export_record import GRAPHS, Parity, read_export, read_variant_record
from student.latency import read_latency_of
from student.model import Student
from student.parity import Asked
from student.peak_memory import held
from student.peak_memory import main as tell_memory
from student.predict import open_predictor
from student.readings import Latency, Quantisation, read_json
from student.tokens import ask
from student.verdicts import conditions_apart
from tests.exports import TINY, make_choice, tiny_student, write_run
from tests.worlds import REPOSITORY, build_world, write_world

BENCH_LINES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What the commands were given, and where they wrote."""

    build: Path
    run: Path
    out: Path
    said: str  # on stdout


def separate(student: Student, build: Path) -> Student:
    """A copy of a random student that says what is present a little better than chance."""
    both = [copy_of(student, sign) for sign in (1, -1)]
    return max(both, key=lambda copied: centre(copied, build))


def copy_of(student: Student, sign: int) -> Student:
    """A copy that matches what it sees, or the opposite of it."""
    copied = Student(TINY).eval()
    copied.load_state_dict(student.state_dict())
    with torch.no_grad():
        for parameter in (*copied.image.coarse.parameters(), *copied.image.fine.parameters(), copied.image.place_nc):
            parameter.mul_(sign)
    return copied


def centre(copied: Student, build: Path) -> float:
    """Put a student's bias where its presences are told apart best; the correlation there."""
    logits: list[float] = []
    present: list[bool] = []
    with torch.no_grad():
        for one in split_pictures(str(build), "test", size=TINY.size, num=100):
            asked = ask([one.phrases], context=TINY.context)
            answer = copied(torch.from_numpy(one.image_3ss)[None], asked.tokens_ul, asked.phrase_bp)
            logits += answer.presence_bp[0].tolist()
            present += one.present
        between = np.unique(logits)[1:-1] + 1e-4
        mccs = [float(np.corrcoef(np.array(logits) > bound, present)[0, 1]) for bound in between]
        best = int(np.argmax(mccs))
        copied.decoder.presence.bias.sub_(float(between[best]))
    return mccs[best]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("export")
    build = folder / "build"
    build_world(write_world(folder / "world", coco_images=24, sa1b_images=30, samples=40), build)
    student = separate(tiny_student(), build)
    run = write_run(folder / "run", student, make_choice(student))
    said = StringIO()
    options = ["--build", str(build), "--quantize", "int8-int4", "--bound", "0", "--pictures", "12", "--quiet"]
    with redirect_stdout(said):
        assert export.main([str(run), *options, "--phrases", "3", "--json"]) == 0
    return Made(build=build, run=run, out=run / "export", said=said.getvalue())


def test_every_variant_is_judged_against_both_bases_on_both_metrics(made: Made) -> None:
    found = read_json(str(made.out / "quantisation.json"), Quantisation)
    names = [variant.name for variant in found.variants]
    assert names[:3] == ["fp32", "fp16", "int8-int4"]
    for variant in found.variants[2:]:
        assert [(drop.base, drop.metric) for drop in variant.drops] == [
            (base, metric) for base in ("fp32", "fp16") for metric in METRICS
        ]
        for drop in variant.drops:
            assert drop.verdict == verdict_of(drop.base_value, drop.value, 0.0)
            assert drop.low <= drop.drop <= drop.high
            assert drop.value == pytest.approx(variant.readings[drop.metric].value)
    assert found.variants[0].drops == []
    assert {drop.base for drop in found.variants[1].drops} == {"fp32"}
    assert found.variants[0].flipped_presences == 0
    assert found.variants[2].num_prompts == found.variants[0].num_prompts > 0


def test_every_variant_carries_what_val_chose_for_the_student(made: Made) -> None:
    for name in read_export(str(made.out)).variants:
        variant = read_variant_record(str(made.out / name))
        assert (variant.temperature, variant.threshold, variant.mask_threshold) == (1.25, 0.375, 0.2)
        assert open_predictor(str(made.out / name)).mask_threshold == 0.2


def test_files_memory_and_latency_of_each_variant_are_told(made: Made) -> None:
    found = read_json(str(made.out / "quantisation.json"), Quantisation)
    for variant in found.variants:
        sizes = {path.name: path.stat().st_size for path in (made.out / variant.name).glob("*.onnx")}
        assert variant.num_bytes == sizes
        assert set(sizes) == {f"{graph}.onnx" for graph in GRAPHS}
        assert variant.latency is not None
        assert variant.latency.conditions.precision == variant.name
        assert variant.latency.conditions.num_phrases == 3
        assert (variant.peak_ram_bytes or 0) > 0
    total = {variant.name: sum(variant.num_bytes.values()) for variant in found.variants}
    assert total["int8-int4"] < 0.3 * total["fp32"]
    assert total["fp16"] < 0.6 * total["fp32"]


def test_remedies_are_tried_and_told_when_a_drop_is_over_its_bound(made: Made) -> None:
    found = read_json(str(made.out / "quantisation.json"), Quantisation)
    assert any(drop.verdict == "over" for drop in found.variants[2].drops)  # of a bound of 0
    assert found.variants[3].remedy == "ranges by percentile"
    remedies = [variant.remedy for variant in found.variants[3:]]
    assert all(any(note.startswith(remedy) for note in found.notes) for remedy in remedies)


def test_what_each_group_of_layers_costs_is_told_the_costliest_first(made: Made) -> None:
    found = read_json(str(made.out / "quantisation.json"), Quantisation)
    assert {cost.metric for cost in found.layers} == set(METRICS)
    drops = [cost.drop for cost in found.layers]
    assert drops == sorted(drops, reverse=True)
    assert len({cost.layer for cost in found.layers}) == 9


def test_parity_with_torch_was_measured_on_pictures_of_the_build(made: Made) -> None:
    parity = msgspec.json.decode((made.out / "parity.json").read_bytes(), type=Parity)
    assert parity.pictures == "split test of build"
    assert 0 < parity.num_pictures <= 8
    assert parity.bound == 1e-3
    assert max(parity.differences[0].presence_logit, parity.differences[0].mask_logit) <= 1e-3
    assert [one.variant for one in parity.differences] == ["fp32", "fp16"]


def test_the_summary_names_what_was_made(made: Made) -> None:
    summary = json.loads(made.said)
    assert summary["out"] == str(made.out)
    assert read_export(str(made.out)).variants == summary["variants"]
    assert open_predictor(str(made.out)).name == f"onnx {summary['chosen']}"


def test_bench_prints_the_record_of_the_latency_command(made: Made) -> None:
    script = made.out / "bench.py"
    assert len(script.read_text().splitlines()) <= BENCH_LINES
    imported = {line.split()[1] for line in script.read_text().splitlines() if line.startswith(("import", "from"))}
    assert {name for name in imported if name not in sys.stdlib_module_names} == {"numpy", "onnxruntime"}
    done = subprocess.run(
        [sys.executable, str(script), "int8-int4", "1"], capture_output=True, text=True, check=True, timeout=120
    )
    timed = msgspec.json.decode(done.stdout, type=Latency)
    ours = read_latency_of(str(made.out / "int8-int4"))
    assert conditions_apart(timed.conditions, ours.conditions) == []
    assert timed.num_calls == ours.num_calls
    assert timed.first_ms is not None
    assert timed.p95_ms is not None
    assert timed.ms <= timed.p95_ms


def test_latency_of_a_run_and_of_its_export_lie_beside_them_and_do_not_compare(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    assert latency.main([str(made.run), "--phrases", "3"]) == 0
    assert latency.main([str(made.out / "fp32"), "--json"]) == 0
    torch.set_num_threads(threads)
    ours, exported = (read_json(str(folder / "latency.json"), Latency) for folder in (made.run, made.out / "fp32"))
    (difference,) = conditions_apart(ours.conditions, exported.conditions)
    assert (difference.name, difference.ours[:6]) == ("runtime", "torch ")
    out = capsys.readouterr().out
    assert "ms (p95 " in out
    assert "the first call took" in out
    assert msgspec.json.decode(out.splitlines()[-1], type=Latency) == exported


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}/nowhere"], "there is no such checkpoint; expected the folder of a training run"),
        (["{out}", "--batch", "2"], "--batch 2: the export is fixed to 1; leave the option out, or export again"),
        (["{out}", "--phrases", "9"], "--phrases 9: the export is fixed to 3"),
        (["{out}", "--device", "cuda"], "--device cuda: the export is fixed to cpu"),
    ],
)
def test_latency_of_what_cannot_be_timed_is_one_error(
    made: Made, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    filled = [one.format(run=made.run, out=made.out) for one in arguments]
    assert latency.main(filled) == 1
    assert said in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(tmp_path), "--quiet"]) == 1
    assert "best.safetensors: there is no such checkpoint; expected the folder" in capsys.readouterr().err


def test_a_build_without_absences_is_refused_for_calibration(
    tmp_path: Path, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"}
    recipe = write_world(
        tmp_path / "world",
        prompts={"absent_per_image": 0},
        mix={"coco": "rest"},
        sources={"coco": source},
        splits={"train": 1.0, "val": 0.0, "test": 0.0},
        samples=20,
        coco_images=20,
        sa1b_images=1,
    )
    build_world(recipe, tmp_path / "build")
    options = ["--build", str(tmp_path / "build"), "--quantize", "int8-int4", "--out", str(tmp_path / "out"), "--quiet"]
    assert export.main([str(made.run), *options]) == 1
    assert "pictures of train, asks for nothing absent (" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("present", "word"), [((True, True), "absent"), ((False,), "present"), ((), "absent")])
def test_a_calibration_set_of_one_class_alone_is_refused(present: tuple[bool, ...], word: str) -> None:
    asked = [Asked(image_3ss=np.zeros((3, 8, 8), np.uint8), phrases=("cat",) * len(present), present=present)]
    with pytest.raises(
        ExportError, match=rf"BUILD: .*asks for nothing {word} \(\d present .* expected both, .* Give a"
    ):
        require_both(asked, "BUILD")


def test_a_calibration_set_is_drawn_once_from_train_and_no_picture_twice(made: Made) -> None:
    first, again = (calibration_set(str(made.build), size=64, num=10) for _ in range(2))
    assert [one.phrases for one in first] == [one.phrases for one in again]
    whole = calibration_set(str(made.build), size=64, num=10_000)
    assert 10 < len(whole) < 10_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--quantize", "int8-int4"], "--quantize needs --build"),
        (["--bound", "1.5"], "expected a share from 0 to below 1"),
        (["--phrases", "0"], "--phrases 0: expected 1 or more"),
        (["--quantize", "int3"], "invalid choice"),
    ],
)
def test_wrong_options_exit_with_2(capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        export.main(["RUN", *options])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_an_unknown_split_is_refused_before_anything_is_written(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([str(made.run), "--build", str(tmp_path), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    assert "manifest.json" in capsys.readouterr().err


def test_memory_is_told_in_bytes(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert tell_memory([str(made.out / "fp32")]) == 0
    assert capsys.readouterr().out.strip().isdigit()
    assert (held("VmHWM") or 0) >= (held("VmRSS") or 0) > 1 << 20
    assert held("NoSuchField") is None


@pytest.mark.parametrize("module", ["student.export", "student.latency"])
def test_help_answers_without_torch(module: str) -> None:
    script = (
        f"import sys, runpy\nsys.argv = ['x', '--help']\ntry:\n    runpy.run_module('{module}', run_name='__main__')"
    )
    script += "\nexcept SystemExit:\n    print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=240
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "usage: python -m student." in done.stdout
