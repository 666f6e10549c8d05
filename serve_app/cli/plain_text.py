"""Text that came over a wire, made safe to print on a terminal."""

from __future__ import annotations


def plain(text: str) -> str:
    """`text` without control characters, so that nobody's transcript moves the cursor. Line breaks become spaces."""
    return "".join(char if char.isprintable() else " " for char in text)
