"""`ml-server jobs`, `jobs show`, `redeliver` and `export`: an operator's requests to a running server."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.cli.client import ClientError, ServerClient
from serve_app.cli.plain_text import plain
from serve_app.cli.progress_bar import words_of
from serve_app.cli.render import print_warnings
from serve_app.cli.submit import EXIT_OK, complain, print_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def list_jobs(
    server_url: str,
    *,
    state: str | None,
    limit: int,
    after: str | None,
    api_key: str | None = None,
    console: Console | None = None,
) -> int:
    """Print a page of jobs, newest first; return the exit code."""
    console = console or Console()
    try:
        with ServerClient(server_url, api_key=api_key) as client:
            page = client.jobs(state=state, limit=limit, after=after)
    except ClientError as error:
        return complain(error)
    if page["jobs"]:
        console.print(_jobs_table(page["jobs"]))
    else:
        console.print("No jobs.")
    if page["next_after"]:
        console.print(Text(f"There are more: --after {plain(page['next_after'])}"), soft_wrap=True)
    return EXIT_OK


def show_job(server_url: str, job_id: str, *, api_key: str | None = None, console: Console | None = None) -> int:
    """Print a job's state and its events; return the exit code."""
    console = console or Console()
    try:
        with ServerClient(server_url, api_key=api_key) as client:
            state = client.status(job_id)
            events = client.timeline(job_id)["events"]
    except ClientError as error:
        return complain(error)
    print_state({name: value for name, value in state.items() if name != "result"}, console)
    print_warnings(state.get("result") or {}, console)
    console.print(_timeline_table(events))
    return EXIT_OK


def redeliver(server_url: str, job_id: str, *, api_key: str | None = None, console: Console | None = None) -> int:
    """Have the terminal callback sent again; return the exit code."""
    console = console or Console()
    try:
        with ServerClient(server_url, api_key=api_key) as client:
            state = client.redeliver(job_id)
    except ClientError as error:
        return complain(error)
    told = f"The backend is told once more that this job has ended ({state['status']})."
    console.print(Text(f"{told} To see how that goes: ml-server jobs show {plain(job_id)}"), soft_wrap=True)
    return EXIT_OK


def export(
    server_url: str, job_id: str, options: Mapping[str, Any], *, output: Path | None, api_key: str | None = None
) -> int:
    """Write a job's result in the requested format to `output` or stdout; return the exit code."""
    try:
        with ServerClient(server_url, api_key=api_key) as client:
            content = client.export(job_id, options)
    except ClientError as error:
        return complain(error)
    if output is not None:
        try:
            output.write_bytes(content)
        except OSError as error:
            return complain(f"{output} cannot be written: {error.strerror}")
    elif sys.stdout.isatty():
        for line in content.decode(errors="replace").splitlines():
            click.echo(plain(line))
    else:
        click.echo(content, nl=False)
    return EXIT_OK


def _jobs_table(jobs: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("Job", "Status", "%", "What it does", "Created (UTC)", "Ended (UTC)", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    for job in jobs:
        code = job.get("error_code")
        doing = f"{code}: {job['message']}" if code else words_of(job)
        ended = _clock(job["finished_at"]) if job.get("finished_at") else ""
        cells = (job["job_id"], job["status"], job["progress"], doing, _clock(job["created_at"]), ended)
        table.add_row(*(Text(plain(str(cell))) for cell in cells))
    return table


def _timeline_table(events: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("When (UTC)", "After, s", "Run", "Attempt", "What", "Detail", box=None, pad_edge=False)
    for event in events:
        after_s = (_time(event["at"]) - _time(events[0]["at"])).total_seconds()
        what = event["event"].replace("_", " ")
        cells = (_clock(event["at"]), f"{after_s:.1f}", event["run"], event["attempt"], what, event["detail"] or "")
        table.add_row(*(Text(plain(str(cell))) for cell in cells))
    return table


def _time(iso: str) -> datetime:
    return datetime.fromisoformat(iso)


def _clock(iso: str) -> str:
    return f"{_time(iso):%Y-%m-%d %H:%M:%S}"
