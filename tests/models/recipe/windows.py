"""What the small Whisper is trained on: windows of several utterances, and all that is known about their frames.

Knows nothing of the network. A window's encoder frames are 20 ms, two of the spectrum's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from tests.models.recipe import spectra
from tests.models.recipe.sentences import VOCABULARY
from tests.models.recipe.tokens import END, NO_SPEECH, NO_TIMESTAMPS, START, TRANSCRIBE
from tests.models.recipe.whisper import MEL_BANDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tests.models.recipe.spectra import Heard
    from tests.models.recipe.tokens import TrainedTokens

IGNORED = -100
QUARTERS = 5
"""Classes of "which quarter of its word a frame is in"; 0 for no word."""
WORD_NUMBERS = {word: i + 1 for i, word in enumerate(VOCABULARY)}
WORDS = len(WORD_NUMBERS) + 1
KOREAN_SHARE, SILENT_SHARE = 0.12, 0.015
MOST_FILLED = 0.93
STOP_FRAMES = 10
"""Where a full stop is looked for: behind its sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Windows of one length, as tensors.

    `mel`: (batch, 80, frames). `tokens`, `targets`: (batch, tokens), `IGNORED` where nothing is asked. `words`,
    `quarters`: (batch, frames / 2). `looks`: (batch, tokens, frames / 2), 1 where the token to come is said;
    `looking`: (batch, tokens), 1 where that is known.
    """

    mel: Tensor
    tokens: Tensor
    targets: Tensor
    words: Tensor
    quarters: Tensor
    looks: Tensor
    looking: Tensor


@dataclass(slots=True)
class Window:
    """One window while it is being filled. `spans`: encoder frames per token, None where they are not known."""

    mel: np.ndarray
    words: np.ndarray
    quarters: np.ndarray
    tokens: list[int] = field(default_factory=list)
    spans: list[tuple[int, int] | None] = field(default_factory=list)
    end: int = 0

    @classmethod
    def of(cls, frames: int) -> Window:
        """An empty one."""
        silence = np.full((MEL_BANDS, frames), spectra.FLOOR, np.float32)
        return cls(silence, np.zeros(frames // 2, np.int64), np.zeros(frames // 2, np.int64))


class WindowMaker:
    """Draws windows from a corpus."""

    def __init__(self, corpus: Sequence[Heard], tokens: TrainedTokens, seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        self._tokens = tokens
        self._noises = spectra.noises(seed)
        self._pools: dict[str, list[Heard]] = {}
        for each in corpus:
            for pool in (each.language, _speaker(each)):
                self._pools.setdefault(pool, []).append(each)

    def batch(self, count: int, frames: int) -> Batch:
        """`count` windows of `frames` (of 10 ms)."""
        made = [self._window(frames) for _ in range(count)]
        longest = max(len(tokens) for _, tokens, _ in made)
        end = self._tokens.number(END)
        tokens = torch.full((count, longest), end)
        targets = torch.full((count, longest), IGNORED)
        looks, looking = torch.zeros(count, longest, frames // 2), torch.zeros(count, longest)
        for i, (window, given, asked) in enumerate(made):
            tokens[i, : len(given)] = torch.tensor(given)
            targets[i, : len(asked)] = torch.tensor(asked)
            for j, span in enumerate(window.spans):
                if span and span[0] < frames // 2:
                    looks[i, j, span[0] : span[1]] = 1
                    looking[i, j] = 1
        return Batch(
            mel=torch.from_numpy(np.stack([window.mel for window, _, _ in made])),
            tokens=tokens,
            targets=targets,
            words=torch.from_numpy(np.stack([window.words for window, _, _ in made])),
            quarters=torch.from_numpy(np.stack([window.quarters for window, _, _ in made])),
            looks=looks,
            looking=looking,
        )

    def _window(self, frames: int) -> tuple[Window, list[int], list[int]]:
        """A window, the tokens that the decoder is given, and those that are asked of it."""
        draw, number = self._draw, self._tokens.number
        korean = "ko" in self._pools and draw.random() < KOREAN_SHARE
        language = "ko" if korean else "en"
        silent = draw.random() < SILENT_SHARE
        window = Window.of(frames)
        if silent:
            window.end = int(draw.integers(20, frames))
        else:
            self._fill(window, language)
        self._record(window, noisy=silent or draw.random() < 0.7)
        given = [number(START), number(f"<|{language}|>"), number(TRANSCRIBE), number(NO_TIMESTAMPS), *window.tokens]
        first = number(NO_SPEECH) if silent else given[1]
        window.spans = [None, None, None, *window.spans, window.spans[-1] if window.spans else None]
        return window, given, [first, IGNORED, IGNORED, *window.tokens, number(END)]

    def _fill(self, window: Window, language: str) -> None:
        """Lay utterances into the window with gaps, half of the time all of one speaker."""
        draw, frames = self._draw, window.mel.shape[1]
        wanted = frames * MOST_FILLED * draw.random() ** 0.8 if draw.random() < 0.8 else 100
        pool, at = self._pools[language], int(draw.integers(0, 41)) * int(draw.random() < 0.5)
        one_speaker = draw.random() < 0.5
        while window.end < wanted or not window.tokens:
            each = pool[draw.integers(len(pool))]
            first, last = self._cut(each)
            if at + last - first > frames - 5:
                if window.tokens:
                    break
                if each.mel.shape[1] > frames - 5:
                    continue
                at, first, last = 0, 0, each.mel.shape[1]
            self._lay(window, each, at, first, last)
            window.end = at + last - first
            at = window.end + round(draw.uniform(5, draw.choice([40, 120])))
            if one_speaker:
                pool = self._pools[_speaker(each)]

    def _cut(self, each: Heard) -> tuple[int, int]:
        """Frames from which on and up to which it is heard: a detector cuts close to the words."""
        length = each.mel.shape[1]
        if each.times_s is None:
            return 0, length
        before = max(0, int(each.times_s[0][0] * spectra.FRAMES_PER_S) - 2)
        after = max(0, length - int(each.times_s[-1][1] * spectra.FRAMES_PER_S) - 2)
        return int(self._draw.integers(0, before + 1)), length - int(self._draw.integers(0, after + 1))

    def _lay(self, window: Window, each: Heard, at: int, first: int, last: int) -> None:
        mel = spectra.from_another_throat(self._draw, each.mel[:, first:last].astype(np.float32))
        window.mel[:, at : at + last - first] = mel + 2 * self._draw.uniform(-0.25, 0.25)
        window.tokens += self._tokens.of(each.words)
        if each.times_s is None:
            unknown = slice(at // 2, (at + last - first) // 2 + 1)
            window.words[unknown] = window.quarters[unknown] = IGNORED
            window.spans += [None] * (len(each.words) + 1)
            return
        j = 0
        for word, (start_s, end_s) in zip(each.words, each.times_s, strict=True):
            i, j = (int((at - first + edge_s * spectra.FRAMES_PER_S) / 2) for edge_s in (start_s, end_s))
            j = max(j, i + 1)
            part = window.words[i:j]
            part[:] = WORD_NUMBERS[word]
            window.quarters[i:j] = 1 + np.arange(len(part)) * 4 // (j - i)
            window.spans.append((i, j))
        window.spans.append((j, j + STOP_FRAMES))

    def _record(self, window: Window, *, noisy: bool) -> None:
        """What a room, a microphone and Whisper's feature extractor do to the spectrum; silence is what is behind."""
        draw, end = self._draw, min(window.mel.shape[1], window.end + int(self._draw.integers(0, 41)))
        mel = window.mel
        if noisy:
            mel[:, :end] = spectra.with_noise(draw, mel[:, :end], self._noises)
        mel = spectra.through_a_microphone(draw, mel)
        mel[:, end:] = spectra.FLOOR
        window.mel = spectra.with_a_gap(draw, spectra.normalized(mel))


def _speaker(each: Heard) -> str:
    """Who speaks, as far as a window of one speaker is concerned: espeak's variants of an accent count as one."""
    return f"{each.language} {each.voice.split('+')[0]}"
