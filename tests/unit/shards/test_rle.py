"""When the loop over the masks' characters is compiled, and that it can be; what it says is tested in test_masks.py."""

import os
import subprocess
import sys
from pathlib import Path

from shards import rle


def test_a_process_that_reads_little_does_not_import_a_compiler() -> None:
    script = """
import sys
from shards import masks, rle
assert not masks.check_masks(["0`U1"], [30], [40]).faults.any()
assert "numba" not in sys.modules
rle.reading._worth = 0
assert not masks.check_masks(["0`U1"], [30], [40]).faults.any()
assert "numba" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_the_compiled_loop_does_without_a_folder_to_be_kept_in(tmp_path: Path) -> None:
    copy = tmp_path / "read only" / "loop.py"
    copy.parent.mkdir()
    copy.write_bytes(Path(rle.__file__).read_bytes())
    (copy.parent / "__pycache__").write_text("in the way")
    home = tmp_path / "home"
    home.write_text("in the way, too")
    script = """
import runpy, sys
import numpy as np
rle = runpy.run_path(sys.argv[1])
lengths, starts = np.empty(4, np.int32), np.zeros(2, np.int64)
areas, faults = np.zeros(1, np.int64), np.zeros(1, np.int8)
rle["reading"].compiled()(b"0`U1", np.array([4]), np.array([1200]), lengths, starts, areas, faults)
assert (areas[0], faults[0]) == (1200, 0)
"""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home)}
    subprocess.run([sys.executable, "-W", "error", "-c", script, str(copy)], check=True, env=environment)
