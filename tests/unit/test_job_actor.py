"""The process of a job: what it loads."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, sys
from serve_app.orchestration.job_actor import NEVER_USED, _lean_imports
with _lean_imports():
    import serve_app.orchestration.job_runner, ray.serve.handle
assert not any(name in sys.modules for name in NEVER_USED), "loaded"
assert gc.isenabled()
import pandas, rich
"""


def test_driver_starts_without_what_it_never_uses() -> None:
    """The driver and Serve's handles load without pandas and rich, which are there for whoever asks later."""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
