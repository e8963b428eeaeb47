"""What a flow works on that is given nothing: the demo world, its build, and the config of its student."""

import subprocess
import sys
from pathlib import Path

from manifests.errors import AbsentiaError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("demo")  # from the folder that the worker runs in
BUILD = str(FOLDER / "build")
CONFIG = str(FOLDER / "world" / "student.toml")


def demo_recipe() -> str:
    """The recipe over the demo world, which is written where it is not there yet.

    Raises:
        AbsentiaError: it cannot be written.
    """
    world = FOLDER / "world"
    command = [sys.executable, str(ROOT / "examples" / "demo_world.py"), "--out", str(world), "--images", "1800"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  (our own script)
    if done.returncode:
        raise AbsentiaError(f"{world}: the demo world cannot be written: {done.stderr.strip()}")
    return str(world / "demo.toml")
