"""M7: what is logged of an error tells where it came from, and no secret."""

from __future__ import annotations

import json
import logging
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deployments import logs
from deployments.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

URL = "https://b.s3.amazonaws.com/v.mp4?X-Amz-Signature=s3cr3t"


class Kept(logging.Handler):
    """What a handler of Serve's, or ours, would write."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def kept() -> Iterator[Callable[[logging.Formatter], Kept]]:
    """A handler where Serve has its own, with the formatter that is asked for."""
    root = logging.getLogger(logs.ROOT)
    made: list[Kept] = []

    def make(formatter: logging.Formatter) -> Kept:
        made.append(Kept())
        made[-1].setFormatter(formatter)
        root.addHandler(made[-1])
        return made[-1]

    logs.configure()
    yield make
    for handler in made:
        root.removeHandler(handler)


def fail() -> None:
    try:
        Path("/nowhere/at/all.bin").read_bytes()
    except OSError as error:
        raise RuntimeError(f"no {URL}\nTraceback (most recent call last):\n  File x\nValueError: {URL}") from error


@pytest.mark.parametrize("formatter", [logs.JsonFormatter(), logging.Formatter("%(message)s %(trace)s")])
def test_m7_an_error_is_logged_without_traceback_path_or_query(
    formatter: logging.Formatter, kept: Callable[[logging.Formatter], Kept]
) -> None:
    """M7: in whatever form a handler writes, the errors and the functions they came through are told, no more."""
    handler = kept(formatter)
    try:
        fail()
    except RuntimeError:
        logs.get_logger(f"test.{uuid.uuid4()}").exception("it failed")
    (line,) = handler.lines
    assert "it failed" in line
    assert "RuntimeError: ValueError: https://b.s3.amazonaws.com/v.mp4?…" in line
    assert "test_logs.fail:" in line
    assert "FileNotFoundError" in line
    for secret in ("Traceback", "s3cr3t", "/nowhere", str(Path(__file__).parent)):
        assert secret not in line


def test_m7_no_field_holds_a_query(kept: Callable[[logging.Formatter], Kept]) -> None:
    """M7: a URL that somebody logs by mistake, in message or field, loses its query, and the line stays JSON."""
    handler = kept(logs.JsonFormatter())
    logs.get_logger("test").warning('got "%s"', URL, extra=logs.about("j", url=URL + '\\"x'))
    line = json.loads(handler.lines[0])
    assert line["message"] == 'got "https://b.s3.amazonaws.com/v.mp4?…"'
    assert "s3cr3t" not in handler.lines[0]


def test_m7_serve_says_nothing_of_errors_on_purpose(kept: Callable[[logging.Formatter], Kept]) -> None:
    """M7: an expected error that crosses Serve is the caller's to report; an unexpected one is logged as ours are."""
    handler = kept(logs.JsonFormatter())
    serve = logging.getLogger(logs.ROOT)
    serve.error("Request failed.", exc_info=DownloadError(reason="http_404"))
    assert handler.lines == []
    try:
        fail()
    except RuntimeError:
        serve.exception("Request failed.")
    assert "test_logs.fail:" in handler.lines[0]
    assert "Traceback" not in handler.lines[0]
