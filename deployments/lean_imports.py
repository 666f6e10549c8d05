"""Imports of large libraries without those that they import where these are installed, and that are never used here."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def as_if_not_installed(*packages: str) -> Iterator[None]:
    """Let no import in the block find `packages`; those that were imported before stay.

    Libraries ask by an import, by `find_spec` or by the version of a distribution, which has the package's name. It
    holds for the whole process: other threads do not find them meanwhile either. Blocks may lie in each other, but two
    threads may not have one each.
    """
    hidden = [name for name in packages if name not in sys.modules]
    from_name = vars(metadata.Distribution)["from_name"]

    def found(name: str) -> metadata.Distribution:
        if name in hidden:
            raise metadata.PackageNotFoundError(name)
        distribution: metadata.Distribution = from_name.__get__(None, metadata.Distribution)(name)
        return distribution

    distributions: Any = metadata.Distribution
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: importing it raises ImportError
    distributions.from_name = found
    try:
        yield
    finally:
        distributions.from_name = from_name
        for name in hidden:
            del sys.modules[name]
