"""Bodies of requests and responses, with the contract's names."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from serve_app.api.callback_headers import checked
from serve_app.callbacks.payloads import dump
from serve_app.jobs.job import MOST_SPEAKERS
from serve_app.jobs.stages import Stage  # noqa: TC001 - pydantic reads it
from serve_app.storage.timeline import EventKind  # noqa: TC001 - pydantic reads it

JOB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}$"
MAX_URL_LENGTH = 8192
MOST_METADATA, DEEPEST_METADATA = 4096, 16
LEAST_PART_S = 0.1
A_JOB = "550e8400-e29b-41d4-a716-446655440000"
A_VIDEO = "https://ecg-bucket.s3.ap-northeast-2.amazonaws.com/videos/talk.mp4?X-Amz-Signature=0123"
LONGEST_NAME = 100
UNSEEN = str.maketrans(dict.fromkeys("\u200c\u200d\u115f\u1160\u3164\uffa0"))
"""Part of how names are written, and no name alone: joiners (Persian, Indic scripts, emoji) and fillers of Hangul."""

JobId = Annotated[StrictStr, Field(pattern=JOB_ID_PATTERN, max_length=128, examples=[A_JOB])]
WireStatus = Literal["accepted", "processing", "completed", "failed"]
WireCallback = Literal["pending", "delivered", "undelivered"]


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


_TIMES = {"created_at": "2026-11-25T09:00:00.000Z", "started_at": "2026-11-25T09:00:01.250Z"}
_RUNNING = {"job_id": A_JOB, "status": "processing", "progress": 42, "message": "화자를 식별하고 있습니다", **_TIMES}
_DONE = _RUNNING | {"status": "completed", "progress": 100, "message": "비디오 처리가 완료되었습니다"}
_LINE = _DONE | {"stage": "done", "run": 1, "attempt": 1, "duration": 61.5, "processing_time": 12.3, "warnings": 0}
_LINE |= {"callback": "delivered"}
_WARNED = {
    "warnings": ["정렬에 실패하여 말소리 1.5초의 단어 시각을 보간했습니다."],
    "warning_codes": [{"code": "ALIGNMENT_FAILED", "seconds": 1.5}],
}
_RESULT = {"text": "hello", "language": "en", "duration": 1.5, "metadata": _WARNED, "segments": []}


class ProcessVideoRequestV10(BaseModel):
    """POST /api/upload-video/process-video, contract 1.0. Unknown fields are ignored; null counts as absent."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"job_id": A_JOB, "video_url": A_VIDEO, "language": "auto"}]}
    )

    job_id: JobId
    video_url: Annotated[
        StrictStr,
        Field(min_length=1, max_length=MAX_URL_LENGTH, description="Fetched with GET only", examples=[A_VIDEO]),
    ]
    fastapi_base_url: (
        Annotated[
            StrictStr,
            Field(min_length=1, max_length=MAX_URL_LENGTH, description="Base of the callback URL, on the whitelist"),
        ]
        | None
    ) = None
    language: Annotated[
        StrictStr, Field(min_length=1, max_length=16, description="`auto`, or a code that the engine knows")
    ] = "auto"
    enable_gpu: StrictBool = Field(default=True, description="A preference: false goes to the CPU pool, if any")
    emotion_detection: StrictBool = Field(default=True, description="false leaves the emotions out")
    max_workers: Annotated[StrictInt, Field(ge=1, le=16, description="Pieces of the job in flight at once")] = 4

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


SpeakerCount = Annotated[StrictInt, Field(ge=1, le=MOST_SPEAKERS)]
Term = Annotated[StrictStr, Field(min_length=1, max_length=80)]
LanguageCode = Annotated[StrictStr, Field(pattern=r"^[A-Za-z]{2,3}$")]
VideoSecond = Annotated[StrictFloat, Field(ge=0, le=86_400, allow_inf_nan=False)]


class ProcessVideoRequest(ProcessVideoRequestV10):
    """POST /api/upload-video/process-video, contract 1.1: the fields of 1.0, and optional ones."""

    num_speakers: Annotated[SpeakerCount | None, Field(description="How many people speak, where that is known")] = None
    min_speakers: Annotated[SpeakerCount | None, Field(description="At least so many people speak")] = None
    max_speakers: Annotated[SpeakerCount | None, Field(description="At most so many people speak")] = None
    vocabulary: Annotated[
        tuple[Term, ...], Field(max_length=100, description="Names and terms that the recogniser should know")
    ] = ()
    languages: Annotated[
        tuple[LanguageCode, ...], Field(max_length=10, description="The only languages that are looked for")
    ] = ()
    audio_track: Annotated[
        Annotated[StrictInt, Field(ge=1, le=64)] | LanguageCode | None,
        Field(description="Which audio track: its number, from 1, or its language"),
    ] = None
    channels: Annotated[
        Literal["mix", "separate"], Field(description="`separate`: each channel has one speaker, as of a telephone")
    ] = "mix"
    start_s: Annotated[VideoSecond | None, Field(description="Only the part of the video from here on, seconds")] = None
    end_s: Annotated[VideoSecond | None, Field(description="Only the part of the video until here, seconds")] = None
    custom_metadata: Annotated[
        dict[str, Any] | None, Field(description=f"Repeated in every callback and the status; {MOST_METADATA} bytes")
    ] = None
    callback_headers: Annotated[
        dict[str, StrictStr] | None, Field(description="Headers of every callback, such as a gateway's token; secrets")
    ] = None

    @field_validator("vocabulary")
    @classmethod
    def _terms_are_text(cls, vocabulary: tuple[str, ...]) -> tuple[str, ...]:
        terms = [" ".join(unicodedata.normalize("NFC", term).split()) for term in vocabulary]
        if any(not _has_letters(term) for term in terms):
            raise ValueError("vocabulary has a term without letters or digits, or with control characters")
        return tuple(dict.fromkeys(terms))

    @field_validator("languages")
    @classmethod
    def _in_order(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({language.lower() for language in languages}))

    @field_validator("custom_metadata")
    @classmethod
    def _metadata_is_small(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        if _depth(metadata) > DEEPEST_METADATA:
            raise ValueError(f"custom_metadata is nested more than {DEEPEST_METADATA} levels deep")
        try:
            size = len(dump(metadata))
        except ValueError:  # such as infinity, or half a surrogate pair
            raise ValueError("custom_metadata has something that JSON in UTF-8 cannot write") from None
        if size > MOST_METADATA:
            raise ValueError(f"custom_metadata has more than {MOST_METADATA} bytes")
        return metadata

    @field_validator("callback_headers")
    @classmethod
    def _headers_are_allowed(cls, headers: dict[str, str]) -> dict[str, str]:
        return checked(headers)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.languages and self.language.lower() != "auto":
            raise ValueError("languages is for speech whose language is looked for: leave language at auto")
        if self.channels == "separate" and (self.num_speakers or self.min_speakers or self.max_speakers):
            raise ValueError("channels: separate has one speaker per channel, so a number of speakers contradicts it")
        if self.end_s is not None and self.end_s - (self.start_s or 0) < LEAST_PART_S:
            raise ValueError(f"end_s must be at least {LEAST_PART_S} s after start_s")
        if self.num_speakers and (self.min_speakers or self.max_speakers):
            raise ValueError("num_speakers is for a known number, min_speakers and max_speakers for an unknown one")
        if (self.min_speakers or 1) > (self.max_speakers or MOST_SPEAKERS):
            raise ValueError("min_speakers is more than max_speakers")
        return self


class RerunRequest(BaseModel):
    """POST /api/upload-video/jobs/{job_id}/rerun. An absent field keeps the job's present value, null is the default.

    The merged fields are checked as a `ProcessVideoRequest` is.
    """

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"num_speakers": 3, "video_url": A_VIDEO}, {"language": None}]}
    )

    video_url: Annotated[
        Annotated[StrictStr, Field(min_length=1, max_length=MAX_URL_LENGTH)] | None,
        Field(
            description="The same video, newly signed; required where the run has to listen to it", examples=[A_VIDEO]
        ),
    ] = None
    language: Annotated[StrictStr, Field(min_length=1, max_length=16)] | None = None
    enable_gpu: StrictBool | None = None
    emotion_detection: StrictBool | None = None
    max_workers: Annotated[StrictInt, Field(ge=1, le=16)] | None = None
    num_speakers: SpeakerCount | None = None
    min_speakers: SpeakerCount | None = None
    max_speakers: SpeakerCount | None = None
    vocabulary: Annotated[tuple[Term, ...], Field(max_length=100)] | None = None
    languages: Annotated[tuple[LanguageCode, ...], Field(max_length=10)] | None = None
    audio_track: Annotated[StrictInt, Field(ge=1, le=64)] | LanguageCode | None = None
    channels: Literal["mix", "separate"] | None = None
    start_s: VideoSecond | None = None
    end_s: VideoSecond | None = None
    custom_metadata: dict[str, Any] | None = None
    callback_headers: dict[str, StrictStr] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The fields that the body has, null included."""
        return self.model_dump(include=self.model_fields_set)


def _depth(value: Any) -> int:
    """Return how many objects and arrays are inside each other. Of `DEEPEST_METADATA` levels it looks at all."""
    level, depth = [value], 0
    while depth <= DEEPEST_METADATA and (level := [each for each in level if isinstance(each, dict | list)]):
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def _has_letters(term: str) -> bool:
    return term.isprintable() and bool(re.search(r"\w", term))


class SpeakerNames(RootModel[dict[StrictStr, Annotated[StrictStr, Field(min_length=1, max_length=LONGEST_NAME)]]]):
    """PUT /api/upload-video/jobs/{job_id}/speakers: each speaker id that gets a name, and the name."""

    model_config = _example(SPEAKER_00="김철수", SPEAKER_01="Anna")

    @model_validator(mode="before")
    @classmethod
    def _names_are_lines(cls, data: Any) -> Any:
        """Return the names as they are stored. The sentence of a refusal has no name, and only ids that print."""
        if not isinstance(data, dict):
            return data
        for speaker, name in data.items():
            if not speaker.isprintable():
                raise ValueError("A key of the names is no speaker id")
            if not isinstance(name, str) or not 1 <= len(_as_name(name)) <= LONGEST_NAME:
                raise ValueError(f"The name of {speaker[:40]} must be a string of 1 to {LONGEST_NAME} characters")
            seen = _as_name(name).translate(UNSEEN).strip()
            if not seen or not seen.isprintable():
                raise ValueError(f"The name of {speaker[:40]} has characters that cannot be seen")
        return {speaker: _as_name(name) for speaker, name in data.items()}


def _as_name(name: str) -> str:
    """Return a name in NFC, with plain spaces and none around it."""
    spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in name)
    return unicodedata.normalize("NFC", spaced).strip()


class ProcessVideoResponse(BaseModel):
    """200, contract 1.1."""

    model_config = _example(
        job_id=A_JOB,
        status="processing",
        message="비디오 처리가 시작되었습니다",
        status_url=f"/api/upload-video/status/{A_JOB}",
        estimated_time=300,
    )

    job_id: str
    status: WireStatus
    message: str
    status_url: str
    estimated_time: int = Field(description="Seconds")


class ProcessVideoResponseV10(BaseModel):
    """200, contract 1.0."""

    model_config = _example(job_id=A_JOB, status="accepted", message="Processing started", estimated_time=300)

    job_id: str
    status: WireStatus
    message: str
    estimated_time: int = Field(description="Seconds")


class CallbackView(BaseModel):
    """The state of the terminal callback."""

    state: Literal["none", "pending", "delivered", "undelivered"]
    attempts: int
    last_error: str | None


ACTOR = "Name of a running job's actor in Ray's dashboard and logs"


class JobView(BaseModel):
    """A job's state, without its result."""

    model_config = _example(**_RUNNING)

    job_id: str
    status: WireStatus
    progress: int
    message: str
    queue_position: int | None = None
    created_at: str = Field(description="ISO 8601, UTC")
    started_at: str | None = None
    finished_at: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    custom_metadata: dict[str, Any] | None = Field(default=None, description="As the POST gave it")


class NamedJobView(JobView):
    """A job's state with the names of its speakers."""

    model_config = _example(**_DONE, speakers={"SPEAKER_00": "김철수"})

    speakers: dict[str, str] | None = Field(default=None, description="Names by speaker id, where people gave any")


class StatusResponse(NamedJobView):
    """GET /api/upload-video/status/{job_id}."""

    model_config = _example(
        **_DONE,
        finished_at="2026-11-25T09:02:03.500Z",
        result=_RESULT,
        callback={"state": "delivered", "attempts": 2, "last_error": "http_500"},
    )

    result: dict[str, Any] | None = Field(
        default=None, description="As in the terminal callback: see docs/api.md. After a rerun that of the run before"
    )
    callback: CallbackView


class JobLine(JobView):
    """A job in lists and in the stream of changes."""

    model_config = _example(**_LINE)

    stage: Stage = Field(description="The stage that `message` describes, or at which the job failed")
    run: int
    attempt: int
    actor: str | None = Field(default=None, description=ACTOR)
    duration: float | None = Field(description="Seconds, of the video or its part; of completed jobs")
    processing_time: float | None = Field(description="Seconds; of completed jobs")
    warnings: int | None = Field(description="How many the result has; null without a result, or if not counted")
    callback: Literal["none", "pending", "delivered", "undelivered"]


class JobList(BaseModel):
    """GET /api/upload-video/jobs."""

    model_config = _example(jobs=[_LINE], next_after=A_JOB)

    jobs: list[JobLine]
    next_after: str | None = Field(description="Pass as `after` for the next page; null on the last")


class EventView(BaseModel):
    """Something that happened to a job."""

    at: str = Field(description="ISO 8601, UTC")
    event: EventKind
    run: int = Field(description="Rises when a failed job is posted again, and with each rerun")
    attempt: int = Field(description="Of that run; 0 before the first")
    detail: str | None


class Timeline(BaseModel):
    """GET /api/upload-video/jobs/{job_id}/timeline."""

    model_config = _example(
        job_id=A_JOB,
        events=[{"at": _TIMES["created_at"], "event": "failed", "run": 1, "attempt": 1, "detail": "DOWNLOAD_ERROR"}],
    )

    job_id: str
    actor: str | None = Field(default=None, description=ACTOR)
    events: list[EventView] = Field(description="Oldest first; of very many the newest 1000")


class DeletedResponse(BaseModel):
    """DELETE of an ended job."""

    model_config = _example(job_id=A_JOB, deleted=True)

    job_id: str
    deleted: Literal[True] = True


class JobNumbers(BaseModel):
    """How full the server is."""

    running: int
    queued: int
    limit: int
    queue_limit: int


class HealthResponse(BaseModel):
    """GET /health."""

    model_config = _example(
        status="healthy",
        version="0.1.0",
        contract_version="1.1",
        accepting=True,
        jobs={"running": 1, "queued": 0, "limit": 10, "queue_limit": 100},
        failing=[],
    )

    status: Literal["healthy", "unhealthy"]
    version: str
    contract_version: str
    accepting: bool
    jobs: JobNumbers | None
    failing: list[str] = Field(default_factory=list, description="The parts that are broken")


class ErrorDetail(BaseModel):
    """Inside `ErrorResponse`."""

    code: str
    message: str
    job_id: str | None


class ErrorResponse(BaseModel):
    """Every 4xx and 5xx."""

    error: ErrorDetail
    message: str
