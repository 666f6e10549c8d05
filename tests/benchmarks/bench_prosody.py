"""Speed and errors of our pitch tracker beside librosa.pyin and librosa.yin, on audio whose F0 is known exactly.

    python tests/benchmarks/bench_prosody.py

Prints markdown. The process stays on one core; speed is seconds of audio per second of processor time, so that
neighbours on a busy machine do not count. About two minutes, nearly all of it pyin's.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

import librosa  # noqa: E402
import numpy as np  # noqa: E402
import prosody_truth as truth  # noqa: E402

from deployments.prosody.tracks import tracks  # noqa: E402
from deployments.types import SAMPLE_RATE_HZ, Audio, Span  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Method = Callable[[Audio], "NDArray[np.floating]"]
SAME_TERMS = {"fmin": 60, "fmax": 1000, "sr": SAMPLE_RATE_HZ, "hop_length": truth.HOP, "frame_length": 1024}
FIRST_CALL = """
import time; started = time.perf_counter()
from deployments.prosody import config, engine
engine.create(config.ProsodyConfig())
print(time.perf_counter() - started)
"""


def ours(audio: Audio) -> NDArray[np.floating]:
    """The product: level, F0 and voicing (its level is computed and timed too)."""
    return tracks(audio, Span(start_s=0, end_s=audio.size / SAMPLE_RATE_HZ)).f0_hz


def pyin(audio: Audio) -> NDArray[np.floating]:
    """F0 and voicing."""
    return librosa.pyin(audio / np.float32(32768), **SAME_TERMS)[0]


def yin(audio: Audio) -> NDArray[np.floating]:
    """F0 only: every frame is voiced."""
    return librosa.yin(audio / np.float32(32768), **SAME_TERMS)


METHODS: dict[str, Method] = {"ours": ours, "librosa.pyin": pyin, "librosa.yin": yin}


def data_sets() -> Iterator[tuple[str, list[truth.Known]]]:
    """Rows of the table; the errors of a row are pooled over its frames."""
    yield "pure tones 60-1000 Hz", [truth.tones(harmonics=1)]
    yield "sawtooths 60-1000 Hz", [truth.tones(harmonics=120)]
    yield "vibrato 110, 220, 440 Hz", [truth.vibrato(centre_hz) for centre_hz in (110, 220, 440)]
    for voice in truth.VOICES:
        yield voice, [truth.speech(voice)]
    speech = [truth.speech(voice) for voice in ("man 125 Hz", "woman 200 Hz")]
    yield "man + woman, 20 dB SNR", [truth.noisy(known, snr_db=20) for known in speech]
    yield "man + woman, 10 dB SNR", [truth.noisy(known, snr_db=10) for known in speech]
    yield "man + woman, clipped", [truth.clipped(known) for known in speech]
    yield "man + woman, 60 dB too quiet", [truth.quiet(known) for known in speech]
    yield "man + woman, 300-3400 Hz only", [truth.telephone(known) for known in speech]
    yield "silence", [truth.silence(2)]
    yield "white noise", [truth.white_noise(3)]


def measure(method: Method, known: list[truth.Known]) -> tuple[truth.Score, float]:
    """The method's score over all of `known`, and its processor seconds."""
    started = time.process_time()
    found = [method(one.audio)[: one.f0_hz.size] for one in known]
    cpu_s = time.process_time() - started
    return truth.score(np.concatenate(found), np.concatenate([one.f0_hz for one in known])), cpu_s


def first_call_s() -> float:
    """Seconds of a fresh process to the first result, imports included, librosa's compiled code in its cache."""
    answer = subprocess.run([sys.executable, "-c", FIRST_CALL], cwd=ROOT, check=True, capture_output=True, text=True)
    return float(answer.stdout)


def percent(part: float) -> str:
    """A part of one, readable; nothing where it does not apply."""
    return "" if np.isnan(part) else f"{100 * part:.1f}"


def main() -> None:
    """Print both tables."""
    warm_up = truth.tone(200, 1.0).audio
    for method in METHODS.values():
        method(warm_up)  # what is compiled at first use is not what is measured here
    audio_s, cpu_s = 0.0, dict.fromkeys(METHODS, 0.0)
    rows = []
    for name, known in data_sets():
        audio_s += sum(one.audio.size for one in known) / SAMPLE_RATE_HZ
        cells = []
        for label, method in METHODS.items():
            score, seconds = measure(method, known)
            cpu_s[label] += seconds
            cells.append(f"{percent(score.gross)} / {percent(score.voicing)} / {score.cents:.0f}".replace("nan", ""))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    print(f"{platform.processor() or platform.machine()}, one core, {audio_s:.0f} s of audio.")
    print(f"Ours, fresh process to first result: {first_call_s():.1f} s.\n")
    print("| method | x realtime, one core |\n|---|---|")
    for label, seconds in cpu_s.items():
        print(f"| {label} | {audio_s / seconds:.0f} |")
    print(f"\nGPE % / VDE % / median cents:\n\n| data | {' | '.join(METHODS)} |\n|---|{'---|' * len(METHODS)}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
