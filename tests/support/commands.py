"""The commands as a user gives them, run to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.leaks import WATCH
from tests.support.process import ROOT, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
CLEAR = ROOT / "examples" / "media" / "clear.flac"


@contextmanager
def short_folder() -> Iterator[Path]:
    """A state directory: Ray's sockets lie below, whose names may not be long."""
    path = Path(tempfile.mkdtemp(prefix="ml-"))
    try:
        yield path
        WATCH.left(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def call(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def finish_a_job(url: str, state_dir: Path) -> str:
    """A file goes in, a transcript comes out: the text. The result lies in `r.json`."""
    done = call(
        str(BIN / "ml-server"), "submit", str(CLEAR), "--wait", "--server", url, "--save", str(state_dir / "r.json")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
