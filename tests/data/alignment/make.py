"""Make the clips beside this file: synthesized sentences, and when each word is said by the synthesizer's own account.

Needs libespeak-ng and libflite (Debian: espeak-ng, flite), which the tests do not. The committed files are what the
tests use; run this only to make others: `python tests/data/alignment/make.py`.

A file is one voice: its sentences one after the other, each with `MARGIN_S` of near-silence around it, and beside it a
JSON with the utterances (their spans include the margins) and the words. The words are those that the small aligner in
tests/models/aligner was trained on; the sentences were not in its training, nor were the voices rms, Annie and max.
espeak-ng tells where words begin: one ends where the next begins, and the last where the sound does. flite tells both.
"""

from __future__ import annotations

import ctypes
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.signal import resample_poly

HERE = Path(__file__).parent
RATE_HZ = 16_000
MARGIN_S = 0.25
QUIET = 0.02
"""Of the loudest 10 ms: below, nothing sounds."""
NOISE_RMS = 12.0
"""Of the margins, in int16 steps: -69 dBFS, as no recording is quite silent."""

SENTENCES = (
    "the old doctor sees my small garden from your window",
    "please six quiet students wait behind the house",
    "hello the teacher wants seven red birds and a yellow table",
    "my happy student writes ten letters after the meeting tomorrow",
    "no train brings coffee before eight today but music again",
    "the big river opens slowly with three blue windows in your house",
)
KOREAN = ("우리 바다 오늘 음악 회의", "세시 커피 감사합니다 바다 회의")
"""espeak-ng tells the beginnings of all words of only some Korean sentences, and not where the last one ends."""
VOICES = {
    "flite_rms": ("flite", "rms", SENTENCES[:3]),
    "flite_slt": ("flite", "slt", SENTENCES[3:]),
    "flite_awb": ("flite", "awb", SENTENCES[1:5:2]),
    "espeak_annie": ("espeak", "en-us+Annie", SENTENCES[:3]),
    "espeak_max": ("espeak", "en-gb-x-rp+max", SENTENCES[3:]),
    "espeak_ko": ("espeak", "ko", KOREAN),
}


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word and its seconds."""

    text: str
    start_s: float
    end_s: float


def main() -> None:
    """Make them all."""
    espeak, flite = Espeak(), Flite()
    for name, (engine, voice, sentences) in VOICES.items():
        speaker = espeak if engine == "espeak" else flite
        make(name, "ko" if voice == "ko" else "en", [speaker.speak(line.split(), voice) for line in sentences])


def make(name: str, language: str, spoken: list[tuple[np.ndarray, list[Spoken]]]) -> None:
    """Write `name`.ogg and `name`.json."""
    parts: list[np.ndarray] = []
    utterances = []
    for samples, words in spoken:
        at_s = sum(map(len, parts)) / RATE_HZ
        first, last = round(words[0].start_s * RATE_HZ), round(words[-1].end_s * RATE_HZ)
        margin = np.zeros(round(MARGIN_S * RATE_HZ))
        parts += [margin, samples[first:last], margin]
        shift_s = at_s + MARGIN_S - first / RATE_HZ
        moved = [Spoken(w.text, round(w.start_s + shift_s, 4), round(w.end_s + shift_s, 4)) for w in words]
        end_s = sum(map(len, parts)) / RATE_HZ
        utterances.append({"start_s": at_s, "end_s": end_s, "words": [asdict(word) for word in moved]})
    audio = np.concatenate(parts)
    audio += np.random.default_rng(len(audio)).normal(size=len(audio)) * NOISE_RMS
    soundfile.write(
        HERE / f"{name}.ogg",
        audio.clip(-32000, 32000) / 32768,
        RATE_HZ,
        format="OGG",
        subtype="OPUS",
        compression_level=0.97,
    )
    lines = ",\n".join(json.dumps(utterance, ensure_ascii=False) for utterance in utterances)
    truth = f'{{"language": "{language}", "utterances": [\n{lines}\n]}}\n'
    (HERE / f"{name}.json").write_text(truth, encoding="utf-8")


class Espeak:
    """libespeak-ng, synchronous, with its word events."""

    SYNCHRONOUS, UTF8, RATE, PITCH, WORD_EVENT = 2, 1, 1, 3, 1
    WORDS_PER_MIN, PITCH_PERCENT = 155, 50

    class Event(ctypes.Structure):
        """espeak_EVENT."""

        _fields_ = (
            ("type", ctypes.c_int),
            ("identifier", ctypes.c_uint),
            ("text_position", ctypes.c_int),
            ("length", ctypes.c_int),
            ("audio_position", ctypes.c_int),
            ("sample", ctypes.c_int),
            ("user_data", ctypes.c_void_p),
            ("id", ctypes.c_char * 8),
        )

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._rate_hz = self._library.espeak_Initialize(self.SYNCHRONOUS, 0, None, 0)
        self._blocks: list[np.ndarray] = []
        self._starts: dict[int, float] = {}
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(self.Event))
        self._callback = kind(self._receive)  # kept: the library calls it later
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type:
            if events[i].type == self.WORD_EVENT:
                self._starts.setdefault(events[i].text_position, events[i].sample / self._rate_hz)
            i += 1
        return 0

    def speak(self, words: list[str], voice: str) -> tuple[np.ndarray, list[Spoken]]:
        """The sentence at 16 kHz, int16's range, and its words."""
        assert self._library.espeak_SetVoiceByName(voice.encode()) == 0, voice
        self._library.espeak_SetParameter(self.RATE, self.WORDS_PER_MIN, 0)
        self._library.espeak_SetParameter(self.PITCH, self.PITCH_PERCENT, 0)
        self._blocks, self._starts = [], {}
        text = " ".join(words).encode() + b"."
        self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, self.UTF8, None, None)
        samples = resampled(np.concatenate(self._blocks), self._rate_hz)
        first_s, last_s = sounding(samples)
        positions = np.cumsum([1] + [len(word) + 1 for word in words[:-1]])
        starts = [self._starts[int(position)] for position in positions]
        starts[0] = max(starts[0], float(first_s))
        edges = [*starts, last_s]
        return samples, [Spoken(word, a, b) for word, a, b in zip(words, edges, edges[1:], strict=False)]


class Flite:
    """libflite, with the segments of its utterances."""

    START = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"
    END = b"R:SylStructure.daughtern.daughtern.R:Segment.end"

    class Wave(ctypes.Structure):
        """cst_wave."""

        _fields_ = (
            ("type", ctypes.c_char_p),
            ("rate_hz", ctypes.c_int),
            ("count", ctypes.c_int),
            ("channels", ctypes.c_int),
            ("samples", ctypes.POINTER(ctypes.c_short)),
        )

    def __init__(self) -> None:
        self._library = library = ctypes.CDLL("libflite.so.1", ctypes.RTLD_GLOBAL)
        for part in ("usenglish", "cmulex"):
            ctypes.CDLL(f"libflite_{part}.so.1", ctypes.RTLD_GLOBAL)
        library.flite_init()
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, answer, arguments in (
            ("flite_synth_text", pointer, [text, pointer]),
            ("utt_relation", pointer, [pointer, text]),
            ("relation_head", pointer, [pointer]),
            ("item_next", pointer, [pointer]),
            ("ffeature_float", ctypes.c_float, [pointer, text]),
            ("utt_wave", ctypes.POINTER(self.Wave), [pointer]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = answer, arguments

    def speak(self, words: list[str], voice: str) -> tuple[np.ndarray, list[Spoken]]:
        """The sentence at 16 kHz, int16's range, and its words."""
        register = getattr(ctypes.CDLL(f"libflite_cmu_us_{voice}.so.1"), f"register_cmu_us_{voice}")
        register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        utterance = self._library.flite_synth_text((" ".join(words) + ".").encode(), register(None))
        wave = self._library.utt_wave(utterance).contents
        samples = np.ctypeslib.as_array(wave.samples, (wave.count,)).copy()
        spoken = []
        item = self._library.relation_head(self._library.utt_relation(utterance, b"Word"))
        for word in words:
            edges = (self._library.ffeature_float(item, edge) for edge in (self.START, self.END))
            spoken.append(Spoken(word, *edges))
            item = self._library.item_next(item)
        assert not item, f"flite says other words than {words}"
        return resampled(samples, wave.rate_hz), spoken


def resampled(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """`samples` at 16 kHz: float64, int16's range."""
    return np.asarray(resample_poly(samples.astype(np.float64), RATE_HZ, rate_hz))


def sounding(samples: np.ndarray) -> tuple[float, float]:
    """Seconds of the first and the last sound."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    level = np.sqrt(np.mean(frames**2, axis=1))
    loud = np.flatnonzero(level > level.max() * QUIET)
    return float(loud[0]) * 0.01, float(loud[-1] + 1) * 0.01


if __name__ == "__main__":
    main()
