"""Takes callbacks, whatever the web framework: `router.py` is FastAPI's, another one needs a few lines."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ml_server_client.errors import BadCallbackError
from ml_server_client.memory import InMemory
from ml_server_client.models import Callback
from ml_server_client.signatures import key_of, number, verify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ml_server_client.memory import CallbackMemory, Outcome

VARIABLE = "ML_WEBHOOK_SECRET"
MAX_BYTES = 50 * 1024 * 1024
"""The contract's 50 MB, generously read."""
PATHS = ("/api/upload-video/result", "/api/v1/ml/ml-results")
"""Where the ML Server posts: contract 1.1, contract 1.0."""


class Receiver:
    """Verifies a callback, drops what came before or is older, and hands on the rest, one at a time per job."""

    def __init__(
        self,
        handle: Callable[[Callback], Awaitable[None]],
        *,
        secrets: Sequence[str] | None = None,
        memory: CallbackMemory | None = None,
    ) -> None:
        """`handle` gets each callback that counts; where it raises, the server sends that callback again.

        `secrets` are the server's `webhook_secrets`, any of which may have signed; by default those in
        ML_WEBHOOK_SECRET, with spaces between. Empty: callbacks are not signed, and whoever reaches the endpoint is
        believed. Raises ValueError for what is no secret, and where the variable is to be read and is not set.
        """
        if secrets is None:
            secrets = os.environ.get(VARIABLE, "").split()
            if not secrets:
                raise ValueError(f"{VARIABLE} is not set; secrets=() takes unsigned callbacks")
        self._handle = handle
        self._keys = [key_of(secret) for secret in secrets]
        self._memory = memory or InMemory()

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """What became of a callback; each outcome is to be answered with a 2xx. Raises `CallbackError`.

        Args:
            body: The exact bytes that came in; the signature is over them.
            headers: All that came in, their names in any case.
        """
        lower = {name.lower(): value for name, value in headers.items()}
        callback = await asyncio.to_thread(self._parse, body, lower)  # 50 MB take a while
        message_id, sequence = lower.get("webhook-id"), number(lower.get("x-ml-sequence", ""))
        if not message_id or sequence is None:
            raise BadCallbackError("webhook-id or X-ML-Sequence is missing: does a proxy drop them?")
        async with self._memory.turn(callback.job_id, sequence=sequence, message_id=message_id) as outcome:
            if outcome == "applied":
                await self._handle(callback)
        return outcome

    def _parse(self, body: bytes, headers: Mapping[str, str]) -> Callback:
        if self._keys:
            verify(body, headers, self._keys)
        try:
            return Callback.model_validate_json(body)
        except ValidationError as error:
            raise BadCallbackError("not a callback of the ML Server") from error
