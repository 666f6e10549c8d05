"""The processes of a private Ray read compiled modules, whatever the environment says."""

import os
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from serve_app import lean_imports

AGAINST = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONOPTIMIZE")


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ray's package, not compiled, in an environment that says all that is against compiled modules."""
    package = tmp_path / "ray"
    package.mkdir()
    spec = ModuleSpec("ray", None, origin=str(package / "__init__.py"))
    monkeypatch.setattr(lean_imports, "find_spec", lambda _: spec)
    for name in AGAINST:
        monkeypatch.setenv(name, "1")
    return package


def test_compiled_libraries_are_read(libraries: Path, tmp_path: Path) -> None:
    """Nothing of the environment is left that leads elsewhere."""
    libraries.joinpath("__pycache__").mkdir()
    lean_imports.use_bytecode(tmp_path)
    assert not set(AGAINST) & set(os.environ)


def test_others_are_compiled_where_they_lie(libraries: Path, tmp_path: Path) -> None:
    """By the first process that imports them."""
    assert libraries.is_dir()
    lean_imports.use_bytecode(tmp_path)
    assert not set(AGAINST) & set(os.environ)


def test_or_in_the_state_folder(libraries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a package manager or root has installed them."""
    monkeypatch.setattr(lean_imports.os, "access", lambda path, mode: (path, mode) != (libraries, os.W_OK))
    lean_imports.use_bytecode(tmp_path)
    assert os.environ["PYTHONPYCACHEPREFIX"] == str(tmp_path / "pycache")
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
