"""The process of a job: what it loads."""

from __future__ import annotations

import subprocess
import sys

from ray._private import ray_constants

from serve_app import lean_imports

PROGRAM = """
import gc, sys
from serve_app.lean_imports import NEVER_USED, lean_imports
with lean_imports():
    import serve_app.orchestration.job_runner, ray.serve.handle
assert not any(name in sys.modules for name in NEVER_USED), "loaded"
assert gc.isenabled()
import pandas, rich
"""


def test_ray_calls_the_function_that_the_variable_names() -> None:
    """The variable is Ray's own, and names the function that imports Serve."""
    assert lean_imports.HOOK_VARIABLE == ray_constants.WORKER_PROCESS_SETUP_HOOK_ENV_VAR
    module, _, name = lean_imports.SERVE_HOOK.rpartition(".")
    assert (module, name) == (lean_imports.__name__, lean_imports.import_serve.__name__)


def test_driver_starts_without_what_it_never_uses() -> None:
    """The driver and Serve's handles load without pandas and rich, which are there for whoever asks later."""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
