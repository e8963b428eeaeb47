"""The main command: what it logs, and its exit code."""

import subprocess
import sys
from pathlib import Path

from tests.doors import ROOT
from tests.worlds import write_world

MINES = """
import logging, sys
from flows import building
from manifests.errors import BuildError

def build(*args, **more):
    logging.getLogger("miners.ground").info("encoder clip: for research only")
    raise BuildError("as the test asks")

building.build = build
from flows.build_shards import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_encoder_that_a_build_mines_with_is_told_and_a_mistake_is_the_exit_code(tmp_path: Path) -> None:
    recipe = write_world(tmp_path, coco_images=1, sa1b_images=1)
    command = [sys.executable, "-c", MINES, str(recipe), "--out", str(tmp_path / "out"), "--workers", "1", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "encoder clip: for research only\nerror: as the test asks\n"
    assert done.stdout == ""
