"""A piece of work that kills its replica, beside nine jobs that do not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve._private.common import DeploymentID
from ray.serve._private.router import AsyncioRouter

from deployments.errors import InternalJobError
from serve_app.orchestration import attempt as attempt_module
from serve_app.orchestration.attempt import Isolation
from serve_app.pipeline import stage_calls as calls
from serve_app.pipeline.stage_calls import StageCalls
from serve_app.storage import leases
from serve_app.storage.database import Database

CALL_S = 0.02
RESTART_S = 0.1
PIECES = 6
WORKERS = 4


class Replica:
    """A stage with one replica, which is gone for a while when a poisoned piece is computed in it."""

    def __init__(self) -> None:
        self._up = asyncio.Event()
        self._up.set()
        self._running: set[asyncio.Future[None]] = set()
        self.deaths = 0

    def remote(self, piece: str) -> Response:
        return Response(asyncio.ensure_future(self._compute(piece)))

    async def _compute(self, piece: str) -> str:
        await self._up.wait()
        life = asyncio.get_running_loop().create_future()
        self._running.add(life)
        done, _ = await asyncio.wait([life], timeout=CALL_S / 2 if piece == "poison" else CALL_S)
        if done:
            life.result()
        if piece == "poison":
            self.die()
            life.result()
        self._running.discard(life)
        return piece

    def die(self) -> None:
        self.deaths += 1
        self._up.clear()
        asyncio.get_running_loop().call_later(RESTART_S, self._up.set)
        running, self._running = self._running, set()
        for life in running:
            life.set_exception(ActorDiedError())


class Response:
    """What Serve's handle gives: awaited, or cancelled."""

    def __init__(self, task: asyncio.Future[Any]) -> None:
        self._task = task

    def __await__(self) -> Any:
        return self._task.__await__()

    def cancel(self) -> None:
        self._task.cancel()


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(calls, "ISOLATED_WAITS_S", (0.01, 0.05))
    monkeypatch.setattr(attempt_module, "POLL_S", 0.02)
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.create()
    yield database
    database.close()


async def job(name: str, stage: Replica, database: Database) -> list[str]:
    own = StageCalls(name, WORKERS, Isolation(database).hold)
    return await own.map(lambda piece: own.call(stage.remote, piece), [name] * PIECES)


@pytest.mark.parametrize("seed", range(3))
async def test_d6_a_file_that_kills_its_replica(database, seed):
    """D6: after three deaths it is known for the cause and fails; its nine neighbours finish, whatever the timing."""
    stage = Replica()
    names = [f"job-{i}" for i in range(9)]
    names.insert(3 * seed, "poison")
    ended = await asyncio.gather(*(job(name, stage, database) for name in names), return_exceptions=True)
    (*neighbours, poison), deaths = (
        [end for name, end in zip(names, ended, strict=True) if name != "poison"] + [ended[3 * seed]],
        stage.deaths,
    )
    assert neighbours == [[f"job-{i}"] * PIECES for i in range(9)]
    assert isinstance(poison, InternalJobError)
    assert deaths == 3


async def test_d6_who_died_of_others_is_not_blamed(database):
    """D6: a replica that dies once while a piece is alone in it, by whatever cause: the piece is made again."""
    stage = Replica()
    work = asyncio.create_task(job("a", stage, database))
    for _ in range(2):
        await asyncio.sleep(CALL_S / 2)
        while not stage._running:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        stage.die()
    assert await work == ["a"] * PIECES


async def test_d6_to_be_alone_lasts_as_long_as_the_call(database, monkeypatch):
    """D6: a call that takes longer than a lease keeps the others off until it ends, and then they come."""
    monkeypatch.setattr(leases, "LEASE_S", 0.2)
    monkeypatch.setattr(attempt_module, "BEAT_S", 0.05)
    inside: list[str] = []

    async def alone(name: str, seconds: float) -> None:
        async with Isolation(database).hold():
            inside.append(name)
            await asyncio.sleep(seconds)
            inside.append(name)

    first = asyncio.create_task(alone("a", 1.0))
    while not inside:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.gather(first, alone("b", 0))
    assert inside == ["a", "a", "b", "b"]


async def test_a_replica_that_is_out_of_reach_is_not_a_death(database):
    """A call that cannot reach its replica for a moment is made again, beside the others."""
    failures = [ActorUnavailableError("away", b"x" * 16)] * 3

    class Away:
        def remote(self, piece: str) -> Response:
            async def answer() -> str:
                if failures:
                    raise failures.pop()
                return piece

            return Response(asyncio.ensure_future(answer()))

    def nobody() -> Any:
        raise AssertionError

    assert await StageCalls("a", 1, nobody).call(Away().remote, "a") == "a"


async def test_d3_what_a_call_refers_to_dies_with_its_maker(database):
    """D3: the call is made again with a new argument, at once, by Serve's own word for it (found by the checker)."""
    router = SimpleNamespace(deployment_id=DeploymentID("SpeechDetector"))
    lost = AsyncioRouter._make_upstream_crash_error(router, ActorDiedError())
    arguments = ["lost"]

    async def compute() -> str:
        if arguments[-1] == "lost":
            raise lost
        return arguments[-1]

    own = StageCalls("a", WORKERS, Isolation(database).hold)
    assert (
        await own.call(lambda: Response(asyncio.ensure_future(compute())), before_retry=lambda: arguments.append("new"))
        == "new"
    )
    assert arguments == ["lost", "new"]
