"""Warnings of a result: codes of a closed list with amounts, without sentences.

Stages create `ResultWarning`s. The server writes a sentence for each when it assembles the result, and can write it
again later in another language. Knows nothing of the stages.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class WarningCode(StrEnum):
    """The codes of all warnings. Part of the wire contract: docs/api.md lists them with each code's amounts."""

    AUDIO_DAMAGED = "AUDIO_DAMAGED"
    """`seconds` of the audio, `share` of all, could not be decoded."""
    AUDIO_INCOMPLETE = "AUDIO_INCOMPLETE"
    """`seconds` of the audio that the file declares are missing, `share` of all."""
    AUDIO_LONGER = "AUDIO_LONGER"
    """The audio is `seconds` longer than the file declares."""
    AUDIO_GAPS = "AUDIO_GAPS"
    """In `count` places, `seconds` in all, the file has no audio: they are silence."""
    CLOCK_JUMPS = "CLOCK_JUMPS"
    """The file's clock jumps `count` times: times go on without the jumps."""
    AUDIO_CLIPPED = "AUDIO_CLIPPED"
    """`seconds` of the audio, `share` of all, are clipped: they were recorded too loud."""
    AUDIO_SILENT = "AUDIO_SILENT"
    """All `seconds` of the audio are silent."""
    CHANNELS_OPPOSED = "CHANNELS_OPPOSED"
    """In `seconds` of the audio, `share` of all, channels are out of phase; one of them was inverted."""
    CHANNELS_ALIKE = "CHANNELS_ALIKE"
    """All channels have the same sound, or there is only one: they were not kept apart."""
    TRACK_CHOSEN = "TRACK_CHOSEN"
    """Of `count` audio tracks number `track` was taken."""
    LANGUAGE_UNCERTAIN = "LANGUAGE_UNCERTAIN"
    """`language` was detected with a low `share` of the votes."""
    OTHER_LANGUAGE = "OTHER_LANGUAGE"
    """`seconds` of speech, `share` of all, are not in the main language and were transcribed in `language`."""
    VOCABULARY_CUT = "VOCABULARY_CUT"
    """The last `count` terms of the vocabulary were left out: the recogniser takes no more."""
    SPEECH_TOO_QUIET = "SPEECH_TOO_QUIET"
    """`seconds` that may be speech are too quiet and were not transcribed."""
    NOT_SPEECH = "NOT_SPEECH"
    """`seconds` of tones or steady noise, which the detector took for speech, were left out."""
    SILENT_TEXT_DROPPED = "SILENT_TEXT_DROPPED"
    """`count` texts for what is probably silence were left out."""
    PHANTOM_DROPPED = "PHANTOM_DROPPED"
    """In `count` texts phrases that recognisers are known to hallucinate over silence were left out."""
    LOOP_CUT = "LOOP_CUT"
    """In `count` texts a phrase that the recogniser repeated again and again was cut to one."""
    REPEATED_TEXT_DROPPED = "REPEATED_TEXT_DROPPED"
    """`count` texts that came in chunk after chunk and were doubtful were left out."""
    UNHEARD_DROPPED = "UNHEARD_DROPPED"
    """`count` texts were left out or cut: the sound does not confirm their words."""
    SPEECH_UNCERTAIN = "SPEECH_UNCERTAIN"
    """`seconds` of speech were hard to understand: words there are uncertain, some may be hallucinated."""
    ALIGNER_MISSING = "ALIGNER_MISSING"
    """There is no aligner for `language`: word times are interpolated in `seconds` of speech."""
    ALIGNMENT_FAILED = "ALIGNMENT_FAILED"
    """Alignment failed: word times are interpolated in `seconds` of speech."""
    FEWER_SPEAKERS = "FEWER_SPEAKERS"
    """`count` speakers were told apart, fewer than the job says there are."""
    DIARIZATION_FAILED = "DIARIZATION_FAILED"
    """Diarization failed: the whole video is given to one speaker."""
    PROSODY_FAILED = "PROSODY_FAILED"
    """Prosody failed: volume and pitch have their lowest values."""
    EMOTION_FAILED = "EMOTION_FAILED"
    """The emotion analysis failed: the result has no emotions."""
    EMOTION_BY_RULES = "EMOTION_BY_RULES"
    """Emotions are estimated by rules, not by a trained model."""
    EMOTION_BY_VOICE = "EMOTION_BY_VOICE"
    """There is no word list for `language`: emotions in `seconds` of speech are judged by voice only."""


OF_EVERY_CHUNK = frozenset({WarningCode.VOCABULARY_CUT})
"""Codes that each chunk of a job has with the same amounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultWarning:
    """A warning. Each code's docstring says which amounts it has; the others are None."""

    code: WarningCode
    seconds: float | None = None
    """Seconds of the video."""
    share: float | None = None
    """0-1."""
    count: int | None = None
    track: int | None = None
    """Number of an audio track, from 1."""
    language: str | None = None
    """ISO 639-1."""

    @property
    def amounts(self) -> dict[str, float | int | str]:
        """The amounts that are not None, by name."""
        return {name: value for name, value in asdict(self).items() if name != "code" and value is not None}


def merged(warnings: Iterable[ResultWarning]) -> list[ResultWarning]:
    """Merge the `warnings` of many chunks: seconds and counts are added up, in the order of first appearance.

    Warnings that differ in another amount, such as the language, stay apart. Those of `OF_EVERY_CHUNK` are told once.
    """
    found: dict[ResultWarning, ResultWarning] = {}
    for warning in warnings:
        kind = replace(warning, seconds=None, count=None)
        before = found.get(kind, kind)
        if before != kind and warning.code in OF_EVERY_CHUNK:
            continue
        found[kind] = replace(
            kind, seconds=_sum(before.seconds, warning.seconds), count=_sum(before.count, warning.count)
        )
    return list(found.values())


def from_mapping(values: Mapping[str, Any]) -> ResultWarning:
    """Return the warning that `dataclasses.asdict` turned into `values`.

    Raises ValueError or TypeError, also for AUDIO_DAMAGED without its amounts, as an earlier release stored it.
    """
    warning = ResultWarning(**{**values, "code": WarningCode(values["code"])})
    if warning.code is WarningCode.AUDIO_DAMAGED and warning.seconds is None:
        raise ValueError(warning.code)
    return warning


def _sum(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one + other
