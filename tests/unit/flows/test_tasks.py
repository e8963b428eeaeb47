"""What a task run is called, which failures are tried again, and that one machine needs no cluster's package."""

import errno
import subprocess
import sys
from concurrent.futures import BrokenExecutor

import msgspec
import pytest

from flows.tasks import _label, passes
from manifests.errors import BuildError, Reason, Rejected, StorageError, UnreachableError
from manifests.stage import Step
from tests.doors import ROOT

ON_ONE_MACHINE = """
import sys
import flows.deployed
from prefect.task_runners import ThreadPoolTaskRunner
from flows.tasks import TaskExecutor
TaskExecutor(ThreadPoolTaskRunner(max_workers=1), at_once=1, tag="storage-disk", place=lambda call: call())
print([name for name in ("distributed", "dask", "prefect_dask", "torch", "faiss") if name in sys.modules])
"""


class Part(msgspec.Struct):
    name: str = "coco-00000-1a2b"
    weight: int = 1


def scan(part: Part) -> Part:
    return part


def test_one_machine_imports_nothing_of_a_cluster_and_no_models() -> None:
    command = [sys.executable, "-c", ON_ONE_MACHINE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_part_is_called_by_its_stage_and_its_name() -> None:
    assert _label(Step("scan", scan, "folder"), Part()) == "scan coco-00000-1a2b"
    assert _label(len, [1]) == "len"


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (BrokenExecutor("a process was killed"), True),
        (UnreachableError("s3://bucket: out of reach"), True),
        (OSError(errno.EIO, "a disk that stumbles"), True),
        (OSError(errno.ENOSPC, "a disk that is full"), False),
        (StorageError("s3://bucket: refused"), False),
        (BuildError("the source changed"), False),
        (Rejected(Reason.TRUNCATED, "half of it"), False),
        (ZeroDivisionError("a bug"), False),
        (None, False),
    ],
)
def test_only_what_passes_by_itself_is_tried_again(error: object, again: bool) -> None:
    assert passes(error) is again
