from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import prosody_truth as truth
import pytest
import pyworld

from deployments.prosody import pitch
from deployments.prosody.pitch import Opinion, opinion
from deployments.prosody.tracks import tracks
from deployments.types import SAMPLE_RATE_HZ, Span

if TYPE_CHECKING:
    from collections.abc import Callable

MAN, WOMAN, CHILD = "man 125 Hz", "woman 200 Hz", "child 380 Hz"


def f0_of(audio: np.ndarray) -> np.ndarray:
    return tracks(audio, Span(start_s=0, end_s=audio.size / SAMPLE_RATE_HZ)).f0_hz


def scored(known: truth.Known) -> truth.Score:
    return truth.score(f0_of(known.audio), known.f0_hz)


@pytest.mark.parametrize("harmonics", [1, 120])
@pytest.mark.parametrize("f0_hz", [60, 82.4, 100, 147, 220, 311, 464, 563, 681, 909, 1000])
def test_steady_tone_is_found_everywhere_within_five_cents(f0_hz: float, harmonics: int) -> None:
    """Over the whole range a sine and a bright sawtooth are voiced in all frames but the edges', and exactly placed."""
    found = f0_of(truth.tone(f0_hz, harmonics=harmonics).audio)[5:-5]
    assert np.isfinite(found).all()
    assert np.abs(1200 * np.log2(found / f0_hz)).max() < 5


@pytest.mark.parametrize("centre_hz", [110, 220, 440])
def test_vibrato_is_followed_frame_by_frame(centre_hz: float) -> None:
    """A swing of a semitone each way is tracked in time: no lag, hardly any flattening."""
    known = truth.vibrato(centre_hz)
    found = f0_of(known.audio)
    assert np.abs(1200 * np.log2(found / known.f0_hz))[5:-5].max() < 15


@pytest.mark.parametrize("voice", truth.VOICES)
def test_speech_of_known_pitch(voice: str) -> None:
    """Men, women, children and real telephone speech: gross errors in at most 2 % of the frames, voicing in 6 %."""
    score = scored(truth.speech(voice))
    assert score.gross <= 0.02
    assert score.voicing <= 0.06
    assert score.cents <= 15  # WORLD itself places pulses on whole samples


@pytest.mark.parametrize("voice", [MAN, WOMAN, CHILD])
@pytest.mark.parametrize("spoil", [truth.clipped, truth.quiet, truth.telephone])
def test_bad_recordings_keep_the_pitch(voice: str, spoil: Callable[[truth.Known], truth.Known]) -> None:
    """Overdriven, 60 dB too quiet, or without their fundamental: gross errors stay within 5 %, voicing within 15 %."""
    score = scored(spoil(truth.speech(voice)))
    assert score.gross <= 0.05
    assert score.voicing <= 0.15


@pytest.mark.parametrize("voice", truth.VOICES)
def test_the_octave_is_right_without_a_fundamental(voice: str) -> None:
    """Through a telephone's band, the deepest man's voice too: gross errors in at most 1 % of the frames."""
    score = scored(truth.telephone(truth.speech(voice)))
    assert score.gross <= 0.01
    assert score.voicing <= 0.08


def test_echoes_and_others_are_not_taken_for_the_voice() -> None:
    """In a room nine of ten frames called voiced are; where others talk behind, gross errors stay within 5 %."""
    man = truth.speech(MAN)
    assert scored(truth.reverberant(man)).precision >= 0.9
    assert scored(truth.among_others(man, snr_db=10)).gross <= 0.05


@pytest.mark.parametrize("voice", [MAN, WOMAN, CHILD])
@pytest.mark.parametrize(("snr_db", "voicing"), [(20, 0.10), (10, 0.16)])
def test_noise_makes_frames_unvoiced_and_not_wrong(voice: str, snr_db: float, voicing: float) -> None:
    """What noise covers is called unvoiced; what is still called voiced is right."""
    score = scored(truth.noisy(truth.speech(voice), snr_db=snr_db))
    assert score.gross <= 0.02
    assert score.voicing <= voicing


def test_silence_and_noise_have_no_pitch() -> None:
    """Digital silence, an idle converter's last bit and white noise are unvoiced."""
    idle = np.tile(np.repeat(np.array([0, 1], np.int16), 80), 500)  # a perfect 100 Hz square wave of one step
    assert np.isnan(f0_of(truth.silence().audio)).all()
    assert np.isnan(f0_of(idle)).all()
    assert np.isfinite(f0_of(truth.white_noise().audio)).mean() < 0.01


def test_a_click_does_not_silence_the_speech_around_it() -> None:
    """Loudness is judged beside the loud frames and not beside the loudest sample."""
    known = truth.speech(WOMAN)
    audio = known.audio // 32
    audio[50_000:50_020] = 32_000
    score = truth.score(f0_of(audio), known.f0_hz)
    assert score.gross <= 0.02
    assert score.voicing <= 0.06


def test_a_second_speaker_30_db_softer_is_still_voiced() -> None:
    """Somebody far from the microphone has a pitch too."""
    near, far = truth.speech(MAN), truth.speech(WOMAN)
    soft = (far.audio * 10 ** (-30 / 20)).astype(np.int16)
    score = truth.score(f0_of(np.concatenate([near.audio, soft]))[near.f0_hz.size :], far.f0_hz)
    assert score.gross <= 0.02
    assert score.voicing <= 0.10


def test_uneven_pulses_are_no_octave_down() -> None:
    """A voice whose every second pulse is a little weaker keeps its pitch, though its period is twice as long."""
    pulses = np.zeros(SAMPLE_RATE_HZ)
    pulses[::160] = 1.0
    pulses[80::160] = 0.93
    found = f0_of(truth.to_audio(np.convolve(pulses, np.exp(-np.arange(60) / 12), mode="same")))[5:-5]
    assert np.abs(found / 200 - 1).max() < 0.01


@pytest.mark.parametrize("recording", [truth.real_call, truth.man, truth.woman])
def test_agrees_with_another_method_on_an_untouched_recording(recording: Callable[[], np.ndarray]) -> None:
    """On speech as it was recorded, WORLD's DIO (another principle) says the same where both hear a voice."""
    samples = recording().astype(np.float64)
    rough_hz, times_s = pyworld.dio(samples, SAMPLE_RATE_HZ, f0_floor=60, f0_ceil=600, frame_period=10)
    other_hz = pyworld.stonemask(samples, rough_hz, times_s, SAMPLE_RATE_HZ)
    found_hz = f0_of(recording())
    other_hz = np.where(other_hz > 0, other_hz, np.nan)[: found_hz.size]
    assert truth.score(found_hz, other_hz).gross <= 0.05
    assert np.isfinite(found_hz[np.isfinite(other_hz)]).mean() > 0.8


def test_network_and_periodicity_are_heard_together() -> None:
    """Of two candidates the one that the network means gains; where it hears no voice both lose, whatever it means."""
    found = pitch.Candidates(
        f0_hz=np.full((3, 2), (100, 200), np.float32),
        strength=np.full((3, 2), (0.7, -np.inf), np.float32),
        peak=np.ones(3, np.float32),
    )
    heard = Opinion(f0_hz=np.array([101, 200, 100], np.float32), confidence=np.array([1, 1, 0], np.float32))
    weighed = pitch.weighed(found, heard)
    gains = weighed.strength[:, 0] - found.strength[:, 0]
    np.testing.assert_allclose(gains, [pitch.OPINION_WEIGHT, 0, -pitch.OPINION_WEIGHT], rtol=1e-5)
    assert (weighed.strength[:, 1] == -np.inf).all()
    np.testing.assert_array_equal(weighed.f0_hz, found.f0_hz)


@pytest.mark.parametrize("level", [1, 0.02])
def test_the_network_speaks_of_the_frames_that_were_asked_for(level: float) -> None:
    """A low voice, silence, a high voice: each frame gets what is at its own time, whatever the level."""
    low, high = (truth.voice(np.full(16_000, f0_hz), harmonics=20) / 32768 for f0_hz in (110.0, 330.0))
    samples = (np.concatenate([low, np.zeros(16_000), high]) * level).astype(np.float32)
    centres = np.arange(0, samples.size, truth.HOP)
    heard = opinion(samples, centres, peak=0.5 * level, between_hz=(60, 1000))
    assert heard.f0_hz.shape == heard.confidence.shape == (300,)
    np.testing.assert_allclose(heard.f0_hz[5:95], 110, rtol=0.03)
    np.testing.assert_allclose(heard.f0_hz[205:295], 330, rtol=0.03)
    is_voiced = heard.confidence > 0.5
    assert is_voiced[5:95].all()
    assert not is_voiced[105:195].any()
    assert is_voiced[205:295].all()


def test_the_network_runs_on_one_thread() -> None:
    """A replica asks for one core."""
    options = pitch._detector().session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_best_path_equals_trying_every_path() -> None:
    """The Viterbi search finds the best of all paths, on random candidates small enough to try them all."""
    rng = np.random.default_rng(5)
    for _ in range(5):
        found = pitch.Candidates(
            f0_hz=rng.uniform(60, 1000, (4, pitch.CANDIDATES)).astype(np.float32),
            strength=rng.uniform(0.2, 1.0, (4, pitch.CANDIDATES)).astype(np.float32),
            peak=rng.uniform(0.1, 1.0, 4).astype(np.float32),
        )
        np.testing.assert_array_equal(pitch.best_path(found), _best_of_all_paths(found))


def _best_of_all_paths(found: pitch.Candidates) -> np.ndarray:
    unvoiced = pitch.unvoiced_strength(found.peak)
    f0_hz = np.column_stack([np.full(len(unvoiced), np.nan), found.f0_hz])
    strength = np.column_stack([unvoiced, found.strength])

    def worth(path: tuple[int, ...]) -> float:
        total = sum(strength[i, choice] for i, choice in enumerate(path))
        for i, (before, after) in enumerate(itertools.pairwise(path)):
            if before and after:
                total -= pitch.OCTAVE_JUMP_COST * abs(np.log2(f0_hz[i, before] / f0_hz[i + 1, after]))
            elif before or after:
                total -= pitch.VOICING_CHANGE_COST
        return total

    best = max(itertools.product(range(pitch.CANDIDATES + 1), repeat=len(unvoiced)), key=worth)
    return f0_hz[np.arange(len(best)), best].astype(np.float32)
