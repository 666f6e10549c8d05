"""Makes text from others safe to print on a terminal."""

from __future__ import annotations


def plain(text: str) -> str:
    """Replace control characters and line breaks by spaces, so that no transcript moves the cursor."""
    return "".join(char if char.isprintable() else " " for char in text)
