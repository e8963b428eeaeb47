"""What an exported student says of itself: `variant.json` beside the three graphs of a precision, `export.json` above.

An export folder holds a folder for each variant (fp32, fp16, int8-int4 ...). Both records are written after everything
that they name, so a folder without one is unfinished.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

from manifests import files
from manifests.errors import ExportError
from student.predictor import MASK_THRESHOLD
from student.readings import write_json

EXPORT_SCHEMA = 1
EXPORT_NAME = "export.json"
VARIANT_NAME = "variant.json"
PARITY_NAME = "parity.json"
Graph = Literal["image", "text", "decoder"]
GRAPHS: tuple[Graph, ...] = ("image", "text", "decoder")
_PLAIN = re.compile(r"\w[\w.-]*")  # a folder's name, of which no path can be made


class VariantRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One precision of an exported student; every shape is fixed, and pictures come one at a time."""

    schema: int = EXPORT_SCHEMA
    name: str  # fp32 | fp16 | int8-int4 | int8-int4-percentile ...
    student: str  # the run that it was exported from
    student_sha256: str  # of its checkpoint
    size: int  # side of the letterboxed picture in pixels
    context: int  # tokens of a phrase, its two ends included
    num_phrases: int  # of one call
    temperature: float | None = None  # what val chose for the student in float; None where the run keeps no choice
    threshold: float | None = None  # "present" is said from this presence on
    mask_threshold: float = MASK_THRESHOLD  # a pixel is set above it, which val chose, too
    sha256: dict[str, str] = {}  # of each graph's file


class ExportRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All variants of an export."""

    schema: int = EXPORT_SCHEMA
    variants: list[str]
    chosen: str  # what opens where the export alone is named: the smallest that was found good enough


class Difference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The largest absolute difference from the student, over all pictures and phrases."""

    variant: str
    presence_logit: float
    mask_logit: float
    presence: float  # of probabilities
    mask: float


class Parity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`parity.json`."""

    pictures: str  # where they are from
    num_pictures: int
    num_phrases: int
    bound: float
    differences: list[Difference]  # fp32 must keep the bound; the others are told


T = TypeVar("T", VariantRecord, ExportRecord)


def graph_name(graph: Graph) -> str:
    """The name of a graph's file in the folder of its variant."""
    return f"{graph}.onnx"


def is_export(folder: str) -> bool:
    """Whether `folder` is an export, or one variant of it."""
    return any(files.exists(files.join(folder, name)) for name in (VARIANT_NAME, EXPORT_NAME))


def variant_folder(folder: str) -> str:
    """The folder of the variant that `folder` means: itself, or the chosen one of an export.

    Raises:
        ExportError: it is neither.
    """
    if files.exists(files.join(folder, VARIANT_NAME)):
        return folder
    if not files.exists(files.join(folder, EXPORT_NAME)):
        raise ExportError(
            f"{folder}: has neither {VARIANT_NAME} nor {EXPORT_NAME}; expected the folder of a finished export. "
            "Make one with python -m student.export RUN"
        )
    return files.join(folder, read_export(folder).chosen)


def read_variant(folder: str) -> tuple[VariantRecord, dict[Graph, bytes]]:
    """The record of the variant in `folder`, and its graphs.

    Raises:
        ExportError: a file is missing, damaged, or of a newer version.
    """
    record = read_variant_record(folder)
    graphs: dict[Graph, bytes] = {}
    for graph in GRAPHS:
        uri = files.join(folder, graph_name(graph))
        try:
            graphs[graph] = files.read_bytes(uri)
        except FileNotFoundError as error:
            raise ExportError(f"{uri}: there is no such file; expected the {graph} graph. Export again") from error
        expected, found = record.sha256.get(graph, ""), hashlib.sha256(graphs[graph]).hexdigest()
        if found != expected:
            raise ExportError(
                f"{uri}: expected sha256 {expected[:16]}… as {VARIANT_NAME} says, found {found[:16]}…; it is cut short "
                "or changed. Copy it again, or export again"
            )
    return record, graphs


def read_variant_record(folder: str) -> VariantRecord:
    """The record of the variant in `folder`.

    Raises:
        ExportError: it is missing, damaged, or of a newer version.
    """
    return _read(files.join(folder, VARIANT_NAME), VariantRecord)


def write_variant(folder: str, record: VariantRecord, graphs: Mapping[Graph, bytes]) -> VariantRecord:
    """The record as it was written after its graphs: with their digests."""
    files.make_folder(folder)
    files.remove(files.join(folder, VARIANT_NAME))
    for graph in GRAPHS:
        files.write_bytes(files.join(folder, graph_name(graph)), graphs[graph])
    digests = {str(graph): hashlib.sha256(graphs[graph]).hexdigest() for graph in GRAPHS}
    written = msgspec.structs.replace(record, sha256=digests)
    write_json(files.join(folder, VARIANT_NAME), written)
    return written


def read_export(folder: str) -> ExportRecord:
    """The record of the export in `folder`.

    Raises:
        ExportError: it is missing, damaged, of a newer version, or chose what is no variant of it.
    """
    record = _read(files.join(folder, EXPORT_NAME), ExportRecord)
    if not _PLAIN.fullmatch(record.chosen):
        raise ExportError(
            f"{files.join(folder, EXPORT_NAME)}: chose {record.chosen!r}; expected the plain name of a folder beside "
            "it. Export again"
        )
    if record.chosen not in record.variants:
        raise ExportError(
            f"{files.join(folder, EXPORT_NAME)}: chose {record.chosen!r}; expected one of its variants "
            f"{', '.join(record.variants)}. Export again"
        )
    return record


def write_export(folder: str, record: ExportRecord) -> None:
    """Say that the export in `folder` is finished."""
    write_json(files.join(folder, EXPORT_NAME), record)


def write_parity(folder: str, parity: Parity) -> None:
    """Write `parity.json` in `folder`."""
    write_json(files.join(folder, PARITY_NAME), parity)


def _read(uri: str, kind: type[T]) -> T:
    try:
        data = files.read_bytes(uri)
        if (schema := msgspec.json.decode(data, type=_SchemaOnly).schema) > EXPORT_SCHEMA:
            raise ExportError(f"{uri}: schema {schema} is newer than {EXPORT_SCHEMA}; upgrade absentia")
        return msgspec.json.decode(data, type=kind)
    except FileNotFoundError as error:
        raise ExportError(f"{uri}: there is no such file; expected that of a finished export") from error
    except msgspec.MsgspecError as error:
        raise ExportError(f"{uri}: expected {kind.__name__} as JSON, found: {error}; export again") from error


class _SchemaOnly(msgspec.Struct):
    schema: int = EXPORT_SCHEMA
