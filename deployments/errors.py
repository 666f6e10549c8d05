"""Every error that ends a job or refuses a request, each with its public code and its public sentence.

    MLServerError
    ├── JobError                      ends a job; carries the callback's error_code
    │   ├── DownloadError             DOWNLOAD_ERROR
    │   ├── FileTooLargeError         FILE_TOO_LARGE
    │   ├── VideoTooLongError         VIDEO_TOO_LONG
    │   ├── AudioExtractionError      AUDIO_EXTRACTION_ERROR
    │   ├── TranscriptionError        TRANSCRIPTION_ERROR
    │   ├── ProcessingTimeoutError    PROCESSING_TIMEOUT
    │   ├── StageTimeoutError         PROCESSING_TIMEOUT
    │   ├── OutOfResourcesError       INSUFFICIENT_RESOURCES
    │   ├── CancelledJobError         CANCELLED
    │   └── InternalJobError          INTERNAL_ERROR
    ├── RequestError                  answers a request; carries the HTTP status (serve_app/api/errors.py)
    ├── DeviceError                   a replica's device has failed: its calls are repeated at another replica
    ├── StuckError                    a computation takes too long: its replica ends, the call is repeated once
    └── ModelLoadError                keeps a replica from starting; names the model
        └── ModelMissingError         missing, altered or not pinned; names the command that fetches it

The sentences are general on purpose: no path, no URL, no message of a library. The private cause stays in `__cause__`
and in the log. An instance is pickled by its arguments, so it passes through Ray unchanged.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Literal

Locale = Literal["ko", "en"]


class MLServerError(Exception):
    """Base of all errors that this server raises on purpose."""


class JobError(MLServerError):
    """Ends a job. `values` fill the placeholders of the class's public sentences; keep secrets out of them."""

    code: ClassVar[str]
    sentences: ClassVar[dict[Locale, str]]
    REASONS: ClassVar[dict[str, tuple[str, str]]] = {}
    """In Korean and English, what the value `reason` may be."""

    def __init__(self, **values: str | float) -> None:
        super().__init__(values)
        self.values = values

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.values))

    def __str__(self) -> str:
        return self.sentence("en")

    def sentence(self, locale: Locale) -> str:
        """Return the public message in `locale`, with the reason, if there is one, in words."""
        reason = str(self.values.get("reason", "")).partition(" ")[0]
        in_words = _in_words(self.REASONS, reason, locale).replace("http_", "HTTP ")
        told = ": ".join(filter(None, (in_words, self._detail(locale))))
        return self.sentences[locale].format(**{**self.values, "reason": told})

    def _detail(self, _locale: Locale) -> str:
        """Return what is told after the reason: the word after its key, where there is one."""
        return str(self.values.get("reason", "")).partition(" ")[2]


def _in_words(words: dict[str, tuple[str, str]], key: str, locale: Locale) -> str:
    return words[key][("ko", "en").index(locale)] if key in words else key


def _rebuild(cls: type[JobError], values: dict[str, str | float]) -> JobError:
    return cls(**values)


class DownloadError(JobError):
    """The video could not be downloaded.

    `reason` is a key of `REASONS` or `http_<status>`, and after a space the code word of the object store, if it told
    one (`deployments.net.source_answers.CODES`).
    """

    code = "DOWNLOAD_ERROR"
    sentences: ClassVar = {
        "ko": "비디오를 다운로드하지 못했습니다 ({reason})",
        "en": "The video could not be downloaded ({reason})",
    }
    REASONS: ClassVar = {
        "unreachable": ("서버에 연결할 수 없음", "host unreachable"),
        "timeout": ("시간 초과", "timed out"),
        "cut_off": ("전송이 중간에 끊김", "cut off half-way"),
        "too_slow": ("전송 속도가 너무 느림", "too slow"),
        "empty": ("빈 파일", "the file is empty"),
        "not_allowed": ("허용되지 않은 주소", "address not allowed"),
        "too_many_redirects": ("리디렉션이 너무 많음", "too many redirects"),
        "changed": ("전송 중 파일이 변경됨", "the file changed while it was read"),
        "page": ("소스가 비디오 대신 텍스트로 응답함", "the source answered with text"),
        "encoding": ("알 수 없는 콘텐츠 인코딩", "unknown content encoding"),
    }

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason=reason)


class FileTooLargeError(JobError):
    """The file has more bytes than the limit, by its header or by counting."""

    code = "FILE_TOO_LARGE"
    sentences: ClassVar = {
        "ko": "파일이 허용된 최대 크기({limit_mb:.0f} MB)를 초과했습니다",
        "en": "The file is larger than the limit of {limit_mb:.0f} MB",
    }


class VideoTooLongError(JobError):
    """The video is longer than the limit."""

    code = "VIDEO_TOO_LONG"
    sentences: ClassVar = {
        "ko": "비디오가 허용된 최대 길이({limit_min:g}분)를 초과했습니다",
        "en": "The video is longer than the limit of {limit_min:g} minutes",
    }


class AudioExtractionError(JobError):
    """The file has no audio that can be decoded. `reason` is a key of `REASONS`.

    `found`: what the file is or has, a key of `FOUND`, the name of a container, a number, or codes of languages; ""
    where nobody knows.
    """

    code = "AUDIO_EXTRACTION_ERROR"
    sentences: ClassVar = {"ko": "오디오를 추출하지 못했습니다 ({reason})", "en": "Audio extraction failed ({reason})"}
    REASONS: ClassVar = {
        "not_media": ("미디어 파일이 아님", "not a media file"),
        "protected": ("DRM으로 보호된 파일", "the file is DRM-protected"),
        "no_audio": ("오디오 트랙 없음", "no audio track"),
        "unsupported": ("지원하지 않는 코덱", "unsupported codec"),
        "timeout": ("시간 초과", "timed out"),
        "no_track": (
            "요청한 번호의 오디오 트랙이 없음, 파일의 오디오 트랙 수",
            "no audio track of this number; audio tracks in the file",
        ),
        "no_language": (
            "요청한 언어의 오디오 트랙이 없음, 파일에 표시된 트랙 언어",
            "no audio track in this language; languages that the file's tracks are tagged with",
        ),
        "after_end": (
            "요청한 시작 시각에 영상이 이미 끝남, 영상 길이(초)",
            "the part begins after the video's end; the video's length in seconds",
        ),
        "too_many_channels": (
            "나누어 처리하기에는 채널이 너무 많음, 채널 수",
            "too many channels to be kept apart; channels in the file",
        ),
    }
    FOUND: ClassVar[dict[str, tuple[str, str]]] = {
        "image": ("이미지", "an image"),
        "archive": ("압축 파일", "an archive"),
        "pdf": ("PDF", "a PDF"),
        "playlist": ("재생 목록", "a playlist"),
        "text": ("텍스트", "a text"),
        "none": ("없음", "none"),
    }

    def __init__(self, *, reason: str, found: str = "") -> None:
        super().__init__(reason=reason, **({"found": found} if found else {}))

    def _detail(self, locale: Locale) -> str:
        return _in_words(self.FOUND, str(self.values.get("found", "")), locale)


class TranscriptionError(JobError):
    """Speech recognition failed."""

    code = "TRANSCRIPTION_ERROR"
    sentences: ClassVar = {"ko": "음성 인식에 실패했습니다", "en": "Speech recognition failed"}


class ProcessingTimeoutError(JobError):
    """The run used up its processing time; time in the queue does not count."""

    code = "PROCESSING_TIMEOUT"
    sentences: ClassVar = {
        "ko": "처리 시간이 제한({limit_min:g}분)을 초과했습니다",
        "en": "Processing took longer than the limit of {limit_min:g} minutes",
    }


class StageTimeoutError(JobError):
    """A stage got stuck in this video twice: its computation took too long, and its process was ended."""

    code = "PROCESSING_TIMEOUT"
    sentences: ClassVar = {
        "ko": "처리 단계가 응답하지 않아 중단했습니다",
        "en": "A step of the processing did not answer and was stopped",
    }


class OutOfResourcesError(JobError):
    """Memory, disk or a replica was not available."""

    code = "INSUFFICIENT_RESOURCES"
    sentences: ClassVar = {
        "ko": "서버 리소스가 부족하여 처리하지 못했습니다",
        "en": "The server lacks the resources to process this video",
    }


DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Of a disk that is full or fails: what becomes an `OutOfResourcesError`, since it is no fault of the video's."""


class CancelledJobError(JobError):
    """The job was cancelled by a request."""

    code = "CANCELLED"
    sentences: ClassVar = {"ko": "작업이 취소되었습니다", "en": "The job was cancelled"}


class InternalJobError(JobError):
    """A fault of the server itself; the log has the cause."""

    code = "INTERNAL_ERROR"
    sentences: ClassVar = {
        "ko": "내부 오류로 처리하지 못했습니다",
        "en": "The video could not be processed because of an internal error",
    }


class DeviceError(MLServerError):
    """The replica's device has failed: no memory for a single item, or a dead CUDA context.

    It does not end the job: the caller repeats the call at another replica, and Serve replaces the one that failed.
    """

    def __init__(self) -> None:
        super().__init__("the compute device failed")

    def __reduce__(self) -> tuple[object, ...]:
        return (DeviceError, ())


class StuckError(MLServerError):
    """A computation takes longer than it may, and its replica ends itself. Raised to the callers of the computed items.

    `batched`: the batch had items of several callers, any of which may be the cause. Callers whose items only waited in
    that replica see it die instead.
    """

    def __init__(self, *, batched: bool = False) -> None:
        super().__init__("the computation is stuck")
        self.batched = batched

    def __reduce__(self) -> tuple[object, ...]:
        return (_stuck, (self.batched,))


def _stuck(batched: bool) -> StuckError:  # noqa: FBT001 - pickle passes no names
    return StuckError(batched=batched)


class RequestError(MLServerError):
    """Refuses a request; the answer has the contract's error body."""


class ModelLoadError(MLServerError):
    """A model that the settings name is missing, broken or refused, so that the replica does not start.

    The message names the model, for the operator; it appears in no job's error.
    """


class ModelMissingError(ModelLoadError):
    """A model is not on this machine as the model lock describes it. The message names the command that fetches it."""
