"""What a training run says of itself: `run.json`, written before the first step and again after every checkpoint."""

import hashlib
import os
from collections.abc import Mapping
from importlib.metadata import version

import msgspec

from manifests import files
from manifests.errors import CheckpointError
from manifests.manifest import read_manifest
from student.predictor import MASK_THRESHOLD
from student.readings import Start, write_json

RUN_SCHEMA = 1
RUN_NAME = "run.json"
CONFIG_NAME = "config.toml"
HISTORY_NAME = "history.jsonl"
_PACKAGES = ("absentia", "open_clip_torch", "safetensors", "timm", "torch")


class BuildUsed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A build that was trained on."""

    name: str  # of its folder
    weight: float | None = None  # None: in proportion to its samples
    sha256: str  # of the digests of all its shards


class TableUsed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the teacher's."""

    name: str  # of the file or folder
    role: str  # features | predictions
    sha256: str  # of the digests of its files


class Best(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The weights that validation liked most."""

    step: int
    value: float
    metric: str  # what `value` is: il_mcc + miou, or what of it the labels of val allow
    mask_threshold: float = MASK_THRESHOLD  # above which a pixel is set: of their largest mIoU + cIoU on val


class ValChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What val chose for the best weights: the temperature of their presences, and from where on they say "present"."""

    student: str  # digest of the weights that it was chosen for; others have no use for it
    builds: list[str]  # digests of the builds whose val chose
    num_prompts: int  # that were judged
    temperature: float | None = None
    threshold: float | None = None
    why_not: str = ""  # why nothing was chosen


class InitReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--init` took over."""

    source: str
    loaded: int  # tensors
    missing: list[str]  # of this model, and not there: they keep their fresh values
    unexpected: list[str]  # there, and not of this model: they were left


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`run.json`."""

    schema: int = RUN_SCHEMA
    name: str  # of the folder
    start: Start  # resume, once the run was
    began: Start  # scratch | init, however often it was resumed
    init: InitReport | None = None
    builds: list[BuildUsed]
    teacher: list[TableUsed]
    phases: list[int]
    epochs: list[int]  # of each phase
    num_parameters: int
    num_present: int  # prompts of train
    num_absent: int
    one_class: bool  # the user insisted on data that has, or shows, one class alone
    positives_only: bool
    not_taught: int = 0  # phrases of train without a row of the teacher's, which phase 1 leaves out
    versions: dict[str, str]
    finished: bool = False
    steps: int = 0
    num_resumed: int = 0
    best: Best | None = None
    choice: ValChoice | None = None  # once the run is finished


def versions() -> dict[str, str]:
    """The packages that a run depends on."""
    return {name: version(name) for name in _PACKAGES}


def build_used(folder: str, weight: float | None) -> BuildUsed:
    """The build in `folder` as a run records it.

    Raises:
        ManifestError: it is unfinished or damaged.
    """
    splits = read_manifest(folder).splits
    shards = [f"{split} {shard.sha256}" for split in sorted(splits) for shard in splits[split]]
    digest = hashlib.sha256("\n".join(shards).encode()).hexdigest()
    return BuildUsed(name=name_of(folder), weight=weight, sha256=digest)


def table_used(uri: str, role: str, parts: list[str]) -> TableUsed:
    """The table in the files `parts` as a run records it."""
    digest = hashlib.sha256("\n".join(files.sha256_file(part) for part in parts).encode()).hexdigest()
    return TableUsed(name=name_of(uri), role=role, sha256=digest)


def name_of(uri: str) -> str:
    """The last name of a path or URL."""
    return os.path.basename(os.path.abspath(uri)) if files.is_local(uri) else uri.rstrip("/").rpartition("/")[2]


def read_run(folder: str) -> RunRecord | None:
    """The record in `folder`; None where there is none.

    Raises:
        CheckpointError: it is no record, or one of a newer version.
    """
    uri = files.join(folder, RUN_NAME)
    try:
        data = files.read_bytes(uri)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fields: Mapping[str, object] = msgspec.json.decode(data, type=dict)
        require_schema(uri, fields, RUN_SCHEMA)
        return msgspec.json.decode(data, type=RunRecord)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{uri}: expected the record of a training run, found: {error}; train again") from error


def require_schema(uri: str, fields: Mapping[str, object], newest: int) -> None:
    """Stop at a file that a newer version wrote.

    Raises:
        CheckpointError: it says so.
    """
    schema = fields.get("schema", newest)
    if isinstance(schema, int) and schema > newest:
        raise CheckpointError(f"{uri}: schema {schema} is newer than {newest}; upgrade absentia")


def write_run(folder: str, record: RunRecord) -> None:
    """Write `run.json` in `folder`, whole or not at all."""
    write_json(files.join(folder, RUN_NAME), record)
