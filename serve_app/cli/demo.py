"""`ml-server demo`: everything on one machine, from a video to a transcript on the terminal.

Makes two sample videos, starts the server and the example backend (`examples/backend`) as programs of their own, asks
the backend (as a frontend would) to process the videos, shows the progress that the callbacks bring, prints the
results, and stops what it started.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
from rich.console import Console
from rich.text import Text

from deployments.extraction.samples import VideoNotMadeError, make_test_video
from serve_app.cli.checks import StartError, ensure_models
from serve_app.cli.child_process import ChildProcess, free_port
from serve_app.cli.client import ENDED, ClientError, ServerClient, json_object
from serve_app.cli.media_server import MediaServer
from serve_app.cli.progress_bar import ProgressBar
from serve_app.cli.render import plain, render_result
from serve_app.cli.samples import MissingSampleError, Sample, all_samples, examples_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130

POLL_S = 0.25
START_TIMEOUT_S = 300
JOB_TIMEOUT_S = 900
BACKEND_START_TIMEOUT_S = 60
BACKEND_CALL_TIMEOUT_S = 310
"""A little longer than the backend waits for the ML Server (`ML_API_TIMEOUT`)."""
KEPT_RUNS = 5
"""Folders of earlier demos that stay: each holds its videos, results and logs."""
OWN_VIDEO = "ml-server up, and beside it: ml-server submit my-video.mp4 --language ko --wait"
"""The demo has no Korean sample: no suitable recording may be redistributed."""


class DemoError(Exception):
    """The demo cannot go on; the text is a sentence for the user."""


def run_demo(
    *,
    state_dir: Path,
    config: str = "configs/local.yaml",
    samples: Sequence[Sample] | None = None,
    server_command: Callable[[int, Path], Sequence[str]] | None = None,
    console: Console | None = None,
) -> int:
    """Run the demo and return the exit code. Leaves videos, results and logs in `state_dir`/demo, and no process.

    `server_command` returns the command that starts the server on a port with a state folder; default: `ml-server up`.
    """
    console = console or Console()
    command = server_command or (lambda port, server_dir: up_command(config, port, server_dir))
    try:
        with signals_as_interrupt():
            if server_command is None:
                ensure_models(Path(config))  # here, since the server's output goes to its log
            folder = new_run_folder(state_dir / "demo")
            results = play(samples or all_samples(), folder, command, console)
    except (DemoError, ClientError, MissingSampleError, VideoNotMadeError, StartError) as error:
        console.print(Text(f"The demo failed. {error}", style="bold red"), soft_wrap=True)
        return EXIT_FAILED
    except KeyboardInterrupt:
        console.print(Text("Stopped; nothing is left running.", style="yellow"))
        return EXIT_INTERRUPTED
    shutil.rmtree(folder / "server", ignore_errors=True)
    console.rule()
    console.print(Text.assemble(("Your own video, in Korean: ", "bold"), OWN_VIDEO), soft_wrap=True)
    for path in results:
        console.print(Text.assemble(("Full result: ", "bold"), str(path)), soft_wrap=True)
    return EXIT_OK


def play(
    samples: Sequence[Sample], folder: Path, server_command: Callable[[int, Path], Sequence[str]], console: Console
) -> list[Path]:
    """Process all samples by a server and a backend that run during this call; return the results' paths."""
    videos = [folder / f"{sample.name}.mp4" for sample in samples]
    with console.status("Making the sample videos"):
        for sample, video in zip(samples, videos, strict=True):
            make_test_video(sample.audio, video)
    port = free_port()
    server_url = f"http://127.0.0.1:{port}"
    server = ChildProcess(
        server_command(port, folder / "server"),
        log_path=folder / "server.log",
        environment={"ML_SERVER_LOCALE": os.environ.get("ML_SERVER_LOCALE", "en"), "NO_PROXY": "127.0.0.1"},
    )
    with ExitStack() as stack:
        media = stack.enter_context(MediaServer(videos))
        stack.enter_context(stopping(console, server))
        wait_until_healthy(server_url, server, console)
        backend = stack.enter_context(
            ExampleBackend(server_url=server_url, video_base_url=media.base_url, log_path=folder / "backend.log")
        )
        return [
            process_sample(sample, video, backend, server, console)
            for sample, video in zip(samples, videos, strict=True)
        ]


def up_command(config: str, port: int, state_dir: Path) -> list[str]:
    """Return the command that starts the real server."""
    arguments = ("up", "--config", config, "--port", str(port), "--state-dir", str(state_dir))
    return [sys.executable, "-m", "serve_app.cli", *arguments]


@contextmanager
def stopping(console: Console, server: ChildProcess) -> Iterator[None]:
    """Run the server while the block runs; on an error show the end of its log; stop it in any case."""
    with server:
        try:
            yield
        except (DemoError, ClientError):
            console.print(Text(f"The end of the server's log, {server.log_path}:", style="yellow"), soft_wrap=True)
            console.print(Text(server.tail()), soft_wrap=True)
            raise
        finally:
            console.print(Text("Stopping the server.", style="dim"))


def wait_until_healthy(server_url: str, server: ChildProcess, console: Console) -> None:
    """Wait until the server is healthy. Raises `DemoError` if it ends instead, or takes too long."""
    started_s = time.monotonic()
    with ServerClient(server_url) as client, console.status("Starting the server") as status:
        while (missing := missing_part(client)) is not None:
            waited_s = time.monotonic() - started_s
            if server.exit_code is not None:
                raise DemoError(f"The server ended while it started (exit code {server.exit_code}).")
            if waited_s > START_TIMEOUT_S:
                raise DemoError(f"The server was not ready after {START_TIMEOUT_S} s: {missing}.")
            status.update(Text(f"Starting the server, {waited_s:.0f} s: {missing}"))
            time.sleep(POLL_S)
    console.print(Text(f"The server is ready after {time.monotonic() - started_s:.0f} s."))


def missing_part(client: ServerClient) -> str | None:
    """Return what the server still waits for, in words; None if it is ready."""
    try:
        healthy, health = client.health()
    except ClientError:
        return "Ray and the server's processes are starting"
    if healthy and health.get("status") == "healthy":
        return None
    names = ", ".join(map(str, health.get("failing") or ()))
    return f"waiting for {plain(names)}" if names else "the models are being loaded"


def process_sample(
    sample: Sample, video: Path, backend: ExampleBackend, server: ChildProcess, console: Console
) -> Path:
    """Have the backend process a video and print the result; return the path of its JSON. Raises `DemoError`."""
    console.rule(Text(sample.title))
    console.print(Text(sample.note, style="dim"))
    job_id = backend.request_process(video.name)
    with ProgressBar(console, title=video.name) as bar:
        state = follow(backend, server, job_id, bar.show)
    if state["status"] == "failed":
        raise DemoError(f"The job of {video.name} failed: {state['error_message']} [{state['error_code']}]")
    path = video.with_suffix(".json")
    path.write_text(json.dumps(state["result"], ensure_ascii=False, indent=1), encoding="utf-8")
    render_result(state["result"], console, reference=sample.reference)
    return path


def follow(
    backend: ExampleBackend, server: ChildProcess, job_id: str, show: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Poll the backend, which has the state from the callbacks, until the job has ended. Raises `DemoError`."""
    deadline_s = time.monotonic() + JOB_TIMEOUT_S
    while True:
        state = backend.job_status(job_id)
        show(state)
        if state["status"] in ENDED:
            return state
        if server.exit_code is not None:
            raise DemoError(f"The server ended while it worked (exit code {server.exit_code}).")
        if time.monotonic() > deadline_s:
            raise DemoError(f"No result came within {JOB_TIMEOUT_S} s.")
        time.sleep(POLL_S)


class ExampleBackend:
    """The example backend, which runs on a free loopback port while the context is open, and a frontend's calls to it.

    Raises `DemoError` if it does not start or answer, or if the ML Server refuses a job.
    """

    def __init__(self, *, server_url: str, video_base_url: str, log_path: Path) -> None:
        port = free_port()
        base_url = f"http://127.0.0.1:{port}"
        environment = {
            "MODEL_SERVER_URL": server_url,
            "FASTAPI_BASE_URL": base_url,
            "VIDEO_BASE_URL": video_base_url,
            "ML_API_TIMEOUT": "300",
            "ML_API_KEY": "",
            "ML_WEBHOOK_SECRET": "",
            "NO_PROXY": "127.0.0.1",
        }
        program = [sys.executable, "-m", "uvicorn", "--app-dir", str(examples_folder()), "backend.app:create_app"]
        options = ["--factory", "--host", "127.0.0.1", "--port", str(port), "--timeout-graceful-shutdown", "3"]
        self._child = ChildProcess([*program, *options], log_path=log_path, environment=environment, stop_timeout_s=10)
        self._http = httpx.Client(base_url=base_url, timeout=BACKEND_CALL_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        self._child.__enter__()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.close()
        self._child.stop()

    def request_process(self, file_key: str) -> str:
        """Ask for a video to be processed; return the job's id."""
        response = self._call("POST", "/api/upload-video/request-process", json={"fileKey": file_key})
        body = json_object(response)
        if not response.is_success:
            raise DemoError(f"The job did not start: {body.get('error_message')} [{body.get('error_code')}]")
        return str(body["job_id"])

    def job_status(self, job_id: str) -> dict[str, Any]:
        """Return the job's state as of the last callback."""
        return json_object(self._call("GET", f"/api/v1/ml/job-status/{job_id}"))

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise DemoError(f"The example backend does not answer; its log is {self._child.log_path}.") from error

    def _wait_until_it_answers(self) -> None:
        deadline_s = time.monotonic() + BACKEND_START_TIMEOUT_S
        while not self._answers():
            if self._child.exit_code is not None or time.monotonic() > deadline_s:
                raise DemoError(f"The example backend did not start. Its output ends with:\n{self._child.tail()}")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        try:
            return self._http.get("/health", timeout=5).is_success
        except httpx.HTTPError:
            return False


def new_run_folder(parent: Path) -> Path:
    """Create a folder for this run; delete the oldest ones beyond `KEPT_RUNS`."""
    folder = parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    (folder / "server").mkdir(parents=True)
    for old in sorted(path for path in parent.iterdir() if path.is_dir())[:-KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the demo as Ctrl-C does: in order, with nothing left running."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
