"""R1: a server that would be open to everybody does not start, in every way in which it can be started."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from pydantic import ValidationError

from serve_app import app, ingress
from serve_app.cli.checks import StartError, check_host
from serve_app.cli.local import UpOptions, load_config
from serve_app.exposure import FORWARDED, ExposedError, check_bind, check_forwarding
from serve_app.settings import Auth, Settings

ROOT = Path(__file__).parents[2]
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is refused
KEYS = {"mode": "keys", "key_hashes": ["0" * 64]}
WIDE = [EVERYWHERE, "::", "", "192.168.1.5", "8.8.8.8", "ml-server", "::ffff:127.0.0.1", "127.1", "0"]


@pytest.mark.parametrize("host", WIDE)
def test_r1_a_wide_bind_wants_keys_or_named_clients(host):
    """R1: beyond loopback, `auth: none` without named networks is refused, in a sentence that says what to set."""
    with pytest.raises(ExposedError, match=r"auth\.mode to keys, or name the clients' networks in auth\.networks"):
        check_bind(host, Auth())
    check_bind(host, Auth(**KEYS))
    check_bind(host, Auth(networks=["10.20.0.0/16"]))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost", "LOCALHOST", None])
def test_r1_loopback_wants_nothing(host):
    """R1: what only this machine reaches needs neither."""
    check_bind(host, Auth())


@pytest.mark.parametrize("networks", [["0.0.0.0/0"], ["10.0.0.0/8", "::/0"]])
def test_r1_everybody_is_no_network(networks):
    """R1: to name all addresses is to name none, for clients as for proxies."""
    for field in ("networks", "proxies"):
        with pytest.raises(ValidationError, match="is everybody"):
            Auth(**{field: networks})


@pytest.mark.parametrize(("named", "fine"), [("", True), ("127.0.0.1,::1", True), ("*", False), ("10.0.0.0/8", False)])
def test_r1_uvicorn_believes_nobody_else(named, fine):
    """R1: FORWARDED_ALLOW_IPS would have Serve's proxy rewrite clients before we see them: not beyond this machine."""
    if fine:
        check_forwarding({FORWARDED: named})
    else:
        with pytest.raises(ExposedError, match=r"auth\.proxies"):
            check_forwarding({FORWARDED: named})


def options(config: Path, host: str | None) -> UpOptions:
    return UpOptions(config=config, host=host, port=None, state_dir=None, address=None, num_cpus=None, num_gpus=None)


def start(config: Path, host: str | None) -> None:
    """`ml-server up`, as far as the bind is concerned."""
    content = load_config(options(config, host))
    check_host(content, Settings(**content["applications"][0]["args"]))


@pytest.mark.parametrize("name", ["configs/local.yaml", "configs/gpu.yaml"])
def test_r1_up_opens_no_config_that_is_for_one_machine(name):
    """R1: `ml-server up --host 0.0.0.0` with a config for one machine is refused, and starts without `--host`."""
    start(ROOT / name, None)
    with pytest.raises(StartError, match=r"it would listen on 0\.0\.0\.0, beyond this machine"):
        start(ROOT / name, EVERYWHERE)


@pytest.mark.parametrize("name", ["serve_config.yaml", "configs/cluster.yaml"])
def test_r1_what_listens_everywhere_names_its_clients(name, tmp_path):
    """R1: the committed configs that bind beyond loopback start as they are, and not without their `auth`."""
    start(ROOT / name, None)
    content = yaml.safe_load((ROOT / name).read_text())
    assert content["http_options"]["host"] == EVERYWHERE
    del content["applications"][0]["args"]["auth"]
    (tmp_path / "open.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(StartError, match="serve whoever comes"):
        start(tmp_path / "open.yaml", None)


def test_r1_a_config_without_a_host_is_for_loopback(tmp_path):
    """R1: loopback unless told otherwise; Serve's own default for a config file is every address."""
    (tmp_path / "bare.yaml").write_text("applications: [{name: ml-server, args: {profile: local}}]")
    assert load_config(options(tmp_path / "bare.yaml", None))["http_options"]["host"] == "127.0.0.1"
    start(tmp_path / "bare.yaml", None)


@pytest.fixture
def serve_listens(monkeypatch):
    """Serve's controller, as `serve deploy` has started it before it builds the app."""

    def listens(host):
        controller = SimpleNamespace(get_http_config=SimpleNamespace(remote=lambda: SimpleNamespace(host=host)))
        monkeypatch.setattr(ingress.ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ingress.ray, "get_actor", lambda *_: controller)
        monkeypatch.setattr(ingress.ray, "get", lambda answer: answer)
        monkeypatch.setattr(app, "check_reach", lambda _: None)

    return listens


def test_r1_serve_deploy_refuses_too(serve_listens):
    """R1: the app's builder asks Serve's controller where it listens; http_options are no arguments of the app."""
    serve_listens(EVERYWHERE)
    with pytest.raises(ExposedError, match="beyond this machine"):
        app.build(Settings(profile="local"))
    app.build(Settings(profile="local", auth={"networks": ["10.20.0.0/16"]}))
    serve_listens("127.0.0.1")
    app.build(Settings(profile="local"))


def test_r1_serve_run_is_refused_by_the_ingress(serve_listens, monkeypatch):
    """R1: `serve run` builds the app before there is a Serve to ask: the replica that would answer looks again."""
    serve_listens(EVERYWHERE)
    monkeypatch.setattr(ingress.placement, "check_reach", lambda _: None)
    with pytest.raises(ExposedError, match="beyond this machine"):
        ingress._Ingress(Settings(profile="local"))


def production(**changes: object) -> Settings:
    return Settings(**{"profile": "production", "backend_url": "http://ecg-backend:8000"} | changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"extractor": {"net": {"schemes": ["http", "https"]}}}, "extractor.net.schemes allows http"),
        ({"callbacks": {"origins": ["https://api.example.com:*"]}}, "exact origins only"),
        ({"callbacks": {"origins": ["http://*.example.com"]}}, "not an origin"),
        ({"callbacks": {"networks": ["0.0.0.0/0"]}}, "more than one special network"),
        ({"extractor": {"net": {"networks": ["::/0"]}}}, "more than one special network"),
        ({"extractor": {"net": {"networks": ["10.0.0.0/7"]}}}, "more than one special network"),
        ({"extractor": {"net": {"networks": ["10.20.0.0/16"]}}}, "extractor.net.hosts"),
        ({"extractor": {"net": {"networks": ["10.20.0.0/16"], "hosts": ["s3.example.com", "*.*"]}}}, "name the hosts"),
        ({"extractor": {"net": {"proxy": "socks5://proxy:1080"}}}, "an HTTP proxy"),
        ({"callbacks": {"ca_file": "/nowhere/ca.pem"}}, "ca_file is no file"),
        ({"models": {"allow_unpinned": True}}, "only as the model lock pins"),
        ({"backend_url": None}, "no callback base"),
    ],
)
def test_r1_production_refuses_unsafe_settings(changes, sentence, monkeypatch):
    """R1: what only a laptop may have ends a production start, with one clear sentence that names the setting."""
    for variable in ("FASTAPI_BASE_URL", "BACKEND_URL", "ML_SERVER_BACKEND_URL"):
        monkeypatch.delenv(variable, raising=False)
    production()
    with pytest.raises(ValidationError) as refused:
        production(**changes)
    assert len(refused.value.errors()) == 1
    assert sentence in refused.value.errors()[0]["msg"]


def test_r1_a_refused_proxy_is_not_repeated():
    """R1: an egress proxy's URL holds its password: no error shows it."""
    with pytest.raises(ValidationError) as refused:
        production(callbacks={"proxy": "ftp://user:hunter2@proxy:3128"})
    assert "hunter2" not in str(refused.value)
