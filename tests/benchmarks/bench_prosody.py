"""Errors and cost of our pitch tracker beside the field's, on audio whose F0 is known and on real voices.

    python tests/benchmarks/bench_prosody.py [TRACKER …]

Prints markdown. TRACKER is one of those in pitch_trackers.py, which says how they are installed; without any name all
that are installed run but `torchcrepe full` (slower than the sound). The process stays on one core; speed is seconds of
audio per second of processor time, so that neighbours on a busy machine do not count, and its ratio to ours in the same
run is what compares. Real voices come from the folder that ML_SERVER_REAL_MODELS names. About six minutes.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

import numpy as np  # noqa: E402
import prosody_truth as truth  # noqa: E402
import scipy.signal  # noqa: E402
import soundfile  # noqa: E402

from deployments.types import SAMPLE_RATE_HZ, Audio  # noqa: E402
from tests.benchmarks import pitch_trackers  # noqa: E402
from tests.support import real_models  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from tests.benchmarks.pitch_trackers import Tracker

SLOW = "torchcrepe full"
AGREED_CENTS = 50
REFERENCES = ("Praat", "WORLD Harvest")
"""Where these two agree on a real recording is the reference there."""
FIRST_CALL = """
import time; started = time.perf_counter()
from deployments.prosody import config, engine
engine.create(config.ProsodyConfig())
print(time.perf_counter() - started)
"""


class Run:
    """The trackers at work: their contours, and what they cost."""

    def __init__(self, trackers: dict[str, Tracker]) -> None:
        self.trackers = trackers
        self.audio_s = 0.0
        self.cpu_s = dict.fromkeys(trackers, 0.0)
        for tracker in trackers.values():
            tracker(truth.tone(200, 1.0).audio)  # what is compiled or loaded at first use is not measured

    def contours(self, audio: Audio) -> dict[str, NDArray[np.floating]]:
        """What each tracker finds, one F0 per frame."""
        self.audio_s += audio.size / SAMPLE_RATE_HZ
        found = {}
        for name, tracker in self.trackers.items():
            started = time.process_time()
            found[name] = tracker(audio)[: truth.frames_of(audio)]
            self.cpu_s[name] += time.process_time() - started
        return found

    def against(self, known: Iterable[truth.Known]) -> list[Judged]:
        """Each tracker's contours with the truth."""
        return [(self.contours(one.audio), one.f0_hz) for one in known]


Judged = tuple[dict[str, "NDArray[np.floating]"], "NDArray[np.floating]"]


def scored(judged: list[Judged], tracker: str) -> truth.Score:
    """One tracker's errors, pooled over the frames of all recordings."""
    found = np.concatenate([found[tracker] for found, _ in judged])
    return truth.score(found, np.concatenate([true_hz for _, true_hz in judged]))


def constructed() -> Iterator[tuple[str, list[truth.Known]]]:
    """Rows of the table; the errors of a row are pooled over its frames."""
    yield "pure tones 60-1000 Hz", [truth.tones(harmonics=1)]
    yield "sawtooths 60-1000 Hz", [truth.tones(harmonics=120)]
    yield "vibrato 110, 220, 440 Hz", [truth.vibrato(centre_hz) for centre_hz in (110, 220, 440)]
    for voice in truth.VOICES:
        yield voice, [truth.speech(voice)]
    deep = truth.speech("deep man 80 Hz")
    yield "deep man 80 Hz, 300-3400 Hz only", [truth.telephone(deep)]
    speech = [truth.speech(voice) for voice in ("man 125 Hz", "woman 200 Hz")]
    for name, spoil in SPOILT.items():
        yield f"man + woman, {name}", [spoil(known) for known in speech]
    yield "silence", [truth.silence(2)]
    yield "white noise", [truth.white_noise(3)]


def _band_and_noise(known: truth.Known) -> truth.Known:
    return truth.noisy(truth.telephone(known), snr_db=10)


SPOILT: dict[str, Callable[[truth.Known], truth.Known]] = {
    "20 dB SNR": functools.partial(truth.noisy, snr_db=20),
    "10 dB SNR": functools.partial(truth.noisy, snr_db=10),
    "0 dB SNR": functools.partial(truth.noisy, snr_db=0),
    "clipped": truth.clipped,
    "60 dB too quiet": truth.quiet,
    "300-3400 Hz only": truth.telephone,
    "300-3400 Hz, 10 dB SNR": _band_and_noise,
    "in a room": truth.reverberant,
    "others at 10 dB": functools.partial(truth.among_others, snr_db=10),
}
REAL_SPOILT: dict[str, Callable[[truth.Known], truth.Known]] = {
    "as they are": lambda known: known,
    **{name: SPOILT[name] for name in ("10 dB SNR", "300-3400 Hz only", "in a room")},
}


def real_recordings() -> dict[str, Callable[[], Audio]]:
    """Real speakers, English and Korean; empty where the folder is missing."""
    folders = [real_models.part(name) for name in ("voices", "korean")]
    paths = sorted(path for folder in folders if folder for path in folder.glob("*.wav"))
    return {path.stem: functools.partial(_read, path) for path in paths}


def _read(path: Path) -> Audio:
    samples, rate_hz = soundfile.read(path)
    return truth.to_audio(scipy.signal.resample_poly(samples, SAMPLE_RATE_HZ // 1000, rate_hz // 1000))


def agreed(found: dict[str, NDArray[np.floating]]) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """F0 by the agreement of `REFERENCES`, NaN where both hear no voice; and the frames where they agree."""
    one, other = (found[name] for name in REFERENCES)
    with np.errstate(invalid="ignore"):
        near = np.abs(1200 * np.log2(one / other)) < AGREED_CENTS
    return np.sqrt(one * other), near | (np.isnan(one) & np.isnan(other))


def natural(run: Run, recordings: dict[str, Callable[[], Audio]]) -> list[Judged]:
    """Recordings as they are, judged by the agreed reference, where there is one."""
    judged = []
    for source in recordings.values():
        found = run.contours(source())
        reference_hz, is_agreed = agreed(found)
        judged.append(({name: f0_hz[is_agreed] for name, f0_hz in found.items()}, reference_hz[is_agreed]))
    return judged


def first_call_s() -> float:
    """Seconds of a fresh process to the first result, imports included, librosa's compiled code in its cache."""
    answer = subprocess.run([sys.executable, "-c", FIRST_CALL], cwd=ROOT, check=True, capture_output=True, text=True)
    return float(answer.stdout)


def percent(part: float) -> str:
    """A part of one, readable; a dash where it does not apply."""
    return "-" if np.isnan(part) else f"{100 * part:.1f}"


def summary(title: str, judged: list[Judged], trackers: Iterable[str]) -> None:
    """All metrics, pooled, a row per tracker."""
    frames = sum(true_hz.size for _, true_hz in judged)
    print(f"\n{title}, {frames / 100:.0f} s:\n\n| tracker | GPE | VDE | precision | recall | F1 | cents | HM |")
    print("|---|---|---|---|---|---|---|---|")
    for name in trackers:
        got = scored(judged, name)
        f1 = 2 * got.precision * got.recall / (got.precision + got.recall)
        parts = (got.gross, got.voicing, got.precision, got.recall, f1)
        cells = [*map(percent, parts), f"{got.cents:.0f}", percent(got.harmonic_mean)]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Print all tables."""
    trackers = pitch_trackers.installed()
    missing = sorted(pitch_trackers.KNOWN.keys() - trackers)
    names = sys.argv[1:] or [name for name in trackers if name != SLOW]
    run = Run({name: trackers[name] for name in names})
    rows = {name: run.against(known) for name, known in constructed()}
    print(
        f"{platform.processor() or platform.machine()}, one core. Not installed here: {', '.join(missing) or 'none'}."
    )
    print(f"Ours, fresh process to first result: {first_call_s():.1f} s.")
    print(f"\nGPE % / VDE %:\n\n| data | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for name, judged in rows.items():
        scores = [scored(judged, tracker) for tracker in names]
        print(f"| {name} | {' | '.join(f'{percent(got.gross)} / {percent(got.voicing)}' for got in scores)} |")
    summary(
        "All speech of the table above", [one for name, row in rows.items() if is_speech(name) for one in row], names
    )
    recordings = real_recordings()
    if not recordings:
        print(f"\nNo real voices: {real_models.MISSING}")
    for name, spoil in REAL_SPOILT.items() if recordings else ():
        remade = (truth.remade(label, source) for label, source in recordings.items())
        summary(f"Real voices taken apart and put together, {name}", run.against(map(spoil, remade)), names)
    if recordings and set(REFERENCES) <= set(names):
        others = [name for name in names if name not in REFERENCES]
        summary("Real voices untouched, where Praat and Harvest agree", natural(run, recordings), others)
    print(f"\n{run.audio_s:.0f} s of audio:\n\n| tracker | x realtime, one core | ours is quicker by |\n|---|---|---|")
    for name, cpu_s in run.cpu_s.items():
        print(f"| {name} | {run.audio_s / cpu_s:.0f} | {cpu_s / run.cpu_s[names[0]]:.1f} |")


def is_speech(row: str) -> bool:
    """Is the row of the first table speech, and not tones, silence or noise?"""
    return not row.startswith(("pure", "sawtooths", "vibrato", "silence", "white"))


if __name__ == "__main__":
    main()
