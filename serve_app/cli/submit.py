"""`ml-server submit`, `rerun` and `status`: submit one video to a running server, run its job again, and look it up.

A local file is served to the server on loopback for as long as the server needs it.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from serve_app.cli import client as api
from serve_app.cli.client import ClientError, RefusedError, ServerClient, UnreachableError
from serve_app.cli.media_server import MediaServer
from serve_app.cli.progress_bar import ProgressBar, words_of
from serve_app.cli.render import plain, render_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130

POLL_S = 0.5
PATIENCE_S = 60
"""How long a server may not answer while a job runs: it can be restarting, and then resumes the job."""

FETCHED_PROGRESS = 25
"""Beyond this progress the server has the audio and does not need the file (the contract's progress table)."""


def submit(
    server_url: str,
    video: str,
    options: Mapping[str, Any] = MappingProxyType({}),
    *,
    wait: bool = False,
    api_key: str | None = None,
    save_to: Path | None = None,
    console: Console | None = None,
) -> int:
    """Submit `video`, a URL or a local file, as a new job; return the exit code.

    `options` are fields of the request; None and what is empty is left out.
    With `wait`: show progress until the job ends, print the transcript, and write the result as JSON to `save_to`.
    Without: return at once for a URL, and for a file as soon as the server has fetched it.
    """
    console = console or Console()
    given = {name: value for name, value in options.items() if value not in (None, (), {})}
    request = {"job_id": str(uuid.uuid4())} | given
    try:
        with ServerClient(server_url, api_key=api_key) as client, published(video, server_url) as video_url:
            answer = client.process_video(request | {"video_url": video_url})
            job_id = str(answer["job_id"])
            _announce(console, client, answer)
            served = video_url != video
            if not wait and not served:
                return EXIT_OK
            state = _follow(client, job_id, console, until=has_ended if wait else is_fetched, served=served)
            return _conclude(console, state, wait=wait, save_to=save_to)
    except ClientError as error:
        return complain(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def rerun(
    server_url: str,
    job_id: str,
    changes: Mapping[str, Any],
    *,
    wait: bool = False,
    api_key: str | None = None,
    console: Console | None = None,
) -> int:
    """Run an ended job again; return the exit code.

    `changes` are the request's fields. With `wait`: show progress until the run ends, and print the transcript.
    """
    console = console or Console()
    try:
        with ServerClient(server_url, api_key=api_key) as client:
            _announce(console, client, client.rerun(job_id, changes))
            if not wait:
                return EXIT_OK
            state = _follow(client, job_id, console, until=has_ended, served=False)
            return _conclude(console, state, wait=True, save_to=None)
    except ClientError as error:
        return complain(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def print_status(server_url: str, job_id: str, *, api_key: str | None = None, console: Console | None = None) -> int:
    """Print a job's state; return the exit code: 0 also for a failed job, 1 if the state cannot be had."""
    console = console or Console()
    try:
        with ServerClient(server_url, api_key=api_key) as client:
            state = client.status(job_id)
    except ClientError as error:
        return complain(error)
    print_state(state, console)
    return EXIT_OK


def print_state(state: Mapping[str, Any], console: Console) -> None:
    """Print a job's state in a few lines, and its transcript if there is one."""
    console.print(_line("Job", state.get("job_id")))
    console.print(_line("Status", f"{state.get('status')}, {state.get('progress', 0)} %: {words_of(state)}"))
    for name in ("created_at", "started_at", "finished_at"):
        if state.get(name):
            console.print(_line(name.removesuffix("_at").capitalize(), state[name]))
    if state.get("status") == "failed":
        console.print(_line("Error", f"{state.get('error_message')} [{state.get('error_code')}]"))
    if callback := state.get("callback"):
        console.print(_line("Callback", ", ".join(f"{k} {v}" for k, v in callback.items() if v not in (None, ""))))
    names = state.get("speakers") or {}
    if names:
        console.print(_line("Speakers", ", ".join(f"{speaker} {name}" for speaker, name in sorted(names.items()))))
    if result := state.get("result"):
        render_result(result, console, names=names)


@contextmanager
def published(video: str, server_url: str) -> Iterator[str]:
    """Yield the URL of `video` for the server: itself, or that of a local file, served while the block runs."""
    if video.startswith(("http://", "https://")):
        yield video
        return
    path = Path(video).expanduser()
    if not path.is_file():
        raise ClientError(f"There is no file {video}, and it is no http(s) URL either.")
    if not api.is_loopback(server_url):
        raise ClientError(f"A server at {server_url} cannot fetch a file from this machine. Give it an https URL.")
    with MediaServer([path]) as media:
        yield media.url(path)


def has_ended(state: Mapping[str, Any]) -> bool:
    """Return whether the job has ended."""
    return state.get("status") in api.ENDED


def is_fetched(state: Mapping[str, Any]) -> bool:
    """Return whether the server has fetched the video, and does not need the file any more."""
    return has_ended(state) or int(state.get("progress") or 0) > FETCHED_PROGRESS


def _follow(
    client: ServerClient, job_id: str, console: Console, *, until: Callable[[Mapping[str, Any]], bool], served: bool
) -> dict[str, Any]:
    """Poll and show the job until `until` holds; return its last state. Ctrl-C leaves the job running, and says so."""
    fetched = not served
    with ProgressBar(console, title="Processing") as bar:

        def shown(state: dict[str, Any]) -> bool:
            nonlocal fetched
            fetched = fetched or is_fetched(state)
            bar.show(state)
            return until(state)

        try:
            return next(filter(shown, poll(client, job_id)))
        except KeyboardInterrupt:
            prospect = "goes on without us" if fetched else "will fail: the server had not fetched the file yet"
            console.print(Text(f"The job {prospect}. To see it: ml-server status {job_id}"), soft_wrap=True)
            raise


def poll(client: ServerClient, job_id: str) -> Iterator[dict[str, Any]]:
    """Yield the job's state again and again. Raises `ClientError` after `PATIENCE_S` without an answer."""
    last_answer_s = time.monotonic()
    while True:
        try:
            yield client.status(job_id)
            last_answer_s = time.monotonic()
        except UnreachableError:
            if time.monotonic() - last_answer_s > PATIENCE_S:
                raise
        except RefusedError as error:  # 429, 503: a busy or draining server is asked again
            if error.http_status not in (429, 503) or time.monotonic() - last_answer_s > PATIENCE_S:
                raise
        time.sleep(POLL_S)


def _announce(console: Console, client: ServerClient, answer: Mapping[str, Any]) -> None:
    status_url = str(answer.get("status_url") or f"{api.STATUS_PATH}/{answer['job_id']}")
    console.print(_line("Job", answer["job_id"]))
    console.print(_line("Status", client.server_url + status_url))


def _conclude(console: Console, state: Mapping[str, Any], *, wait: bool, save_to: Path | None) -> int:
    if state.get("status") == "failed":
        message = plain(str(state.get("error_message") or state.get("message")))
        return complain(f"The job failed: {message} [{state.get('error_code')}]")
    if not wait:
        console.print(Text(f"The server has the file. To see the job: ml-server status {state.get('job_id')}"))
        return EXIT_OK
    result = state.get("result") or {}
    render_result(result, console)
    if save_to:
        save_to.write_text(json.dumps(result, ensure_ascii=False, indent=1))
        console.print(_line("Full result", save_to))
    return EXIT_OK


@contextmanager
def connected(server_url: str, api_key: str | None) -> Iterator[ServerClient]:
    """Yield a client of the server. A `ClientError` in the block ends the command, with a sentence on stderr."""
    try:
        with ServerClient(server_url, api_key=api_key) as client:
            yield client
    except ClientError as error:
        sys.exit(complain(error))


def complain(error: ClientError | str) -> int:
    """Print on stderr what went wrong, in a sentence; return the exit code."""
    sentence = plain(str(error))
    if isinstance(error, RefusedError):
        sentence = f"The server refused: {sentence}" + (f" [{error.code}]" if error.code else "")
    Console(stderr=True, soft_wrap=True).print(Text(sentence, style="red"))
    return EXIT_FAILED


def _line(name: str, value: Any) -> Text:
    return Text.assemble((f"{name}: ", "bold"), plain(str(value)))
