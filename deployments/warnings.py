"""What a result's reader has to know of how it was made: codes of a closed list, and amounts. No sentences.

Stages make `ResultWarning`s; the server writes the sentences when the result is put together, and whoever shows a
result later can write them again in another language. Knows nothing of the stages.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class WarningCode(StrEnum):
    """All that a result may warn of. Part of the wire contract: docs/api.md has the list with each code's amounts."""

    AUDIO_DAMAGED = "AUDIO_DAMAGED"
    """Parts of the audio could not be decoded."""
    AUDIO_INCOMPLETE = "AUDIO_INCOMPLETE"
    """Of the audio that the file promises `seconds` are missing, `share` of all."""
    AUDIO_LONGER = "AUDIO_LONGER"
    """The audio is `seconds` longer than the file says."""
    LANGUAGE_UNCERTAIN = "LANGUAGE_UNCERTAIN"
    """The language was detected, and got a `share` of the vote that leaves doubts: `language`."""
    OTHER_LANGUAGE = "OTHER_LANGUAGE"
    """`seconds` of speech, `share` of all, are in another language than most, and were heard in it: `language`."""
    SPEECH_TOO_QUIET = "SPEECH_TOO_QUIET"
    """In `seconds` that may be speech, nothing was written: they are too quiet."""
    NOT_SPEECH = "NOT_SPEECH"
    """`seconds` of tones or steady noise, first taken for speech, were left out."""
    SILENT_TEXT_DROPPED = "SILENT_TEXT_DROPPED"
    """`count` texts that the recogniser wrote where probably nobody speaks were left out."""
    PHANTOM_DROPPED = "PHANTOM_DROPPED"
    """In `count` texts, phrases that recognisers invent in silence were left out."""
    LOOP_CUT = "LOOP_CUT"
    """In `count` texts, a phrase that the recogniser repeated again and again was cut to one."""
    REPEATED_TEXT_DROPPED = "REPEATED_TEXT_DROPPED"
    """`count` texts that the recogniser wrote again and again for minutes, which nothing speaks for, were left out."""
    UNHEARD_DROPPED = "UNHEARD_DROPPED"
    """`count` texts of which the aligner finds no word in the sound were left out."""
    SPEECH_UNCERTAIN = "SPEECH_UNCERTAIN"
    """`seconds` of speech were hard to understand: words there are uncertain, some may be invented."""
    ALIGNER_MISSING = "ALIGNER_MISSING"
    """No aligner is there for `language`: word times are interpolated in `seconds` of speech."""
    ALIGNMENT_FAILED = "ALIGNMENT_FAILED"
    """Alignment failed: word times are interpolated in `seconds` of speech."""
    DIARIZATION_FAILED = "DIARIZATION_FAILED"
    """Diarization failed: the whole video is given to one speaker."""
    PROSODY_FAILED = "PROSODY_FAILED"
    """Prosody failed: volume and pitch are floor values."""
    EMOTION_FAILED = "EMOTION_FAILED"
    """The emotion analysis failed: no emotions are given."""
    EMOTION_BY_RULES = "EMOTION_BY_RULES"
    """Emotions are estimated by rules, not by a trained model."""
    EMOTION_BY_VOICE = "EMOTION_BY_VOICE"
    """No word list is there for `language`: emotions in `seconds` of speech are judged by the voice alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultWarning:
    """One warning. Which amounts a code has is said at the code; the others are None."""

    code: WarningCode
    seconds: float | None = None
    """Of the video's time."""
    share: float | None = None
    """0-1."""
    count: int | None = None
    language: str | None = None
    """ISO 639-1."""

    @property
    def amounts(self) -> dict[str, float | int | str]:
        """Those that are known, by name."""
        return {name: value for name, value in asdict(self).items() if name != "code" and value is not None}


def merged(warnings: Iterable[ResultWarning]) -> list[ResultWarning]:
    """`warnings` of many chunks, each once, in the order of their first: seconds and counts are added up.

    What differs in another amount, such as the language, stays apart.
    """
    found: dict[ResultWarning, ResultWarning] = {}
    for warning in warnings:
        kind = replace(warning, seconds=None, count=None)
        before = found.get(kind, kind)
        found[kind] = replace(
            kind, seconds=_sum(before.seconds, warning.seconds), count=_sum(before.count, warning.count)
        )
    return list(found.values())


def from_mapping(values: Mapping[str, Any]) -> ResultWarning:
    """A warning of what `dataclasses.asdict` gave. Raises ValueError or TypeError where it is none."""
    return ResultWarning(**{**values, "code": WarningCode(values["code"])})


def _sum(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one + other
