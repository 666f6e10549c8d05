"""What every replica does to its process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from deployments import replica
from serve_app.cli.checks import StartError, check_priority

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


PRIORITY = """
import ctypes, os, platform, struct
from deployments import replica
replica.prepare()
attributes = ctypes.create_string_buffer(56)
ctypes.CDLL(None).syscall({"x86_64": 315, "aarch64": 275}[platform.machine()], 0, attributes, 56, 0)
print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), struct.unpack_from("=Q", attributes, 24)[0])
"""


def priority(**environment: str) -> list[int]:
    """Policy, niceness and slice (ns; 0 before Linux 6.12) of a replica's process."""
    command = [sys.executable, "-W", "ignore", "-c", PRIORITY]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment)
    return [int(each) for each in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduler")
def test_computing_is_idle_or_fair() -> None:
    """Idle by default; on a node that wants its share, ordinary in slices of 100 ms, where the kernel knows them."""
    policy, niceness, _ = priority()
    assert (policy, niceness) == (os.SCHED_IDLE, os.getpriority(os.PRIO_PROCESS, 0))
    policy, niceness, slice_ns = priority(ML_SERVER_COMPUTE_PRIORITY="fair")
    assert (policy, niceness) == (os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))
    if tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 12):
        assert slice_ns == 100_000_000


def test_a_priority_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a typing error would be the default, silently."""
    monkeypatch.setenv("ML_SERVER_COMPUTE_PRIORITY", "fiar")
    with pytest.raises(ValueError, match="must be idle or fair, not 'fiar'"):
        replica.prepare()
    with pytest.raises(StartError, match="must be idle or fair"):
        check_priority()
    monkeypatch.setenv("ML_SERVER_COMPUTE_PRIORITY", "")  # as compose sets what is not given
    assert replica.compute_priority() == "idle"


def test_fake_engines_import_no_torch() -> None:
    """Tests of everything else start replicas by the dozen."""
    program = """
import sys
from serve_app import app, testing
from serve_app.settings import Settings
settings = Settings(profile="local")
testing.with_fakes(app.SpeechDetector).func_or_class(settings.speech_detector)
print("torch" in sys.modules)
testing.with_fakes(app.Diarizer).func_or_class(settings.diarizer, settings.models)
print("torch" in sys.modules)
"""
    told = subprocess.check_output([sys.executable, "-W", "ignore", "-c", program], text=True)
    assert told.split()[-2:] == ["False", "False"]
