"""Signatures of callbacks, as the Standard Webhooks library judges them. Without a database."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from deployments.net.client import Answer
from serve_app.callbacks import sender as sender_module
from serve_app.callbacks.sender import Sender
from serve_app.jobs.job import DueCallback
from serve_app.storage.outbox import Permit

SECRETS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
DUE = DueCallback(
    id="msg_1",
    job_id="a",
    url="http://b/result",
    sequence=7,
    body='{"status":"completed","text":"가"}'.encode(),
    attempts=1,
    due_since=0.0,
    age_s=0.0,
)


class Owed:
    """In place of the outbox: one callback, for ever."""

    breaker = SimpleNamespace(acquire=lambda _: Permit(granted=True), record_failure=lambda _, **__: None)

    def claim(self, _id):
        return DUE

    def schedule_retry(self, *_, **__):
        pass


def posts(secrets):
    """Body and headers of a try of the callback."""
    sent = []

    class Receiver:
        async def post(self, _url, body, headers):
            sent.append((body, dict(headers)))
            return Answer(status=500, retry_after_s=None)

    asyncio.run(Sender(Receiver(), Owed(), secrets=secrets).deliver(DUE.id))
    return sent


@pytest.fixture(params=["America/New_York", "Asia/Seoul"], autouse=True)
def _zone(request, monkeypatch):
    """The process lives there during the test."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    assert time.localtime().tm_zone in {"EST", "EDT", "KST"}
    yield
    monkeypatch.undo()
    time.tzset()


def test_w7_signatures_are_true_in_any_time_zone():
    """W7: the library verifies each of two keys, and neither other bytes nor another id or key."""
    [(body, headers)] = posts(SECRETS)
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    for secret in SECRETS:
        assert Webhook(secret).verify(body, headers)["status"] == "completed"
    other = "whsec_" + "A" * 32
    for secret, its_body, its_headers in (
        (SECRETS[0], body + b" ", headers),
        (SECRETS[0], body, headers | {"webhook-id": "msg_other"}),
        (other, body, headers),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(its_body, its_headers)


def test_w7_old_time_stamps_are_refused_and_retries_are_new(monkeypatch):
    """W7: what was sent ten minutes ago is refused, whoever replays it; a retry of now verifies, with the same id."""

    class TenMinutesAgo(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(minutes=10)

    with monkeypatch.context() as patch:
        patch.setattr(sender_module, "datetime", TenMinutesAgo)
        [(body, old)] = posts(SECRETS[:1])
    [(again, fresh)] = posts(SECRETS[:1])
    webhook = Webhook(SECRETS[0])
    with pytest.raises(WebhookVerificationError, match="too old"):
        webhook.verify(body, old)
    with pytest.raises(WebhookVerificationError):
        webhook.verify(body, old | {"webhook-timestamp": fresh["webhook-timestamp"]})
    webhook.verify(again, fresh)
    assert (body, old["webhook-id"]) == (again, fresh["webhook-id"])
