"""One run at a time in a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from manifests.errors import BuildError, StorageError
from shards.locking import locked
from tests.doors import ROOT

HOLD = """
import sys
from shards.locking import locked
with locked(sys.argv[1], "loop"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_by_name_and_a_killed_one_leaves_nothing_locked(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BuildError) as caught, locked(str(tmp_path), "loop"):
            pass
        holder.kill()
    assert str(caught.value) == (f"{tmp_path}: another loop is running in this folder; wait for it, or choose another")
    with locked(str(tmp_path), "loop"):
        pass


def test_a_second_one_in_the_same_process_is_refused_and_leaves_the_first_its_lock(tmp_path: Path) -> None:
    with locked(str(tmp_path), "loop"):
        for _ in range(2):
            with pytest.raises(BuildError, match="another loop is running"), locked(f"{tmp_path}/.", "loop"):
                pass
    with locked(str(tmp_path), "loop"):
        pass


def test_what_goes_wrong_elsewhere_while_it_is_held_is_not_the_folders_fault(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), locked(str(tmp_path), "loop"):
        raise PermissionError(13, "denied", "/elsewhere")
    with locked(str(tmp_path), "loop"):
        pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(StorageError, match=str(tmp_path)), locked(str(tmp_path), "loop"):
        pass
