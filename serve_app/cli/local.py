"""Runs the server in the foreground, from a Serve config, on a private Ray or on one that is joined."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import httpx
import yaml

from deployments.logs import JOB_FIELD, LOG_FILE_VARIABLE
from serve_app.api import proxy_guard
from serve_app.cli import checks
from serve_app.cli.checks import StartError
from serve_app.exposure import FORWARDED
from serve_app.lean_imports import HOOK_VARIABLE, SERVE_HOOK, import_serve, use_bytecode

if TYPE_CHECKING:
    from collections.abc import Iterator

AUTOGROUP = Path("/proc/self/autogroup")
SESSION_NICENESS = 7
START_TIMEOUT_S = 300.0
LONGEST_RAY_DIR = 40
"""Ray puts Unix sockets below its folder; their names may have 107 bytes in all."""
POLL_S = 0.25
LOG_POLL_S = 0.2
SHOWN = frozenset({"time", "level", "logger", "message", "pid", "trace", JOB_FIELD})
"""Fields of the log that a readable line does not show as `key=value`."""
DRAIN_S = 15.0
"""For the job actors to give back their jobs, which takes a second; killing a late one costs no more than a crash."""
ASK_SERVE_EVERY_S = 2.0
RAY_STARTS = 3
"""Ray gives its node 30 s to start, which cannot be set; a busy machine may need more, and then has less to load."""
DEPLOY_TRIES, DEPLOY_WAIT_S = 5, 2.0
LEAVE_S = 3.0
SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYANNOTE_METRICS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, which pyannote's import loads
}
"""Disable the telemetry of every library."""
VITAL = {"raylet", "gcs_server"}
"""Processes of Ray without which nothing works. Ray restarts none of them."""
FAILED = {"DEPLOY_FAILED", "UNHEALTHY"}
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception)(?:\([\w.]+\))?: ", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """Options of `ml-server up`; None: as the config says."""

    config: Path
    host: str | None
    port: int | None
    state_dir: Path | None
    address: str | None
    num_cpus: int | None
    num_gpus: int | None


class RayLostError(click.ClickException):
    """The private Ray has ended. The server has to be started again; its jobs then go on."""


def up(options: UpOptions) -> None:
    """Start the server, print its URLs, and serve until SIGINT or SIGTERM; a second signal hurries the end.

    Raises `StartError`, `RayLostError`.
    """
    config = load_config(options)
    state_dir, metrics_port = _prepare(options, config)
    stop, hurry = threading.Event(), threading.Event()
    _on_signals(stop, hurry)  # until now a signal ends the process, which has started nothing that outlives it
    with (
        _logs(state_dir),
        _in_the_background(private=state_dir is not None),
        _ray(state_dir, options, metrics_port) as dashboard,
    ):
        _on_signals(stop, hurry)  # once more: Ray has set its own
        _deploy(config, dashboard)
        url = _url(config)
        _wait_until_healthy(url, dashboard, stop)
        if not stop.is_set():
            shown = config["applications"][0].get("args", {})
            pages = f"console {url}/console, " * bool(shown.get("console", True))
            pages += f"API {url}/docs, " * bool(shown.get("docs"))
            metrics = f"metrics {_metrics_url()}, " if state_dir else ""
            click.echo(f"ML Server ready: {url} ({pages}health {url}/health), {metrics}Ray dashboard {dashboard}")
        while not stop.wait(POLL_S):
            _check_ray()
        click.echo("Stopping …")
        drained = _drain(hurry)
        if options.address is None:
            _stop_proxies()
        else:
            _withdraw(config, drained=drained)


def _prepare(options: UpOptions, config: dict[str, Any]) -> tuple[Path | None, int]:
    """Check and set what the server of a private Ray needs; return the state folder and the port of the metrics.

    A joined Ray has its own: no folder, and port 0.
    """
    if options.address is not None:
        _environment(None)
        return None, 0
    settings = checks.check_settings(config)
    settings.prepare()
    _environment(settings.state_dir)
    os.environ[proxy_guard.MAX_BYTES_VARIABLE] = str(settings.limits.request_bytes)  # the proxies know no config
    checks.check_priority()
    checks.check_host(config, settings)
    checks.check_devices(settings)
    checks.ensure_models(options.config)
    checks.check_port(config)
    checks.check_database(settings)
    return settings.state_dir, checks.free_port_or_any(settings.metrics_port)


def _on_signals(stop: threading.Event, hurry: threading.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: (hurry if stop.is_set() else stop).set())


def load_config(options: UpOptions) -> dict[str, Any]:
    """Read the Serve config file and apply the command line's options.

    Without a host Serve would listen on every address of the machine.
    """
    config: dict[str, Any] = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    http = config.setdefault("http_options", {})
    http.setdefault("host", "127.0.0.1")
    if options.host is not None:
        http["host"] = options.host
    if options.port is not None:
        http["port"] = options.port
    if options.state_dir is not None:
        args = config["applications"][0].setdefault("args", {})
        args["state_dir"] = str(options.state_dir.expanduser().absolute())
    return config


def _environment(state_dir: Path | None) -> None:
    """Set the environment that the processes of a private Ray inherit. A joined Ray (None) has its own environment."""
    os.environ.update(SILENT)
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if state_dir is None:
        return
    use_bytecode(state_dir)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(_token(state_dir)), FORWARDED: ""}
    os.environ[HOOK_VARIABLE] = SERVE_HOOK
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's node is 127.0.0.1 then, and listens there only
    os.environ["no_grpc_proxy"] = "127.0.0.1"  # noqa: SIM112 - its name; else Ray would reach itself by HTTPS_PROXY
    os.environ.setdefault("RAY_DASHBOARD_STARTUP_TIMEOUT_S", "180")  # 60 by default, too short for a busy machine
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # glibc's arena per thread kept 600 MB of a diarizer's 1.2 GB
    os.environ.setdefault(proxy_guard.VARIABLE, proxy_guard.IMPORT_PATH)
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default, for those that answer requests too


def _token(state_dir: Path) -> Path:
    """Return the file with our Ray's token, readable by this user only; create it if there is none."""
    path = state_dir / "ray-token"
    path.touch(mode=0o600)
    path.chmod(0o600)
    if not path.read_text():
        path.write_text(secrets.token_hex(32))
    return path


@contextmanager
def _logs(state_dir: Path | None) -> Iterator[None]:
    """Print the lines of all processes' log while the block runs. Only a private Ray has one file for all of them."""
    if state_dir is None:
        yield
        return
    path = state_dir / "logs" / "ml-server.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o600)
    os.environ[LOG_FILE_VARIABLE] = str(path)
    shown = readable if sys.stdout.isatty() else str
    closed = threading.Event()
    with path.open(encoding="utf-8", errors="replace") as log:
        log.seek(0, os.SEEK_END)

        def follow() -> None:
            last = False
            while not last:
                last = closed.wait(LOG_POLL_S)
                for line in log:
                    sys.stdout.write(shown(line.rstrip("\n")) + "\n")
                sys.stdout.flush()

        thread = threading.Thread(target=follow, name="log view", daemon=True)
        thread.start()
        try:
            yield
        finally:
            closed.set()
            thread.join()


def readable(line: str) -> str:
    """Return a JSON line as text, such as `09:21:05 INFO    manager  admitted  job=abc waited_s=0.1`."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    head = f"{fields['time'][11:19]} {fields['level']:<7} {fields['logger']:<12} {fields['message']}"
    extras = {"job": fields[JOB_FIELD]} if JOB_FIELD in fields else {}
    extras |= {key: value for key, value in fields.items() if key not in SHOWN and not key.startswith("serve_")}
    tail = " ".join(f"{key}={value}" for key, value in extras.items() if value is not None)
    text = f"{head}  {tail}" if tail else head
    return "\n    ".join([text, *fields.get("trace", [])])


@contextmanager
def _in_the_background(*, private: bool) -> Iterator[None]:
    """Lower the priority of this session, so that the rest of the machine and the kernel's threads come first.

    Those threads write our commits to disk. Linux shares processors between sessions before it considers niceness, and
    with a busy graph of thirty processes in one session, kernel 6.18 let others wait up to a second
    (docs/decisions.md).
    """
    shown = AUTOGROUP.read_text() if private and AUTOGROUP.exists() else ""
    if not shown:  # a session of the init process has no group of its own, and none can be set
        yield
        return
    before = shown.rpartition(" ")[2].strip()
    _set_niceness(str(SESSION_NICENESS))
    try:
        yield
    finally:
        _set_niceness(before)


def _set_niceness(value: str) -> None:
    """Try to set the session's niceness; a failure is ignored. Users other than root share one change per 100 ms."""
    for _ in range(5):
        try:
            AUTOGROUP.write_text(value)
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:
            return
        else:
            return


@contextmanager
def _ray(state_dir: Path | None, options: UpOptions, metrics_port: int) -> Iterator[str]:
    """Run or join Ray while the block runs; yield the dashboard's URL."""
    import ray

    temp_dir = _ray_dir(state_dir) if state_dir else None
    private: dict[str, Any] = {
        "num_cpus": options.num_cpus or max(2, os.cpu_count() or 1),
        "num_gpus": options.num_gpus,
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "_temp_dir": temp_dir,
        "_metrics_export_port": metrics_port,
    }
    for tries_left in reversed(range(RAY_STARTS if temp_dir else 1)):
        try:
            context = ray.init(
                address=options.address or "local",
                log_to_driver=False,
                logging_level=logging.WARNING,
                **(private if temp_dir else {}),
            )
            break
        except Exception as error:
            ray.shutdown()
            if not tries_left:
                raise StartError(f"Ray did not start: {error}") from error
            click.echo(f"Ray did not start ({type(error).__name__}); it is started again", err=True)
    try:
        yield f"http://{context.dashboard_url}"
    finally:
        ray.shutdown()
        if temp_dir:
            shutil.rmtree(temp_dir, ignore_errors=True)  # what is worth keeping is in our own log


def _metrics_url() -> str:
    """Return the metrics' URL of the private Ray's only node, without asking Ray, which may have died."""
    from ray._private.worker import _global_node  # no public way leads to Ray's processes

    node: Any = _global_node
    return f"http://127.0.0.1:{node.metrics_export_port}/metrics"


def _check_ray() -> None:
    """Raise `RayLostError` if the private Ray has lost a vital process. A joined Ray is not watched.

    The call also reaps dead processes: while a dead raylet is a zombie, its workers stay and hold the HTTP port.
    """
    from ray._private.worker import _global_node as node  # no public way leads to Ray's processes

    ended: set[str] = {kind for kind, _ in node.dead_processes()} if node else set()
    if lost := sorted(VITAL & ended):
        raise RayLostError(f"Ray has ended ({', '.join(lost)}). Start the server again: its jobs go on.")


def _ray_dir(state_dir: Path) -> str:
    path = str(state_dir / "ray")
    return path if len(path) <= LONGEST_RAY_DIR else tempfile.mkdtemp(prefix="ml-server-")


def _deploy(config: dict[str, Any], dashboard: str) -> None:
    """Deploy as `serve deploy` does; again where a dashboard that is still starting, or busy, does not take it."""
    import_serve()
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    for tries_left in reversed(range(DEPLOY_TRIES)):
        try:
            ServeSubmissionClient(dashboard).deploy_applications(config)
        except (RuntimeError, OSError) as error:
            if not tries_left or "status code 4" in str(error):
                raise StartError(f"Serve did not take the application: {error}") from error
            time.sleep(DEPLOY_WAIT_S)
        else:
            return


def _wait_until_healthy(url: str, dashboard: str, stop: threading.Event) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    asked_at = time.monotonic()
    while not stop.wait(POLL_S):
        _check_ray()
        try:
            if httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() - asked_at > ASK_SERVE_EVERY_S:
            asked_at = time.monotonic()
            if failure := _failure(dashboard):
                raise StartError(failure)
        if time.monotonic() > deadline:
            raise StartError(f"not healthy after {START_TIMEOUT_S:.0f} s")


def _failure(dashboard: str) -> str | None:
    """Return why an app cannot start, as Serve reports it; None if all can."""
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    details = ServeSubmissionClient(dashboard).get_serve_details()
    for app in details.get("applications", {}).values():
        if app["status"] in FAILED:
            parts = [part for part in app["deployments"].values() if part["status"] in FAILED]
            reasons = [f"{part['name']}: {reason_in(part['message'])}" for part in parts]
            return "; ".join(reasons) or reason_in(str(app["message"]))
    return None


def reason_in(message: str) -> str:
    """Return the reason in Serve's message: the traceback's exception, all its lines, without the class name.

    A message without an exception is returned whole.
    """
    message = message.rpartition("failed with exception:\n")[2]
    found = list(_EXCEPTION.finditer(message))
    return message[found[-1].end() :].strip() if found else message.strip()


def _withdraw(config: dict[str, Any], *, drained: bool) -> None:
    """Remove the app from a cluster that stays up; jobs go on when a server comes back."""
    from ray import serve

    if not drained:
        _end_our_actors()  # job actors must not take the missing stages for their jobs' failure
    serve.delete(config["applications"][0]["name"])
    _end_our_actors()  # until then the ingress saw to it that there is a manager


def _drain(hurry: threading.Event) -> bool:
    """Accept no new jobs and have running ones interrupted, to go on at the next start. Return whether all were."""
    import ray

    from serve_app.orchestration.job_actor import MANAGER_NAME, NAMESPACE

    deadline = time.monotonic() + DRAIN_S
    try:
        drained: Any = ray.get_actor(MANAGER_NAME, NAMESPACE).drain.remote()
    except ValueError:  # there is none
        return False
    waiting = [drained]
    while waiting and not hurry.is_set() and time.monotonic() < deadline:
        _, waiting = ray.wait(waiting, timeout=POLL_S)
    if waiting:
        return False
    try:
        ray.get(drained)
    except ray.exceptions.RayError:  # it has died, or failed
        return False
    return True


def _stop_proxies() -> None:
    """End the HTTP proxies before the replicas: clients get a refused connection, not a 500."""
    import ray
    from ray.exceptions import RayError

    named = ray.util.list_named_actors(all_namespaces=True)
    for actor in named:
        if actor["namespace"] == "serve" and "PROXY" in actor["name"]:
            with suppress(ValueError, RayError):  # it is gone
                proxy = ray.get_actor(actor["name"], "serve")
                ray.kill(proxy)
                ray.get(proxy.ready.remote(), timeout=LEAVE_S)  # raises as soon as it has ended


def _end_our_actors() -> None:
    """End the manager and the job actors. The manager releases its lease, so that the next one need not wait for it."""
    import ray

    from serve_app.orchestration.job_actor import MANAGER_NAME, NAMESPACE, remote_method

    with suppress(ValueError, ray.exceptions.RayError):  # there is none; it is gone, or too slow
        manager = ray.get_actor(MANAGER_NAME, NAMESPACE)
        ray.get(remote_method(manager, "step_down").remote(), timeout=LEAVE_S)
    named = ray.util.list_named_actors(all_namespaces=True)
    ours = [actor["name"] for actor in named if actor["namespace"] == NAMESPACE]
    for name in sorted(ours, key=lambda name: name.startswith("job:")):  # the manager first: it would start them again
        with suppress(ValueError):  # it ended meanwhile
            ray.kill(ray.get_actor(name, NAMESPACE))


def _url(config: dict[str, Any]) -> str:
    http = config["http_options"]
    host = http["host"]
    return f"http://{'127.0.0.1' if host in {'0.0.0.0', '::'} else host}:{http.get('port', 8000)}"  # noqa: S104
