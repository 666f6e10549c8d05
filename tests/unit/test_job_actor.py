"""The process of a job: what it loads."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from ray import cloudpickle
from ray._private import ray_constants

from serve_app import lean_imports
from serve_app.storage.database import open_database
from tests.support.managers import settings_in

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import gc, sys
from serve_app.lean_imports import NEVER_USED, lean_imports
with lean_imports():
    import serve_app.orchestration.job_runner, ray.serve.handle
assert not any(name in sys.modules for name in NEVER_USED), "loaded"
assert gc.isenabled()
import pandas, rich
"""


WITHIN_A_JOB = """
import asyncio, sys
from serve_app.orchestration import job_actor
job_actor.prepare_process()
assert not [name for name in job_actor.LOADED_AHEAD if name not in sys.modules], "not loaded"
from deployments.net.client import CallbackClient, tls_context
assert tls_context.cache_info().currsize == 1, "certificates are not loaded"
before = set(sys.modules)
from ray import cloudpickle
settings = cloudpickle.loads(bytes.fromhex(sys.argv[1]))
from serve_app.orchestration.opening import open_stores
from serve_app.storage.database import open_database

async def call():
    async with CallbackClient(settings.callbacks) as client:
        await client.post("http://127.0.0.1:9/", b"{}", {})

open_stores(settings, open_database(settings)).jobs.fetch_job("a")
try:
    asyncio.run(call())
except Exception as error:
    assert type(error).__name__ == "NetError", error
assert tls_context.cache_info().misses == 1, "they were loaded again"
print(*sorted(set(sys.modules) - before))
"""


def test_a_job_finds_what_it_needs_loaded(tmp_path: Path) -> None:
    """Settings, the database, and a callback import nothing in a process that Ray has prepared."""
    settings = settings_in(tmp_path)
    open_database(settings).close()  # makes its tables, as the server's start does
    command = [sys.executable, "-W", "ignore", "-c", WITHIN_A_JOB, cloudpickle.dumps(settings).hex()]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.split() == []


def test_ray_calls_the_function_that_the_variable_names() -> None:
    """The variable is Ray's own, and names the function that imports Serve."""
    assert lean_imports.HOOK_VARIABLE == ray_constants.WORKER_PROCESS_SETUP_HOOK_ENV_VAR
    module, _, name = lean_imports.SERVE_HOOK.rpartition(".")
    assert (module, name) == (lean_imports.__name__, lean_imports.import_serve.__name__)


def test_driver_starts_without_what_it_never_uses() -> None:
    """The driver and Serve's handles load without pandas and rich, which are there for whoever asks later."""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
