"""Tests that need a program of the machine."""

from __future__ import annotations

import os

import pytest


def need(there: object, reason: str) -> None:
    """Skip where something is not there; fail with CI set, so that CI cannot pass without it."""
    if not there:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
