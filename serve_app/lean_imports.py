"""Quick starts of processes: imports of Ray Serve without what it does not need, and of compiled modules.

Serve and httpx import pandas and rich where these are installed, and work as well without them. They would take a
quarter of the time that a process imports, and 20 MB in each (docs/decisions.md).
"""

from __future__ import annotations

import gc
import os
import traceback
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deployments.lean_imports import as_if_not_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

NEVER_USED: Final = ("pandas", "rich")
HOOK_VARIABLE: Final = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
"""Names the function that Ray's worker processes call first. Written out, as `up` sets it before it imports Ray."""
SERVE_HOOK: Final = f"{__name__}.import_serve"
"""Must stay importable in the next release: a Ray that runs on through an update starts its processes with it."""


@contextmanager
def lean_imports() -> Iterator[None]:
    """Hide what is never used, and stop the garbage collector, which would find nothing to free."""
    gc.disable()
    try:
        with as_if_not_installed(*NEVER_USED):
            yield
    finally:
        gc.freeze()
        gc.enable()


def import_serve() -> None:
    """Import Ray Serve: the setup hook of a private Ray's processes.

    Raises nothing, since Ray would end the process and start the next; the process's log has what failed.
    """
    try:
        with lean_imports():
            import_module("ray.serve")
    except Exception:  # noqa: BLE001
        traceback.print_exc()


def use_bytecode(state_dir: Path) -> None:
    """Have all processes read compiled modules, whatever the environment says: compiling doubles the work of a start.

    Where the libraries were installed uncompiled and cannot be written, the first start compiles them into `state_dir`.
    """
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONOPTIMIZE"):
        os.environ.pop(name, None)
    ray = Path(str(ray_package.origin if (ray_package := find_spec("ray")) else "")).parent
    if not (ray / "__pycache__").exists() and not os.access(ray, os.W_OK):
        os.environ["PYTHONPYCACHEPREFIX"] = str(state_dir / "pycache")
