"""The contract's result, field by field and no other, and its rules about times, order, speakers and counts."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from deployments.warnings import WarningCode
from serve_app.verdicts import Reason, Verdict

STRICT = ConfigDict(extra="forbid", strict=True)
SPEAKER = r"^SPEAKER_\d\d$"
CODE = f"^({'|'.join(WarningCode)})$"


class Speaker(BaseModel):
    model_config = STRICT
    speaker_id: str = Field(pattern=SPEAKER)


class Emotion(BaseModel):
    model_config = STRICT
    label: str
    confidence: float = Field(ge=0, le=1)


class Word(BaseModel):
    model_config = STRICT
    word: str = Field(min_length=1)
    start: float
    end: float
    volume_db: float = Field(ge=-60, le=0)
    pitch_hz: float = Field(ge=100, le=1000)
    voiced: bool
    confidence: float = Field(default=1.0, ge=0, le=1)


class SegmentObject(BaseModel):
    model_config = STRICT
    start_time: float
    end_time: float
    speaker: Speaker
    text: str
    words: list[Word] = Field(min_length=1)
    confidence: float = Field(default=1.0, ge=0, le=1)
    emotion: Emotion | None = None


class WarningObject(BaseModel):
    model_config = STRICT
    code: str = Field(pattern=CODE)
    seconds: float | None = Field(default=None, gt=0)
    share: float | None = Field(default=None, gt=0, le=1)
    count: int | None = Field(default=None, gt=0)
    language: str | None = None


class Quality(BaseModel):
    model_config = STRICT
    verdict: str = Field(pattern=f"^({'|'.join(Verdict)})$")
    reasons: list[Annotated[str, Field(pattern=f"^({'|'.join(Reason)})$")]]
    damaged_s: float = Field(ge=0)
    clipped_share: float = Field(ge=0, le=1)
    snr_db: float = Field(default=0.0, ge=-10, le=60)
    speech_share: float = Field(default=0.0, ge=0, le=1)
    wordless_share: float = Field(default=0.0, ge=0, le=1)
    overlap_share: float = Field(default=0.0, ge=0, le=1)
    mean_confidence: float = Field(default=0.0, ge=0, le=1)
    language_doubt: float = Field(default=0.0, ge=0, le=1)
    dropped_texts: int = Field(ge=0)


class Metadata(BaseModel):
    model_config = STRICT
    filename: str
    duration: float
    total_segments: int
    unique_speakers: int
    model_version: str
    processing_time: float
    device: str
    stages: dict[str, float]
    warnings: list[str]
    warning_codes: list[WarningObject]
    language_probability: float = Field(default=1.0, ge=0, le=1)
    quality: Quality | None = None


class Result(BaseModel):
    model_config = STRICT
    text: str
    language: str
    duration: float
    metadata: Metadata
    segments: list[SegmentObject]


class Completed(BaseModel):
    model_config = STRICT
    job_id: str
    status: str
    progress: int
    message: str
    result: Result


def assert_keeps_the_rules(result: Result) -> None:
    """The contract's rules about times, order, speakers and counts."""
    assert result.metadata.total_segments == len(result.segments)
    speakers = [segment.speaker.speaker_id for segment in result.segments]
    assert result.metadata.unique_speakers == len(set(speakers))
    assert list(dict.fromkeys(speakers)) == [f"SPEAKER_{i:02d}" for i in range(len(set(speakers)))]
    assert result.text == " ".join(segment.text for segment in result.segments)
    starts = [segment.start_time for segment in result.segments]
    assert starts == sorted(starts)
    for segment in result.segments:
        assert 0 <= segment.start_time <= segment.words[0].start
        assert segment.words[-1].end <= segment.end_time <= result.duration + 0.05
        assert all(word.start <= word.end for word in segment.words)
        assert all(one.end <= other.start + 0.001 for one, other in pairwise(segment.words))
        assert segment.text == " ".join(word.word for word in segment.words)


def checked(result: dict[str, Any]) -> Result:
    """A job's `result` with its fields and types checked, and the rules."""
    parsed = Result.model_validate_json(json.dumps(result))
    assert_keeps_the_rules(parsed)
    return parsed
