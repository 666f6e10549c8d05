"""whisperX as its own command line runs it, in a process that stays: models load once, files come one after the other.

    python tests/benchmarks/bare_whisperx.py DIARIZER

Reads the path of a sound file per line, writes a JSON object per line: what it took (the clock's and the processor's
seconds, its children's included, and the clock's per step) and the segments. The first line that it writes says how it
was loaded. The small models of tests/models; compute type and batch size are the server's, as the comparison wants the
same arithmetic (its own default on a CPU is float32); threads are its own defaults: four for CTranslate2, and torch
takes a thread per core. NLTK finds its data in tests/models, so that no network is needed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = Path(__file__).parents[1] / "models"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NLTK_DATA"] = str(MODELS / "nltk_data")
os.environ["PYANNOTE_METRICS_ENABLED"] = "0"

COMPUTE_TYPE = "int8"
"""As the server's `auto` on a CPU."""
BATCH_SIZE = 8
"""As the server's, and the default of whisperX's command line."""
DEVICE = "cpu"
LANGUAGE = "en"
"""Of the aligner that is loaded; the language that is spoken is found by whisperX itself."""
WANTED = ("start", "end", "text", "speaker", "words")


class Clock:
    """The clock's seconds of each step."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block."""
        began = time.perf_counter()
        yield
        self.steps[name] = round(time.perf_counter() - began, 3)


class WhisperX:
    """All its models, loaded."""

    def __init__(self, diarizer: str) -> None:
        import whisperx
        from whisperx.diarize import DiarizationPipeline

        self._whisperx = whisperx
        self._recogniser = whisperx.load_model(str(MODELS / "asr"), DEVICE, compute_type=COMPUTE_TYPE)
        self._aligner = whisperx.load_align_model(LANGUAGE, DEVICE, model_name=str(MODELS / "aligner"))
        self._diarizer = DiarizationPipeline(model_name=diarizer, device=DEVICE)

    def __call__(self, path: str, clock: Clock) -> list[dict[str, Any]]:
        """The segments of a file, with words and speakers."""
        network, metadata = self._aligner
        with clock.step("decode"):
            audio = self._whisperx.load_audio(path)
        with clock.step("detect, transcribe"):
            heard = self._recogniser.transcribe(audio, batch_size=BATCH_SIZE)
        assert heard["language"] == LANGUAGE, heard["language"]
        with clock.step("align"):
            aligned = self._whisperx.align(heard["segments"], network, metadata, audio, DEVICE)
        with clock.step("diarize"):
            turns = self._diarizer(audio)
        with clock.step("assign"):
            spoken = self._whisperx.assign_word_speakers(turns, aligned)
        return [{name: segment[name] for name in WANTED if name in segment} for segment in spoken["segments"]]


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints
    warnings.simplefilter("ignore")
    whisperx = WhisperX(sys.argv[1])
    tell(answers, {"threads": threads(), "compute_type": COMPUTE_TYPE, "batch_size": BATCH_SIZE})
    for line in sys.stdin:
        clock, began_s, processor_before_s = Clock(), time.perf_counter(), processor_s()
        segments = whisperx(line.strip(), clock)
        took = {"wall_s": time.perf_counter() - began_s, "processor_s": processor_s() - processor_before_s}
        tell(answers, took | {"steps_s": clock.steps, "segments": segments})


def threads() -> str:
    """What its libraries compute with."""
    import torch

    return f"CTranslate2 4, torch {torch.get_num_threads()}"


def processor_s() -> float:
    """Of this process and of its children that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in spent)


def tell(answers: Any, content: dict[str, Any]) -> None:
    """One line."""
    answers.write(json.dumps(content, default=float) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
