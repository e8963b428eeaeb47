"""What is measured of a student, in files: readings with intervals, latencies with conditions, drops with bounds.

An evaluation, a latency and a quantisation record each lie in one JSON file; `readings.json` puts those of several runs
into one, by hand or by another tool. A figure without the data that it needs is undefined and says why; it is never 0.
"""

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from manifests import files
from manifests.errors import TableError

READINGS_SCHEMA = 1
EVALUATION_NAME = "evaluation.json"  # these four in the folder of an evaluation
SUMS_NAME = "sums.parquet"
IMAGES_NAME = "images.parquet"
FAILURES_NAME = "failures.html"
LATENCY_NAME = "latency.json"  # in that of a run or an export
QUANTISATION_NAME = "quantisation.json"  # in that of an export
Role = Literal["baseline", "run", "teacher"]
Start = Literal["scratch", "init", "resume", ""]  # "" where nobody said


class Reading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One figure; `value` is None where it is undefined, and then `undefined` says why."""

    value: float | None = None
    low: float | None = None  # 2.5 % and 97.5 % of bootstrap draws over pictures
    high: float | None = None
    num: int = 0  # prompts (or pictures) that it rests on
    undefined: str = ""


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Under what a latency was read; "" or 0 where nobody said. Latencies of different conditions do not compare."""

    device: str = ""
    threads: int = 0
    batch: int = 0
    resolution: int = 0
    num_phrases: int = 0
    precision: str = ""
    runtime: str = ""  # torch, onnxruntime, coreml ... with its version
    load: float | None = None  # machine load before; reported, and no reason to refuse a comparison


COMPARED = ("device", "threads", "batch", "resolution", "num_phrases", "precision", "runtime")  # load is told, no more


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds of one call; `ms` is the median of warmed calls."""

    ms: float
    p95_ms: float | None = None
    first_ms: float | None = None
    num_calls: int = 0
    num_warm_up: int = 0  # calls between the first and the timed ones
    stable: bool | None = None  # False where warming up ended at its limit; None where nobody said
    conditions: Conditions = Conditions()


class Bin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bin of the reliability curve."""

    mean_presence: float
    share_present: float
    num: int


Readings = dict[str, Reading]  # by metric


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `student.evaluate` found; `evaluation.json`."""

    schema: int = READINGS_SCHEMA
    name: str
    build: str  # name of the build, as its manifest says
    build_sha256: str  # its recipe and inputs
    split: str
    start: Start = ""
    predictor_sha256: str = ""  # digest of its weights and settings; "" for a table of predictions
    temperature: float | None = None  # fitted on val, as is the threshold
    threshold: float | None = None
    fitted_on: str = ""  # "val", or why nothing was fitted
    num_images: int
    num_present: int
    num_absent: int
    readings: Readings
    by_source: dict[str, Readings]
    by_kind: dict[str, Readings]
    by_phrase: dict[str, Readings]
    reliability: list[Bin]
    counted: dict[str, int]  # rows of the predictions that were missing, unknown or bad
    notes: list[str]
    latency: Latency | None = None


class Drop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A relative drop of one metric, base minus quantised over base, judged against a bound."""

    metric: str
    base: str  # fp32 | fp16
    base_value: float
    value: float
    drop: float
    low: float
    high: float
    bound: float
    verdict: Literal["within", "over"]  # judged exactly: a drop equal to the bound is within


class LayerCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What quantising one layer (or group of layers) alone costs."""

    layer: str
    metric: str
    drop: float


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One exported form of the student."""

    name: str  # fp32 | fp16 | int8-int4 | int8-int4 with a remedy
    remedy: str = ""
    num_bytes: dict[str, int]  # of each file
    peak_ram_bytes: int | None = None
    readings: Readings
    drops: list[Drop]
    flipped_presences: int  # beside fp32, at the threshold
    num_prompts: int
    latency: Latency | None = None


class Quantisation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `student.export --quantize` found; `quantisation.json`."""

    schema: int = READINGS_SCHEMA
    name: str
    bound: float
    variants: list[Variant]
    layers: list[LayerCost]
    notes: list[str]


class Bounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What readings are held to."""

    quantisation_drop: Annotated[float, Meta(ge=0)] = 0.02
    base: Literal["fp16", "fp32"] = "fp16"


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of a `readings.json`; a bare number is a reading without an interval, null one that is undefined."""

    name: str
    role: Role
    start: Start = ""
    readings: dict[str, float | Reading | None]
    num_present: int | None = None
    num_absent: int | None = None
    latency: Latency | None = None


class ReadingsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`readings.json`."""

    schema: int = READINGS_SCHEMA
    bounds: Bounds = Bounds()
    goal: dict[str, float] = {}
    runs: list[Run]


class _SchemaOnly(msgspec.Struct):
    schema: int = READINGS_SCHEMA


T = TypeVar("T", bound=msgspec.Struct)


def read_json(uri: str, kind: type[T]) -> T:
    """The record of type `kind` at `uri`.

    Raises:
        TableError: there is none, it is none of that type, or one of a newer version.
    """
    try:
        data = files.read_bytes(uri)
        schema = msgspec.json.decode(data, type=_SchemaOnly).schema
        if schema > READINGS_SCHEMA:
            raise TableError(f"{uri}: schema {schema} is newer than {READINGS_SCHEMA}; upgrade absentia")
        return msgspec.json.decode(data, type=kind)
    except FileNotFoundError as error:
        raise TableError(f"{uri}: there is no such file; expected {kind.__name__} as JSON") from error
    except msgspec.MsgspecError as error:
        raise TableError(f"{uri}: expected {kind.__name__} as JSON, found: {error}") from error


def write_json(uri: str, record: msgspec.Struct) -> None:
    """Write the record at `uri`, whole or not at all."""
    files.write_bytes(uri, msgspec.json.format(msgspec.json.encode(record, order="deterministic"), indent=2) + b"\n")
