"""What every replica does to its process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from deployments import replica
if sys.argv[1] == "kept":
    replica.retain_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
def use():
    memory = libc.malloc(40 << 20)
    libc.memset(memory, 1, 40 << 20)
    libc.free(memory)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(way: str) -> int:
    """Of ten times 40 MB, after a first time."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, way]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's thresholds")
def test_freed_memory_is_kept_for_the_next_call() -> None:
    """What a network's layer frees does not come page by page from the system when the next call wants it again."""
    assert page_faults("kept") < 20
    assert page_faults("given back") > 100
