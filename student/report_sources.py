"""What a report compares, read from where it lies: a run's folder, an evaluation's folder, or a readings file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from manifests import files
from manifests.errors import TableError
from student.paired import ImageSums, read_sums
from student.readings import (
    EVALUATION_NAME,
    FAILURES_NAME,
    LATENCY_NAME,
    QUANTISATION_NAME,
    Bounds,
    Evaluation,
    Latency,
    Quantisation,
    Reading,
    Readings,
    ReadingsFile,
    Role,
    Run,
    Start,
    read_json,
)
from student.report_curves import Curve, read_curves
from student.run_record import RUN_NAME, RunRecord, read_run

WEIGHTS_NAME = "best.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One side of a comparison, with all that is known of it."""

    name: str
    role: Role
    source: str  # the file or folder that was named
    start: Start = ""
    readings: Readings = field(default_factory=dict)
    num_present: int | None = None
    num_absent: int | None = None
    latency: Latency | None = None
    evaluation: Evaluation | None = None
    quantisation: Quantisation | None = None
    curves: tuple[Curve, ...] = ()
    sums: Mapping[str, ImageSums] = field(default_factory=dict)
    failures: str = ""  # where the page of false alarms lies
    record: RunRecord | None = None
    is_outdated: bool = False  # evaluated before its weights were written


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Everything that a report is made from."""

    subjects: tuple[Subject, ...]  # baseline first, teacher last
    goal: Mapping[str, float]
    bounds: Bounds


def gather(
    sources: Sequence[str], *, baseline: str | None = None, teacher: str | None = None, goal: Mapping[str, float]
) -> Gathered:
    """What lies at `sources`, with the baseline and the teacher besides; `goal` outweighs what files say.

    Raises:
        TableError, CheckpointError: a place holds none of what is expected, is damaged or newer, or two sources
            contradict each other.
    """
    subjects: list[Subject] = []
    goals: dict[str, tuple[float, str]] = {}
    bounds: tuple[Bounds, str] | None = None
    named: list[tuple[str, Role | None]] = [(source, None) for source in sources]
    named += [] if baseline is None else [(baseline, "baseline")]
    named += [] if teacher is None else [(teacher, "teacher")]
    for source, role in named:
        read = _read_file(source) if source.endswith(".json") else None
        if isinstance(read, ReadingsFile):
            bounds = _agree_on_bounds(bounds, read.bounds, source)
            _add_goals(goals, read.goal, source, goal)
            subjects += _of_role(read, source, role)
        elif read is not None:
            subjects.append(_evaluated(read, source, role or "run"))
        else:
            subjects.append(_read_folder(source, role or "run"))
    return Gathered(
        subjects=_in_order(subjects),
        goal={key: value for key, (value, _) in goals.items()} | dict(goal),
        bounds=bounds[0] if bounds else Bounds(),
    )


class _HasRuns(msgspec.Struct):
    runs: object = None


def _read_file(uri: str) -> ReadingsFile | Evaluation:
    """The readings or the evaluation at `uri`; which of both it is, `runs` tells."""
    try:
        has_runs = msgspec.json.decode(files.read_bytes(uri), type=_HasRuns).runs is not None
    except (FileNotFoundError, IsADirectoryError, msgspec.MsgspecError):
        has_runs = True  # read_json says what is wrong
    if files.exists(uri) and not has_runs and uri.endswith(EVALUATION_NAME):
        return read_json(uri, Evaluation)
    return read_json(uri, ReadingsFile)


def _of_role(read: ReadingsFile, source: str, role: Role | None) -> list[Subject]:
    """The runs of a readings file; the one that plays `role` where it was named for that."""
    if not read.runs:
        raise TableError(f"{source}: holds no runs; expected one or more. Write them, or name another file")
    if role is None:
        return [_subject_of(run, source) for run in read.runs]
    fitting = [run for run in read.runs if run.role == role] or read.runs
    if len(fitting) != 1:
        raise TableError(
            f"{source}: holds {len(read.runs)} runs; expected one, or one whose role is {role}, because it was given "
            f"as --{role}. Name its role there"
        )
    return [replace(_subject_of(fitting[0], source), role=role)]


def _subject_of(run: Run, source: str) -> Subject:
    return Subject(
        name=run.name,
        role=run.role,
        source=source,
        start=run.start,
        readings={
            key: _checked(_reading(value), f"{source}: {run.name}: {key}") for key, value in run.readings.items()
        },
        num_present=run.num_present,
        num_absent=run.num_absent,
        latency=_timed(run.latency, f"{source}: {run.name}"),
    )


def _reading(value: float | Reading | None) -> Reading:
    return value if isinstance(value, Reading) else Reading(value=value)


def _checked(reading: Reading, where: str) -> Reading:
    if (reading.low is None) != (reading.high is None):
        raise TableError(f"{where}: expected low and high, or neither, found one of them; add the other")
    if reading.low is not None and reading.high is not None and reading.low > reading.high:
        raise TableError(f"{where}: expected low <= high, found {reading.low} and {reading.high}; swap them")
    return reading


def _timed(latency: Latency | None, where: str) -> Latency | None:
    if latency is not None and latency.ms <= 0:
        raise TableError(f"{where}: latency {latency.ms:g} ms; expected more than 0. Measure it again, or leave it out")
    return latency


def _evaluated(found: Evaluation, uri: str, role: Role) -> Subject:
    folder = uri.removesuffix(EVALUATION_NAME).rstrip("/") or "."
    failures = files.join(folder, FAILURES_NAME)
    return Subject(
        name=found.name,
        role=role,
        source=folder,
        start=found.start,
        readings={key: _checked(reading, f"{uri}: {key}") for key, reading in found.readings.items()},
        num_present=found.num_present,
        num_absent=found.num_absent,
        latency=_timed(found.latency, uri),
        evaluation=found,
        sums=read_sums(folder),
        failures=failures if files.exists(failures) else "",
    )


def _read_folder(folder: str, role: Role) -> Subject:
    """A run's folder with what other commands put into it, or an evaluation's folder."""
    if files.exists(uri := files.join(folder, EVALUATION_NAME)):
        return _evaluated(read_json(uri, Evaluation), uri, role)
    if (record := read_run(folder)) is None:
        what = "holds neither" if files.exists(folder) else "there is no such folder; expected one with"
        raise TableError(
            f"{folder}: {what} {RUN_NAME} of a run or {EVALUATION_NAME} of an evaluation. Name such a folder, or a "
            "readings.json"
        )
    evaluation = files.join(folder, "evaluation", EVALUATION_NAME)
    if files.exists(evaluation):
        subject = _evaluated(read_json(evaluation, Evaluation), evaluation, role)
    else:
        subject = Subject(name=record.name, role=role, source=folder)
    latency = _optional(files.join(folder, LATENCY_NAME), Latency)
    return replace(
        subject,
        name=record.name,
        source=folder,
        start=record.start,
        latency=_timed(latency, folder) or subject.latency,
        quantisation=_optional(files.join(folder, "export", QUANTISATION_NAME), Quantisation),
        curves=tuple(read_curves(folder)),
        record=record,
        is_outdated=_is_outdated(subject.evaluation, record, evaluation, files.join(folder, WEIGHTS_NAME)),
    )


def _is_outdated(found: Evaluation | None, record: RunRecord, uri: str, weights: str) -> bool:
    """Whether other weights were judged than the run has now: by their digests, or where one is unknown, by age."""
    if found is not None and found.predictor_sha256 and record.choice is not None:
        return found.predictor_sha256 != record.choice.student
    return _is_older(uri, weights)


def _is_older(uri: str, other: str) -> bool:
    """Whether the file at `uri` was written before that at `other`; False where one is missing or in a bucket."""
    if not files.is_local(uri) or not files.exists(uri) or not files.exists(other):
        return False
    written, other_written = (int(files.fingerprint(one).version) for one in (uri, other))
    return written < other_written


_T = TypeVar("_T", bound=msgspec.Struct)


def _optional(uri: str, kind: type[_T]) -> _T | None:
    return read_json(uri, kind) if files.exists(uri) else None


def _agree_on_bounds(known: tuple[Bounds, str] | None, found: Bounds, source: str) -> tuple[Bounds, str]:
    if known is not None and known[0] != found:
        raise TableError(
            f"{source}: bounds {_said(found)}; expected {_said(known[0])} as in {known[1]}. Make them equal"
        )
    return found, source


def _said(bounds: Bounds) -> str:
    return f"{bounds.quantisation_drop:g} of {bounds.base}"


def _add_goals(
    goals: dict[str, tuple[float, str]], found: Mapping[str, float], source: str, wanted: Mapping[str, float]
) -> None:
    for key, value in found.items():
        before, where = goals.setdefault(key, (value, source))
        if before != value and key not in wanted:
            raise TableError(
                f"{source}: goal {key} {value:g}; expected {before:g} as in {where}. Make them equal, or say --goal "
                f"{key}={before:g}"
            )


def _in_order(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """Baseline, runs, teacher; names that two share are told apart.

    Raises:
        TableError: there is more than one baseline or teacher.
    """
    for role in ("baseline", "teacher"):
        found = [subject for subject in subjects if subject.role == role]
        if len(found) > 1:
            both = " and ".join(subject.source for subject in found)
            raise TableError(f"{both}: expected one {role}, found {len(found)}; name another role there, or drop one")
    order: tuple[Role, ...] = ("baseline", "run", "teacher")
    ordered = sorted(subjects, key=lambda subject: order.index(subject.role))
    return tuple(replace(one, name=name) for one, name in zip(ordered, _told_apart(ordered), strict=True))


def _told_apart(subjects: Sequence[Subject]) -> list[str]:
    """Names, with the folder's, or that of the folder above, or a number where two share one."""
    names = [subject.name for subject in subjects]
    for depth in (1, 2):
        if len(set(names)) == len(names):
            break
        places = [("/" * depth + subject.source.rstrip("/")).split("/")[-depth] for subject in subjects]
        longer = [name if names.count(name) == 1 else f"{name} ({at})" for name, at in zip(names, places, strict=True)]
        names = longer if len(set(longer)) == len(longer) else names
    numbers = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if number == 1 else f"{name} ({number})" for name, number in zip(names, numbers, strict=True)]
