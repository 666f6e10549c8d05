"""The GPU benchmark as a process on very small models: what a machine without a GPU can prove of it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.gpu_plan import HEAD
from tests.support.process import ROOT, clean_environment

if TYPE_CHECKING:
    from pathlib import Path

BROKEN = "raise ImportError('{name} is broken here')\n"
TINY = ("--sizes", "tiny", "--minutes", "0.5", "--device", "cpu", "--jobs", "2", "--prosody-processes", "0")
MEASURED = (
    "speech detection",
    "transcription",
    "alignment",
    "diarization: segment",
    "diarization: embed",
    "diarization: cluster",
    "prosody",
    "emotion",
    "whole graph, 1 job",
    "whole graph, 2 jobs",
)


def benchmark(path: Path, *arguments: str, **broken: str) -> tuple[dict[str, dict[str, str]], str]:
    """The table's rows by stage, and all that was printed; `broken` packages are what these sources make of them."""
    for name, source in broken.items():
        (path / name).mkdir()
        (path / name / "__init__.py").write_text(source)
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *TINY, *arguments]
    environment = os.environ | clean_environment() | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows[0] == [name for name in HEAD if name]
    told = {cells[0]: dict(zip(HEAD, [*cells, "", ""], strict=False)) for cells in rows[2:]}
    return told, done.stdout


@pytest.mark.full
def test_every_stage_is_measured_where_whisperx_and_ray_are_broken(tmp_path):
    """Neither is imported by what is measured; the comparison with whisperX is a row that says why there is none."""
    broken = {name: BROKEN.format(name=name) for name in ("whisperx", "ray")}
    rows, printed = benchmark(tmp_path, "--together", **broken)
    assert list(rows) == [*MEASURED[:3], "whisperx.align", *MEASURED[3:]]
    for stage in MEASURED:
        assert float(rows[stage]["seconds"]) >= 0, rows[stage]
        assert float(rows[stage]["times realtime"]) > 0
        assert rows[stage]["precision"]
    assert "not available: ImportError: whisperx is broken here" in rows["whisperx.align"][""]
    assert "8 chunks, 5 beams" in rows["transcription"]["batch"]
    assert rows["whole graph, 2 jobs"][""] == "8 segments, 158 words"
    assert "realtime in aggregate" in printed
    for library in ("torch 2", "ctranslate2 4"):
        assert library in printed


def test_a_library_that_kills_its_process_costs_its_own_stage_only(tmp_path):
    """A stage is a process of its own: one that dies in it is a named row, and the next stage is measured."""
    rows, _ = benchmark(tmp_path, "--only", "emotion", "detection", transformers="import os; os._exit(7)\n")
    assert rows["emotion"][""] == "not available: its process ended with 7"
    assert float(rows["speech detection"]["seconds"]) >= 0
