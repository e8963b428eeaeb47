"""A run's student as an export: graphs, parity with torch, what quantising costs, and a last record to commit it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources

import msgspec
from rich.progress import Progress

from manifests import files
from student.calibration_set import calibration_set, split_pictures
from student.checkpoint import SUFFIX, Loaded, Which, load_student
from student.export_record import (
    EXPORT_NAME,
    GRAPHS,
    VARIANT_NAME,
    ExportRecord,
    Parity,
    VariantRecord,
    graph_name,
    write_export,
    write_parity,
    write_variant,
)
from student.graphs import Graphs, encode_graphs, export_graphs, half_graphs
from student.model import Student
from student.onnx_predictor import OnnxPredictor
from student.parity import BOUND, Asked, difference, made_pictures, require_parity
from student.quantisation import BASES, Trial, chosen_of, quantise
from student.readings import LATENCY_NAME, QUANTISATION_NAME, Quantisation
from student.run_record import name_of
from student.torch_predictor import TorchPredictor
from student.variant_judge import VariantJudge

PARITY_PICTURES = 8
BENCH_NAME = "bench.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to export, and how to judge it."""

    run: str
    which: Which
    out: str
    num_phrases: int  # of one call
    build: str  # pictures to check and judge on; "" for made ones, which judge nothing
    split: str
    quantised: bool
    bound: float  # of a relative drop
    num_calibration: int  # pictures of train
    threads: int


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What was made."""

    out: str
    variants: list[str]
    chosen: str
    parity: Parity
    quantisation: Quantisation | None


def export_run(wanted: Wanted, progress: Progress) -> Exported:
    """Export the student of a run; `export.json` is written last.

    Raises:
        CheckpointError: there is no student.
        ManifestError: the build has no such split, or is damaged.
        ExportError: fp32 strays from the student, or the calibration set asks for nothing absent.
    """
    loaded = load_student(wanted.run, wanted.which)
    student = loaded.student
    size, out = student.config.size, wanted.out
    asked = calibration_set(wanted.build, size=size, num=wanted.num_calibration) if wanted.quantised else []
    pictures = _pictures(wanted, size)
    record = record_of(wanted, loaded)
    files.make_folder(out)
    remove_export(out)
    bases = _bases(student, wanted.num_phrases)
    parity = _check(wanted, student, pictures, record, bases)
    write_parity(out, parity)
    files.write_bytes(files.join(out, BENCH_NAME), resources("student").joinpath("bench_template.py").read_bytes())
    if not wanted.quantised:
        for name, graphs in bases.items():
            write_variant(files.join(out, name), msgspec.structs.replace(record, name=name), encode_graphs(graphs))
        return _finish(out, list(bases), "fp32", parity, None)
    judge = VariantJudge(wanted.build, wanted.split, files.join(out, "work"), progress)
    trial = Trial(folder=out, record=record, judge=judge, bound=wanted.bound, threads=wanted.threads)
    found = quantise(trial, bases, asked)
    return _finish(out, [one.name for one in found.variants], chosen_of(found.variants), parity, found)


def remove_export(out: str) -> None:
    """Remove what an earlier export left in `out`, so that nothing of another student is taken for this one's."""
    for name in (EXPORT_NAME, QUANTISATION_NAME, LATENCY_NAME):
        files.remove(files.join(out, name))
    found = [files.relative(uri, out).split("/") for uri in files.list_files(out)]
    for variant in [parts[0] for parts in found if len(parts) == 2 and parts[1] == VARIANT_NAME]:
        for name in (VARIANT_NAME, LATENCY_NAME, *map(graph_name, GRAPHS)):
            files.remove(files.join(out, variant, name))


def _finish(out: str, variants: list[str], chosen: str, parity: Parity, found: Quantisation | None) -> Exported:
    write_export(out, ExportRecord(variants=variants, chosen=chosen))
    return Exported(out=out, variants=variants, chosen=chosen, parity=parity, quantisation=found)


def record_of(wanted: Wanted, loaded: Loaded) -> VariantRecord:
    """What every variant says of itself besides its name; with val's choice where that is for these weights."""
    student, choice = loaded.student, loaded.state.choice
    is_of_these = choice is not None and choice.student == TorchPredictor(student).digest()
    return VariantRecord(
        name=BASES[0],
        student=name_of(wanted.run),
        student_sha256=files.sha256_file(files.join(wanted.run, wanted.which + SUFFIX)),
        size=student.config.size,
        context=student.config.context,
        num_phrases=wanted.num_phrases,
        temperature=choice.temperature if choice and is_of_these else None,
        threshold=choice.threshold if choice and is_of_these else None,
        mask_threshold=loaded.state.mask_threshold,
    )


def _bases(student: Student, num_phrases: int) -> dict[str, Graphs]:
    graphs = export_graphs(student, num_phrases)
    return dict(zip(BASES, (graphs, half_graphs(graphs)), strict=True))


def _pictures(wanted: Wanted, size: int) -> list[Asked]:
    if not wanted.build:
        return made_pictures(size)
    return split_pictures(wanted.build, wanted.split, size=size, num=PARITY_PICTURES)


def _check(
    wanted: Wanted, student: Student, asked: Sequence[Asked], record: VariantRecord, bases: Mapping[str, Graphs]
) -> Parity:
    """How far the bases are from the student; fp32 must be near."""
    found = [
        difference(student, OnnxPredictor(msgspec.structs.replace(record, name=name), encode_graphs(graphs)), asked)
        for name, graphs in bases.items()
    ]
    require_parity(found[0])
    return Parity(
        pictures=f"split {wanted.split} of {name_of(wanted.build)}" if wanted.build else "made up: no build was given",
        num_pictures=len(asked),
        num_phrases=sum(len(one.phrases) for one in asked),
        bound=BOUND,
        differences=found,
    )
