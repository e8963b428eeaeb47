"""A small disk in memory, to be filled up."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disks(place: Path) -> Iterator[Callable[[int], Path]]:
    """What mounts a memory disk of so many kilobytes at `place`."""
    mounted: list[Path] = []

    def mount(num_kilobytes: int) -> Path:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={num_kilobytes}k", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a memory disk cannot be mounted here; the limit on file size stands in for it")
        mounted.append(place)
        return place

    try:
        yield mount
    finally:
        for disk in mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
