from __future__ import annotations

import itertools
import subprocess
import sys
import tracemalloc
from functools import cache
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import prosody_truth as truth
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.prosody import tracks as tracks_module
from deployments.prosody.config import ProsodyConfig
from deployments.prosody.pitch import PitchRange
from deployments.prosody.registry import create
from deployments.prosody.tracks import BLOCK_FRAMES, tracks
from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ, Audio, Span, Tracks, join_tracks, pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEECH = np.concatenate([truth.real_call(), truth.man(), truth.woman(), truth.man()])
SPEECH.flags.writeable = False  # as Ray hands it out


BLOCK_PITCH = tracks_module._block_pitch


def whole(audio: Audio) -> Tracks:
    return tracks(audio, Span(start_s=0, end_s=audio.size / SAMPLE_RATE_HZ))


@pytest.fixture(scope="module")
def speech_whole() -> Tracks:
    """The tracks of all of `SPEECH`."""
    return whole(SPEECH)


def sine(amplitude: float, f0_hz: float = 200.0, duration_s: float = 1.0) -> Audio:
    times_s = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return np.round(32767 * amplitude * np.sin(2 * np.pi * f0_hz * times_s)).astype(np.int16)


def assert_same(one: Tracks, other: Tracks) -> None:
    assert one.start_s == other.start_s
    np.testing.assert_array_equal(one.f0_hz, other.f0_hz)
    np.testing.assert_array_equal(one.level_dbfs, other.level_dbfs)


# -- pieces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece_s", [30.0, 7.0, 19.99])
def test_pieces_joined_equal_the_whole(piece_s: float, speech_whole: Tracks) -> None:
    """Cutting the video changes nothing, bit by bit."""
    parts = [tracks(SPEECH, piece) for piece in pieces(SPEECH.size / SAMPLE_RATE_HZ, piece_s)]
    assert_same(join_tracks(parts), speech_whole)


@cache
def block_pitch_of_speech(start: int) -> NDArray[np.float32]:
    """What each piece computes, of which it uses a part; the same bit by bit, as the test above shows."""
    return BLOCK_PITCH(SPEECH, start, PitchRange())


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.floats(19, 21), max_size=2))
def test_any_cuts_joined_equal_the_whole(cuts: list[float], speech_whole: Tracks) -> None:
    """Wherever the cuts are, between frames too, every frame belongs to exactly one piece."""
    edges = [19.0, *sorted(cuts), 21.0]
    spans = [Span(start_s=start, end_s=end) for start, end in itertools.pairwise(edges)]
    with mock.patch.object(tracks_module, "_block_pitch", lambda _audio, start, _within: block_pitch_of_speech(start)):
        found = join_tracks([tracks(SPEECH, span) for span in spans])
    np.testing.assert_array_equal(found.f0_hz, speech_whole.f0_hz[1900:2100])
    np.testing.assert_array_equal(found.level_dbfs, speech_whole.level_dbfs[1900:2100])


def test_block_edges_do_not_show(monkeypatch: pytest.MonkeyPatch, speech_whole: Tracks) -> None:
    """The context is long enough: cut into 40 times as many blocks, all but stray frames are the same."""
    monkeypatch.setattr(tracks_module, "BLOCK_FRAMES", 50)
    same = np.isclose(whole(SPEECH).f0_hz, speech_whole.f0_hz, rtol=1e-3, equal_nan=True)
    assert same.mean() > 0.99


def test_context_decides_what_an_edge_alone_cannot() -> None:
    """Just after a block's edge the voice turns rough for 120 ms: 200 Hz or 100? What came before it tells."""
    pulses = np.zeros((BLOCK_FRAMES + 200) * SAMPLE_RATE_HZ // FRAMES_PER_S)
    edge = BLOCK_FRAMES * SAMPLE_RATE_HZ // FRAMES_PER_S
    pulses[edge - 32_000 :: 80] = 1.0
    pulses[edge - 400 : edge + 1920 : 160] = 0.77
    found = whole(truth.to_audio(np.convolve(pulses, np.exp(-np.arange(60) / 12), mode="same"))).f0_hz
    np.testing.assert_allclose(found[BLOCK_FRAMES - 100 : BLOCK_FRAMES + 100], 200, rtol=0.02)


def test_frames_lie_on_whole_hundredths(speech_whole: Tracks) -> None:
    """A piece that starts between two frames gets the later one, and says so."""
    found = tracks(SPEECH, Span(start_s=3.004, end_s=4.004))
    assert found.start_s == 3.01
    np.testing.assert_array_equal(found.f0_hz, speech_whole.f0_hz[301:401])
    assert tracks(SPEECH, Span(start_s=0.07, end_s=0.14)).f0_hz.size == 7  # 0.07 * 100 is a little more than 7


def test_join_refuses_a_gap() -> None:
    """A lost piece is an error and not a shift in time."""
    first, _, third = (tracks(SPEECH, piece) for piece in pieces(3.0, 1.0))
    with pytest.raises(ValueError, match="do not follow"):
        join_tracks([first, third])
    with pytest.raises(ValueError, match="no tracks"):
        join_tracks([])


def test_beyond_the_audio_is_silence() -> None:
    """A video longer than its sound, and no sound at all, give silent frames and no error."""
    found = tracks(sine(0.5), Span(start_s=0, end_s=3))
    assert found.f0_hz.shape == found.level_dbfs.shape == (300,)
    assert np.isfinite(found.f0_hz[5:95]).all()
    assert np.isnan(found.f0_hz[105:]).all()
    assert (found.level_dbfs[101:] == -120).all()
    assert np.isnan(tracks(np.zeros(0, np.int16), Span(start_s=0, end_s=1)).f0_hz).all()
    assert tracks(sine(0.5), Span(start_s=0, end_s=0)).f0_hz.size == 0


def test_tracks_are_float32_and_the_audio_is_left_alone() -> None:
    """What crosses to the next stage has the promised types; the shared audio is not written to."""
    before = SPEECH.copy()
    found = tracks(SPEECH, Span(start_s=0, end_s=2))
    assert found.f0_hz.dtype == found.level_dbfs.dtype == np.float32
    np.testing.assert_array_equal(SPEECH, before)


# -- level ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.003])
def test_level_of_a_sine_is_its_rms(amplitude: float) -> None:
    """The formula: 20 log10 of amplitude over the root of 2."""
    level_dbfs = whole(sine(amplitude)).level_dbfs[1:]
    np.testing.assert_allclose(level_dbfs, 20 * np.log10(amplitude / np.sqrt(2)), atol=0.1)


def test_level_has_a_floor_and_a_ceiling() -> None:
    """Digital silence is -120, a full-scale square wave 0."""
    assert (whole(np.zeros(16_000, np.int16)).level_dbfs == -120).all()
    square = np.where(np.arange(16_000) % 80 < 40, 32767, -32768).astype(np.int16)
    np.testing.assert_allclose(whole(square).level_dbfs[1:], 0, atol=0.01)


def test_mean_power_of_the_frames_is_that_of_the_samples(speech_whole: Tracks) -> None:
    """No sample is counted twice or lost, so that words can be measured from the track."""
    level_dbfs = speech_whole.level_dbfs[100:200].astype(np.float64)
    samples = SPEECH[100 * 160 - 80 : 200 * 160 - 80] / 32768
    assert np.mean(10 ** (level_dbfs / 10)) == pytest.approx(np.mean(samples**2), rel=1e-4)


def test_frame_i_is_centred_at_its_time() -> None:
    """Sound that begins at 0.5 s: frame 50 is half in it, frame 49 is silent, frame 51 is full."""
    audio = np.concatenate([np.zeros(8000, np.int16), sine(0.5, f0_hz=1000)])
    level_dbfs = whole(audio).level_dbfs
    assert level_dbfs[49] == -120
    assert level_dbfs[51] - level_dbfs[50] == pytest.approx(3.01, abs=0.1)


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_video(speech_whole: Tracks) -> None:
    """Block by block: four times as much audio needs no more memory beside its own tracks."""

    def peak_bytes(repeats: int) -> int:
        audio = np.tile(SPEECH, repeats)
        tracemalloc.start()
        whole(audio)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    long = peak_bytes(4)
    assert long < 1.05 * peak_bytes(1) + 3 * 8 * speech_whole.f0_hz.size
    assert long < 40e6


def test_settings_reach_the_engine() -> None:
    """A tone below the configured range is not found at its own pitch."""
    narrow = create(ProsodyConfig(f0_min_hz=150, f0_max_hz=400))
    found = narrow.tracks(sine(0.5, f0_hz=100), Span(start_s=0, end_s=1)).f0_hz
    assert not np.any(np.abs(found / 100 - 1) < 0.2)
    wide = create(ProsodyConfig())
    assert np.nanmedian(wide.tracks(sine(0.5, f0_hz=100), Span(start_s=0, end_s=1)).f0_hz) == pytest.approx(
        100, rel=0.01
    )


def test_settings_refuse_nonsense() -> None:
    """Unknown engines, unknown names and a range upside down stop the start-up."""
    for bad in ({"engine": "praat"}, {"f0_min": 60}, {"f0_min_hz": 200, "f0_max_hz": 300}):
        with pytest.raises(ValidationError):
            ProsodyConfig.model_validate(bad)


def test_settings_are_light() -> None:
    """Reading the settings does not load signal processing."""
    code = "import sys, deployments.prosody.config; sys.exit(bool({'librosa', 'scipy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
