"""What every replica does first: logs, and manners towards its neighbours on a small machine."""

from __future__ import annotations

import os

from deployments import logs

NICENESS = 10
"""Compute yields to the processes that answer requests and send callbacks, whatever Ray started them all with."""


def prepare(*, threads: int | None = None) -> None:
    """Configure logs, lower this process's priority and, where `threads` is given, bound torch's thread pool."""
    logs.configure()
    os.nice(NICENESS)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
