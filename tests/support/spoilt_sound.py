"""Recordings made worse on purpose, as files and back: noise, clipping, thin codecs, damaged bytes, voices at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import numpy as np
import scipy.signal
import soundfile

from deployments.extraction.config import MediaLimits
from deployments.extraction.media_decoder import extract
from deployments.types import SAMPLE_RATE_HZ
from tests.support import sounds
from tests.support.sounds import as_int16

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from deployments.extraction.media_decoder import Decoded
    from deployments.types import Audio

TELEPHONE_HZ = 8_000
DAMAGED_SHARE, DAMAGED_BYTES = 0.2, 64
"""Of a file's bytes, and of each damaged place."""


def noisy(audio: Audio, noise: Audio, snr_db: float) -> Audio:
    """`audio` with `noise` that is `snr_db` quieter than its loud parts (those within 30 dB of the loudest 10 ms)."""
    under = np.resize(noise, len(audio)).astype(np.float64)
    gain = 10 ** (-snr_db / 20) * _level(audio) / np.sqrt(np.mean(under**2))
    mixed = audio + gain * under
    return as_int16(mixed * min(1.0, 32767 / np.abs(mixed).max()))


def _trimmed(audio: Audio) -> Audio:
    """Without what is 30 dB below its loudest 10 ms at its ends."""
    frames = np.abs(audio[: len(audio) // 160 * 160].astype(np.float64)).reshape(-1, 160).max(axis=1)
    loud = np.flatnonzero(frames > frames.max() / 10**1.5)
    return audio[160 * loud[0] : 160 * (loud[-1] + 1)]


def _level(audio: Audio) -> float:
    """RMS of the parts in which somebody speaks."""
    frames = audio[: len(audio) // 160 * 160].reshape(-1, 160).astype(np.float64)
    power = np.mean(frames**2, axis=1)
    return float(np.sqrt(np.mean(power[power > power.max() / 1000])))


def too_loud(audio: Audio, clip_db: float) -> Audio:
    """`audio` recorded `clip_db` louder than fits."""
    return sounds.louder(audio, clip_db + 20 * np.log10(32767 / np.abs(audio.astype(np.float64)).max()))


def babble(voices: Sequence[Audio]) -> Audio:
    """All of them at once, equally loud and again and again, for half a minute."""
    count = 30 * SAMPLE_RATE_HZ
    starts = np.random.default_rng(5).integers(0, count, len(voices))
    together = sum(np.roll(np.resize(each, count), at) / _level(each) for each, at in zip(voices, starts, strict=True))
    return as_int16(2000 * np.asarray(together) / len(voices) ** 0.5)


def overlapped(voices: Sequence[Audio], share: float) -> Audio:
    """They begin while the one before still speaks, for `share` of its time; with pauses where that is 0."""
    if not share:
        return sounds.in_a_row(*voices)
    voices = [_trimmed(each) for each in voices]
    starts = np.cumsum([0, *(round(len(each) * (1 - share)) for each in voices)])
    mixed = np.zeros(max(at + len(each) for at, each in zip(starts, voices, strict=False)))
    for at, each in zip(starts, voices, strict=False):
        mixed[at : at + len(each)] += 3000 / _level(each) * each
    return np.pad(as_int16(mixed), SAMPLE_RATE_HZ)


def nobody() -> dict[str, Audio]:
    """Half a minute in which nobody speaks."""
    draw = np.random.default_rng(1)
    return {
        "silence": np.zeros(30 * SAMPLE_RATE_HZ, np.int16),
        "dither": draw.integers(-1, 2, 30 * SAMPLE_RATE_HZ).astype(np.int16),
        "music": sounds.melody(30),
        "white noise": sounds.noise(30),
        "pink noise": sounds.noise(30, slope=0.5),
    }


def written_mp3(path: Path, audio: Audio, *, rate_hz: int, bits_per_s: int) -> Path:
    with av.open(str(path), "w", format="mp3") as container:
        stream: Any = container.add_stream("libmp3lame", rate=rate_hz)
        stream.bit_rate, stream.layout = bits_per_s, "mono"
        frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


def _as_wav(path: Path, audio: Audio) -> Path:
    return sounds.written(path.with_suffix(".wav"), audio)


def _telephone(path: Path, audio: Audio) -> Path:
    band = scipy.signal.butter(4, (300, 3400), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    narrow = scipy.signal.sosfilt(band, audio / 2**15)
    path = path.with_suffix(".wav")
    soundfile.write(path, scipy.signal.resample_poly(narrow, 1, 2), TELEPHONE_HZ, subtype="ULAW")
    return path


def _damaged(path: Path, audio: Audio) -> Path:
    path = written_mp3(path.with_suffix(".mp3"), audio, rate_hz=SAMPLE_RATE_HZ, bits_per_s=48_000)
    content, draw = bytearray(path.read_bytes()), np.random.default_rng(2)
    for at in draw.integers(1000, len(content) - DAMAGED_BYTES, int(DAMAGED_SHARE * len(content) / DAMAGED_BYTES)):
        content[at : at + DAMAGED_BYTES] = draw.bytes(DAMAGED_BYTES)
    path.write_bytes(content)
    return path


def _thin(path: Path, audio: Audio) -> Path:
    return written_mp3(path.with_suffix(".mp3"), audio, rate_hz=TELEPHONE_HZ, bits_per_s=8_000)


Spoil = "Callable[[Audio, Audio, Path], Path]"
"""Writes a file of a recording and of noise."""


def _with_noise(snr_db: float, *, white: bool) -> Callable[[Audio, Audio, Path], Path]:
    return lambda audio, noise, path: _as_wav(path, noisy(audio, sounds.noise(30) if white else noise, snr_db))


SPOILT: Mapping[str, Callable[[Audio, Audio, Path], Path]] = {
    "clean": lambda audio, _, path: _as_wav(path, audio),
    **{f"white {snr} dB": _with_noise(snr, white=True) for snr in (30, 20, 10, 5, 0)},
    **{f"babble {snr} dB": _with_noise(snr, white=False) for snr in (30, 20, 10, 5, 0)},
    **{
        f"clipped {clip} dB": lambda audio, _, path, clip=clip: _as_wav(path, too_loud(audio, clip))
        for clip in (6, 12, 20)
    },
    "MP3 8 kbit/s": lambda audio, _, path: _thin(path, audio),
    "telephone": lambda audio, _, path: _telephone(path, audio),
    "20 % damaged": lambda audio, _, path: _damaged(path, audio),
}


def heard_through(spoil: Callable[[Audio, Audio, Path], Path], audio: Audio, noise: Audio, folder: Path) -> Decoded:
    """What the extractor makes of the spoilt file."""
    return extract(spoil(audio, noise, folder / "spoilt"), limits=MediaLimits())
