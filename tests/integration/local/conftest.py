from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from tests.support.process import running_server

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the example of the Standard Webhooks text


@pytest.fixture(scope="package")
def canary():
    """What stands for the hub and for all of https: the first bytes of whoever comes. Nobody may."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = listener.accept()
                    with caller, contextlib.suppress(OSError):
                        caller.settimeout(2)
                        heard.append(caller.recv(200))

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="package")
def server(canary):
    """The local config with bounds small enough to run into; whoever would report home calls the canary."""
    url, heard = canary
    environment = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "RAY_USAGE_STATS_ENABLED": "1",
        "PYANNOTE_METRICS_ENABLED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "0",
        "ORT_DISABLE_TELEMETRY": "0",
        "RAY_metrics_report_interval_ms": "1000",
        "HF_ENDPOINT": url,
        "HTTPS_PROXY": url,
        "https_proxy": url,
        "ML_SERVER_AUTH__NETWORKS": '["127.0.0.1/32"]',
        "ML_SERVER_WEBHOOK_SECRETS": f'["{WEBHOOK_SECRET}"]',
        "ML_SERVER_HEARTBEAT_S": "2",
        "ML_SERVER_EXTRACTOR__DOWNLOAD__STALL_S": "3",
        "ML_SERVER_EXTRACTOR__DOWNLOAD__MAX_BYTES": "60000000",
        "ML_SERVER_EXTRACTOR__DOWNLOAD__PAUSE_S": "0.1",
    }
    with running_server(environment=environment) as server:
        yield server
        assert heard == []
