"""Receives callbacks, independent of the web framework: `router.py` is for FastAPI, another one needs a few lines."""

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
"""The contract's limit of 50 MB, in binary units."""
PATHS = ("/api/upload-video/result", "/api/v1/ml/ml-results")
"""The paths of callbacks: contract 1.1, contract 1.0."""


class Receiver:
    """Verifies callbacks, drops duplicates and stale ones, and passes on the others, one at a time per job."""

    def __init__(
        self,
        handle: Callable[[Callback], Awaitable[None]],
        *,
        secrets: Sequence[str] | None = None,
        memory: CallbackMemory | None = None,
    ) -> None:
        """Create a receiver.

        Args:
            handle: Called with each callback to apply. If it raises, the server sends that callback again.
            secrets: The server's `webhook_secrets`; one of them must have signed. Default: those in ML_WEBHOOK_SECRET,
                separated by spaces. Empty: unsigned callbacks are accepted from whoever reaches the endpoint.
            memory: Stores which callbacks were applied; default: `InMemory`.

        Raises:
            ValueError: A secret is invalid, or `secrets` is None and ML_WEBHOOK_SECRET is not set.
        """
        if secrets is None:
            secrets = os.environ.get(VARIABLE, "").split()
            if not secrets:
                raise ValueError(f"{VARIABLE} is not set; secrets=() takes unsigned callbacks")
        self._handle = handle
        self._keys = [key_of(secret) for secret in secrets]
        self._memory = memory or InMemory()

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Verify and apply a callback; return the outcome. Answer every outcome with a 2xx. Raises `CallbackError`.

        Args:
            body: The exact bytes of the request; the signature is over them.
            headers: All headers of the request, their names in any case.
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
