from __future__ import annotations

import emotion_voices as voices
import pytest

from deployments.emotion.arousal import UNKNOWN, arousals


@pytest.mark.parametrize(
    "rising",
    [
        [voices.Voice(level_dbfs=level) for level in (-36.0, -33.0, -24.0, -18.0)],
        [voices.Voice(f0_hz=f0) for f0 in (100.0, 110.0, 140.0, 170.0)],
        [voices.Voice(swing_st=swing) for swing in (0.25, 0.5, 2.0, 4.0)],
    ],
    ids=["level", "pitch", "range"],
)
def test_arousal_rises_with_each_trait(rising: list[voices.Voice]) -> None:
    """Louder, higher and livelier each raise the arousal, step by step, when the other two stay."""
    values = [_of_last(voice) for voice in rising]
    assert values == sorted(set(values))
    assert values[1] < 0 < values[2]


def test_the_norm_is_the_speakers_own() -> None:
    """A loud high voice and a soft low one, each steady in its way, are both at rest: nobody is angry by nature."""
    loud = voices.Voice(level_dbfs=-12, f0_hz=260)
    soft = voices.Voice(level_dbfs=-40, f0_hz=90)
    scene = voices.scene([(0, loud), (1, soft)] * 4)
    assert [arousal.value for arousal in arousals(*scene)] == pytest.approx([0] * 8, abs=0.02)


def test_the_same_voice_is_raised_for_one_and_calm_for_the_other() -> None:
    """The same sound is arousal for a soft speaker and rest for one who always sounds so."""
    same, soft = voices.Voice(level_dbfs=-20, f0_hz=180), voices.Voice(level_dbfs=-36, f0_hz=120)
    calm, *_, raised = arousals(*voices.scene([(0, same), (0, same), (1, soft), (1, soft), (1, soft), (1, same)]))
    assert calm.value == pytest.approx(0, abs=0.02)
    assert raised.value > 0.5


def test_trust_grows_with_the_speech_the_norm_rests_on() -> None:
    """One segment alone has no norm; the more else its speaker says, the more the norm is trusted."""
    voice = voices.Voice()
    trusts = [arousals(*voices.scene([(0, voice)] * count))[0].trust for count in (1, 2, 6, 30)]
    assert trusts[0] == 0
    assert trusts == sorted(trusts)
    assert 0.9 < trusts[-1] < 1


def test_no_voice_no_arousal() -> None:
    """Silence, a segment shorter than a tenth of a second, one outside the tracks and no segments at all: unknown."""
    tracks, segments = voices.scene([(0, voices.Voice()), (0, voices.Voice(f0_hz=float("nan")))])
    short = voices.segment(0.0, 0.05)
    beyond = voices.segment(1000.0, 1001.0)
    answers = arousals(tracks, [*segments, short, beyond])
    assert answers[0].value == pytest.approx(0, abs=0.02)
    assert answers[1:] == [UNKNOWN] * 3
    assert arousals(tracks, []) == []


def _of_last(voice: voices.Voice) -> float:
    """Arousal of a segment in `voice` after four in the ordinary voice of the same speaker."""
    return arousals(*voices.scene([(0, voices.Voice())] * 4 + [(0, voice)]))[-1].value
