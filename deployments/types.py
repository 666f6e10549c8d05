"""What all stages share: the form of audio, and the value objects that pass between stages.

Times are seconds from the start of the video, unless a docstring says "relative". Audio is always mono at
`SAMPLE_RATE_HZ`, int16, as a read-only array (Ray hands arrays out read-only): copy before writing in place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.warnings import ResultWarning  # noqa: TC001 - checkpoints are decoded by the fields' types

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SAMPLE_RATE_HZ = 16_000
FRAMES_PER_S = 100
"""Rate of the prosody tracks: one frame every 10 ms."""
CHANNEL_GAP_S = 1.0
"""Silence behind each channel where channels are kept apart: no window of a stage hears two of them at once."""
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters of scripts without spaces, for a regular expression's brackets: kana and Han, not Hangul."""
_CJK_SIGNS = "\u3000-\u303f\uff00-\uff65"
_SPACE_WITHIN_CJK = re.compile(rf"(?<=[{CJK}{_CJK_SIGNS}]) (?=[{CJK}{_CJK_SIGNS}])")

Audio: TypeAlias = NDArray[np.int16]
"""Shape (samples,), int16, mono, 16 kHz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An interval of time."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s

    def overlap_s(self, other: Span) -> float:
        """Return the seconds that both spans cover, 0 where they do not overlap."""
        return max(0.0, min(self.end_s, other.end_s) - max(self.start_s, other.start_s))

    def of(self, audio: Audio) -> Audio:
        """Return the samples of `audio`, which starts at 0 s, inside this span: a view, no copy."""
        return audio[round(self.start_s * SAMPLE_RATE_HZ) : round(self.end_s * SAMPLE_RATE_HZ)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Span):
    """Uninterrupted speech of one speaker, as the diarization found it. `speaker` is an arbitrary number."""

    speaker: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Word(Span):
    """A recognised word with two different scores, each 0-1, or None where it was not computed."""

    text: str
    probability: float | None = None
    """The recogniser's probability of the word."""
    alignment_score: float | None = None
    """The acoustic aligner's mean probability of the word's letters at the time where it was placed. A word that is not
    in the sound has a score near 0, however sure the recogniser is."""
    interpolated: bool = False
    """Whether its times are a share of its utterance's time by letters, and its `probability` is the utterance's."""

    @property
    def confidence(self) -> float | None:
        """The `confidence` of the wire contract: the alignment score where there is one, else the probability."""
        return self.probability if self.alignment_score is None else self.alignment_score


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance(Span):
    """The recogniser's text for one stretch of speech. `words` is empty until the words have times."""

    text: str
    words: tuple[Word, ...] = ()
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """The recogniser's answer for one chunk.

    `language` is an ISO 639-1 code; `auto` where the recogniser was to find it and there is no text.
    """

    language: str
    device: str = "cpu"
    """Where it was computed: `cpu` or `cuda`."""
    utterances: tuple[Utterance, ...] = ()
    warnings: tuple[ResultWarning, ...] = ()
    dropped: int = 0
    """Not used: a job that runs while the server is updated reads it. It goes with the next release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emotion:
    """The emotion of a segment; `confidence` is 0-1."""

    label: str
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """Pitch and level over time. Frame i is centred at `start_s + i / FRAMES_PER_S`.

    `f0_hz`: shape (frames,), float32, NaN where unvoiced.
    `level_dbfs`: shape (frames,), float32, RMS level of the frame, floor -120.
    """

    start_s: float
    f0_hz: NDArray[np.float32]
    level_dbfs: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class WordProsody:
    """Level and pitch of a word: RMS level in dBFS within [-60, 0], median F0 in Hz within [100, 1000].

    `voiced` is False where the word has no voiced frame and `pitch_hz` comes from its neighbours.
    """

    volume_db: float
    pitch_hz: float
    voiced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(Span):
    """Consecutive words of one speaker, the unit of the result."""

    speaker: int
    words: tuple[Word, ...]
    confidence: float | None = None
    language: str = ""
    """ISO 639-1; empty where the language is not known."""

    @property
    def text(self) -> str:
        """The words, joined as `joined` does."""
        return joined(word.text for word in self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """What extraction found out about the audio; `duration_s` is the media file's, or that of the part of it.

    Where `channels` is more than 1, the array has them one after the other, each with as many of the `samples`; each
    ends with `CHANNEL_GAP_S` of silence.
    """

    duration_s: float
    samples: int
    sha256: str
    warnings: tuple[ResultWarning, ...] = ()
    channels: int = 1

    @property
    def sound_s(self) -> float:
        """Seconds of the audio, which may end before the picture does."""
        return self.samples / SAMPLE_RATE_HZ


def joined(texts: Iterable[str]) -> str:
    """Join `texts` by single spaces, but by nothing between Chinese or Japanese characters and punctuation."""
    return _SPACE_WITHIN_CJK.sub("", " ".join(texts))


def pieces(total_s: float, piece_s: float) -> Iterator[Span]:
    """Yield consecutive spans of `piece_s` that cover `total_s`, the last one shorter. Each is for one stage call."""
    count = max(1, int(np.ceil(total_s / piece_s)))
    for i in range(count):
        yield Span(start_s=i * piece_s, end_s=min(total_s, (i + 1) * piece_s))


def join_tracks(parts: Sequence[Tracks]) -> Tracks:
    """Join the tracks of consecutive pieces. Raises ValueError where there are none, or where there is a gap."""
    if not parts:
        raise ValueError("no tracks to join")
    expected_s = parts[0].start_s
    for part in parts:
        if abs(part.start_s - expected_s) > 0.5 / FRAMES_PER_S:
            raise ValueError(f"tracks at {part.start_s} s do not follow {expected_s} s")
        expected_s += part.f0_hz.size / FRAMES_PER_S
    return Tracks(
        start_s=parts[0].start_s,
        f0_hz=np.concatenate([part.f0_hz for part in parts]),
        level_dbfs=np.concatenate([part.level_dbfs for part in parts]),
    )
