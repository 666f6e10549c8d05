"""Quick starts of processes: imports of Ray Serve without what it does not need, and of compiled modules.

Serve and httpx import pandas and rich where these are installed, and work as well without them. They would take a
quarter of the time that a process imports, and 20 MB in each (docs/decisions.md).
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

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
    left_out = [name for name in NEVER_USED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]  # None: importing it raises ImportError
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for name in left_out:
            del sys.modules[name]


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
