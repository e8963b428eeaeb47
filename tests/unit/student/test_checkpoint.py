import io
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import save

from manifests.errors import CheckpointError, RecipeError
from student.checkpoint import MODEL, CheckpointState, load_student, read_checkpoint, write_checkpoint
from student.initial import describe_init, init_from
from student.model import Student
from student.run_record import read_run
from tests.students import TINY, tiny_config

STATE = CheckpointState(
    start="scratch",
    began="scratch",
    phase=2,
    epoch=1,
    step=7,
    position=56,
    order_digest="d",
    config=tiny_config(),
    builds=[],
    teacher=[],
    phases=[2],
    epochs=[1],
    one_class=False,
    positives_only=False,
    finished=True,
)


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    return Student(TINY)


def written(student: Student, folder: Path, state: CheckpointState = STATE, *others: str) -> Path:
    """A checkpoint of `student`, with tensors of the names `others` besides."""
    path = folder / "best.safetensors"
    model = {MODEL + name: tensor for name, tensor in student.state_dict().items()}
    write_checkpoint(str(path), {**model, **dict.fromkeys(others, torch.zeros(3))}, state)
    return path


def test_a_student_comes_back_as_it_was(student: Student, tmp_path: Path) -> None:
    written(student, tmp_path)
    loaded = load_student(str(tmp_path))
    assert loaded.state == STATE
    assert loaded.config == STATE.config
    assert not loaded.student.training
    found = loaded.student.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in student.state_dict().items())


def test_equal_weights_are_equal_bytes(student: Student, tmp_path: Path) -> None:
    first = written(student, tmp_path).read_bytes()
    assert written(student, tmp_path).read_bytes() == first


def _pickled(path: Path) -> None:
    found = io.BytesIO()
    torch.save({"model.a": torch.zeros(2)}, found)
    path.write_bytes(found.getvalue())


def _old_pickled(path: Path) -> None:
    found = io.BytesIO()
    torch.save({"model.a": torch.zeros(2)}, found, _use_new_zipfile_serialization=False)
    path.write_bytes(found.getvalue())


def _deep() -> bytes:
    header = b'{"a":' + b"[" * 200_000
    return len(header).to_bytes(8, "little") + header


def _newer(path: Path) -> None:
    encoded = msgspec.json.encode({**msgspec.to_builtins(STATE), "schema": 2, "what": "else"}).decode()
    path.write_bytes(save({"model.a": torch.zeros(2)}, metadata={"absentia": encoded}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_pickled, "is a pickled checkpoint, which can run any code"),
        (_old_pickled, "is a pickled checkpoint, which can run any code"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is cut short or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "is cut short: 500 bytes"),
        (lambda path: path.write_bytes(b""), "is no safetensors file"),
        (lambda path: path.write_bytes(b"hello, here is some text"), "is no safetensors file"),
        (lambda path: path.write_bytes(b"\x08" + bytes(7) + b"{notjson"), "its header is no JSON"),
        (lambda path: path.write_bytes(_deep()), "its header is no JSON"),
        (lambda path: path.write_bytes(save({"a": torch.zeros(2)})), "of another program"),
        (lambda path: path.write_bytes(save({"a": torch.zeros(2)}, metadata={"absentia": "{}"})), "cannot be read"),
        (_newer, "schema 2 is newer than 1; upgrade absentia"),
        (lambda path: path.unlink(), "there is no such checkpoint"),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused(
    student: Student, tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    path = written(student, tmp_path)
    damage(path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:folder", "someone/model"])
def test_an_image_encoder_from_a_hub_is_refused_before_it_is_fetched(
    student: Student, tmp_path: Path, name: str
) -> None:
    model = msgspec.structs.replace(TINY, image_encoder=name)
    written(student, tmp_path, msgspec.structs.replace(STATE, config=tiny_config(model=model)))
    with pytest.raises(CheckpointError, match="names a hub or a folder; expected a model that timm itself has"):
        load_student(str(tmp_path))
    with pytest.raises(RecipeError, match="names a hub or a folder"):
        Student(model)


def test_a_folder_in_a_checkpoints_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="is a folder; expected a safetensors file"):
        load_student(str(tmp_path))


def test_tensors_of_another_model_are_refused(student: Student, tmp_path: Path) -> None:
    wider = msgspec.structs.replace(STATE, config=tiny_config(model=msgspec.structs.replace(TINY, width=32)))
    written(student, tmp_path, wider)
    with pytest.raises(CheckpointError, match=r"decoder\.\S+ is \[16.*\], expected \[32.*it is of another model"):
        load_student(str(tmp_path))
    deeper = msgspec.structs.replace(STATE, config=tiny_config(model=msgspec.structs.replace(TINY, text_layers=2)))
    written(student, tmp_path, deeper)
    with pytest.raises(CheckpointError, match=r"12 tensors missing \(text\.\S+, .*, …\), 0 unexpected \(none\)"):
        load_student(str(tmp_path))


def test_init_takes_what_fits_by_name_and_reports_the_rest(student: Student, tmp_path: Path) -> None:
    written(student, tmp_path, STATE, "model.strange")
    torch.manual_seed(9)
    other = Student(msgspec.structs.replace(TINY, text_layers=2))
    fresh = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    report = init_from(other, str(tmp_path))
    taken = student.state_dict()
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, taken[name] if name in taken else fresh[name])
    assert report.loaded == len(taken)
    assert report.missing == sorted(fresh.keys() - taken.keys())
    assert report.unexpected == ["strange"]
    assert f"{len(taken)} tensors, 12 missing (text." in describe_init(report)
    assert describe_init(report).endswith("1 unexpected (strange)")


def test_init_refuses_other_shapes_and_strangers(student: Student, tmp_path: Path) -> None:
    path = written(student, tmp_path)
    with pytest.raises(CheckpointError, match=r"expected .* it is of another model"):
        init_from(Student(msgspec.structs.replace(TINY, context=8)), str(path))
    write_checkpoint(str(path), {"model.strange": torch.zeros(3)}, STATE)
    with pytest.raises(CheckpointError, match="none of its 1 tensors is of this model"):
        init_from(student, str(path))


def test_a_record_that_is_none_or_newer_is_refused(tmp_path: Path) -> None:
    assert read_run(str(tmp_path)) is None
    (tmp_path / "run.json").write_text('{"name": 3}')
    with pytest.raises(CheckpointError, match="expected the record of a training run"):
        read_run(str(tmp_path))
    (tmp_path / "run.json").write_text('{"schema": 2, "colour": "red"}')
    with pytest.raises(CheckpointError, match="schema 2 is newer than 1; upgrade absentia"):
        read_run(str(tmp_path))
