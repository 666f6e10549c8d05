"""Faults that are put into the product's code, to prove that the simulator sees them."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Change:
    """One text of a module, and what is put in its place."""

    module: str
    before: str
    after: str

    @property
    def path(self) -> Path:
        return ROOT / f"{self.module.replace('.', '/')}.py"


MUTANTS: dict[str, tuple[Change, ...]] = {}


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, changes: tuple[Change, ...]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> Any:
        source = Path(self.path).read_text(encoding="utf-8")
        for change in self._changes:
            if source.count(change.before) != 1:
                raise ValueError(f"{fullname} has this text {source.count(change.before)} times: {change.before!r}")
            source = source.replace(change.before, change.after)
        return compile(source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, changes: tuple[Change, ...]) -> None:
        self._changes = changes

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> Any:
        changes = tuple(each for each in self._changes if each.module == fullname)
        if not changes:
            return None
        path = str(changes[0].path)
        return importlib.util.spec_from_file_location(fullname, path, loader=_Loader(fullname, path, changes))


def apply(name: str) -> None:
    """Put a fault into the code that is imported from now on."""
    modules = {change.module for change in MUTANTS[name]}
    loaded = sorted(modules & sys.modules.keys())
    if loaded:
        raise RuntimeError(f"already imported: {loaded}")
    sys.meta_path.insert(0, _Finder(MUTANTS[name]))
