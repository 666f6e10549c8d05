"""Does harm, one thing after the other, by a seed: kills, stops, spoils the backend's mood, cancels, ends the server.

Its acts lie in a deck that is shuffled and dealt to the end, then shuffled again: so each kind has its turn.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx

from tests.chaos.backend import HONEST, MOODS
from tests.chaos.history import Fault
from tests.chaos.server import REPLICAS
from tests.support.process import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.backend import Unreliable
    from tests.chaos.server import MortalServer
    from tests.chaos.watcher import Watcher
    from tests.support.customer import Customer

PAUSE_S = (1.0, 4.0)
STOP_S = (1.0, 4.0)
MOOD_S = (1.0, 4.0)
VICTIM_WITHIN_S = 3.0
"""How long to wait for a process of the wanted kind."""
DEPLOYED_WITHIN_S = 180
START_TRIES = 3
"""A start that fails is counted, and is no reason to stop looking at the jobs."""
ORCHESTRATION = ("manager", "proxy", "controller")
DECK: tuple[tuple[str, str], ...] = (
    *[("kill", "driver")] * 4,
    *[("kill", name) for name in (*ORCHESTRATION, *REPLICAS)],
    *[("stop", "driver")] * 2,
    *[("stop", name) for name in (*ORCHESTRATION, "Ingress", "AudioExtractor", "Transcriber")],
    *[("backend", mood) for mood in ("resets", "errors", "slow")],
    *[("cancel", "job")] * 2,
)


class Nemesis:
    """Acts on one server, its backend and its customer."""

    def __init__(
        self,
        server: MortalServer,
        backend: Unreliable,
        customer: Customer,
        watcher: Watcher,
        *,
        seed: int,
        opening: Sequence[tuple[str, str]] = (),
        pause_s: tuple[float, float] = PAUSE_S,
    ) -> None:
        self._server = server
        self._backend = backend
        self._customer = customer
        self._watcher = watcher
        self._chance = random.Random(seed)
        self._deck = list(reversed(opening))
        self._pause_s = pause_s
        self.faults: list[Fault] = []

    def pause_s(self) -> float:
        """Until the next act."""
        return self._chance.uniform(*self._pause_s)

    def act(self) -> None:
        if not self._deck:
            self._deck = self._chance.sample(DECK, len(DECK))
        kind, target = self._deck.pop()
        at = time.monotonic()
        did = {
            "kill": self._kill,
            "stop": self._stop,
            "backend": self._spoil,
            "cancel": self._cancel,
            "deploy": self._deploy,
        }[kind](target)
        if did is not None:
            self.faults.append(Fault(kind=kind, target=target, at=did, until=time.monotonic()))
        else:
            self.faults.append(Fault(kind="missed", target=f"{kind} {target}", at=at, until=at))

    def end_server(self) -> None:
        """End everything with kill -9, and start it again."""
        at = time.monotonic()
        self._server.crash()
        self._server.start(tries=START_TRIES)
        self.faults.append(Fault(kind="kill", target="server", at=at, until=time.monotonic()))

    def end_ray(self) -> None:
        """Kill the raylet: the server ends with an error, as it would never work again; then start it again."""
        at = time.monotonic()
        _signal(*self._server.pids("raylet"), signal.SIGKILL)
        until(lambda: self._server.process.exit_code is not None, within_s=60)
        assert self._server.process.exit_code == 1
        assert "Ray has ended (raylet)" in self._server.process.tail(5)
        self._server.start(tries=START_TRIES)
        self.faults.append(Fault(kind="kill", target="raylet", at=at, until=time.monotonic()))

    def _victim(self, name: str) -> int | None:
        deadline = time.monotonic() + VICTIM_WITHIN_S
        while not (pids := self._server.pids(name)):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)
        return self._chance.choice(sorted(pids))

    def _kill(self, name: str) -> float | None:
        pid = self._victim(name)
        return None if pid is None else _signal(pid, signal.SIGKILL)

    def _stop(self, name: str) -> float | None:
        pid = self._victim(name)
        if pid is None or (at := _signal(pid, signal.SIGSTOP)) is None:
            return None
        time.sleep(self._chance.uniform(*STOP_S))
        _signal(pid, signal.SIGCONT)
        return at

    def _spoil(self, mood: str) -> float:
        at = time.monotonic()
        before, self._backend.mood = self._backend.mood, MOODS[mood]
        time.sleep(self._chance.uniform(*MOOD_S))
        self._backend.mood = before
        return at

    def _deploy(self, release: str) -> float:
        at = time.monotonic()
        old = {name: set(self._server.pids(name)) for name in ("manager", *REPLICAS)}
        self._server.deploy(release)
        until(lambda: not any(old[name] & set(self._server.pids(name)) for name in old), within_s=DEPLOYED_WITHIN_S)
        return at

    def _cancel(self, _: str) -> float | None:
        """Ask for a job's end. One that ended meanwhile is deleted by that, and forgotten by its customer."""
        if not (candidates := self._watcher.open):
            return None
        at, job_id = time.monotonic(), self._chance.choice(candidates)
        order = next(each for each in self._customer.posted if each.job_id == job_id)
        order.cancelled = True
        with suppress(httpx.HTTPError):
            if self._server.cancel(job_id).status_code == httpx.codes.OK:
                self._customer.posted.remove(order)
        return at

    def rest(self) -> None:
        self._backend.mood = HONEST


def _signal(pid: int, number: signal.Signals) -> float | None:
    """When it was sent; None where the process ended meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return time.monotonic()
    return None


def told(faults: Sequence[Fault]) -> str:
    """How many of which, for a human."""
    counts: dict[str, int] = {}
    for fault in faults:
        counts[fault.kind] = counts.get(fault.kind, 0) + 1
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
