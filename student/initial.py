"""Weights to begin with, from another run: what fits by name is taken over, and the rest is reported."""

from manifests import files
from manifests.errors import CheckpointError
from student.checkpoint import MODEL, SUFFIX, read_checkpoint, require_shapes
from student.model import Student
from student.run_record import InitReport

_NAMED = 8  # keys that a message lists


def init_from(student: Student, source: str) -> InitReport:
    """Give `student` the weights at `source` (the folder of a run, whose best are taken, or a checkpoint).

    Raises:
        CheckpointError: there is no checkpoint, tensors of one name differ in shape, or it has none of ours.
    """
    uri = source if source.endswith(SUFFIX) else files.join(source, "best" + SUFFIX)
    found = read_checkpoint(uri).below(MODEL)
    into = student.state_dict()
    require_shapes(into, found, uri)
    common = into.keys() & found.keys()
    if not common:
        raise CheckpointError(f"{uri}: none of its {len(found)} tensors is of this model; expected a student's weights")
    for name in common:
        into[name].copy_(found[name])
    return InitReport(
        source=source,
        loaded=len(common),
        missing=sorted(into.keys() - found.keys()),
        unexpected=sorted(found.keys() - into.keys()),
    )


def describe_init(report: InitReport) -> str:
    """The report in one line."""
    said = [f"init from {report.source}: {report.loaded} tensors"]
    for what, names in (("missing", report.missing), ("unexpected", report.unexpected)):
        listed = f" ({', '.join(names[:_NAMED])}{', …' if len(names) > _NAMED else ''})" if names else ""
        said.append(f"{len(names)} {what}{listed}")
    return ", ".join(said)
