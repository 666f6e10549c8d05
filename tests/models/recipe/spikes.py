"""What the small aligner is trained on: some seconds of utterances, and a letter where each letter is said.

whisperX's search pays for staying on a letter with the blank's probability, so each letter is one frame: the letters
of a word lie evenly over it, a delimiter ends it, and everything else is blank. Knows nothing of the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tests.models.recipe.sentences import KOREAN
from tests.models.recipe.synthesizers import RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tests.models.recipe.corpus import Utterance

BLANK, DELIMITER = "<pad>", "|"
LETTERS = (
    *(BLANK, "<s>", "</s>", "<unk>", DELIMITER, "'"),
    *"abcdefghijklmnopqrstuvwxyz",
    *sorted(set("".join(KOREAN))),
)
NUMBERS = {letter: i for i, letter in enumerate(LETTERS)}

STRIDE, RECEPTIVE_FIELD = 320, 400
"""Samples of wav2vec2's frames: one each 20 ms, each of 25 ms."""
CLIP_SAMPLES = 180 * STRIDE + RECEPTIVE_FIELD - STRIDE
"""3.6 s: 180 frames."""
KOREAN_SHARE = 0.1
RMS = 0.1
EDGE = 300
TRIES = 6


def frame_of(time_s: float) -> int:
    """The frame whose middle is nearest."""
    return round((time_s * RATE_HZ - RECEPTIVE_FIELD / 2) / STRIDE)


def frames_in(samples: int) -> int:
    """How many frames wav2vec2 makes of so many samples."""
    return (samples - RECEPTIVE_FIELD) // STRIDE + 1


class ClipMaker:
    """Draws clips of `CLIP_SAMPLES` from a corpus: those utterances whose word times are known."""

    def __init__(self, corpus: Sequence[Utterance], seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        timed = [each for each in corpus if each.times_s is not None]
        self._pools = {language: [e for e in timed if e.language == language] for language in ("en", "ko")}

    def batch(self, count: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Sound (count, samples), letters by frame (count, frames), and letters in order, for each clip."""
        made = [self._clip() for _ in range(count)]
        sounds, frames = (torch.from_numpy(np.stack(part)) for part in list(zip(*made, strict=True))[:2])
        return sounds, frames, [torch.tensor(letters, dtype=torch.long) for _, _, letters in made]

    def _clip(self) -> tuple[np.ndarray, np.ndarray, list[int]]:
        draw = self._draw
        language = "ko" if self._pools["ko"] and draw.random() < KOREAN_SHARE else "en"
        pool = self._pools[language]
        sound = np.zeros(CLIP_SAMPLES, np.float32)
        frames, letters = np.zeros(frames_in(CLIP_SAMPLES), np.int64), list[int]()
        at = int(draw.integers(0, 3001))
        tries = 0
        while tries < TRIES:
            each = pool[draw.integers(len(pool))]
            part, first = self._cut(each)
            if at + len(part) > CLIP_SAMPLES:
                tries += 1
                continue
            sound[at : at + len(part)] = part
            place(each, (at - first) / RATE_HZ, frames, letters)
            at += len(part) + int(draw.integers(800, 9001))
            if draw.random() < 0.1:
                break
        sound += self._noise()
        return sound * np.float32(10 ** (draw.uniform(-20, 6) / 20)), frames, letters

    def _cut(self, each: Utterance) -> tuple[np.ndarray, int]:
        """The utterance at some level, and how many samples are missing at its beginning."""
        assert each.times_s is not None
        draw, length = self._draw, len(each.samples)
        before = max(0, int(each.times_s[0][0] * RATE_HZ) - EDGE)
        after = max(0, length - int(each.times_s[-1][1] * RATE_HZ) - EDGE)
        first, last = int(draw.integers(0, before + 1)), length - int(draw.integers(0, after + 1))
        whole = each.samples.astype(np.float32)
        gain = RMS / np.sqrt(np.mean(whole**2) + 1e-9) * 10 ** (draw.uniform(-4, 4) / 20)
        return whole[first:last] * np.float32(gain), first

    def _noise(self) -> np.ndarray:
        """White, or half of the time brown without its slowest part."""
        noise = self._draw.normal(size=CLIP_SAMPLES)
        if self._draw.random() < 0.5:
            walked = np.cumsum(noise)
            noise = walked - np.convolve(walked, np.full(400, 1 / 400), "same")
            noise /= noise.std()
        return (noise * RMS * 10 ** (-self._draw.uniform(12, 50) / 20)).astype(np.float32)


def place(each: Utterance, shift_s: float, frames: np.ndarray, letters: list[int]) -> None:
    """Write an utterance's letters into `frames`, and in order behind `letters`, a delimiter between words."""
    assert each.times_s is not None
    starts = [frame_of(start_s + shift_s) for start_s, _ in each.times_s]
    for i, (word, (_, end_s)) in enumerate(zip(each.words, each.times_s, strict=True)):
        if letters:
            letters.append(NUMBERS[DELIMITER])
        letters += (NUMBERS[letter] for letter in word)
        first, end = max(0, starts[i]), min(len(frames) - 1, frame_of(end_s + shift_s))
        last = _spread(word, first, end, frames)
        delimiter = max(last + 1, end)
        if i + 1 < len(starts) and starts[i + 1] <= delimiter:  # the next word follows at once: one frame before it
            delimiter = starts[i + 1] - 1
        if last < delimiter < len(frames):
            frames[delimiter] = NUMBERS[DELIMITER]


def _spread(word: str, first: int, end: int, frames: np.ndarray) -> int:
    """One frame per letter, evenly from `first` to before `end`; returns the last one's."""
    last = -1
    for i, letter in enumerate(word):
        last = max(first + i * (end - first) // len(word), last + 1)
        if last < len(frames):
            frames[last] = NUMBERS[letter]
    return last
