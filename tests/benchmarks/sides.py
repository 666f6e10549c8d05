"""One side of a comparison, in a process that stays: models load once, files come one after the other.

    python tests/benchmarks/sides.py SIDE FOLDER

SIDE is one of those told below, FOLDER that of `ML_SERVER_REAL_MODELS`. Reads the path of a sound file per line, writes
a JSON object per line: what it took (the clock's and the processor's seconds, its children's included, and the clock's
per step), the language, the text and the speakers that were found. The first line that it writes says how it was
loaded.

`server-text`: the server's own stages from the samples to the text. `whisperx`, as it comes: decode, detect and
transcribe, diarize with community-1, give the segments speakers; without its aligner (`--no_align`), whose models come
from hosts that are not asked here. `whisperx-text`: without diarization. `faster-whisper`: its sequential `transcribe`
with no options, which writes text alone; `faster-whisper-batched`: its `BatchedInferencePipeline`. `whisper-cpp`: the
library in pywhispercpp with beams of 5, as its own command line, on the same weights in its 8-bit form. Compute type
and batch size are the server's, as the comparison wants the same arithmetic; threads are each one's own default, or
what OMP_NUM_THREADS says.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PYANNOTE_METRICS_ENABLED"] = "0"

ROOT = Path(__file__).parents[2]
COMPUTE_TYPE = "int8"
"""As the server's `auto` on a CPU."""
BATCH_SIZE = 8
"""As the server's, and the default of whisperX's command line."""
DEVICE = "cpu"
THREADS = int(os.environ.get("OMP_NUM_THREADS", "4"))
"""Four are the default of whisperX and of CTranslate2."""


class Clock:
    """The clock's seconds of each step."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.steps[name] = round(time.perf_counter() - began, 3)


class ServerText:
    """The server's stages, loaded."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(ROOT))
        from tests.support.real_graph import RealGraph, text_of

        self._graph, self._text_of = RealGraph(folder / "whisper-base"), text_of

    def __call__(self, path: str, clock: Clock) -> dict[str, Any]:
        """Language and text."""
        from tests.support.real_models import sound

        with clock.step("detect, transcribe"):
            heard = self._graph.hear(sound(Path(path)))
        return {"language": heard.language, "text": self._text_of(heard)}


class WhisperX:
    """Its models, loaded."""

    def __init__(self, folder: Path, *, diarizes: bool) -> None:
        import whisperx
        from whisperx.diarize import DiarizationPipeline

        self._whisperx = whisperx
        recogniser = str(folder / "whisper-base")
        self._recogniser = whisperx.load_model(recogniser, DEVICE, compute_type=COMPUTE_TYPE, threads=THREADS)
        pipeline = str(folder / "community-1")
        self._diarizer = DiarizationPipeline(model_name=pipeline, device=DEVICE) if diarizes else None

    def __call__(self, path: str, clock: Clock) -> dict[str, Any]:
        """Language, text and speakers."""
        with clock.step("decode"):
            audio = self._whisperx.load_audio(path)
        with clock.step("detect, transcribe"):
            heard = self._recogniser.transcribe(audio, batch_size=BATCH_SIZE)
        answer = {"language": heard["language"], "text": " ".join(each["text"] for each in heard["segments"])}
        if self._diarizer is None:
            return answer
        with clock.step("diarize"):
            turns = self._diarizer(audio)
        with clock.step("assign"):
            self._whisperx.assign_word_speakers(turns, heard)
        return answer | {"speakers": len(set(turns["speaker"]))}


class FasterWhisper:
    """Its model, loaded."""

    def __init__(self, folder: Path, *, batched: bool) -> None:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        model = WhisperModel(
            str(folder / "whisper-base"), device=DEVICE, compute_type=COMPUTE_TYPE, cpu_threads=THREADS
        )
        batches = partial(BatchedInferencePipeline(model).transcribe, batch_size=BATCH_SIZE)
        self._transcribe = batches if batched else model.transcribe

    def __call__(self, path: str, clock: Clock) -> dict[str, Any]:
        """Language and text."""
        with clock.step("decode, transcribe"):
            segments, info = self._transcribe(path)
            text = " ".join(segment.text for segment in segments)
        return {"language": info.language, "text": text}


class WhisperCpp:
    """Its model, loaded."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(ROOT))
        from pywhispercpp.model import Model

        from tests.benchmarks.ggml import write_ggml

        with tempfile.NamedTemporaryFile(suffix=".bin") as file:
            write_ggml(folder / "whisper-base", Path(file.name))
            beams = {"params_sampling_strategy": 1, "beam_search": {"beam_size": 5, "patience": -1.0}}
            self._model: Any = Model(file.name, n_threads=THREADS, language="auto", print_progress=False, **beams)

    def __call__(self, path: str, clock: Clock) -> dict[str, Any]:
        """Language and text."""
        import soundfile

        with clock.step("decode"):
            audio = soundfile.read(path, dtype="float32")[0]
        with clock.step("transcribe"):
            text = " ".join(segment.text for segment in self._model.transcribe(audio))
        return {"language": "auto", "text": text}


def loaded(side: str, folder: Path) -> ServerText | WhisperX | FasterWhisper | WhisperCpp:
    if side == "server-text":
        return ServerText(folder)
    if side == "whisper-cpp":
        return WhisperCpp(folder)
    if side.startswith("faster-whisper"):
        return FasterWhisper(folder, batched=side.endswith("-batched"))
    return WhisperX(folder, diarizes=side == "whisperx")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints
    warnings.simplefilter("ignore")
    transcribe = loaded(sys.argv[1], Path(sys.argv[2]))
    tell(answers, {"threads": THREADS, "compute_type": COMPUTE_TYPE})
    for line in sys.stdin:
        clock, began_s, processor_before_s = Clock(), time.perf_counter(), processor_s()
        answer = transcribe(line.strip(), clock)
        took = {"wall_s": time.perf_counter() - began_s, "processor_s": processor_s() - processor_before_s}
        tell(answers, took | {"steps_s": clock.steps} | answer)


def processor_s() -> float:
    """Of this process and of its children that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in spent)


def tell(answers: Any, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content, default=float) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
