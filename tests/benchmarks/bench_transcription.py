"""Errors and speed of the local recogniser, on chunks that the speech detector cut as it does for a job.

    python tests/benchmarks/bench_transcription.py [--show] [FILE ...]

Prints markdown. FILE is a sound file (mono, 16 kHz) with its reference beside it as .stm; without any: the telephone
sample that pyannote.audio ships, and the clips of examples/media. Word error rate by jiwer, lower case and without
punctuation; speed is processor time of one core over the clip's length, so that neighbours on a busy machine count
little. `longest call` is the longest time that one chunk keeps a replica busy.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import jiwer  # noqa: E402
import soundfile  # noqa: E402

from deployments.models.config import ModelsConfig  # noqa: E402
from deployments.models.store import located  # noqa: E402
from deployments.speech_detector import registry as speech_detector  # noqa: E402
from deployments.speech_detector.chunks import cut_chunks  # noqa: E402
from deployments.speech_detector.config import SpeechDetectorConfig  # noqa: E402
from deployments.transcriber import registry as transcriber  # noqa: E402
from deployments.transcriber.config import TranscriberConfig, model_version  # noqa: E402
from deployments.transcriber.protocol import Chunk, Recognizer  # noqa: E402
from deployments.types import SAMPLE_RATE_HZ, Audio, Span, Transcript  # noqa: E402

if TYPE_CHECKING:
    from deployments.speech_detector.protocol import SpeechEngine

STM_FIELDS_BEFORE_TEXT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one clip came to."""

    name: str
    duration_s: float
    chunks: int
    detect_s: float
    decode_s: float
    longest_s: float
    wer: float
    reference: str
    heard: str


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--show", action="store_true", help="print references and answers, too")
    options = parser.parse_args()
    config = TranscriberConfig(device="cpu", threads=1)
    detector = speech_detector.create(SpeechDetectorConfig())
    recognizer = transcriber.create(located(config, "asr", ModelsConfig()))
    scores = [measure(path, detector, recognizer, config.max_chunk_s) for path in options.files or clips()]
    print(f"{model_version(config)}, one core of {platform.processor() or platform.machine()}\n")
    print("| clip | s | chunks | WER | RTF | longest call | RTF of speech detection |")
    print("|---|---|---|---|---|---|---|")
    for s in scores:
        rates = f"{s.decode_s / s.duration_s:.2f} | {s.longest_s:.1f} s | {s.detect_s / s.duration_s:.3f}"
        print(f"| {s.name} | {s.duration_s:.1f} | {s.chunks} | {s.wer:.0%} | {rates} |")
    for s in scores if options.show else ():
        print(f"\n{s.name}\n  said:  {s.reference}\n  heard: {s.heard}")


def clips() -> list[Path]:
    """The clips that are there without being asked for."""
    package = importlib.util.find_spec("pyannote.audio")
    assert package is not None
    assert package.origin is not None
    sample = Path(package.origin).parent / "sample" / "sample.wav"
    return [sample, *(ROOT / "examples" / "media" / name for name in ("clear.flac", "read.ogg"))]


def measure(path: Path, detector: SpeechEngine, recognizer: Recognizer, max_chunk_s: float) -> Score:
    """Cut, transcribe and score one clip."""
    audio: Audio = soundfile.read(path, dtype="int16")[0]
    began_s = time.process_time()
    spans = cut_chunks(detector.detect(audio, Span(start_s=0, end_s=len(audio) / SAMPLE_RATE_HZ)), max_chunk_s)
    detected_s = time.process_time()
    items = [Chunk(audio=span.of(audio), start_s=span.start_s, language="en") for span in spans]
    answers, times_s = [], []
    for item in items:
        started_s = time.process_time()
        answers += recognizer.transcribe([item])
        times_s.append(time.process_time() - started_s)
    reference, heard = plain(reference_of(path.with_suffix(".stm"))), plain(text_of(answers))
    return Score(
        name=path.stem,
        duration_s=len(audio) / SAMPLE_RATE_HZ,
        chunks=len(spans),
        detect_s=detected_s - began_s,
        decode_s=sum(times_s),
        longest_s=max(times_s, default=0.0),
        wer=jiwer.wer(reference, heard),
        reference=reference,
        heard=heard,
    )


def reference_of(stm: Path) -> str:
    """The text of an STM file."""
    lines = stm.read_text().splitlines()
    return " ".join(line.split(maxsplit=STM_FIELDS_BEFORE_TEXT)[STM_FIELDS_BEFORE_TEXT] for line in lines)


def text_of(answers: list[Transcript | Exception]) -> str:
    """All that was heard; raises the first failure."""
    texts = []
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        texts += [utterance.text for utterance in answer.utterances]
    return " ".join(texts)


def plain(text: str) -> str:
    """Lower case, letters and apostrophes only."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


if __name__ == "__main__":
    main()
