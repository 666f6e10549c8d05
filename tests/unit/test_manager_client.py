"""The ingress's client of the job manager, without Ray."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.orchestration import manager_client
from serve_app.orchestration.manager_client import ManagerClient
from tests.support.managers import settings_in, until


class Manager:
    """An actor by its answers to `status`; None: it hangs."""

    def __init__(self, status: tuple[str, float, float] | None) -> None:
        self.status = SimpleNamespace(remote=self._status)
        self.step_down = SimpleNamespace(remote=self._step_down)
        self._answer: Any = status
        self.left = False

    async def _status(self) -> tuple[str, float, float]:
        if self._answer is None:
            await asyncio.Event().wait()
        return self._answer

    async def _step_down(self) -> None:
        self.left = True


class Client(ManagerClient):
    """Finds those managers one after the other, each until it has left or was killed."""

    def __init__(self, settings: Any, managers: list[Manager]) -> None:
        super().__init__(settings, None, 1e9)
        self.managers = managers
        self.killed: list[Manager] = []

    def _get_or_create(self) -> Any:
        self._found = next(each for each in self.managers if not each.left and each not in self.killed)
        return self._found


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, value in (("CHECK_EVERY_S", 0.01), ("ANSWER_S", 0.1), ("MANAGER_SILENCE_S", 0.3)):
        monkeypatch.setattr(manager_client, name, value)


async def test_d4_a_manager_that_hangs_is_killed_and_followed(tmp_path, monkeypatch):
    """D4: it answers no look for a minute: it is killed, once, and the next one is found; health says so meanwhile."""
    settings = settings_in(tmp_path)
    hangs, works = Manager(None), Manager((settings.identity, 0.0, 0.0))
    client = Client(settings, [hangs, works])
    failing = []

    def kill(manager):
        client.killed.append(manager)
        failing.append(client.failing())

    monkeypatch.setattr(manager_client.ray, "kill", kill)
    client.start()
    await until(lambda: bool(client.killed))
    assert failing == [("job manager",)]
    await until(lambda: client.failing() == ())
    assert client.killed == [hangs]


def test_d14_a_manager_of_another_release_leaves(tmp_path):
    """D14: an older one makes room; a newer one is left alone by an ingress that is about to go."""
    settings = settings_in(tmp_path)

    async def run(since: float) -> bool:
        other, own = Manager(("another", since, 0.0)), Manager((settings.identity, 0.0, 0.0))
        client = Client(settings, [other, own])
        assert await client._check() == ()
        return other.left

    assert asyncio.run(run(0.0))
    assert not asyncio.run(run(9e9))
