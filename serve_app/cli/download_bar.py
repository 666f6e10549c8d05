"""A download's progress on the terminal: a live bar of bytes, or a line per quarter where the output is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from types import TracebackType

STEP = 0.25
"""Share of the whole after which a line is written."""


class DownloadBar:
    """Shows the bytes of one download; it is the `watcher` of `deployments.models.fetch`."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._console = console or Console()
        self._title = title
        self._next = STEP
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
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

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._progress.stop()
