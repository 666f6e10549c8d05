from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager

import pytest
from limits.aio.storage import MemoryStorage
from pydantic import SecretStr, ValidationError

from serve_app.api.request_checks import Gate, KeyRing, open_storage
from serve_app.cli.child_process import free_port
from serve_app.settings import Settings
from tests.support import redis


class NoKeys:
    def digests(self) -> tuple[bytes, ...]:
        return ()


def ring(*keys):
    return KeyRing([hashlib.sha256(key.encode()).hexdigest() for key in keys], NoKeys())


async def ask(gate, *, key="", address="10.0.0.1", path="/x"):
    """The status: 200 where the gate let the request through."""
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    await gate({"type": "http", "path": path, "headers": headers, "client": (address, 1)}, None, send)
    return sent[0]["status"], dict(sent[0].get("headers", ()))


async def through(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


def replica(storage, *, keys=None, rate="2/minute"):
    return Gate(through, keys=keys, rate=rate, storage=storage)


async def statuses(*asks):
    return [(await each)[0] for each in asks]


async def test_a3_clients_are_told_apart_by_key_else_by_address():
    """A3: one client's flood costs another nothing; with keys the address says nothing, without them it does."""
    keyed = replica(MemoryStorage(), keys=ring("a", "b"))
    assert await statuses(*(ask(keyed, key="a", address=f"10.0.0.{n}") for n in range(3))) == [200, 200, 429]
    assert await statuses(ask(keyed, key="b"), ask(keyed, key="a", path="/health")) == [200, 200]
    open_to_all = replica(MemoryStorage())
    assert await statuses(*(ask(open_to_all, key=f"k{n}") for n in range(3))) == [200, 200, 429]
    assert await statuses(ask(open_to_all, address="10.0.0.2")) == [200]


async def test_a3_a_refusal_says_when_to_come_back():
    """A3: 429 with Retry-After within the window, and the window moves."""
    gate = replica(MemoryStorage(), rate="1/second")
    assert (await ask(gate))[0] == 200
    status, headers = await ask(gate)
    assert (status, headers[b"retry-after"]) == (429, b"1")
    await asyncio.sleep(1)  # what it was told
    assert (await ask(gate))[0] == 200


@asynccontextmanager
async def connected(url):
    """A replica's storage, whose connections end with it."""
    storage = open_storage(SecretStr(url))
    yield storage
    await storage.bridge.get_connection().aclose(close_connection_pool=True)


def test_a3_replicas_count_together_in_redis():
    """A3: with a shared store a client has one allowance over all ingress replicas."""
    redis.require()
    with redis.running_redis() as address:
        url = f"redis://{address}/0"

        async def check():
            async with connected(url) as one, connected(url) as other:
                replicas = [replica(storage, rate="3/minute") for storage in (one, other)]
                asked = [ask(replicas[n % 2]) for n in range(6)]
                assert await statuses(*asked) == [200] * 3 + [429] * 3
                assert await statuses(ask(replicas[0], address="10.0.0.2")) == [200]

        asyncio.run(check())


async def test_a3_a_store_that_is_away_is_no_outage():
    """A3: each replica counts for itself meanwhile: nobody is refused for it, and nobody is without limit."""
    async with connected(f"redis://127.0.0.1:{free_port()}") as storage:
        gate = replica(storage)
        assert await statuses(*(ask(gate) for _ in range(3))) == [200, 200, 429]


def test_a3_a_wrong_store_is_named_at_start():
    """A3: what is no Redis URL is refused before the first request, without being repeated."""
    with pytest.raises(ValidationError, match="redis://host:6379/0") as refused:
        Settings(profile="local", rate_limit_store="memcached://:secret@h")
    assert "secret" not in str(refused.value)
    with pytest.raises(ValidationError, match="600/minute"):
        Settings(profile="local", rate_limit="often")
