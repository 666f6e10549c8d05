"""Puts the stages' answers together into the contract's result: plain functions over the shared types."""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from deployments.types import joined
from serve_app.warning_sentences import sentence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deployments.errors import Locale
    from deployments.types import Emotion, Segment, Word, WordProsody
    from deployments.warnings import ResultWarning
    from serve_app.jobs.stages import TimedStage

_NO_NAME = re.compile(r"[/\\\x00-\x1f\x7f]")


def result_of(
    locale: Locale,
    *,
    duration_s: float,
    language: str,
    language_probability: float | None,
    segments: Sequence[Segment],
    tells_languages: bool = False,
    prosody: Sequence[Sequence[WordProsody]],
    emotions: Sequence[Emotion | None] | None,
    filename: str,
    model_version: str,
    device: str,
    processing_s: float,
    stages_s: Mapping[TimedStage, float],
    warnings: Sequence[ResultWarning],
    quality: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the contract's `result` object, with the sentences of its warnings in `locale`.

    `language_probability`: of the detected `language`, 0-1; None where the request names the language. `emotions`: one
    for each segment; None where the request wants none or the stage failed. `tells_languages`: whether each segment
    has its `language`. `quality`: see
    `pipeline/quality.py`.
    """
    languages = [segment.language if tells_languages else "" for segment in segments]
    return {
        "text": joined(segment.text for segment in segments),
        "language": language,
        "duration": _rounded(duration_s),
        "metadata": {
            "filename": filename,
            "duration": _rounded(duration_s),
            "total_segments": len(segments),
            "unique_speakers": len({segment.speaker for segment in segments}),
            "model_version": model_version,
            "processing_time": _rounded(processing_s),
            "device": device,
            "stages": {stage.value: _rounded(seconds) for stage, seconds in stages_s.items()},
            "warnings": [sentence(warning, locale) for warning in warnings],
            "warning_codes": [_warning_object(warning) for warning in warnings],
            **({} if language_probability is None else {"language_probability": _rounded(language_probability)}),
            **({} if quality is None else {"quality": quality}),
        },
        "segments": [
            _segment_object(*each)
            for each in zip(segments, prosody, emotions or [None] * len(segments), languages, strict=True)
        ],
    }


def _segment_object(
    segment: Segment, prosody: Sequence[WordProsody], emotion: Emotion | None, language: str
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "start_time": _rounded(segment.start_s),
        "end_time": _rounded(segment.end_s),
        "speaker": {"speaker_id": f"SPEAKER_{segment.speaker:02d}"},
        "text": segment.text,
        "words": [_word_object(word, sound) for word, sound in zip(segment.words, prosody, strict=True)],
    }
    if segment.confidence is not None and math.isfinite(segment.confidence):
        content["confidence"] = _rounded(segment.confidence)
    if language:
        content["language"] = language
    if emotion is not None:
        content["emotion"] = {"label": emotion.label, "confidence": _rounded(emotion.confidence)}
    return content


def _word_object(word: Word, sound: WordProsody) -> dict[str, Any]:
    content: dict[str, Any] = {
        "word": word.text,
        "start": _rounded(word.start_s),
        "end": _rounded(word.end_s),
        "volume_db": _rounded(sound.volume_db, 2),
        "pitch_hz": _rounded(sound.pitch_hz, 2),
        "voiced": sound.voiced,
    }
    if word.confidence is not None and math.isfinite(word.confidence):
        content["confidence"] = _rounded(word.confidence)
    return content


def _warning_object(warning: ResultWarning) -> dict[str, Any]:
    amounts = {name: _rounded(value) if isinstance(value, float) else value for name, value in warning.amounts.items()}
    return {"code": warning.code} | amounts


def _rounded(value: float, digits: int = 3) -> float:
    """Round as Python does: numpy rounds otherwise, and an answer from a checkpoint has Python's numbers only."""
    return round(float(value), digits)


def check_finite(answer: object) -> None:
    """Check a stage's answer: sequences and dataclasses of numbers. Raises ValueError for NaN and infinity."""
    if isinstance(answer, float) and not math.isfinite(answer):
        raise ValueError("a number of the answer is not finite")
    if isinstance(answer, list | tuple):
        for part in answer:
            check_finite(part)
    elif is_dataclass(answer):
        for field in fields(answer):
            check_finite(getattr(answer, field.name))


def filename_of(video_url: str) -> str:
    """Return the last part of the URL's path, percent-decoded, and nothing that a receiver could take for a path."""
    name = _NO_NAME.split(unquote(urlsplit(video_url).path))[-1]
    return "" if name in {".", ".."} else name
