"""Places words in time: their starts by the recogniser's attention, corrected by the sound.

Attention finds a word's start with an offset that depends on the model and the voice, scattered by a tenth of a second,
and gives every pause to a neighbouring word. The search here moves starts and ends so that no word covers silence, that
a word's duration suits its letters, and that all starts are off by about the same time, which is estimated for each
chunk. Pauses are removed from the time axis before the search, except their last `PAUSE_FRAMES` frames, which no word
may cover.

Plain functions over arrays; knows nothing of models, tokens or jobs. Times are seconds from the chunk's start. The
search counts frames of 10 ms: frame t lasts from t to t + 1, so that boundaries are whole numbers, 0 to `frames`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from deployments.spoken_letters import spoken_letters
from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deployments.types import Audio

FRAME_SAMPLES: Final = SAMPLE_RATE_HZ // FRAMES_PER_S
PAUSE_S: Final = 0.3
"""No word covers a silence of this length."""
PAUSE_FRAMES: Final = 6
"""Frames of a pause that stay on the time axis: attention may put a start before the pause's end."""
SEVERAL: Final = 2
"""A silence in which attention puts the starts of so many words is no pause: in a pause only one word starts."""
REACH: Final = 60
"""Frames by which a word's start may differ from the attention's, in either direction, beside the offset."""
OFFSETS: Final = range(-4, 24, 4)
"""Candidate offsets: frames by which the attention may be early."""
COARSE: Final = 2
"""Step of the search for the offset, in frames."""
SHORTEST: Final = 2
"""Shortest word in frames."""
LONGEST: Final = 200
"""Longest word in frames: 2 s."""
LONGER: Final = 4.0
"""A word lasts no longer than so many times its expected duration."""
SMOOTHED: Final = 3
"""Frames over which the level is averaged."""
LEAST_CONTRAST_DB: Final = 15.0
"""Where loud and quiet frames differ by less, noise covers the pauses, and only the detector finds them."""
FLOOR_DB: Final = -120.0
_PAUSE_IN_WORD: Final = 1e3
"""Cost per frame: used only where nothing else is possible."""
_IMPOSSIBLE: Final = -1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights of the search in units of log-probability, chosen on synthesized voices (docs/decisions.md)."""

    spread: float = 9.0
    """Scale of the deviation of starts, in frames (Cauchy distribution)."""
    trust: float = 1.4
    doubt: float = 6.0
    """Divides the scores of the offsets' best paths when offsets are averaged."""
    duration: float = 0.28
    """Standard deviation of log(duration / expected duration) of a word."""
    gap: float = 2.3
    """Cost of a gap between words."""
    speech_in_gap: float = 0.55
    """Cost per frame of sound outside words."""
    silence_in_word: float = 0.6
    """Cost per silent frame inside a word."""
    short_silence: int = 6
    """A silence of fewer frames may be part of a word, such as the closure before `t`."""
    loudness: float = 0.28
    """Where sound begins, as a share of the range in dB between quiet and loud frames."""
    per_word: float = 0.3
    """Time that a word takes beside its letters, in letters."""


def silences(audio: Audio, speech: Sequence[Span] | None, by: Weights = Weights()) -> NDArray[np.bool_]:
    """Return which frames of `audio` are silent: shape (frames,), bool. Very short silences are not marked.

    A frame is silent by its level, where loud and quiet frames differ enough, or because it lies outside `speech`: the
    detected spans in seconds from the audio's start, None where they are not known.
    """
    frames = len(audio) // FRAME_SAMPLES
    silent = ~_detected(speech, frames)
    if not frames:
        return silent
    level_db = _level_db(audio, frames)
    floor_db, loud_db = np.quantile(level_db, (0.05, 0.95))
    if loud_db - floor_db >= LEAST_CONTRAST_DB:
        silent |= level_db < floor_db + by.loudness * (loud_db - floor_db)
    for start, end in _runs(silent):
        if end - start < by.short_silence and start > 0 and end < frames:
            silent[start:end] = False
    return silent


def _level_db(audio: Audio, frames: int) -> NDArray[np.float64]:
    """Return the smoothed RMS level of each frame in dBFS."""
    power = np.mean(audio[: frames * FRAME_SAMPLES].astype(np.float64).reshape(frames, FRAME_SAMPLES) ** 2, axis=1)
    level_db = 10 * np.log10(power / 32768**2 + 10 ** (FLOOR_DB / 10))
    return np.convolve(np.pad(level_db, SMOOTHED // 2, mode="edge"), np.ones(SMOOTHED) / SMOOTHED, "valid")


def _detected(speech: Sequence[Span] | None, frames: int) -> NDArray[np.bool_]:
    if speech is None:
        return np.ones(frames, bool)
    times_s = (np.arange(frames) + 0.5) / FRAMES_PER_S
    inside = [(times_s >= span.start_s) & (times_s < span.end_s) for span in speech]
    return np.any(inside, axis=0) if inside else np.zeros(frames, bool)


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the ranges in which `mask` is true, ends excluded."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def place(
    starts_s: Sequence[float], words: Sequence[str], silent: NDArray[np.bool_], by: Weights = Weights()
) -> list[Span] | None:
    """Return the span of each of `words`, in order and without overlap; None where they do not fit into the sound.

    `starts_s`: their starts by attention. `silent`: shape (frames,), see `silences`.
    """
    if not words or len(words) * SHORTEST > len(silent):
        return None
    starts = np.asarray(starts_s, float) * FRAMES_PER_S
    pauses, used = _pauses(starts, silent)
    if len(words) * SHORTEST > np.sum(used):
        used[:] = True
    passed = np.concatenate([[0], np.cumsum(used)])
    starts = _spaced(np.interp(starts, np.arange(len(passed)), passed), int(passed[-1]))
    expected = _expected(words, silent, by)
    costs = np.where(pauses, _PAUSE_IN_WORD, by.silence_in_word * silent)[used]
    offset = _offset(_Search(costs, by, np.array(OFFSETS), COARSE).run(starts, expected), by)
    search = _Search(costs, by, np.array([offset]), 1)
    search.run(starts, expected)
    at = np.flatnonzero(used)
    return [_sounding(int(at[start]), int(at[end - 1]) + 1, silent) for start, end in search.path()]


def _pauses(starts: NDArray[np.float64], silent: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which frames lie in a pause, and which are used by the search.

    A silence in which attention puts `SEVERAL` words is no pause: they are said and not detected, or hallucinated.
    Moved to the sound beside it, they would displace true words, and could not be recognised as hallucinated by their
    times (`deployments/hallucinations/unheard_words.py`).
    """
    pauses, used = np.zeros_like(silent), np.ones_like(silent)
    for start, end in _runs(silent):
        inside = np.sum((starts >= start) & (starts < end - OFFSETS[-1]))
        if end - start >= PAUSE_S * FRAMES_PER_S and inside < SEVERAL:
            pauses[start:end] = True
            used[start : end - PAUSE_FRAMES] = False
    return pauses, used


def _offset(scores: NDArray[np.float64], by: Weights) -> int:
    """Return the mean of `OFFSETS`, weighted by the likelihood of their best paths."""
    likely = np.exp((scores - scores.max()) / by.doubt)
    return round(float(likely @ np.array(OFFSETS) / likely.sum()))


def _spaced(starts: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """Return `starts` moved apart, and away from both ends, so that each word has at least `SHORTEST` frames."""
    room = np.arange(len(starts)) * SHORTEST
    latest = frames - len(starts) * SHORTEST
    spaced: NDArray[np.float64] = np.minimum(np.maximum.accumulate(starts - room), latest) + room
    return spaced


def _expected(words: Sequence[str], silent: NDArray[np.bool_], by: Weights) -> NDArray[np.float64]:
    """Return the expected frames of each word: the time of sound, divided by letters."""
    sizes = np.array([spoken_letters(word) for word in words]) + by.per_word
    shares: NDArray[np.float64] = np.maximum(sizes * (np.sum(~silent) / sizes.sum()), SHORTEST)
    return shares


def _sounding(start: int, end: int, silent: NDArray[np.bool_]) -> Span:
    """Return frames `start` to `end` in seconds, without silence at either end.

    Where a pause divides the word, its longer part is returned. A word that is all silent stays as it is.
    """
    parts: list[tuple[int, int]] = []
    for first, last in _runs(~silent[start:end]):
        if parts and first - parts[-1][1] < PAUSE_S * FRAMES_PER_S:
            parts[-1] = (parts[-1][0], last)
        else:
            parts.append((first, last))
    first, last = max(parts, key=lambda part: part[1] - part[0], default=(0, end - start))
    return Span(start_s=(start + first) / FRAMES_PER_S, end_s=(start + last) / FRAMES_PER_S)


@dataclass(frozen=True, slots=True)
class _Step:
    """The search's tables for one word. Columns are boundaries from `first_start` and `first_end` on (at offset 0)."""

    first_start: int
    first_end: int
    before: NDArray[np.intp]
    """Shape (offsets, starts): the column of the end of the word before."""
    start: NDArray[np.intp]
    """Shape (offsets, ends): the column of this word's best start."""
    score: NDArray[np.float64]
    """Shape (offsets, ends): the score of the best path that ends there."""


class _Search:
    """Finds the best path of all words for each of `offsets`, by Viterbi's algorithm on a grid of `step` frames.

    `costs`: cost of each frame inside a word; 0 for sound.
    """

    def __init__(self, costs: NDArray[np.float64], by: Weights, offsets: NDArray[np.intp], step: int) -> None:
        self._by = by
        self._step = step
        self._offsets = offsets // step
        self._size = len(costs) // step + 1
        at = np.arange(self._size) * step
        self._cost = np.concatenate([[0.0], np.cumsum(costs)])[at]
        self._speech = np.concatenate([[0], np.cumsum(costs == 0)])[at]
        self._steps: list[_Step] = []

    def run(self, starts: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
        """Search all words and return the score of the best path for each offset."""
        for start, length in zip(starts / self._step, expected / self._step, strict=True):
            self._add(round(float(start)) - REACH // self._step, float(length))
        best: NDArray[np.float64] = self._finished().max(axis=1)
        return best

    def path(self, which: int = 0) -> list[tuple[int, int]]:
        """Return the words' boundaries in frames on the best path of offset number `which`."""
        shift = int(self._offsets[which])
        column = int(np.argmax(self._finished()[which]))
        found: list[tuple[int, int]] = []
        for step in reversed(self._steps):
            start = int(step.start[which, column])
            edges = (step.first_start + start + shift, step.first_end + column + shift)
            found.append((edges[0] * self._step, edges[1] * self._step))
            column = int(step.before[which, start])
        return found[::-1]

    def _finished(self) -> NDArray[np.float64]:
        """Return the scores of whole paths, shape (offsets, ends of the last word)."""
        last = self._steps[-1]
        _, ends = self._columns(last.first_end, last.score.shape[1])
        after: NDArray[np.float64] = self._by.speech_in_gap * (self._speech[-1] - self._speech[ends])
        return last.score - after

    def _columns(self, first: int, count: int) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Return whether columns `first` to `first + count` lie inside the sound, and their boundaries."""
        at = first + self._offsets[:, None] + np.arange(count)
        return (at >= 0) & (at < self._size), np.clip(at, 0, self._size - 1)

    def _add(self, first: int, expected: float) -> None:
        """Add a word whose start is searched from column `first` on; `expected`: its expected duration in columns."""
        by, reach = self._by, REACH // self._step
        count = 2 * reach + 1
        inside, at = self._columns(first, count)
        deviation = (np.arange(count) - reach) * self._step / by.spread
        arrived, before = self._arrived(first, at)
        score = arrived - by.trust * np.log1p(deviation**2)
        score = np.where(inside, score, _IMPOSSIBLE) + self._cost[at]
        durations = _durations(count, expected, self._step, by)
        paths = score[:, :, None] + durations
        start = np.argmax(paths, axis=1)
        inside, ends = self._columns(first + 1, durations.shape[1])
        ended = np.take_along_axis(paths, start[:, None], axis=1)[:, 0] - self._cost[ends]
        self._steps.append(_Step(first, first + 1, before, start, np.where(inside, ended, _IMPOSSIBLE)))

    def _arrived(self, first: int, at: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Return the scores of the best paths to the starts `at`, from `first` on, and the ends of the word before."""
        spoken = self._by.speech_in_gap * self._speech[at]
        if not self._steps:
            return -spoken, np.zeros_like(at)
        last = self._steps[-1]
        count = last.score.shape[1]
        touching = first - last.first_end + np.arange(at.shape[1])
        known = (touching >= 0) & (touching < count)
        joined = np.where(known, last.score[:, np.clip(touching, 0, count - 1)], _IMPOSSIBLE)
        worth = last.score + self._by.speech_in_gap * self._speech[self._columns(last.first_end, count)[1]]
        best = np.maximum.accumulate(worth, axis=1)
        ended = np.maximum.accumulate(np.where(worth >= best, np.arange(count), 0), axis=1)
        earlier = np.clip(touching - 1, 0, count - 1)
        apart = np.where(touching > 0, best[:, earlier] - spoken - self._by.gap, _IMPOSSIBLE)
        return np.maximum(joined, apart), np.where(joined >= apart, np.clip(touching, 0, count - 1), ended[:, earlier])


def _durations(count: int, expected: float, step: int, by: Weights) -> NDArray[np.float64]:
    """Return the scores of durations, shape (`count` starts, ends); ends count from one column after the start."""
    longest = round(min(max(LONGER * expected, 2 * LONGEST / step / 5), LONGEST / step))
    lasts = np.arange(1, count + longest) - np.arange(count)[:, None]
    possible = (lasts >= 1) & (lasts <= longest)
    worth = -0.5 * (np.log(np.maximum(lasts, 1) / expected) / by.duration) ** 2
    return np.where(possible, worth, _IMPOSSIBLE)
