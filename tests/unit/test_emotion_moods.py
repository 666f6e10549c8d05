from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import emotion_voices as voices
import numpy as np
import pytest

from deployments.emotion import config as emotion
from deployments.emotion.arousal import Arousal
from deployments.emotion.lexical import LexicalEvidence
from deployments.emotion.prosodic_lexical import CEILING, judge, mood_shares
from deployments.emotion.protocol import LABELS, analyze
from deployments.emotion.registry import create

if TYPE_CHECKING:
    from collections.abc import Iterable

AUDIO = np.zeros(0, np.int16)
ENGINE = create(emotion.EmotionConfig())
CALM = voices.Voice(text="the meeting starts at nine and it takes an hour")
RAISED = {"level_dbfs": -20.0, "f0_hz": 160.0, "swing_st": 2.5}
LOWERED = {"level_dbfs": -38.0, "f0_hz": 100.0, "swing_st": 0.4}


@pytest.mark.parametrize(
    ("text", "voice", "label"),
    [
        ("this is wonderful news i love it", RAISED, "happy"),
        ("this is the worst service i have ever had", RAISED, "angry"),
        ("we lost everything and i miss him terribly", LOWERED, "sad"),
        ("the train leaves from platform four at noon", {}, "neutral"),
        ("the train leaves from platform four at noon", RAISED, "neutral"),
        ("i am so afraid of that terrible man", RAISED, "fearful"),
        ("this is disgusting and filthy", {}, "disgusted"),
        ("wow that is an unbelievable surprise", RAISED, "surprised"),
    ],
)
def test_words_and_voice_give_the_expected_mood(text: str, voice: dict[str, float], label: str) -> None:
    """Each quadrant of valence and arousal has its mood; a raised voice over plain words is none; named moods win."""
    turns = [(0, CALM)] * 8 + [(0, voices.Voice(**voice, text=text))]
    *rest, judged = analyze(ENGINE, AUDIO, *voices.scene(turns))
    assert judged is not None
    assert judged.label == label
    assert {emotion.label for emotion in rest if emotion} == {"neutral"}


def test_a_loud_speaker_is_not_an_angry_one() -> None:
    """Who always speaks loud and high gets the judgements of one who always speaks softly, for the same words."""
    text = "i am sorry i do not like it"
    loud, soft = (voices.Voice(level_dbfs=-10, f0_hz=300, text=text), voices.Voice(level_dbfs=-40, f0_hz=90, text=text))
    judged = analyze(ENGINE, AUDIO, *voices.scene([(0, loud), (1, soft)] * 5))
    assert len({emotion.label for emotion in judged if emotion}) == 1
    assert None not in judged


def test_shares_are_monotonic() -> None:
    """More valence is never less happy; more arousal is never less happy or angry, and never sadder."""
    grid = np.linspace(-1, 1, 41)
    for arousal in (-0.5, 0.0, 0.5):
        assert _rises(_shares(valence=v, arousal=arousal)["happy"] for v in grid)
    for valence in (0.2, 0.5, 0.8):
        assert _rises(_shares(valence=valence, arousal=a)["happy"] for a in grid)
        assert _rises(_shares(valence=-valence, arousal=a)["angry"] for a in grid)
        assert _rises(-_shares(valence=-valence, arousal=a)["sad"] for a in grid)


def test_confidence_never_overclaims() -> None:
    """No words and no voice can bring more than the ceiling; less evidence brings less confidence."""
    clear = judge(_wording(-1.0, trust=1.0, cues=frozenset({"angry"})), Arousal(value=1.0, trust=1.0))
    weaker = judge(_wording(-1.0, trust=0.3, cues=frozenset({"angry"})), Arousal(value=1.0, trust=1.0))
    assert clear is not None
    assert weaker is not None
    assert weaker.confidence < clear.confidence <= CEILING
    for valence, arousal, trust in itertools.product((-1, -0.3, 0, 0.3, 1), (-1, 0, 1), (0.1, 1)):
        judged = judge(_wording(valence, trust=trust), Arousal(value=arousal, trust=trust))
        assert judged is not None
        assert judged.label in LABELS
        assert 0 < judged.confidence <= CEILING


def test_fear_disgust_and_surprise_need_a_word() -> None:
    """The voice and the lexicon's valence alone never give a mood that they cannot tell from its neighbours."""
    for valence, arousal in itertools.product(np.linspace(-1, 1, 21), repeat=2):
        shares = _shares(valence=valence, arousal=arousal)
        assert [shares[name] for name in ("fearful", "disgusted", "surprised")] == [0, 0, 0]
        assert sum(shares.values()) == pytest.approx(1)


def test_no_judgement_without_words() -> None:
    """Segments without words, or with words that were hardly heard, get None; silence under good words does not."""
    tracks, segments = voices.scene([(0, CALM), (0, voices.Voice(f0_hz=float("nan"), text="this is wonderful news"))])
    empty = voices.segment(0, 0)
    unheard = voices.segment(0, 2, text="this is wonderful", confidence=0.02)
    judged = analyze(ENGINE, AUDIO, tracks, [*segments, empty, unheard])
    assert judged[2:] == [None, None]
    assert judged[1] is not None
    assert judged[1].label == "happy"
    assert analyze(ENGINE, AUDIO, tracks, []) == []


def test_the_result_says_what_judged() -> None:
    """The version names engine and lexicon, and a warning that rules judged."""
    assert emotion.model_version(emotion.EmotionConfig()).startswith("prosodic-lexical-1+vader-3.")
    [warning] = emotion.warnings(emotion.EmotionConfig(), [])
    assert warning.code == "EMOTION_BY_RULES"


@pytest.mark.parametrize("language", ["ko", "de", ""])
def test_without_a_word_list_the_voice_alone_is_judged(language: str) -> None:
    """Words of another language say nothing, though English has them: plain voices are neutral, others are open."""
    turns = [(0, CALM)] * 8 + [(0, voices.Voice(**each, text="war gut hate love")) for each in (RAISED, LOWERED)]
    tracks, segments = voices.scene(turns)
    segments = [replace(each, language=language) for each in segments]
    judged = analyze(ENGINE, AUDIO, tracks, segments)
    assert [each and each.label for each in judged] == ["neutral"] * 8 + [None, None]
    assert all(each.confidence < CEILING for each in judged if each)
    warnings = emotion.warnings(emotion.EmotionConfig(), [*segments, voices.segment(0, 9, text="good")])
    assert {(each.code, each.language) for each in warnings} == {
        ("EMOTION_BY_RULES", None),
        ("EMOTION_BY_VOICE", language),
    }
    assert sum(each.seconds or 0 for each in warnings) == pytest.approx(20)


def test_config_loads_nothing_heavy() -> None:
    """Asking for the version imports neither the lexicon nor numpy's friends."""
    program = "import sys; import deployments.emotion.config; print({'vaderSentiment', 'torch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"


def _wording(valence: float, *, trust: float = 1.0, cues: frozenset[str] = frozenset()) -> LexicalEvidence:
    return LexicalEvidence(valence=valence, cues=cues, trust=trust)


def _shares(*, valence: float, arousal: float) -> dict[str, float]:
    return mood_shares(_wording(valence), Arousal(value=arousal, trust=1.0))


def _rises(values: Iterable[float]) -> bool:
    return all(a <= b + 1e-12 for a, b in itertools.pairwise(values))
