"""What can go wrong between a backend and the ML Server, each with a code for the backend's own records.

    MLServerError
    ├── ConnectionFailedError     CONNECTION_ERROR: nobody answers, or the line broke
    ├── NoAnswerError             TIMEOUT_ERROR: the server may have taken the job all the same
    ├── RefusedError              the server's own code, or ML_SERVER_ERROR where a proxy answered in its place
    │   └── BusyError             429, 503: the same request is good again after `retry_after_s`
    ├── JobFailedError            the job ended as `failed`; the callback's code
    └── CallbackError             what came in is answered with `http_status`
        ├── ForgedCallbackError   401: no or no valid signature
        ├── BadCallbackError      400: not a callback of the ML Server
        └── CallbackTooLargeError 413

The three codes of the client are those of the integration guide.
"""

from __future__ import annotations

from typing import ClassVar


class MLServerError(Exception):
    """Base. `code` and the text may be shown to users."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class ConnectionFailedError(MLServerError):
    """Nobody answers at the server's address, or the connection broke."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="CONNECTION_ERROR")


class NoAnswerError(MLServerError):
    """No answer in time. The job may run all the same: submit the same `job_id` again, or wait for callbacks."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="TIMEOUT_ERROR")


class RefusedError(MLServerError):
    """The server answered with an error."""

    def __init__(self, message: str, *, code: str, http_status: int) -> None:
        super().__init__(message, code=code)
        self.http_status = http_status


class BusyError(RefusedError):
    """Not now: the queue is full, the server stops, or too many requests came."""

    def __init__(self, message: str, *, code: str, http_status: int, retry_after_s: float) -> None:
        super().__init__(message, code=code, http_status=http_status)
        self.retry_after_s = retry_after_s
        """Seconds after which the server wants to be asked again."""


class JobFailedError(MLServerError):
    """The job that was waited for has failed."""


class CallbackError(MLServerError):
    """A callback that is not taken. Answer it with `http_status`; the server tries it again."""

    http_status: ClassVar[int] = 400

    def __init__(self, message: str) -> None:
        super().__init__(message, code=type(self).__name__.removesuffix("Error"))


class ForgedCallbackError(CallbackError):
    """The signature is missing, wrong, or too old."""

    http_status = 401


class BadCallbackError(CallbackError):
    """A header is missing, or the body is no callback."""


class CallbackTooLargeError(CallbackError):
    """The body is larger than any that the ML Server sends."""

    http_status = 413
