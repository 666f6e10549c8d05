"""Errors and cost of our pitch tracker beside the field's, on audio whose F0 is known and on real voices.

    python -m tests.benchmarks prosody

Prints markdown. Each tracker runs as its authors advise, on one thread, looking for 60 to 1000 Hz. Praat (GPL, `pip
install praat-parselmouth`) is measured where it is installed, and so is what is judged by it; FCPE and torchcrepe were
measured at 040e870. The process stays on one core; speed is seconds of audio per second of processor time, so that
neighbours on a busy machine do not count, and its ratio to ours in the same run is what compares. Real voices come from
the folder that ML_SERVER_REAL_MODELS names.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

import librosa  # noqa: E402
import numpy as np  # noqa: E402
import prosody_truth as truth  # noqa: E402
import pyworld  # noqa: E402
from deployments.prosody.network import FULL_LEVEL, MARGIN  # noqa: E402

from deployments.prosody import pitch  # noqa: E402
from deployments.prosody.tracks import tracks  # noqa: E402
from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ, Audio, Span  # noqa: E402
from tests.benchmarks.report import say, table  # noqa: E402
from tests.support import real_models  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    F0 = NDArray[np.floating]
    Judged = list[tuple[dict[str, F0], F0]]
    """Of recordings, each tracker's F0 by frames, NaN where unvoiced, and the true one."""

MIN_HZ, MAX_HZ = 60.0, 1000.0
REFERENCES = ("Praat", "WORLD Harvest")
"""Where these two agree on a real recording is the reference there."""
AGREED_CENTS = 50
METRICS = ("tracker", "GPE", "VDE", "precision", "recall", "F1", "cents", "HM")


def ours(audio: Audio) -> F0:
    """The product: level, F0 and voicing."""
    return tracks(audio, Span(start_s=0, end_s=audio.size / SAMPLE_RATE_HZ)).f0_hz


def autocorrelation(audio: Audio) -> F0:
    """The product without its network."""
    with mock.patch.multiple(pitch, opinion=mock.Mock(), weighed=lambda found, _: found):
        return ours(audio)


def swift_f0(audio: Audio) -> F0:
    """SwiftF0 (Nieradzik 2025), voiced from its calibrated confidence 0.5; scaled before, as its README asks."""
    samples = audio / np.float32(32768)
    loudest = np.abs(samples).max()
    found = _swift().detect(
        samples * (FULL_LEVEL / max(loudest, 1e-9)), SAMPLE_RATE_HZ, MIN_HZ / MARGIN, MAX_HZ * MARGIN
    )
    f0_hz = np.where((found.confidence >= 0.5) & (loudest > 2 / 32768), found.pitch_hz, np.nan)
    return _at_frames(found.timestamps, f0_hz, truth.frames_of(audio))


@functools.cache
def _swift() -> object:
    import swift_f0 as package

    return package.SwiftF0(threads=1, spin=False)


def praat(audio: Audio) -> F0:
    """Praat's `To Pitch (ac)` with its own thresholds."""
    import parselmouth

    sound = parselmouth.Sound(audio / 32768, SAMPLE_RATE_HZ)
    found = sound.to_pitch_ac(time_step=0.01, pitch_floor=MIN_HZ, pitch_ceiling=MAX_HZ)
    f0_hz = found.selected_array["frequency"]
    return _at_frames(found.xs(), np.where(f0_hz > 0, f0_hz, np.nan), truth.frames_of(audio))


def harvest(audio: Audio) -> F0:
    """WORLD's Harvest (Morise 2017), voiced where D4C LoveTrain (its synthesis' own test) hears it."""
    samples = audio / 32768
    f0_hz, times_s = pyworld.harvest(samples, SAMPLE_RATE_HZ, f0_floor=MIN_HZ, f0_ceil=MAX_HZ, frame_period=10)
    noise = pyworld.d4c(samples, f0_hz, times_s, SAMPLE_RATE_HZ, threshold=0.85)
    return np.where((f0_hz > 0) & (noise.min(axis=1) < 0.99), f0_hz, np.nan)


def pyin(audio: Audio) -> F0:
    """Probabilistic YIN (Mauch and Dixon 2014)."""
    sizes = {"hop_length": SAMPLE_RATE_HZ // FRAMES_PER_S, "frame_length": 1024}
    return librosa.pyin(audio / np.float32(32768), fmin=MIN_HZ, fmax=MAX_HZ, sr=SAMPLE_RATE_HZ, **sizes)[0]


def _at_frames(times_s: F0, f0_hz: F0, frames: int) -> F0:
    """A contour of any frame times at ours: voicing of the nearest frame, F0 between the two voiced ones around it."""
    ours_s = np.arange(frames) / FRAMES_PER_S
    nearest = f0_hz[np.abs(times_s[:, None] - ours_s).argmin(axis=0)]
    between = np.exp(np.interp(ours_s, times_s, np.log(f0_hz)))
    return np.where(np.isfinite(nearest) & np.isfinite(between), between, nearest)


TRACKERS: dict[str, Callable[[Audio], F0]] = {
    "ours": ours,
    "ours without network": autocorrelation,
    "swift-f0": swift_f0,
    **({"Praat": praat} if importlib.util.find_spec("parselmouth") else {}),
    "WORLD Harvest": harvest,
    "librosa.pyin": pyin,
}
AUDIO_S: list[float] = []
CPU_S = dict.fromkeys(TRACKERS, 0.0)
SPOILT: dict[str, Callable[[truth.Known], truth.Known]] = {
    "20 dB SNR": functools.partial(truth.noisy, snr_db=20),
    "10 dB SNR": functools.partial(truth.noisy, snr_db=10),
    "0 dB SNR": functools.partial(truth.noisy, snr_db=0),
    "clipped": truth.clipped,
    "60 dB too quiet": truth.quiet,
    "300-3400 Hz only": truth.telephone,
    "300-3400 Hz, 10 dB SNR": lambda known: truth.noisy(truth.telephone(known), snr_db=10),
    "in a room": truth.reverberant,
    "others at 10 dB": functools.partial(truth.among_others, snr_db=10),
}
REAL_SPOILT: dict[str, Callable[[truth.Known], truth.Known]] = {
    "as they are": lambda known: known,
    **{name: SPOILT[name] for name in ("10 dB SNR", "300-3400 Hz only", "in a room")},
}


def main() -> None:
    for tracker in TRACKERS.values():
        tracker(truth.tone(200, 1.0).audio)  # what is compiled or loaded at first use is not measured
    rows = {name: against(known) for name, known in constructed()}
    cells = ([name, *(_errors(judged, each) for each in TRACKERS)] for name, judged in rows.items())
    say(f"GPE % / VDE %:\n\n{table(['data', *TRACKERS], cells)}")
    unspoken = ("pure", "sawtooths", "vibrato", "silence", "white")
    summary("All speech of the table above", [o for n, row in rows.items() if not n.startswith(unspoken) for o in row])
    found = [real_models.part(name) for name in ("voices", "korean")]
    paths = sorted(path for folder in found if folder for path in folder.glob("*.wav"))
    recordings = {path.stem: functools.partial(real_models.sound, path) for path in paths}
    for name, spoil in REAL_SPOILT.items() if recordings else ():
        remade = (truth.remade(label, source) for label, source in recordings.items())
        summary(f"Real voices taken apart and put together, {name}", against(map(spoil, remade)))
    if recordings and "Praat" in TRACKERS:
        summary(
            "Real voices untouched, where Praat and Harvest agree", [agreed(source()) for source in recordings.values()]
        )
    speeds = [[name, f"{sum(AUDIO_S) / s:.0f}", f"{s / CPU_S['ours']:.1f}"] for name, s in CPU_S.items()]
    say(f"\n{sum(AUDIO_S):.0f} s of audio:\n\n{table(['tracker', 'x realtime', 'time, ours = 1'], speeds)}")


def contours(audio: Audio) -> dict[str, F0]:
    """What each tracker finds, one F0 per frame; its time is counted."""
    found = {}
    AUDIO_S.append(audio.size / SAMPLE_RATE_HZ)
    for name, tracker in TRACKERS.items():
        began_s = time.process_time()
        found[name] = tracker(audio)[: truth.frames_of(audio)]
        CPU_S[name] += time.process_time() - began_s
    return found


def against(known: Iterable[truth.Known]) -> Judged:
    """Each tracker's contours with the truth."""
    return [(contours(one.audio), one.f0_hz) for one in known]


def agreed(audio: Audio) -> tuple[dict[str, F0], F0]:
    """The frames where the references agree, or both hear no voice, with their F0 in place of the truth."""
    found = contours(audio)
    one, other = (found[name] for name in REFERENCES)
    with np.errstate(invalid="ignore"):
        near = np.abs(1200 * np.log2(one / other)) < AGREED_CENTS
    near |= np.isnan(one) & np.isnan(other)
    return {name: f0_hz[near] for name, f0_hz in found.items()}, np.sqrt(one * other)[near]


def constructed() -> Iterator[tuple[str, list[truth.Known]]]:
    """Rows of the table; the errors of a row are pooled over its frames."""
    yield "pure tones 60-1000 Hz", [truth.tones(harmonics=1)]
    yield "sawtooths 60-1000 Hz", [truth.tones(harmonics=120)]
    yield "vibrato 110, 220, 440 Hz", [truth.vibrato(centre_hz) for centre_hz in (110, 220, 440)]
    for voice in truth.VOICES:
        yield voice, [truth.speech(voice)]
    yield "deep man 80 Hz, 300-3400 Hz only", [truth.telephone(truth.speech("deep man 80 Hz"))]
    for name, spoil in SPOILT.items():
        yield f"man + woman, {name}", [spoil(truth.speech(voice)) for voice in ("man 125 Hz", "woman 200 Hz")]
    yield "silence", [truth.silence(2)]
    yield "white noise", [truth.white_noise(3)]


def scored(judged: Judged, tracker: str) -> truth.Score:
    """One tracker's errors, pooled over the frames of all recordings."""
    found = np.concatenate([found[tracker] for found, _ in judged])
    return truth.score(found, np.concatenate([true_hz for _, true_hz in judged]))


def summary(title: str, judged: Judged) -> None:
    """All metrics, pooled, a row per tracker."""
    rows = []
    for name in TRACKERS:
        got = scored(judged, name)
        f1 = 2 * got.precision * got.recall / (got.precision + got.recall)
        parts = map(_percent, (got.gross, got.voicing, got.precision, got.recall, f1))
        rows.append([name, *parts, f"{got.cents:.0f}", _percent(got.harmonic_mean)])
    say(f"\n{title}, {sum(true_hz.size for _, true_hz in judged) / FRAMES_PER_S:.0f} s:\n\n{table(METRICS, rows)}")


def _errors(judged: Judged, tracker: str) -> str:
    got = scored(judged, tracker)
    return f"{_percent(got.gross)} / {_percent(got.voicing)}"


def _percent(part: float) -> str:
    return "-" if np.isnan(part) else f"{100 * part:.1f}"


if __name__ == "__main__":
    main()
