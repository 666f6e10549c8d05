"""What travels to a GPU machine for the benchmark: what it lacks, and nothing that it has."""

from __future__ import annotations

import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.gpu_carry import needed, pack
from tests.benchmarks.gpu_graph import _stand_in

if TYPE_CHECKING:
    from pathlib import Path


def test_what_pyannote_needs_beyond_torch_and_transformers() -> None:
    """Its own packages and theirs; nothing that torch or transformers brings, CUDA least of all."""
    names = set(needed())
    assert {"pyannote-audio", "pyannote-core", "lightning", "scikit-learn", "pandas", "requests", "sqlalchemy"} <= names
    assert not {"torch", "numpy", "transformers", "jinja2", "ctranslate2", "ray"} & names
    assert not [name for name in names if name.startswith("nvidia")]


def test_the_stand_in_for_ray_has_names_and_no_file() -> None:
    """Torch looks through all modules for the file of a function: a class in its place ended the process."""
    assert issubclass(_stand_in("RayActorError"), Exception)
    with pytest.raises(AttributeError):
        _stand_in("__file__")


def test_tests_do_not_travel(tmp_path: Path) -> None:
    """A module that is called as a folder of tests is kept: only folders are left out."""
    with zipfile.ZipFile(tmp_path / "a-1-py3-none-any.whl", "w") as wheel:
        for name in ("a/__init__.py", "a/tests/test_a.py", "a/test.py", "a-1.dist-info/METADATA"):
            wheel.writestr(name, "")
    pack(tmp_path, tmp_path / "site.tar.xz")
    with tarfile.open(tmp_path / "site.tar.xz") as archive:
        files = {member.name for member in archive if member.isfile()}
    assert files == {"./a/__init__.py", "./a/test.py", "./a-1.dist-info/METADATA"}
