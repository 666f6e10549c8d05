"""The bodies of the ML Server's responses and callbacks. Unknown fields are in `model_extra`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["accepted", "processing", "completed", "failed"]
ENDED = ("completed", "failed")


class _FromServer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Accepted(_FromServer):
    """The response to `submit` and `rerun`. For a repeated `job_id` it has the job's present status."""

    job_id: str
    status: Status
    message: str = ""
    status_url: str | None = None
    """A path on the ML Server; contract 1.0 has none."""
    estimated_time: float | None = None
    """Estimated seconds until the end."""


class Speaker(_FromServer):
    """A speaker of this video."""

    speaker_id: str


class Emotion(_FromServer):
    """An emotion; `confidence` is 0-1."""

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
    """False: the word has no F0 of its own, and `pitch_hz` comes from its neighbours."""
    confidence: float | None = None


class Segment(_FromServer):
    """One speaker's whole sentence; times in seconds from the video's start."""

    start_time: float
    end_time: float
    speaker: Speaker
    text: str
    words: tuple[Word, ...] = ()
    confidence: float | None = None
    emotion: Emotion | None = None
    language: str | None = None
    """A code such as `ko`, where the job named `languages`."""


class ResultWarning(_FromServer):
    """In what way the result is degraded or uncertain: a code of the list in docs/api.md, with its amounts."""

    code: str
    seconds: float | None = None
    """Of the video's time."""
    share: float | None = None
    """0-1."""
    count: int | None = None
    track: int | None = None
    """Number of an audio track, from 1."""
    language: str | None = None


class Quality(_FromServer):
    """How far the result can be trusted: a verdict, its reasons, and figures, None where one is not known."""

    verdict: str
    """`good`, `doubtful` or `poor`."""
    reasons: tuple[str, ...] = ()
    """What speaks against it: codes of the list in docs/api.md, what weighs most first."""
    damaged_s: float = 0.0
    """Seconds that are damaged, without sound, or missing."""
    clipped_share: float = 0.0
    """Of the audio, 0-1; 0 where hardly anything is clipped."""
    snr_db: float | None = None
    """By how many dB the speech is louder than the background."""
    speech_share: float | None = None
    """Of the audio, 0-1: where somebody speaks."""
    wordless_share: float | None = None
    """Of that speech, 0-1: where no word is written."""
    overlap_share: float | None = None
    """Of the speech, 0-1: where several speak at once."""
    mean_confidence: float | None = None
    """Of the words, 0-1."""
    language_doubt: float | None = None
    """0-1: the probability that the language is another one, if `auto` detected it."""
    dropped_texts: int = 0
    """Texts that the recogniser had invented and that were left out or cut."""


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
    """The warnings as sentences in the server's language."""
    warning_codes: tuple[ResultWarning, ...] = ()
    """The same warnings in the same order, as codes. Empty in results of earlier releases."""
    language_probability: float | None = None
    """0-1, if `auto` detected the language."""
    quality: Quality | None = None
    """Absent under contract 1.0 and in results of earlier releases."""


class Result(_FromServer):
    """The transcript of a video with its metadata."""

    text: str = ""
    language: str | None = None
    duration: float | None = None
    """Seconds."""
    metadata: Metadata
    segments: tuple[Segment, ...] = ()
    result_url: str | None = None
    """Set if the callback would have been over 50 MB, and has no segments: `MLServer.status` returns them."""


class JobStatus(_FromServer):
    """A job's state. `result` is that of its newest completed run, also while a rerun goes on, or has failed."""

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
    """The state of the terminal callback: `state`, `attempts`, `last_error`."""
    custom_metadata: dict[str, Any] | None = None
    """As `submit` was given it."""
    speakers: dict[str, str] = Field(default_factory=dict)
    """The names that people gave, by speaker id: see `MLServer.name_speakers`."""

    @property
    def ended(self) -> bool:
        """Return whether the job is completed or failed."""
        return self.status in ENDED


class Callback(_FromServer):
    """A callback: progress, the result, or the failure."""

    job_id: str = Field(min_length=1, max_length=128)
    status: Status
    progress: int = Field(ge=0, le=100)
    message: str | None = None
    result: Result | None = None
    error_code: str | None = None
    error_message: str | None = None
    custom_metadata: dict[str, Any] | None = None
    """As `submit` was given it."""
    speakers: dict[str, str] = Field(default_factory=dict)
    """The names that people gave, by speaker id: in what `MLServer.redeliver` has sent after that."""

    @property
    def ended(self) -> bool:
        """Return whether this is the terminal callback: completed or failed."""
        return self.status in ENDED
