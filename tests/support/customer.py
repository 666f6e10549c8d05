"""Whoever posts jobs: for the checker, for the steady load, and for those who measure how fast answers come."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

ASK_AGAIN_S = 0.5
NOT_ANSWERED = 0
"""In place of a status: the connection broke, or no answer came in time."""


@dataclass(slots=True, kw_only=True)
class Posted:
    """A job that was asked for. `answered_at` is None where no 200 ever came: then nothing is promised."""

    job_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    video: str = ""
    """Its name, by which the checker knows what its result has to equal."""
    answered_at: float | None = None
    cancelled: bool = False
    """The customer asked for its end."""
    status: int = NOT_ANSWERED
    """Of the newest answer."""
    took_s: float = 0.0
    """Until the newest answer."""


class Customer:
    """Orders jobs with `post`, `at_once` at a time.

    Each is posted again under its id until a 200 comes, as the contract wants it; with `asks_again=False` but once.
    """

    def __init__(self, post: Callable[[Posted], httpx.Response], *, at_once: int = 8, asks_again: bool = True) -> None:
        self._post = post
        self._asks_again = asks_again
        self._threads = ThreadPoolExecutor(at_once)
        self._stop = threading.Event()
        self.posted: list[Posted] = []

    def order(self, video: str = "") -> str:
        """One more job; its id."""
        self.posted.append(order := Posted(video=video))
        self._threads.submit(self._ask, order)
        return order.job_id

    def _ask(self, order: Posted) -> None:
        while not self._stop.is_set():
            began, status = time.perf_counter(), NOT_ANSWERED
            with suppress(httpx.HTTPError):
                status = self._post(order).status_code
            order.took_s, order.status = time.perf_counter() - began, status
            if status == httpx.codes.OK:
                order.answered_at = time.monotonic()
            if status == httpx.codes.OK or not self._asks_again:
                return
            self._stop.wait(ASK_AGAIN_S)

    @property
    def unanswered(self) -> int:
        """Jobs for which no 200 came yet."""
        return sum(order.answered_at is None for order in list(self.posted))

    def wait(self) -> None:
        """Take no more orders; return when all are answered."""
        self._threads.shutdown()

    def give_up(self) -> None:
        """Ask no more."""
        self._stop.set()
        self.wait()
