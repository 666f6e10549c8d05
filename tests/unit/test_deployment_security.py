"""W10, R1: the private network of docs/deployment-security.md, loaded as it stands and run through the policies."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from deployments.errors import DownloadError
from deployments.net.client import CallbackClient, NetError
from deployments.net.download import download
from deployments.net.policy import AddressRefusedError, DownloadLimits, check_callback_url, check_video_url
from serve_app.api.request_checks import Clients
from serve_app.exposure import check_bind
from serve_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAGE = Path(__file__).parents[2] / "docs" / "deployment-security.md"
BUCKET = "ecg-videos.s3.ap-northeast-2.amazonaws.com"
ENDPOINT = "ecg-videos.bucket.vpce-0a1b2c.s3.ap-northeast-2.vpce.amazonaws.com"
INSIDE = {"ecg-backend": "10.20.0.9", ENDPOINT: "10.20.8.17", BUCKET: "52.219.60.1"}


@pytest.fixture
def config():
    return yaml.safe_load(PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0])


@pytest.fixture
def settings(config, monkeypatch):
    for variable in ("FASTAPI_BASE_URL", "BACKEND_URL", "ML_SERVER_BACKEND_URL"):
        monkeypatch.delenv(variable, raising=False)
    return Settings(**config["applications"][0]["args"])


@pytest.fixture
def connected(monkeypatch) -> list[str]:
    """The addresses that anybody tried to connect to; nobody answers."""
    tried: list[str] = []

    async def connect(_: object, host: str, *__: object) -> None:
        tried.append(host)
        raise OSError

    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", connect)
    return tried


def resolver(**names: str) -> Callable[[str, int], Awaitable[list[str]]]:
    async def resolve(host: str, _: int) -> list[str]:
        return [(INSIDE | names)[host]]

    return resolve


def fetch(settings: Settings, url: str, to: Path, **names: str) -> str:
    """Why a download did not work; nothing answers, so it never does."""
    limits = DownloadLimits(max_tries=1, pause_s=0)
    with pytest.raises((DownloadError, OSError)) as error:
        asyncio.run(download(url, to, policy=settings.extractor.net, limits=limits, resolve=resolver(**names)))
    return str(error.value)


def tell(settings: Settings, url: str, **names: str) -> None:
    async def main() -> None:
        async with CallbackClient(settings.callbacks, resolve=resolver(**names)) as client:
            await client.post(url, b"{}", {})

    with pytest.raises((NetError, OSError)):
        asyncio.run(main())


def test_r1_the_private_network_starts(config, settings):
    """R1: the example is a Serve config, and production starts with it, bound beyond loopback."""
    ServeDeploySchema.model_validate(config)
    assert settings.profile == "production"
    check_bind(config["http_options"]["host"], settings.auth)


def test_r1_the_backend_gets_in_and_its_neighbours_do_not(settings):
    """R1: who asks from the named network is let in without a key, others are not, whatever they say of themselves."""
    clients = Clients(None, auth=settings.auth)
    for peer, lets_in in (("10.20.0.9", True), ("127.0.0.1", True), ("10.20.1.9", False), ("52.1.2.3", False)):
        assert clients._allowed(clients.behind(ip_address(peer), [])) is lets_in
        assert not clients._allowed(clients.behind(ip_address("52.1.2.3"), [ip_address(peer)]))


def test_w10_the_private_network_is_reached(settings, connected, tmp_path):
    """W10: http://ecg-backend:8000 and S3, by its endpoint and publicly: each is connected to where it was checked."""
    check_callback_url("http://ecg-backend:8000/api/upload-video/result", settings.callbacks)
    tell(settings, "http://ecg-backend:8000/api/upload-video/result")
    for host in (ENDPOINT, BUCKET):
        check_video_url(f"https://{host}/v.mp4?X-Amz-Signature=1", settings.extractor.net)
        fetch(settings, f"https://{host}/v.mp4", tmp_path / "v")
    assert connected == ["10.20.0.9", "10.20.8.17", "52.219.60.1"]


@pytest.mark.parametrize(
    "url",
    [
        "http://ecg-backend:8000/v.mp4",
        f"http://{BUCKET}/v.mp4",
        "https://10.20.8.17/v.mp4",
        "https://10.20.0.9:8000/v.mp4",
        "https://evil.example/v.mp4",
        f"https://{BUCKET}.evil.example/v.mp4",
        f"https://evil.example#{BUCKET}",
        f"https://{BUCKET}@evil.example/v.mp4",
        f"https://{BUCKET}:8443/v.mp4",
    ],
)
def test_w10_no_other_video_is_asked_for(settings, url):
    """W10: what is not a named host by https is refused when the job is posted."""
    with pytest.raises(AddressRefusedError):
        check_video_url(url, settings.extractor.net)


@pytest.mark.parametrize("address", ["10.20.0.9", "10.20.9.1", "127.0.0.1", "169.254.169.254", "::ffff:10.20.8.17"])
def test_w10_a_named_host_leads_nowhere_else(settings, connected, tmp_path, address):
    """W10: a named bucket that resolves to the backend, this machine or the cloud's metadata is not connected to."""
    assert "not allowed" in fetch(settings, f"https://{ENDPOINT}/v.mp4", tmp_path / "v", **{ENDPOINT: address})
    if address != "10.20.0.9":
        tell(settings, "http://ecg-backend:8000/x", **{"ecg-backend": address})
    assert connected == []
