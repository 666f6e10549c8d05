"""Real weights and recordings for benchmarks and optional tests: they lie outside the tree, the environment says where.

The folder holds `whisper-base/` (Systran/faster-whisper-base), `community-1/` (pyannote's pipeline, CC-BY-4.0), `ami/`
(clips of real meetings with who spoke when), `voices/` (real speakers) and `korean/` (real sentences with their texts).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import librosa
import numpy as np
import pytest
import soundfile

from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from deployments.types import Audio

VARIABLE = "ML_SERVER_REAL_MODELS"
MISSING = f"{VARIABLE} has to name a folder with real weights and recordings, as tests/support/real_models.py lists"


def folder() -> Path | None:
    """Where they lie; None where the environment does not say, or there is no such folder."""
    told = os.environ.get(VARIABLE)
    return Path(told).resolve() if told and Path(told).is_dir() else None


def part(name: str) -> Path | None:
    """One of its folders, such as `community-1`; None where it is missing."""
    found = folder()
    return found / name if found and (found / name).is_dir() else None


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips a test where one of the folders `names` is missing, and says so."""
    missing = [name for name in names if part(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{MISSING}: {', '.join(missing)} is missing")


def sound(path: Path) -> Audio:
    """The samples at `path`, mono, read-only as Ray hands them out.

    Some of the recordings hold floats, of which soundfile makes zeros where integers are asked for.
    """
    floats, rate_hz = soundfile.read(path, dtype="float32")
    if rate_hz != SAMPLE_RATE_HZ:
        floats = librosa.resample(floats, orig_sr=rate_hz, target_sr=SAMPLE_RATE_HZ)
    audio: Audio = (floats * 2**15).round().clip(-(2**15), 2**15 - 1).astype(np.int16)
    audio.flags.writeable = False
    return audio
