"""A terminal that remembers what was printed."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console


class Screen(Console):
    """No colours and no cursor movements, unless `force_terminal` asks for them."""

    def __init__(self, *, width: int = 120, **options: Any) -> None:
        self._page = io.StringIO()
        super().__init__(file=self._page, width=width, **options)

    @property
    def text(self) -> str:
        """All that was printed so far."""
        return self._page.getvalue()
