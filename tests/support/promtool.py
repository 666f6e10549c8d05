"""Prometheus's own tool, which knows its language: Debian's package `prometheus` has it."""

from __future__ import annotations

import shutil
import subprocess

from tests.support.needs import need

PROGRAM = "promtool"


def require(program: str = PROGRAM) -> None:
    need(shutil.which(program), f"no {program} here: apt-get install prometheus")


def promtool(*arguments: str) -> str:
    """What it says; fails the test where it finds fault."""
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
