"""Large libraries come without those that they would import and that are never used."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from deployments.lean_imports import as_if_not_installed

MODELS = Path(__file__).parents[1] / "models"
TRANSFORMERS = f"""
from deployments.aligner import acoustic
from deployments.emotion import classifier
from deployments.emotion.config import EmotionConfig
acoustic.load({str(MODELS / "aligner")!r}, "cpu")
classifier.load(EmotionConfig(model={str(MODELS / "emotion")!r}, device="cpu"))
"""
PYANNOTE = "import deployments.diarizer.pretrained"


def test_what_is_hidden_is_found_by_no_import_and_by_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """By import, as a spec, as a distribution: nothing. Others are found, and all are afterwards."""
    monkeypatch.delitem(sys.modules, "iniconfig", raising=False)
    with as_if_not_installed("iniconfig"), as_if_not_installed("iniconfig"):
        assert find_spec("iniconfig") is None
        with pytest.raises(metadata.PackageNotFoundError):
            metadata.version("iniconfig")
        with pytest.raises(ModuleNotFoundError):
            import_module("iniconfig")
        assert metadata.version("pytest") == pytest.__version__
    assert metadata.version("iniconfig")
    assert import_module("iniconfig")


def test_what_was_imported_before_stays() -> None:
    """A library that is in use already is not taken away."""
    with as_if_not_installed("pytest"):
        assert import_module("pytest") is pytest
        assert metadata.version("pytest") == pytest.__version__
    assert sys.modules["pytest"] is pytest


@pytest.mark.parametrize(
    ("program", "left_out"),
    [
        pytest.param(PYANNOTE, {"matplotlib", "rich", "torchvision", "transformers"}, id="pyannote"),
        pytest.param(TRANSFORMERS, {"matplotlib", "pandas", "rich", "sklearn", "torchvision"}, id="transformers"),
    ],
)
def test_engines_load_without_what_they_never_use(program: str, left_out: set[str]) -> None:
    """A third of the time of their imports, and 80 to 100 MB of each process."""
    program = f"{program}\nimport sys\nprint(*sorted({left_out!r} & {{*sys.modules}}), sep='')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", program]
    assert subprocess.check_output(command, text=True, env=environment).split() == []
