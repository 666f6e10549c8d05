"""The errors between a backend and the ML Server, each with a code for the backend's own records.

    MLServerError
    ├── ConnectionFailedError     CONNECTION_ERROR: no server answers, or the connection broke
    ├── NoAnswerError             TIMEOUT_ERROR: the server may have accepted the job nevertheless
    ├── RefusedError              the server's own code, or ML_SERVER_ERROR if a proxy answered instead
    │   └── BusyError             429, 503: send the same request again after `retry_after_s`
    ├── JobFailedError            the job ended as `failed`; the code is the job's
    └── CallbackError             a callback that is refused with `http_status`
        ├── ForgedCallbackError   401: the signature is missing or invalid
        ├── BadCallbackError      400: not a callback of the ML Server
        └── CallbackTooLargeError 413

The three codes of the client are those of the integration guide. `str(error)` is the server's own message, or the
client's in English; `error.message("ko")` and `error.message("en")` are sentences for users.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from ml_server_client.messages import BUSY, CALLBACKS, CLIENT, FAILURES, REFUSALS, TRY_AGAIN

if TYPE_CHECKING:
    from ml_server_client.messages import Locale, Sentences


class MLServerError(Exception):
    """Base. `code` and the text may be shown to users."""

    sentences: ClassVar[Sentences] = CLIENT
    """For users, by code."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    def message(self, locale: Locale) -> str:
        """Return a sentence for users in Korean or English; for an unknown code, of a newer server, its own message."""
        sentences = self.sentences.get(self.code)
        return str(self) if sentences is None else sentences[locale]


class ConnectionFailedError(MLServerError):
    """No server answers at this address, or the connection broke."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="CONNECTION_ERROR")


class NoAnswerError(MLServerError):
    """No answer in time. The job may run nevertheless: submit the same `job_id` again, or wait for callbacks."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="TIMEOUT_ERROR")


class RefusedError(MLServerError):
    """The server answered with an error."""

    sentences = CLIENT | REFUSALS

    def __init__(self, message: str, *, code: str, http_status: int) -> None:
        super().__init__(message, code=code)
        self.http_status = http_status


class BusyError(RefusedError):
    """The queue is full, the server is about to stop, or the client sends too many requests."""

    sentences = REFUSALS | BUSY

    def __init__(self, message: str, *, code: str, http_status: int, retry_after_s: float) -> None:
        super().__init__(message, code=code, http_status=http_status)
        self.retry_after_s = retry_after_s
        """Seconds to wait before the same request is sent again."""

    def message(self, locale: Locale) -> str:
        """Return a sentence for users, and when to try again."""
        return f"{super().message(locale)} {TRY_AGAIN[locale].format(seconds=math.ceil(self.retry_after_s))}"


class JobFailedError(MLServerError):
    """The job that `wait` waited for has failed."""

    sentences = FAILURES


class CallbackError(MLServerError):
    """A refused callback. Answer it with `http_status`; the server sends it again."""

    sentences = CALLBACKS

    http_status: ClassVar[int] = 400

    def __init__(self, message: str) -> None:
        super().__init__(message, code=type(self).__name__.removesuffix("Error"))


class ForgedCallbackError(CallbackError):
    """The signature is missing, wrong, or too old."""

    http_status = 401


class BadCallbackError(CallbackError):
    """A header is missing, or the body is not a callback."""


class CallbackTooLargeError(CallbackError):
    """The body is larger than any that the ML Server sends."""

    http_status = 413
