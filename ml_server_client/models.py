"""What the ML Server answers and sends. Fields that this release does not know are kept (`model_extra`)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["accepted", "processing", "completed", "failed"]
ENDED = ("completed", "failed")


class _FromServer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Accepted(_FromServer):
    """The answer to `submit`. A repeated `job_id` gets the job's present status."""

    job_id: str
    status: Status
    message: str = ""
    status_url: str | None = None
    """A path on the ML Server; contract 1.0 has none."""
    estimated_time: float | None = None
    """Seconds until the end, as far as the server knows."""


class Speaker(_FromServer):
    """Who speaks, told apart from the others of this video."""

    speaker_id: str


class Emotion(_FromServer):
    """A mood; `confidence` is 0-1."""

    label: str
    confidence: float


class Word(_FromServer):
    """A word: times in seconds from the video's start, RMS level in dBFS (-60 to 0), median F0 in Hz (100 to 1000)."""

    word: str
    start: float
    end: float
    volume_db: float
    pitch_hz: float
    voiced: bool | None = None
    """False: the word has no voice of its own, and `pitch_hz` is its neighbours'."""
    confidence: float | None = None


class Segment(_FromServer):
    """What one speaker says in one go; times in seconds from the video's start."""

    start_time: float
    end_time: float
    speaker: Speaker
    text: str
    words: tuple[Word, ...] = ()
    confidence: float | None = None
    emotion: Emotion | None = None


class ResultWarning(_FromServer):
    """Something that a reader has to know: a code of the list in docs/api.md, and the amounts that the code has."""

    code: str
    seconds: float | None = None
    """Of the video's time."""
    share: float | None = None
    """0-1."""
    count: int | None = None
    language: str | None = None


class Metadata(_FromServer):
    """About the result."""

    filename: str
    duration: float
    """Seconds."""
    total_segments: int
    unique_speakers: int
    model_version: str | None = None
    processing_time: float | None = None
    """Seconds."""
    device: str | None = None
    stages: dict[str, float] = Field(default_factory=dict)
    """Seconds of each."""
    warnings: tuple[str, ...] = ()
    """What ran degraded, in sentences of the server's language."""
    warning_codes: tuple[ResultWarning, ...] = ()
    """The same in the same order, for programs and for other languages. Empty in results of earlier releases."""
    language_probability: float | None = None
    """0-1, where `auto` found the language."""


class Result(_FromServer):
    """What was heard in a video."""

    text: str = ""
    language: str | None = None
    duration: float | None = None
    """Seconds."""
    metadata: Metadata
    segments: tuple[Segment, ...] = ()
    result_url: str | None = None
    """Set where a callback would have been over 50 MB and came without segments: `MLServer.status` has them."""


class JobStatus(_FromServer):
    """The look-up of a job."""

    job_id: str
    status: Status
    progress: int
    message: str = ""
    queue_position: int | None = None
    created_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    result: Result | None = None
    callback: dict[str, Any] | None = None
    """How the telling of the end stands: `state`, `attempts`, `last_error`."""

    @property
    def ended(self) -> bool:
        """Completed or failed."""
        return self.status in ENDED


class Callback(_FromServer):
    """What the ML Server posts: progress, the result, or the failure."""

    job_id: str = Field(min_length=1, max_length=128)
    status: Status
    progress: int = Field(ge=0, le=100)
    message: str | None = None
    result: Result | None = None
    error_code: str | None = None
    error_message: str | None = None

    @property
    def ended(self) -> bool:
        """The job's last one: completed or failed."""
        return self.status in ENDED
