"""Sentences for users, in Korean and English, by error code. Knows nothing of requests."""

from __future__ import annotations

from typing import Literal

Locale = Literal["ko", "en"]
Sentences = dict[str, dict[Locale, str]]
"""By code, in each language."""

CLIENT: Sentences = {
    "CONNECTION_ERROR": {
        "ko": "ML 서버에 연결할 수 없습니다. 잠시 후 다시 시도해 주십시오.",
        "en": "The ML Server cannot be reached. Please try again later.",
    },
    "TIMEOUT_ERROR": {
        "ko": "ML 서버가 제시간에 응답하지 않았습니다. 작업은 이미 시작되었을 수 있습니다.",
        "en": "The ML Server did not answer in time. The job may have started nevertheless.",
    },
    "ML_SERVER_ERROR": {
        "ko": "ML 서버에서 올바른 응답을 받지 못했습니다.",
        "en": "The answer is not the ML Server's, or cannot be read.",
    },
}
"""Where the server did not answer, or something else answered in its place."""

REFUSALS: Sentences = {
    "INVALID_REQUEST": {"ko": "요청에 잘못된 값이 있습니다.", "en": "The request has a missing or wrong value."},
    "CALLBACK_NOT_ALLOWED": {
        "ko": "ML 서버가 이 백엔드의 콜백 주소를 허용하지 않습니다.",
        "en": "The ML Server does not allow this backend's callback address.",
    },
    "VIDEO_URL_NOT_ALLOWED": {
        "ko": "ML 서버가 이 비디오의 주소를 허용하지 않습니다.",
        "en": "The ML Server does not allow the address of this video.",
    },
    "UNAUTHORIZED": {
        "ko": "ML 서버의 API 키가 없거나 올바르지 않습니다.",
        "en": "The API key for the ML Server is missing or wrong.",
    },
    "CLIENT_NOT_ALLOWED": {
        "ko": "이 백엔드의 주소에서는 ML 서버를 사용할 수 없습니다.",
        "en": "The ML Server may not be used from this backend's address.",
    },
    "HOST_NOT_ALLOWED": {
        "ko": "이 호스트 이름으로는 ML 서버를 사용할 수 없습니다.",
        "en": "The ML Server may not be used by this host name.",
    },
    "JOB_NOT_FOUND": {
        "ko": "작업을 찾을 수 없습니다. 접수되지 않았거나 삭제된 작업입니다.",
        "en": "There is no such job: it was not accepted, or has been deleted.",
    },
    "NOT_FOUND": {"ko": "ML 서버에 없는 경로입니다.", "en": "The ML Server has no such path."},
    "METHOD_NOT_ALLOWED": {
        "ko": "이 경로에서 사용할 수 없는 메서드입니다.",
        "en": "The ML Server does not allow this method on this path.",
    },
    "REQUEST_TIMEOUT": {
        "ko": "요청에 시간이 너무 오래 걸렸습니다. 다시 시도해 주십시오.",
        "en": "The request took too long. Please try again.",
    },
    "JOB_CONFLICT": {
        "ko": "작업의 현재 상태 또는 내용과 맞지 않는 요청입니다.",
        "en": "The request conflicts with the job's content or present state.",
    },
    "REQUEST_TOO_LARGE": {"ko": "요청 본문이 너무 큽니다.", "en": "The request's body is too large."},
    "RATE_LIMITED": {"ko": "요청이 너무 많습니다.", "en": "There were too many requests."},
    "HEADERS_TOO_LARGE": {"ko": "요청 헤더가 너무 큽니다.", "en": "The request's headers are too large."},
    "INTERNAL_ERROR": {
        "ko": "ML 서버에 내부 오류가 발생했습니다. 잠시 후 다시 시도해 주십시오.",
        "en": "The ML Server had an internal error. Please try again later.",
    },
    "INSUFFICIENT_RESOURCES": {"ko": "대기 중인 작업이 너무 많습니다.", "en": "Too many jobs are waiting."},
    "SERVICE_UNAVAILABLE": {
        "ko": "지금은 ML 서버를 사용할 수 없습니다.",
        "en": "The ML Server is not available at the moment.",
    },
}
"""Of requests that the server refused."""

BUSY: Sentences = {"ML_SERVER_ERROR": {"ko": "ML 서버가 바쁩니다.", "en": "The ML Server is busy."}}
"""Where a proxy says it in the server's place."""
TRY_AGAIN: dict[Locale, str] = {
    "ko": "{seconds}초 뒤에 다시 시도해 주십시오.",
    "en": "Please try again in {seconds} s.",
}

FAILURES: Sentences = {
    "DOWNLOAD_ERROR": {
        "ko": "비디오를 다운로드하지 못했습니다. 주소가 만료되었을 수 있습니다.",
        "en": "The video could not be downloaded. Its address may have expired.",
    },
    "FILE_TOO_LARGE": {
        "ko": "파일이 허용된 최대 크기를 초과했습니다.",
        "en": "The file is larger than allowed.",
    },
    "VIDEO_TOO_LONG": {
        "ko": "비디오가 허용된 최대 길이를 초과했습니다.",
        "en": "The video is longer than allowed.",
    },
    "AUDIO_EXTRACTION_ERROR": {
        "ko": "오디오를 추출하지 못했습니다. 소리가 있는 미디어 파일인지 확인해 주십시오.",
        "en": "Audio extraction failed. Please check that the file is a video or recording with sound.",
    },
    "TRANSCRIPTION_ERROR": {"ko": "음성 인식에 실패했습니다.", "en": "Speech recognition failed."},
    "PROCESSING_TIMEOUT": {
        "ko": "제한 시간 안에 처리하지 못했습니다.",
        "en": "Processing took longer than allowed.",
    },
    "INSUFFICIENT_RESOURCES": {
        "ko": "서버 리소스가 부족하여 처리하지 못했습니다. 나중에 다시 시도해 주십시오.",
        "en": "The server lacked the resources to process the video. Please try again later.",
    },
    "CANCELLED": {"ko": "작업이 취소되었습니다.", "en": "The job was cancelled."},
    "INTERNAL_ERROR": {
        "ko": "내부 오류로 처리하지 못했습니다.",
        "en": "The video could not be processed because of an internal error.",
    },
}
"""Of jobs that failed."""

CALLBACKS: Sentences = {
    "ForgedCallback": {
        "ko": "콜백의 서명이 없거나 올바르지 않습니다.",
        "en": "The callback's signature is missing or invalid.",
    },
    "BadCallback": {"ko": "ML 서버의 콜백이 아닙니다.", "en": "This is not a callback of the ML Server."},
    "CallbackTooLarge": {"ko": "콜백의 본문이 너무 큽니다.", "en": "The callback's body is too large."},
}
"""Of callbacks that this client refused."""


def failure_message(code: str | None, locale: Locale) -> str | None:
    """Return the sentence for the `error_code` of a failed job; None for a code of a newer server."""
    sentences = FAILURES.get(code or "")
    return sentences[locale] if sentences else None
