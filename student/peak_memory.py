"""Tells how much memory an exported student takes: in a process of its own, since a peak never falls again."""

import sys
from collections.abc import Sequence
from pathlib import Path

from manifests import files

_STATUS = Path("/proc/self/status")


def held(field: str) -> int | None:
    """Bytes that this process holds now ("VmRSS") or held at most ("VmHWM"); None where the system does not tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(found[0]) if found else None


def main(argv: Sequence[str] | None = None) -> int:
    """Print the bytes by which opening the variant in the given folder and one call of it raise the peak."""
    (folder,) = sys.argv[1:] if argv is None else argv
    import onnxruntime  # noqa: F401 - its own memory is not the student's

    from student.export_record import GRAPHS, graph_name, read_variant_record
    from student.onnx_predictor import fixed_call_of, open_session

    record = read_variant_record(folder)
    before = held("VmRSS")
    sessions = {graph: open_session(graph, files.join(folder, graph_name(graph)), 1) for graph in GRAPHS}
    fixed_call_of(sessions, record)()
    after = held("VmHWM")
    if before is None or after is None:
        return 1
    sys.stdout.write(f"{max(0, after - before)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
