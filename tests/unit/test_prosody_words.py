from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.prosody.tracks import tracks
from deployments.prosody.words import UNKNOWN, measure
from deployments.types import SAMPLE_RATE_HZ, Segment, Span, Tracks, Word, WordProsody

NAN = np.nan


def track(f0_hz: list[float], level_dbfs: float | list[float] = -20.0, start_s: float = 0.0) -> Tracks:
    """Tracks with each of `f0_hz` held for 100 ms."""
    f0 = np.repeat(np.array(f0_hz, np.float32), 10)
    return Tracks(start_s=start_s, f0_hz=f0, level_dbfs=np.broadcast_to(np.float32(level_dbfs), f0.shape).copy())


def segment(*edges_s: tuple[float, float], speaker: int = 0) -> Segment:
    words = tuple(Word(start_s=start, end_s=end, text="word") for start, end in edges_s)
    ends = [end for _, end in edges_s] or [0.0]
    return Segment(start_s=edges_s[0][0] if edges_s else 0.0, end_s=max(ends), speaker=speaker, words=words)


def only(found: list[tuple[WordProsody, ...]]) -> list[WordProsody]:
    return [word for words in found for word in words]


# -- volume -----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(start_s=st.floats(0, 8), duration_s=st.floats(0.03, 1.5))
def test_volume_is_the_rms_of_the_words_samples(start_s: float, duration_s: float) -> None:
    """Against numpy on the samples themselves: a sound that keeps changing, words with any edges."""
    audio = _SWELLING
    word = segment((start_s, start_s + duration_s))
    samples = Span(start_s=start_s, end_s=start_s + duration_s).of(audio) / 32768
    expected = 20 * np.log10(np.sqrt(np.mean(samples**2)))
    assert only(measure(_SWELLING_TRACKS, [word]))[0].volume_db == pytest.approx(expected, abs=0.5)


def _swelling() -> np.ndarray:
    times_s = np.arange(10 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    gain = 10 ** (-1 + 0.7 * np.sin(2 * np.pi * 0.7 * times_s))
    return (np.clip(np.random.default_rng(2).normal(0, 0.15, times_s.size) * gain, -1, 1) * 32767).astype(np.int16)


_SWELLING = _swelling()
_SWELLING_TRACKS = tracks(_SWELLING, Span(start_s=0, end_s=10))


def test_volume_is_clipped_to_the_contract() -> None:
    """Never below -60 nor above 0, whatever the track says."""
    assert only(measure(track([200], -90), [segment((0, 0.1))]))[0].volume_db == -60
    assert only(measure(track([200], 1), [segment((0, 0.1))]))[0].volume_db == 0


def test_volume_is_a_mean_of_power_and_not_of_decibels() -> None:
    """Half the word at -20 dB, half silent: -23 dB."""
    level_dbfs = [-20.0] * 10 + [-120.0] * 10
    volume_db = only(measure(track([200, 200], level_dbfs), [segment((-0.005, 0.195))]))[0].volume_db
    assert volume_db == pytest.approx(-20 - 10 * np.log10(2), abs=0.01)


# -- pitch ------------------------------------------------------------------------------------------------------------


def test_pitch_is_the_median_of_the_voiced_frames() -> None:
    """Unvoiced frames do not count, an octave slip in a few frames does not either."""
    (word,) = only(measure(track([NAN, 200, 210, 440, NAN]), [segment((0, 0.5))]))
    assert word == WordProsody(volume_db=pytest.approx(-20), pitch_hz=210, voiced=True)


def test_pitch_is_clipped_to_the_contract() -> None:
    """A deep voice reads 100, a shriek 1000; both are voiced."""
    found = only(measure(track([70, 1049]), [segment((0, 0.09), (0.1, 0.19))]))
    assert [(word.pitch_hz, word.voiced) for word in found] == [(100, True), (1000, True)]


def test_unvoiced_word_is_interpolated_over_time() -> None:
    """Between two voiced neighbours by its place in time and not in the row; at the ends the nearest one."""
    heard = track([NAN, 200, NAN, NAN, NAN, 300, NAN])
    found = only(measure(heard, [segment(*((i / 10, i / 10 + 0.09) for i in (0, 1, 2, 4, 5, 6)))]))
    assert [round(word.pitch_hz) for word in found] == [200, 200, 225, 275, 300, 300]
    assert [word.voiced for word in found] == [False, True, False, False, True, False]


def test_neighbours_of_another_segment_do_not_count_but_the_speakers_median_does() -> None:
    """In a segment without any voice the speaker's own median over the video is taken, not the next speaker's pitch."""
    heard = track([120, 140, 140, NAN, 250, NAN])
    found = measure(
        heard,
        [
            segment((0, 0.29), speaker=7),
            segment((0.3, 0.39), speaker=7),
            segment((0.4, 0.49), speaker=1),
            segment((0.5, 0.59), speaker=1),
        ],
    )
    assert [words[0].pitch_hz for words in found] == [140, 140, 250, 250]
    assert [words[0].voiced for words in found] == [True, False, True, False]


def test_the_speakers_median_is_over_frames_of_the_whole_video() -> None:
    """A long word counts for more than a short one, a later one as much as an earlier one."""
    heard = track([NAN, 150, 300, 300, 300])
    found = measure(heard, [segment((0, 0.09)), segment((0.1, 0.19)), segment((0.2, 0.49))])
    assert [words[0].pitch_hz for words in found] == [300, 150, 300]


def test_speaker_without_any_voice_reads_100() -> None:
    """The last resort of the contract."""
    found = measure(track([NAN, 200]), [segment((0, 0.09), speaker=0), segment((0.1, 0.19), speaker=1)])
    assert found[0][0] == WordProsody(volume_db=pytest.approx(-20), pitch_hz=100, voiced=False)


# -- odd words --------------------------------------------------------------------------------------------------------


def test_word_of_no_length_reads_the_frame_at_its_time() -> None:
    """Some recognisers give start equal to end."""
    (word,) = only(measure(track([200, 300]), [segment((0.15, 0.15))]))
    assert (word.pitch_hz, word.voiced) == (300, True)
    assert word.volume_db == pytest.approx(-20)


def test_word_beyond_the_tracks_has_the_floor_values() -> None:
    """Times that no frame covers are no error."""
    assert only(measure(track([200]), [segment((5, 6))])) == [UNKNOWN]
    assert only(measure(track([]), [segment((0, 1))])) == [UNKNOWN]


def test_tracks_that_start_later_are_read_at_the_right_place() -> None:
    """The track's own start counts, not its first index."""
    (word,) = only(measure(track([200, 300], start_s=10), [segment((10.1, 10.19))]))
    assert word.pitch_hz == 300


def test_shape_of_the_answer_is_that_of_the_segments() -> None:
    """One tuple per segment, one value per word, also where there are none."""
    found = measure(track([200]), [segment(), segment((0, 0.05), (0.05, 0.1))])
    assert [len(words) for words in found] == [0, 2]
    assert measure(track([200]), []) == []


_TIMES = st.floats(-1, 3)


@settings(max_examples=150, deadline=None)
@given(
    f0_hz=st.lists(st.one_of(st.just(NAN), st.floats(40, 1200, width=32)), max_size=12),
    level=st.floats(-120, 3, width=32),
    words=st.lists(st.lists(st.tuples(_TIMES, _TIMES), max_size=4), max_size=4),
    speakers=st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
def test_every_value_is_within_the_contract(f0_hz: list, level: float, words: list, speakers: list[int]) -> None:
    """Whatever the tracks and the word times: finite numbers within bounds, in the shape of the segments."""
    given_segments = [segment(*edges, speaker=speaker) for edges, speaker in zip(words, speakers, strict=False)]
    found = measure(track(f0_hz, level), given_segments)
    assert [len(of_words) for of_words in found] == [len(edges) for edges in words]
    for word in only(found):
        assert -60 <= word.volume_db <= 0
        assert 100 <= word.pitch_hz <= 1000
        assert isinstance(word.voiced, bool)
