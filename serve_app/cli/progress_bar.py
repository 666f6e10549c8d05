"""A job's progress on the terminal: a live bar, or a line per step where the output is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from serve_app.cli.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


class ProgressBar:
    """Shows job states (`progress`, `message`, `queue_position`, as the wire has them); never draws backwards."""

    def __init__(self, console: Console, *, title: str) -> None:
        self._console = console
        self._last_line = ""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[title]}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
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

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._progress.stop()


def words_of(state: Mapping[str, Any]) -> str:
    """Return the state in words: the stage, or the place in the queue."""
    message = plain(str(state.get("message") or state.get("status") or ""))
    position = state.get("queue_position")
    return f"{message} (number {position} in the queue)" if position is not None else message
