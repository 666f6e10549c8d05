"""Progress on the terminal, of jobs and downloads: a live bar, or lines where the output is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from serve_app.cli.render import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

STEP = 0.25
"""Share of a download after which a line is written."""


class _Bar:
    """Draws `progress` while the context is open."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._progress.stop()


class ProgressBar(_Bar):
    """Shows job states (`progress`, `message`, `queue_position`, as the wire has them); never draws backwards."""

    def __init__(self, console: Console, *, title: str) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.fields[title]}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        super().__init__(Progress(*columns, console=console, disable=not console.is_terminal))
        self._console = console
        self._last_line = ""
        self._title = plain(title)
        self._task = self._progress.add_task("", total=100, title=self._title)

    def show(self, state: Mapping[str, Any]) -> None:
        """Draw the newest state."""
        percent = int(state.get("progress") or 0)
        words = words_of(state)
        self._progress.update(self._task, completed=percent, description=words)
        line = f"{self._title}  {percent:3d} %  {words}"
        if self._progress.disable and line != self._last_line:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._last_line = line


class DownloadBar(_Bar):
    """Shows the bytes of one download; it is the `watcher` of `deployments.models.fetch`."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
        )
        console = console or Console()
        super().__init__(Progress(*columns, console=console, disable=not console.is_terminal, transient=True))
        self._next = STEP
        self._task = self._progress.add_task(title, total=None)

    def say(self, sentence: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(f"  {sentence}", markup=False, highlight=False, soft_wrap=True)

    def show(self, done_bytes: int, total_bytes: int) -> None:
        """Draw the newest state."""
        self._progress.update(self._task, completed=done_bytes, total=total_bytes)
        if self._progress.disable and done_bytes >= self._next * total_bytes > 0:
            self.say(f"{100 * done_bytes // total_bytes}% of {total_bytes / 1e6:.0f} MB")
            while done_bytes >= self._next * total_bytes:
                self._next += STEP


def words_of(state: Mapping[str, Any]) -> str:
    """Return the state in words: the stage, or the place in the queue."""
    message = plain(str(state.get("message") or state.get("status") or ""))
    position = state.get("queue_position")
    return f"{message} (number {position} in the queue)" if position is not None else message
