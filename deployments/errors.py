"""Everything that can end a job or refuse a request, each with its public code and its public sentence.

    MLServerError
    ├── JobError                      ends a job; carries the callback's error_code
    │   ├── DownloadError             DOWNLOAD_ERROR
    │   ├── FileTooLargeError         FILE_TOO_LARGE
    │   ├── VideoTooLongError         VIDEO_TOO_LONG
    │   ├── AudioExtractionError      AUDIO_EXTRACTION_ERROR
    │   ├── TranscriptionError        TRANSCRIPTION_ERROR
    │   ├── ProcessingTimeoutError    PROCESSING_TIMEOUT
    │   ├── OutOfResourcesError       INSUFFICIENT_RESOURCES
    │   ├── CancelledJobError         CANCELLED
    │   └── InternalJobError          INTERNAL_ERROR
    ├── RequestError                  answers a request; carries the HTTP status (serve_app/api/errors.py)
    └── ModelLoadError                keeps a replica from starting; names the model

The sentences are general on purpose: no path, no URL, no library's words. The private cause stays in `__cause__`
and in the log. An instance pickles by its arguments, so it crosses Ray unharmed.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Locale = Literal["ko", "en"]


class MLServerError(Exception):
    """Base of all errors that this server raises on purpose."""


class JobError(MLServerError):
    """Ends a job. `values` fill the placeholders of the class's public sentences; keep secrets out of them."""

    code: ClassVar[str]
    sentences: ClassVar[dict[Locale, str]]

    def __init__(self, **values: str | float) -> None:
        super().__init__(values)
        self.values = values

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.values))

    def __str__(self) -> str:
        return self.sentence("en")

    def sentence(self, locale: Locale) -> str:
        """The public message in `locale`."""
        return self.sentences[locale].format(**self.values)


def _rebuild(cls: type[JobError], values: dict[str, str | float]) -> JobError:
    return cls(**values)


class DownloadError(JobError):
    """The video could not be fetched: unreachable, refused, expired, cut off.

    `reason` is a key of `REASONS` or `http_<status>`.
    """

    code = "DOWNLOAD_ERROR"
    sentences: ClassVar = {
        "ko": "비디오를 다운로드하지 못했습니다 ({reason})",
        "en": "The video could not be downloaded ({reason})",
    }
    REASONS: ClassVar[dict[str, tuple[str, str]]] = {
        "unreachable": ("서버에 연결할 수 없음", "host unreachable"),
        "timeout": ("시간 초과", "timed out"),
        "cut_off": ("전송이 중간에 끊김", "cut off half-way"),
        "too_slow": ("전송 속도가 너무 느림", "too slow"),
        "empty": ("빈 파일", "the file is empty"),
        "not_allowed": ("허용되지 않은 주소", "address not allowed"),
        "too_many_redirects": ("리디렉션이 너무 많음", "too many redirects"),
        "changed": ("전송 중 파일이 변경됨", "the file changed while it was read"),
    }

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason=reason)

    def sentence(self, locale: Locale) -> str:
        """The public message, with the reason in words."""
        reason = str(self.values["reason"])
        if reason in self.REASONS:
            reason = self.REASONS[reason][("ko", "en").index(locale)]
        else:
            reason = reason.replace("http_", "HTTP ")
        return self.sentences[locale].format(reason=reason)


class FileTooLargeError(JobError):
    """More bytes than the limit, by header or by counting."""

    code = "FILE_TOO_LARGE"
    sentences: ClassVar = {
        "ko": "파일이 허용된 최대 크기({limit_mb:.0f} MB)를 초과했습니다",
        "en": "The file is larger than the limit of {limit_mb:.0f} MB",
    }


class VideoTooLongError(JobError):
    """Longer than the limit."""

    code = "VIDEO_TOO_LONG"
    sentences: ClassVar = {
        "ko": "비디오가 허용된 최대 길이({limit_min:g}분)를 초과했습니다",
        "en": "The video is longer than the limit of {limit_min:g} minutes",
    }


class AudioExtractionError(JobError):
    """Not a media file, an unsupported codec, or no audio track. `reason` is a key of `REASONS`."""

    code = "AUDIO_EXTRACTION_ERROR"
    sentences: ClassVar = {
        "ko": "오디오를 추출하지 못했습니다 ({reason})",
        "en": "Audio extraction failed ({reason})",
    }
    REASONS: ClassVar[dict[str, tuple[str, str]]] = {
        "not_media": ("미디어 파일이 아님", "not a media file"),
        "no_audio": ("오디오 트랙 없음", "no audio track"),
        "unsupported": ("지원하지 않는 코덱", "unsupported codec"),
        "incomplete": ("오디오의 절반 이상이 손실됨", "more than half of the audio is missing"),
        "timeout": ("시간 초과", "timed out"),
    }

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason=reason)

    def sentence(self, locale: Locale) -> str:
        """The public message, with the reason in words."""
        reason = self.REASONS[str(self.values["reason"])][("ko", "en").index(locale)]
        return self.sentences[locale].format(reason=reason)


class TranscriptionError(JobError):
    """Speech recognition failed."""

    code = "TRANSCRIPTION_ERROR"
    sentences: ClassVar = {"ko": "음성 인식에 실패했습니다", "en": "Speech recognition failed"}


class ProcessingTimeoutError(JobError):
    """The run used up its time; waiting in the queue does not count."""

    code = "PROCESSING_TIMEOUT"
    sentences: ClassVar = {
        "ko": "처리 시간이 제한({limit_min:g}분)을 초과했습니다",
        "en": "Processing took longer than the limit of {limit_min:g} minutes",
    }


class OutOfResourcesError(JobError):
    """Out of memory or disk, or no replica to be had."""

    code = "INSUFFICIENT_RESOURCES"
    sentences: ClassVar = {
        "ko": "서버 리소스가 부족하여 처리하지 못했습니다",
        "en": "The server lacks the resources to process this video",
    }


class CancelledJobError(JobError):
    """Somebody asked for it."""

    code = "CANCELLED"
    sentences: ClassVar = {"ko": "작업이 취소되었습니다", "en": "The job was cancelled"}


class InternalJobError(JobError):
    """Our fault; the log knows more."""

    code = "INTERNAL_ERROR"
    sentences: ClassVar = {
        "ko": "내부 오류로 처리하지 못했습니다",
        "en": "The video could not be processed because of an internal error",
    }


class RequestError(MLServerError):
    """Answers a request with the contract's error body instead of what was asked for."""


class ModelLoadError(MLServerError):
    """A model that the settings name is missing, broken or refused: the replica does not start.

    The message names it, for the operator: no job's error repeats it.
    """
