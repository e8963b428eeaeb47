"""The command that scans alone: what it refuses, and what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manifests import files
from shards.catalog import main
from shards.locking import locked_build
from tests.worlds import write_world


def test_the_command_says_what_each_source_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(write_world(tmp_path, coco_images=4, sa1b_images=3)), "--out", str(tmp_path / "out"), "--quiet"]
    assert main([*command, "--workers", "1"]) == 0
    assert "coco: 4 images, 0 rejected, 0 awaiting phrases; rejects: none\n" in capsys.readouterr().out
    assert main([*command, "--workers", "1", "--json"]) == 0
    said = capsys.readouterr()
    assert [one["images"] for one in json.loads(said.out) if one["source"] in {"coco", "sa1b"}] == [3, 4]
    assert said.err == ""


def test_a_folder_in_which_a_build_is_running_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, work = write_world(tmp_path, coco_images=4, sa1b_images=3), str(tmp_path / "out" / "work")
    files.make_folder(work)
    with locked_build(work):
        assert main([str(recipe), "--out", str(tmp_path / "out"), "--workers", "1", "--quiet"]) == 1
    assert capsys.readouterr().err == (
        f"error: {work}: another build is running in this folder; wait for it, or choose another\n"
    )
    assert not (tmp_path / "out" / "work" / "recipe.json").exists()


def test_a_recipe_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.toml"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.toml'}: no such recipe; expected a TOML file\n"


@pytest.mark.parametrize("workers", ["0", "-5"])
def test_fewer_workers_than_one_are_refused(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["r.toml", "--out", "out", "--workers", workers])
    assert stopped.value.code == 2
    assert f"--workers {workers}: expected 1 or more" in capsys.readouterr().err


def test_help_answers_without_the_slow_imports() -> None:
    script = "import sys, shards.catalog; print(*sorted({'PIL', 'numpy', 'pyarrow', 'torch'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout == "\n"
