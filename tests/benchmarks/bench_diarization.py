"""Diarization and speech detection on everything with a reference: a markdown table of errors and of time.

DER is pyannote.metrics' `DiarizationErrorRate` with collar 0, overlap included, no speaker count given, over the whole
file. `tune_*` and the sample were there to choose the settings; `held_*` were not looked at before they were chosen.

    python tests/benchmarks/bench_diarization.py [--minutes 10] [--model DIRECTORY]

`--minutes` adds a long file: turns of three voices, drawn again and again, for time and memory.
`--model` measures a trained pipeline instead of the embedded engine.
Where `ML_SERVER_REAL_MODELS` names a folder with meetings (AMI), they are in the table.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from deployments.diarizer.config import PIECE_S, DiarizerConfig  # noqa: E402
from deployments.diarizer.registry import create  # noqa: E402
from deployments.speech_detector.config import PIECE_S as DETECTION_PIECE_S  # noqa: E402
from deployments.speech_detector.config import SpeechDetectorConfig  # noqa: E402
from deployments.speech_detector.registry import create as create_detector  # noqa: E402
from deployments.types import SAMPLE_RATE_HZ, Audio, Turn, pieces  # noqa: E402
from tests.support import real_models  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyannote.core import Annotation

    from deployments.diarizer.protocol import DiarizerEngine
    from deployments.speech_detector.protocol import SpeechEngine

DIALOGUES = ROOT / "tests" / "data" / "dialogues"
LONG_VOICES = "tune_3b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Audio and who really spoke."""

    name: str
    audio: Audio
    reference: list[tuple[float, float, str]]

    @property
    def duration_s(self) -> float:
        return len(self.audio) / SAMPLE_RATE_HZ


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
    measure_all(arguments.model, arguments.minutes)


def measure_all(model: str | None, minutes: float) -> None:
    config = DiarizerConfig(engine="pyannote", model=model) if model else DiarizerConfig()
    engine, detector = create(config), create_detector(SpeechDetectorConfig())
    sample = next(recordings())
    measure(engine, detector, sample)  # loads what loads late
    idle_mb = memory_mb()
    print(
        "| data | s | voices | found | DER % | missed | false alarm | confusion "
        "| RTF segment | embed | cluster | speech detection |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for recording in recordings():
        print(measure(engine, detector, recording), flush=True)
    if minutes:
        print(measure(engine, detector, long_recording(minutes * 60)))
        print(f"\nMemory above idle ({idle_mb:.0f} MB) at its highest: {peak_mb() - idle_mb:.0f} MB")


def measure(engine: DiarizerEngine, detector: SpeechEngine, recording: Recording) -> str:
    parts = list(pieces(recording.duration_s, PIECE_S))
    clock = [time.process_time()]
    segmentations = [engine.segment(recording.audio, piece) for piece in parts]
    clock.append(time.process_time())
    embeddings = [engine.embed(recording.audio, segmentation) for segmentation in segmentations]
    clock.append(time.process_time())
    turns = engine.cluster(segmentations, embeddings)
    clock.append(time.process_time())
    for piece in pieces(recording.duration_s, DETECTION_PIECE_S):
        detector.detect(recording.audio, piece)
    clock.append(time.process_time())
    rates = " | ".join(f"{each:.4f}" for each in np.diff(clock) / recording.duration_s)
    errors = " | ".join(f"{100 * each:.1f}" for each in diarization_errors(recording, turns))
    voices = len({voice for _, _, voice in recording.reference})
    found = len({turn.speaker for turn in turns})
    return f"| {recording.name} | {recording.duration_s:.0f} | {voices} | {found} | {errors} | {rates} |"


def diarization_errors(recording: Recording, turns: list[Turn]) -> tuple[float, float, float, float]:
    """DER, and its parts missed speech, false alarm and confusion, each as a share of the speech."""
    from pyannote.core import Segment
    from pyannote.metrics.diarization import DiarizationErrorRate

    hypothesis = annotation([(turn.start_s, turn.end_s, str(turn.speaker)) for turn in turns])
    metric: Any = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    uem = Segment(0, recording.duration_s)
    detail = metric(annotation(recording.reference), hypothesis, uem=uem, detailed=True)
    missed, false, confused = (detail[k] / detail["total"] for k in ("missed detection", "false alarm", "confusion"))
    return missed + false + confused, missed, false, confused


def annotation(turns: list[tuple[float, float, str]]) -> Annotation:
    from pyannote.core import Annotation, Segment

    made = Annotation()
    for track, (start_s, end_s, speaker) in enumerate(turns):
        made[Segment(start_s, end_s), track] = speaker
    return made


def recordings() -> Iterator[Recording]:
    """The sample of pyannote.audio, the meetings where they are, then the dialogues."""
    spec = find_spec("pyannote.audio")
    sample = Path(next(iter(spec.submodule_search_locations or []))) / "sample" / "sample.wav" if spec else Path()
    yield load(sample)
    yield from meetings()
    for path in [*sorted(DIALOGUES.glob("tune_*.ogg")), *sorted(DIALOGUES.glob("held_*.ogg"))]:
        yield load(path)


def meetings() -> list[Recording]:
    """AMI's clips of 30 s, those that are there; each RTTM tells of several."""
    folder = real_models.part("ami")
    if folder is None:
        return []
    rows = [line.split() for path in sorted(folder.glob("*.rttm")) for line in path.read_text().splitlines()]
    return [recording(path, [row for row in rows if row[1] == path.stem]) for path in sorted(folder.glob("*.wav"))]


def load(path: Path) -> Recording:
    """The audio at `path` with the .rttm beside it."""
    return recording(path, [line.split() for line in path.with_suffix(".rttm").read_text().splitlines()])


def recording(path: Path, rows: list[list[str]]) -> Recording:
    """The audio at `path` with the `rows` of an RTTM."""
    reference = [(float(row[3]), float(row[3]) + float(row[4]), row[7]) for row in rows]
    return Recording(name=path.stem, audio=real_models.sound(path), reference=reference)


def long_recording(duration_s: float) -> Recording:
    """Dense talk: the turns of `LONG_VOICES` in random order, each time at another level, with short pauses."""
    source = load(DIALOGUES / f"{LONG_VOICES}.ogg")
    draw = np.random.default_rng(0)
    audio = np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16)
    reference: list[tuple[float, float, str]] = []
    at_s = 0.5
    while True:
        start_s, end_s, voice = source.reference[draw.integers(len(source.reference))]
        if at_s + end_s - start_s > duration_s:
            return Recording(name=f"{LONG_VOICES}, {duration_s / 60:g} min", audio=audio, reference=reference)
        turn = source.audio[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
        first = round(at_s * SAMPLE_RATE_HZ)
        audio[first : first + len(turn)] = turn * 10 ** (draw.uniform(-6, 3) / 20)
        reference.append((at_s, at_s + len(turn) / SAMPLE_RATE_HZ, voice))
        at_s = reference[-1][1] + draw.uniform(0.2, 0.6)


def memory_mb() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak_mb() -> float:
    """The most that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
