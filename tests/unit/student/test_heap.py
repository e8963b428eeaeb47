"""The heap of a process that trains: what is freed is kept."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from student.heap import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def work():
    torch.ones(16 << 20).sum()  # 64 MiB

for _ in range(8):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_memory_that_is_freed_is_not_faulted_in_again() -> None:
    faults = {
        way: int(subprocess.run([sys.executable, "-c", FAULTS, way], check=True, capture_output=True, text=True).stdout)
        for way in ("kept", "given back")
    }
    assert faults["given back"] > 4 * faults["kept"], faults  # ten blocks; the heap may grow by one or two still
