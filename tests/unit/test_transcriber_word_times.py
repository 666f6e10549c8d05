from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.spoken_letters import spoken_letters
from deployments.transcriber.word_times import FRAME_SAMPLES, place, silences
from deployments.types import SAMPLE_RATE_HZ, Audio, Span

WORDS = ("the", "old", "doctor", "sees", "my", "garden", "and", "writes", "letters")
LETTER_S = 0.07


def said(pauses_s: dict[int, float], floor: float = 3.0) -> tuple[Audio, list[Span]]:
    """Noise as long as the words' letters, each as loud as it likes, with `pauses_s` before some; and when that is."""
    draw = np.random.default_rng(1)
    parts, spans, at_s = [], [], 0.0
    for number, word in enumerate(WORDS):
        for sounds, length_s in ((False, pauses_s.get(number, 0.0)), (True, len(word) * LETTER_S)):
            frames = round(length_s * 100)
            scale = 1500 * 2 ** draw.uniform(-1, 1) if sounds else floor
            parts.append(draw.normal(scale=scale, size=frames * FRAME_SAMPLES))
            if sounds:
                spans.append(Span(start_s=at_s, end_s=at_s + frames / 100))
            at_s += frames / 100
    return np.concatenate(parts).astype(np.int16), spans


def attended(spans: list[Span], early_s: float, scatter_s: float = 0.04) -> list[float]:
    """Starts as the attention gives them: early, scattered, and in a pause's middle for the word behind it."""
    draw = np.random.default_rng(2)
    ends = [0.0, *(span.end_s for span in spans)]
    starts = [(end + span.start_s) / 2 for end, span in zip(ends, spans, strict=False)]
    return [max(0.0, start - early_s + draw.normal(scale=scatter_s)) for start in starts]


def errors_s(found: list[Span] | None, spans: list[Span]) -> list[float]:
    assert found is not None
    return [abs(a.start_s - b.start_s) for a, b in zip(found, spans, strict=True)]


@pytest.mark.parametrize("early_s", [0.0, 0.07, 0.16])
def test_an_offset_that_nobody_told_is_found(early_s: float) -> None:
    """However early the attention is, pauses and letters show it: no constant is known."""
    audio, spans = said({0: 0.3, 3: 0.5, 6: 0.4})
    found = errors_s(place(attended(spans, early_s), WORDS, silences(audio, None)), spans)
    assert np.median(found) <= 0.045
    assert max(found) <= 0.12


def test_no_word_lies_over_a_pause() -> None:
    """The attention gives a pause to the words beside it; they end where it begins, and begin where it ends."""
    audio, spans = said({3: 1.2, 6: 0.3})
    placed = place(attended(spans, 0.1), WORDS, silences(audio, None))
    assert placed is not None
    for number in (3, 6):
        assert placed[number - 1].end_s == pytest.approx(spans[number - 1].end_s, abs=0.03)
        assert placed[number].start_s == pytest.approx(spans[number].start_s, abs=0.03)


@pytest.mark.parametrize("pause_s", [0.7, 2.0, 9.0])
def test_a_word_behind_a_pause_starts_with_its_sound(pause_s: float) -> None:
    """The attention gives all of the pause to the word behind it, however long: that is at its sound, like the next."""
    audio, spans = said({3: pause_s})
    starts = attended(spans, 0.1)
    starts[3] = spans[2].end_s - 0.1
    placed = place(starts, WORDS, silences(audio, None))
    assert placed is not None
    assert placed[2].end_s == pytest.approx(spans[2].end_s, abs=0.03)
    assert placed[3].start_s == pytest.approx(spans[3].start_s, abs=0.03)
    assert placed[4].start_s == pytest.approx(spans[4].start_s, abs=0.12)


@pytest.mark.parametrize(
    ("texts", "stays"),
    [(("Thank", "you."), True), (("시청해주셔서", "감사합니다."), True), (("Yes.",), False)],
)
def test_words_that_begin_in_a_pause_stay_there(texts: tuple[str, ...], stays: bool) -> None:  # noqa: FBT001
    """Several: there they tell that they are invented (`unheard_words.py`). A single one may be the first behind it."""
    audio, spans = said({3: 6.0})
    starts = attended(spans, 0.1)
    inside = [spans[2].end_s + 1 + number for number in range(len(texts))]
    starts[3:] = [*inside, spans[3].start_s - 0.1, *starts[4:]]
    words = [*WORDS[:2], WORDS[2] + ".", *texts, *WORDS[3:]]
    placed = place(starts, words, silences(audio, None))
    assert placed is not None
    pause = Span(start_s=spans[2].end_s + 0.5, end_s=spans[3].start_s - 0.5)
    lie = [placed[3 + number].overlap_s(pause) > 0 for number in range(len(texts))]
    assert lie == [stays] * len(texts)
    assert all(pause.overlap_s(word) == 0 for word in (*placed[:3], *placed[3 + len(texts) :]))


def test_in_noise_the_detector_knows_of_pauses() -> None:
    """Where the pause is as loud as the speech the level shows nothing: the detector's spans do."""
    audio, spans = said({3: 1.2}, floor=1500.0)
    speech = [Span(start_s=spans[0].start_s, end_s=spans[2].end_s), Span(start_s=spans[3].start_s, end_s=9.0)]
    pause = Span(start_s=spans[2].end_s + 0.1, end_s=spans[3].start_s - 0.1)

    def over(found: list[Span] | None) -> float:
        assert found is not None
        return sum(word.overlap_s(pause) for word in found)

    assert over(place(attended(spans, 0.1), WORDS, silences(audio, None))) > 0.3
    assert over(place(attended(spans, 0.1), WORDS, silences(audio, speech))) == 0


@settings(max_examples=60, deadline=None)
@given(
    starts_s=st.lists(st.floats(0, 3), min_size=1, max_size=40),
    silent=st.lists(st.booleans(), min_size=1, max_size=30),
)
def test_words_are_inside_in_order_and_apart(starts_s: list[float], silent: list[bool]) -> None:
    """Whatever the attention and the sound: each word has time of its own, inside the sound, or there is no answer."""
    frames = np.repeat(silent, 10)
    words = ["word"] * len(starts_s)
    placed = place(sorted(starts_s), words, frames)
    assert (placed is None) == (2 * len(words) > len(frames))
    for word in placed or ():
        assert 0 <= word.start_s < word.end_s <= len(frames) / 100
    for before, after in pairwise(placed or ()):
        assert before.end_s <= after.start_s


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01, 0.1])
def test_next_to_no_sound(seconds: float) -> None:
    """Less than a frame, a frame, ten: nothing is raised."""
    audio = np.full(round(seconds * SAMPLE_RATE_HZ), 900, np.int16)
    silent = silences(audio, [])
    assert len(silent) == int(seconds * 100 + 1e-6)
    assert (place([0.0], ["word"], silent) is None) == (len(silent) < 2)


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("Hello,", 5),
        ("기차도", 6),
        ("감사합니다", 12),
        ("今", 3),
        ("42", 8),
        ("\u2013", 1),
        ("café", 4),
        ("ありがとう", 15),
    ],
)
def test_how_long_a_word_is(word: str, count: float) -> None:
    """Letters; Hangul by its letters; a sign for a syllable or word is three, a digit four."""
    assert spoken_letters(word) == count
