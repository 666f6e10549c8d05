"""The client's errors in the words of users: Korean and English, for every code."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import httpx
import pytest

from deployments.errors import JobError
from ml_server_client import (
    BadCallbackError,
    BusyError,
    CallbackTooLargeError,
    ConnectionFailedError,
    ForgedCallbackError,
    JobFailedError,
    MLServerError,
    NoAnswerError,
    RefusedError,
    failure_message,
)
from ml_server_client import client as client_module
from ml_server_client.messages import FAILURES, REFUSALS
from serve_app.api.errors import ApiError, body
from tests.unit.test_ml_server_client import VIDEO, answering

if TYPE_CHECKING:
    from collections.abc import Iterator

REFUSAL_CODES = {refusal.code: refusal.status for refusal in ApiError.__subclasses__()}
JOB_CODES = sorted({error.code for error in JobError.__subclasses__()})
OWN = "the server's own words"


def raised(answer: httpx.Response | Exception) -> MLServerError:
    """What `submit` raises where the server answers so."""
    server, _ = answering(answer)
    with pytest.raises(MLServerError) as error:
        asyncio.run(server.submit(VIDEO))
    return error.value


def all_of_them() -> Iterator[MLServerError]:
    """An error of each class and code."""
    yield ConnectionFailedError(OWN)
    yield NoAnswerError(OWN)
    yield MLServerError(OWN, code="ML_SERVER_ERROR")
    yield RefusedError(OWN, code="ML_SERVER_ERROR", http_status=502)
    for code, status in REFUSAL_CODES.items():
        if status in client_module.BUSY:
            yield BusyError(OWN, code=code, http_status=status, retry_after_s=5)
        else:
            yield RefusedError(OWN, code=code, http_status=status)
    yield BusyError(OWN, code="ML_SERVER_ERROR", http_status=503, retry_after_s=5)
    yield from (JobFailedError(OWN, code=code) for code in JOB_CODES)
    yield from (kind(OWN) for kind in (ForgedCallbackError, BadCallbackError, CallbackTooLargeError))


@pytest.mark.parametrize("error", [*all_of_them()], ids=lambda error: f"{type(error).__name__}-{error.code}")
def test_every_error_has_a_sentence_in_both_languages(error):
    """A whole sentence of its own in Korean and English; the server's own message is still there."""
    korean, english = error.message("ko"), error.message("en")
    assert re.fullmatch(r"[^.]*[가-힣][^.]*(니다|십시오)\.( [^.]*(니다|십시오)\.)*", korean)
    assert re.fullmatch(r"[A-Z].*\.", english)
    assert not re.search("[가-힣]", english)
    assert str(error) == OWN


def test_no_code_is_told_that_is_none():
    """The tables have the server's codes and no other, and no two codes have the same words."""
    assert set(REFUSALS) == set(REFUSAL_CODES)
    assert set(FAILURES) == set(JOB_CODES)
    for table in (REFUSALS, FAILURES):
        for locale in ("ko", "en"):
            told = [sentences[locale] for sentences in table.values()]
            assert len(set(told)) == len(told)


def test_a_refusal_that_arrives_is_told_in_the_readers_language():
    """From the wire: the code decides, not the language of the server; and a busy one says when to come back."""
    status = REFUSAL_CODES["VIDEO_URL_NOT_ALLOWED"]
    error = raised(httpx.Response(status, json=body("VIDEO_URL_NOT_ALLOWED", OWN, None)))
    assert error.message("ko") == "ML 서버가 이 비디오의 주소를 허용하지 않습니다."
    full = httpx.Response(503, json=body("INSUFFICIENT_RESOURCES", OWN, None), headers={"Retry-After": "7"})
    assert raised(full).message("en") == "Too many jobs are waiting. Please try again in 7 s."
    assert raised(full).message("ko") == "대기 중인 작업이 너무 많습니다. 7초 뒤에 다시 시도해 주십시오."


def test_a_proxy_that_is_busy_is_told_as_busy():
    """A 503 that is not the server's: its page is not shown."""
    error = raised(httpx.Response(503, content=b"<html>secret</html>", headers={"Retry-After": "2"}))
    assert error.message("en") == "The ML Server is busy. Please try again in 2 s."


def test_a_code_of_a_later_release_keeps_the_servers_words():
    """Nobody knows the code: what the server says of it is shown."""
    assert RefusedError(OWN, code="NEW_CODE", http_status=400).message("ko") == OWN
    assert JobFailedError(OWN, code="NEW_CODE").message("en") == OWN


def test_a_failed_callback_is_told_by_its_code():
    """A backend has the code and no exception: the words are the same, those of a failed job and not of a refusal."""
    for code in JOB_CODES:
        assert failure_message(code, "ko") == JobFailedError(OWN, code=code).message("ko")
    assert failure_message("INSUFFICIENT_RESOURCES", "en") != REFUSALS["INSUFFICIENT_RESOURCES"]["en"]
    assert failure_message("NEW_CODE", "en") is None
    assert failure_message(None, "en") is None
