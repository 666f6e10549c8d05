"""espeak-ng, flite and festival: sentences said, and when each word is said by the synthesizer's own account.

Needs libespeak-ng, libflite (Debian: espeak-ng, flite) and the program festival with its voices, which tests do not.
Knows nothing of what is said, or why.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from scipy.signal import resample_poly

if TYPE_CHECKING:
    from collections.abc import Sequence

RATE_HZ = 16_000
QUIET = 0.02
"""Of the loudest 10 ms: below, nothing sounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A word and its seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """A sentence that was said.

    `samples`: shape (n,), float64, int16's range, 16 kHz. `words` is empty where the synthesizer lost track of them.
    """

    samples: np.ndarray
    words: tuple[Spoken, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A sentence for festival. `stretch` makes it slower; `speed` is applied to the sound: pitch and formants too."""

    words: tuple[str, ...]
    voice: str
    stretch: float = 1.0
    speed: float = 1.0


class Espeak:
    """libespeak-ng, synchronous, with its word events.

    It tells where words begin: one ends where the next begins, and the last where the sound does.
    """

    SYNCHRONOUS, UTF8, RATE, PITCH, WORD_EVENT = 2, 1, 1, 3, 1

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

    def speak(
        self,
        words: Sequence[str],
        voice: str,
        *,
        words_per_min: int = 155,
        pitch_percent: int = 50,
        speed: float = 1.0,
    ) -> Speech:
        """Say it, in a voice such as `en-us+f3`. Raises ValueError for a voice that espeak-ng does not have."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng has no voice {voice}")
        self._library.espeak_SetParameter(self.RATE, words_per_min, 0)
        self._library.espeak_SetParameter(self.PITCH, pitch_percent, 0)
        self._blocks, self._starts = [], {}
        text = " ".join(words).encode() + b"."
        self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, self.UTF8, None, None)
        samples = np.concatenate(self._blocks)
        return said(samples, self._rate_hz, self._placed(words, samples), speed=speed)

    def _placed(self, words: Sequence[str], samples: np.ndarray) -> tuple[Spoken, ...]:
        positions = np.cumsum([1, *(len(word) + 1 for word in words[:-1])])
        starts = [self._starts.get(int(position)) for position in positions]
        known = [start for start in starts if start is not None]
        if len(known) < len(words) or np.any(np.diff(known) <= 0):
            return ()
        first_s, end_s = sounding(said(samples, self._rate_hz, ()).samples)
        edges = [max(known[0], first_s), *known[1:], end_s]
        return tuple(Spoken(text=w, start_s=a, end_s=b) for w, a, b in zip(words, edges, edges[1:], strict=False))


class Flite:
    """libflite: its phones' times, word by word."""

    START = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"
    END = b"R:SylStructure.daughtern.daughtern.R:Segment.end"

    class Voice(ctypes.Structure):
        """cst_voice, as far as it is needed."""

        _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))

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
        self._voices: dict[str, int] = {}
        self._library = library = ctypes.CDLL("libflite.so.1", ctypes.RTLD_GLOBAL)
        for part in ("usenglish", "cmulex"):
            ctypes.CDLL(f"libflite_{part}.so.1", ctypes.RTLD_GLOBAL)
        library.flite_init()
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float
        for name, answer, arguments in (
            ("flite_synth_text", pointer, [text, pointer]),
            ("utt_relation", pointer, [pointer, text]),
            ("relation_head", pointer, [pointer]),
            ("item_next", pointer, [pointer]),
            ("ffeature_float", number, [pointer, text]),
            ("ffeature_string", text, [pointer, text]),
            ("utt_wave", ctypes.POINTER(self.Wave), [pointer]),
            ("feat_set_float", None, [pointer, text, number]),
            ("delete_utterance", None, [pointer]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = answer, arguments

    def speak(
        self,
        words: Sequence[str],
        voice: str,
        *,
        stretch: float = 1.0,
        pitch_hz: float | None = None,
        speed: float = 1.0,
    ) -> Speech:
        """Say it, in one of `awb kal kal16 rms slt`; `pitch_hz` is heeded by the kals only."""
        made = self._voice(voice)
        features = ctypes.cast(made, ctypes.POINTER(self.Voice)).contents.features
        self._library.feat_set_float(features, b"duration_stretch", stretch)
        if pitch_hz is not None:
            self._library.feat_set_float(features, b"int_f0_target_mean", pitch_hz)
        utterance = self._library.flite_synth_text((" ".join(words) + ".").encode(), made)
        wave = self._library.utt_wave(utterance).contents
        samples = np.ctypeslib.as_array(wave.samples, (wave.count,)).copy()
        spoken = self._placed(utterance)
        rate_hz = wave.rate_hz
        self._library.delete_utterance(utterance)
        return said(samples, rate_hz, spoken if same_words(spoken, words) else (), speed=speed)

    def _voice(self, name: str) -> int:
        if name not in self._voices:
            register = getattr(ctypes.CDLL(f"libflite_cmu_us_{name}.so.1"), f"register_cmu_us_{name}")
            register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            self._voices[name] = register(None)
        return self._voices[name]

    def _placed(self, utterance: int) -> tuple[Spoken, ...]:
        spoken = []
        item = self._library.relation_head(self._library.utt_relation(utterance, b"Word"))
        while item:
            text = self._library.ffeature_string(item, b"name").decode().lower()
            start_s, end_s = (self._library.ffeature_float(item, edge) for edge in (self.START, self.END))
            spoken.append(Spoken(text=text, start_s=start_s, end_s=end_s))
            item = self._library.item_next(item)
        return tuple(spoken)


FESTIVAL_WORDS = """(define (words u file)
  (let ((f (fopen file "w")))
    (mapcar
      (lambda (w) (format f "%s %f %f\\n" (item.name w) (item.feat w "word_start") (item.feat w "word_end")))
      (utt.relation.items u 'Word))
    (fclose f)))
"""


def festival(lines: Sequence[Line]) -> list[Speech]:
    """All `lines`, in order, by one run of the program, voice by voice."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        order = sorted(range(len(lines)), key=lambda i: lines[i].voice)
        script = folder / "script.scm"
        script.write_text(FESTIVAL_WORDS + "".join(_festival_line(lines[i], folder / str(i)) for i in order))
        subprocess.run(["festival", "-b", script], check=True, capture_output=True)
        return [_festival_speech(line, folder / str(i)) for i, line in enumerate(lines)]


def _festival_line(line: Line, path: Path) -> str:
    return (
        f"(voice_{line.voice}) (Parameter.set 'Duration_Stretch {line.stretch:.2f})"
        f'(set! u (utt.synth (Utterance Text "{" ".join(line.words)}.")))'
        f'(utt.save.wave u "{path}.wav" \'riff) (words u "{path}.txt")\n'
    )


def _festival_speech(line: Line, path: Path) -> Speech:
    samples, rate_hz = soundfile.read(f"{path}.wav", dtype="int16")
    rows = [row.split() for row in Path(f"{path}.txt").read_text().splitlines()]
    spoken = tuple(Spoken(text=text.lower(), start_s=float(start), end_s=float(end)) for text, start, end in rows)
    return said(samples, rate_hz, spoken if same_words(spoken, line.words) else (), speed=line.speed)


def same_words(spoken: Sequence[Spoken], words: Sequence[str]) -> bool:
    """Whether the synthesizer said just `words`: it may have put a number or a letter in other ones."""
    return [each.text for each in spoken] == list(words)


def said(samples: np.ndarray, rate_hz: int, words: tuple[Spoken, ...], *, speed: float = 1.0) -> Speech:
    """The speech at 16 kHz, `speed` times as fast: higher, too, as from a shorter vocal tract."""
    ratio = Fraction(RATE_HZ, round(rate_hz * speed)).limit_denominator(500)
    moved = resample_poly(samples.astype(np.float64), ratio.numerator, ratio.denominator)
    share = len(moved) / RATE_HZ / (len(samples) / rate_hz)
    scaled = (Spoken(text=w.text, start_s=w.start_s * share, end_s=w.end_s * share) for w in words)
    return Speech(samples=np.asarray(moved), words=tuple(scaled) if speed != 1 else words)


def sounding(samples: np.ndarray) -> tuple[float, float]:
    """Seconds of the first and the last sound."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    level = np.sqrt(np.mean(frames**2, axis=1))
    loud = np.flatnonzero(level > level.max() * QUIET)
    return float(loud[0]) * 0.01, float(loud[-1] + 1) * 0.01
