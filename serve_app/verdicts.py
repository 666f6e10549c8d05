"""The verdicts on a result and their reasons: codes of closed lists, and what the command line calls them.

The console has the same texts in `serve_app/console/words.js`. Knows the wire format, and nothing of jobs or figures.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from deployments.warnings import WarningCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deployments.errors import Locale


class Verdict(StrEnum):
    """How far a result can be trusted as a whole."""

    GOOD = "good"
    """Nothing speaks against it."""
    DOUBTFUL = "doubtful"
    """Parts may be wrong: somebody should look."""
    POOR = "poor"
    """Much is wrong or missing: hardly usable."""


class Reason(StrEnum):
    """The codes of what speaks against a result; where there is a warning of the same matter, it is its code."""

    NO_SPEECH = "NO_SPEECH"
    """There is no word: nobody speaks, or nothing can be understood."""
    LOW_CONFIDENCE = "LOW_CONFIDENCE"
    """The recogniser was not sure of its words."""
    SPEECH_UNCERTAIN = WarningCode.SPEECH_UNCERTAIN.value
    """Much of the speech was hard to understand."""
    SPEECH_UNWRITTEN = "SPEECH_UNWRITTEN"
    """In much of what sounds like speech no word is written."""
    TEXT_DROPPED = "TEXT_DROPPED"
    """Much invented text was left out; more may have stayed."""
    LANGUAGE_UNCERTAIN = WarningCode.LANGUAGE_UNCERTAIN.value
    """The language may be another one."""
    LOW_SNR = "LOW_SNR"
    """The speech is hardly louder than the background."""
    AUDIO_CLIPPED = WarningCode.AUDIO_CLIPPED.value
    """Much of the audio is clipped."""
    AUDIO_DAMAGED = WarningCode.AUDIO_DAMAGED.value
    """Much of the audio is damaged or missing."""
    OVERLAPPED = "OVERLAPPED"
    """People often speak at once."""


VERDICTS: dict[Verdict, dict[Locale, str]] = {
    Verdict.GOOD: {"ko": "좋음", "en": "good"},
    Verdict.DOUBTFUL: {"ko": "확인 필요", "en": "doubtful"},
    Verdict.POOR: {"ko": "나쁨", "en": "poor"},
}
REASONS: dict[Reason, dict[Locale, str]] = {
    Reason.NO_SPEECH: {"ko": "알아들은 말이 없습니다", "en": "no word was understood"},
    Reason.LOW_CONFIDENCE: {
        "ko": "인식기가 확신하지 못한 단어가 많습니다",
        "en": "the recogniser was unsure of its words",
    },
    Reason.SPEECH_UNCERTAIN: {"ko": "알아듣기 어려운 말이 많습니다", "en": "much of the speech was hard to understand"},
    Reason.SPEECH_UNWRITTEN: {
        "ko": "말소리로 들리지만 단어를 적지 못한 곳이 많습니다",
        "en": "much that sounds like speech has no words",
    },
    Reason.TEXT_DROPPED: {"ko": "지어낸 텍스트를 여러 번 뺐습니다", "en": "much invented text was left out"},
    Reason.LANGUAGE_UNCERTAIN: {"ko": "언어가 확실하지 않습니다", "en": "the language is uncertain"},
    Reason.LOW_SNR: {"ko": "말소리가 주변 소음에 묻혀 있습니다", "en": "the speech is hardly louder than the noise"},
    Reason.AUDIO_CLIPPED: {"ko": "너무 크게 녹음되어 소리가 많이 잘렸습니다", "en": "much of the audio is clipped"},
    Reason.AUDIO_DAMAGED: {"ko": "손상되거나 빠진 오디오가 많습니다", "en": "much of the audio is damaged or missing"},
    Reason.OVERLAPPED: {"ko": "여러 사람이 동시에 말하는 때가 많습니다", "en": "people often speak at once"},
}


def quality_line(quality: Mapping[str, Any], locale: Locale) -> str:
    """Return the verdict of a result's `quality` and its reasons in one line; codes of a later release as they are."""
    verdict = _named(VERDICTS, str(quality.get("verdict")), locale)
    reasons = ", ".join(_named(REASONS, str(code), locale) for code in quality.get("reasons") or ())
    return f"{verdict} ({reasons})" if reasons else verdict


def _named(texts: Mapping[Any, Mapping[Locale, str]], code: str, locale: Locale) -> str:
    return texts[code][locale] if code in texts else code
