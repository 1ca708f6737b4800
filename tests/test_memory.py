"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

# Pages that the system has to hand out while blocks of 100 MiB are made again and again.
PROGRAM = """
import resource, sys, torch
from irl_exp import memory
if sys.argv[1] == "kept":
    memory.keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(40):
    torch.empty(100 * 2**20, dtype=torch.uint8).fill_(1)
print(faults() - before)
"""


def pages(how: str) -> int:
    command = [sys.executable, "-c", PROGRAM, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc alone")
def test_large_blocks_are_made_again_of_the_memory_of_others() -> None:
    assert pages("kept") < pages("given back") / 3
