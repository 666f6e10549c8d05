"""The values of a job that the whole server shares. Knows nothing of tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from serve_app.jobs.stages import Stage
from serve_app.jobs.states import ACTOR_PREFIX, JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_SPEAKERS = 50
"""The highest number of speakers that a job may name."""
FIRST_OPTIONS = {"language", "enable_gpu", "emotion_detection", "max_workers"}
"""The options of the first release: part of every job's content, given or not."""


class JobOptions(BaseModel):
    """The choices of a POST; they are part of the job's content."""

    model_config = ConfigDict(frozen=True)

    language: str = "auto"
    enable_gpu: bool = True
    emotion_detection: bool = True
    max_workers: int = 4
    traceparent: str | None = None
    """The trace context that the POST came with; not part of the content."""
    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None
    vocabulary: tuple[str, ...] = ()
    """Names and terms that the recogniser should know."""
    languages: tuple[str, ...] = ()
    """The only languages that are looked for; empty: all."""
    audio_track: int | str | None = None
    """A track's number, from 1, or its language's code."""
    channels: Literal["mix", "separate"] = "mix"
    start_s: float | None = None
    end_s: float | None = None

    @property
    def content(self) -> dict[str, Any]:
        """The options by which two requests are the same or not.

        Those that came with a later release count only where they are given: a job of the release before, and one that
        uses none of them, have the content that they had.
        """
        given = self.model_dump(include=FIRST_OPTIONS)
        return given | self.model_dump(exclude={*FIRST_OPTIONS, "traceparent"}, exclude_defaults=True)

    @property
    def shown(self) -> dict[str, Any]:
        """The content as logs have it: without the vocabulary, which may name people."""
        return {name: value for name, value in self.content.items() if name != "vocabulary"}

    @property
    def selection(self) -> dict[str, Any]:
        """What of the video is listened to, as far as it was given: fields of the extraction's `Selection`."""
        return self.model_dump(include={"audio_track", "channels", "start_s", "end_s"}, exclude_defaults=True)

    @property
    def asked_language(self) -> str:
        """The language that the request names, also as the only one of its `languages`; else `auto`."""
        return self.languages[0] if len(self.languages) == 1 else self.language

    @property
    def speaker_counts(self) -> dict[str, int]:
        """The numbers of speakers that were given."""
        return self.model_dump(include={"num_speakers", "min_speakers", "max_speakers"}, exclude_none=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackExtras:
    """What the caller adds to its job's callbacks. No part of the job's content: a repeated POST may replace it."""

    custom_metadata: str | None = None
    """JSON that every callback, and the status, repeat."""
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    """Of every callback. The values are secrets."""


NO_EXTRAS = CallbackExtras()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A checked request, ready to be stored."""

    job_id: str
    video_url: str
    video_expires_at: float
    callback_url: str | None
    options: JobOptions
    fingerprint: str
    extras: CallbackExtras = NO_EXTRAS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """A checked request for a new run of a job that has ended."""

    job: Job
    """As it was when the request was checked: another run must not have begun since."""
    video_url: str
    video_expires_at: float
    options: JobOptions
    extras: CallbackExtras
    needs_sound: bool
    """The run has to fetch the video: some of its answers are not stored."""
    changed: tuple[str, ...]
    """The names of the options that differ from those of the run before, for the timeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a run. Its writes count only while the job runs and has these numbers: they are the fence."""

    job_id: str
    run: int
    token: str
    """Of the run: a job that was deleted and posted again begins at the same numbers."""
    number: int

    @classmethod
    def of(cls, job: Job) -> Attempt:
        """Return the newest attempt at a job."""
        return cls(job_id=job.job_id, run=job.run, token=job.token, number=job.attempt)


class Prefetch(StrEnum):
    """Whether the audio of a waiting job is extracted before the job has a slot.

        NONE ──▶ RUNNING ──▶ DONE
          ▲         ├──────▶ FAILED ──┐
          └─────────┴─────────────────┘

    A run begins at NONE, or at DONE where all answers about its audio are stored.
    """

    NONE = "none"
    """Not begun."""
    RUNNING = "running"
    """The manager has begun. Back to NONE where it may be tried again, or where that manager has ended."""
    DONE = "done"
    """The extractor has the audio, or the run needs none."""
    FAILED = "failed"
    """Not tried again, unless a POST brings a new URL: back to NONE."""


class CallbackState(StrEnum):
    """How far the terminal callback of a job is."""

    NONE = "none"
    """There is none: the job has no callback URL, or has not ended."""
    PENDING = "pending"
    """Due, or being retried."""
    DELIVERED = "delivered"
    """The receiver answered 2xx."""
    UNDELIVERED = "undelivered"
    """Given up after 72 hours, or the receiver answered 410. A redelivery starts again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackStatus:
    """The terminal callback of a job, for the status answer."""

    state: CallbackState = CallbackState.NONE
    attempts: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCallback:
    """A terminal callback that a sender has claimed: no other sender tries it until the claim runs out."""

    id: str
    job_id: str
    url: str
    sequence: int
    body: bytes
    attempts: int
    """With the one that this claim is for."""
    due_since: float
    age_s: float
    """Since `due_since`, at the time of the claim."""
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    """The caller's own; their values are secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A row of the job table, by the columns' names."""

    job_id: str
    state: JobState
    run: int
    token: str
    attempt: int
    fingerprint: str
    video_url: str
    video_expires_at: float
    callback_url: str | None
    options: JobOptions
    stage: Stage
    progress: int
    sequence: int
    created_at: float
    queued_at: float
    told_at: float
    started_at: float | None
    finished_at: float | None
    spent_s: float
    error_code: str | None
    error_message: str | None
    cancel_requested: bool
    prefetch: Prefetch
    beats: int
    custom_metadata: str | None = None
    callback_headers: Mapping[str, str] | None = field(default=None, repr=False)
    speakers: Mapping[str, str] | None = field(default=None, repr=False)
    """Names that people gave the result's speakers, by speaker id. Personal data: for no log line."""

    @property
    def actor_name(self) -> str:
        """The name of the run's actor: `job:` and the token, as Ray's metrics show names and must not tell the job.

        A run of the release before has the name that its actor got there: `job:<id>`, from the second run on with `#`
        and the run's number, which no job_id contains.
        """
        if self.token:
            return f"{ACTOR_PREFIX}{self.token}"
        return f"{ACTOR_PREFIX}{self.job_id}" if self.run == 1 else f"{ACTOR_PREFIX}{self.job_id}#{self.run}"

    @property
    def run_id(self) -> str | int:
        """What nothing but this run is called: its token. Runs of the release before have only their number."""
        return self.token or self.run

    @classmethod
    def of(cls, row: Any) -> Job:
        """Return the job of a row mapping."""
        return cls(
            **{
                **row,
                "state": JobState(row["state"]),
                "stage": Stage(row["stage"]),
                "prefetch": Prefetch(row["prefetch"]),
                "options": JobOptions.model_validate(row["options"]),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many jobs have a slot and how many wait for one."""

    running: int
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended: with a result, or with an error code and its sentence."""

    result: bytes | None = None
    duration_s: float = 0.0
    processing_s: float = 0.0
    warnings: int = 0
    error_code: str | None = None
    error_message: str | None = None

    @property
    def state(self) -> JobState:
        """The state in which the job ends."""
        return JobState.COMPLETED if self.result is not None else JobState.FAILED
