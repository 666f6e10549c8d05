"""`ml-server jobs`, `jobs show`, `cancel`, `redeliver`, `speakers`, `export`: an operator's requests to a server."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.cli.progress_bar import words_of
from serve_app.cli.render import NOTHING, plain, print_warnings, speaker_of
from serve_app.cli.submit import complain, connected, print_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def list_jobs(
    server_url: str, api_key: str | None, *, state: str | None, callback: str | None, limit: int, after: str | None
) -> None:
    """Print a page of jobs, newest first; `callback` selects by the state of the terminal callback."""
    with connected(server_url, api_key) as client:
        page = client.jobs(state=state, callback=callback, limit=limit, after=after)
    console = Console()
    console.print(_jobs_table(page["jobs"]) if page["jobs"] else "No jobs.")
    if page["next_after"]:
        console.print(Text(f"There are more: --after {plain(page['next_after'])}"), soft_wrap=True)


def show_job(server_url: str, api_key: str | None, job_id: str) -> None:
    """Print a job's state and its events."""
    with connected(server_url, api_key) as client:
        state = client.status(job_id)
        timeline = client.timeline(job_id)
    console = Console()
    shown = {name: value for name, value in state.items() if name != "result"}
    print_state(shown | {"actor": timeline["actor"]} if timeline.get("actor") else shown, console)
    print_warnings(state.get("result") or {}, console)
    console.print(_timeline_table(timeline["events"]))


def cancel(server_url: str, api_key: str | None, job_id: str) -> None:
    """Cancel a job that has not ended."""
    with connected(server_url, api_key) as client:
        state = client.cancel(job_id)
    Console().print(Text(f"The job ends as CANCELLED ({state['status']})."), soft_wrap=True)


def redeliver(server_url: str, api_key: str | None, job_id: str) -> None:
    """Have the terminal callback sent again."""
    with connected(server_url, api_key) as client:
        state = client.redeliver(job_id)
    sentence = f"The terminal callback will be sent again ({state['status']})."
    Console().print(Text(f"{sentence} To see its tries: ml-server jobs show {plain(job_id)}"), soft_wrap=True)


def name_speakers(server_url: str, api_key: str | None, job_id: str, names: Mapping[str, str] | None) -> None:
    """Give a job's speakers these names instead of those that they had, and print them; None: only print them."""
    with connected(server_url, api_key) as client:
        if names is not None:
            client.name_speakers(job_id, names)
        state = client.status(job_id)
    if "result" not in state:
        sys.exit(complain("This job has no result, so it has no speakers."))
    speakers = sorted({speaker_of(segment) for segment in state["result"].get("segments") or ()})
    named = state.get("speakers") or {}
    table = Table("Speaker", "Name", box=None, pad_edge=False)
    for speaker in speakers:
        table.add_row(*(Text(plain(cell)) for cell in (speaker, named.get(speaker, NOTHING))))
    Console().print(table if speakers else "No words were understood in this video.")


def export(
    server_url: str, api_key: str | None, job_id: str, options: Mapping[str, Any], *, output: Path | None
) -> None:
    """Write a job's result in the requested format to `output` or stdout."""
    with connected(server_url, api_key) as client:
        content = client.export(job_id, options)
    if output is not None:
        try:
            output.write_bytes(content)
        except OSError as error:
            sys.exit(complain(f"{output} cannot be written: {error.strerror}"))
    elif sys.stdout.isatty():
        for line in content.decode(errors="replace").splitlines():
            click.echo(plain(line))
    else:
        click.echo(content, nl=False)


def _jobs_table(jobs: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("Job", "Status", "%", "What it does", "Created (UTC)", "Ended (UTC)", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    for job in jobs:
        code = job.get("error_code")
        doing = f"{code}: {job['message']}" if code else words_of(job)
        ended = _shown(job["finished_at"]) if job.get("finished_at") else ""
        cells = (job["job_id"], job["status"], job["progress"], doing, _shown(job["created_at"]), ended)
        table.add_row(*(Text(plain(str(cell))) for cell in cells))
    return table


def _timeline_table(events: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("When (UTC)", "After, s", "Run", "Attempt", "What", "Detail", box=None, pad_edge=False)
    for event in events:
        after_s = (datetime.fromisoformat(event["at"]) - datetime.fromisoformat(events[0]["at"])).total_seconds()
        what = event["event"].replace("_", " ")
        cells = (_shown(event["at"]), f"{after_s:.1f}", event["run"], event["attempt"], what, event["detail"] or "")
        table.add_row(*(Text(plain(str(cell))) for cell in cells))
    return table


def _shown(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M:%S}"
