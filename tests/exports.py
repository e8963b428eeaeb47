"""Small students that answer something, their checkpoints and their graphs; made once a process."""

from functools import cache
from pathlib import Path

import torch

from student.checkpoint import MODEL, CheckpointState, write_checkpoint
from student.config import ModelConfig, TrainConfig
from student.export_record import Graph, VariantRecord
from student.graphs import Graphs, encode_graphs, export_graphs
from student.model import Student
from student.onnx_predictor import OnnxPredictor
from student.run_record import Best, ValChoice
from student.torch_predictor import TorchPredictor

PHRASES = 3  # of one call
TINY = ModelConfig(
    size=64,
    image_encoder="test_efficientnet",
    pretrained=False,
    width=16,
    attention_layers=1,
    attention_heads=2,
    text_width=16,
    text_layers=1,
    text_heads=2,
    context=16,
)


@cache
def tiny_student() -> Student:
    """A random student whose presences stand on both sides of a half, and whose masks are not empty."""
    torch.manual_seed(7)  # one whose readings 8 bits lower
    student = Student(TINY).eval()
    with torch.no_grad():
        student.decoder.presence.log_scale.fill_(3.5)
        student.decoder.presence.bias.fill_(0)
        student.decoder.mask_bias.fill_(0.4)
        student.decoder.kernel.get_parameter("2.weight").mul_(4)
    return student


@cache
def tiny_graphs() -> Graphs:
    """The student's three graphs."""
    return export_graphs(tiny_student(), PHRASES)


def make_record(name: str = "fp32") -> VariantRecord:
    """What a variant of the student says of itself."""
    return VariantRecord(
        name=name, student="run", student_sha256="0" * 64, size=TINY.size, context=TINY.context, num_phrases=PHRASES
    )


def make_predictor(graphs: Graphs, name: str = "fp32") -> OnnxPredictor:
    """A predictor over graphs."""
    return OnnxPredictor(make_record(name), encode_graphs(graphs), threads=1)


def fake_graphs() -> dict[Graph, bytes]:
    """Bytes that stand for graphs where none is run."""
    return {"image": b"i", "text": b"t", "decoder": b"d"}


def make_choice(student: Student) -> ValChoice:
    """What val may have chosen for `student`."""
    digest = TorchPredictor(student).digest()
    return ValChoice(student=digest, builds=["0" * 64], num_prompts=9, temperature=1.25, threshold=0.375)


def write_run(folder: Path, student: Student, choice: ValChoice | None = None) -> Path:
    """The folder of a run that ended with `student`, for which val chose `choice`."""
    folder.mkdir(parents=True)
    state = CheckpointState(
        start="scratch",
        began="scratch",
        phase=2,
        epoch=1,
        step=1,
        position=0,
        order_digest="",
        config=TrainConfig(model=student.config),
        builds=[],
        teacher=[],
        phases=[2],
        epochs=[1],
        one_class=False,
        positives_only=False,
        finished=True,
        best=Best(step=1, value=0.5, metric="miou", mask_threshold=0.2),
        choice=choice,
    )
    tensors = {MODEL + name: tensor for name, tensor in student.state_dict().items()}
    write_checkpoint(str(folder / "best.safetensors"), tensors, state)
    return folder
