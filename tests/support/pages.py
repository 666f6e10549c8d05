"""The documents as a test sees them: blocks, headings, tables, links, inline code. markdown-it parses, as for rich."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
OPERATORS = {"&", "&&", "|", "||", ";"}


@dataclass(frozen=True)
class Block:
    """A fenced block; `at` is where it begins, to be found in a failed test."""

    at: str
    language: str
    content: str

    def __str__(self) -> str:
        return f"{self.at} {self.language}"

    @property
    def commands(self) -> list[list[str]]:
        """Of a block of shell: each command's words, operators and comments gone."""
        found, lines = [], ""
        for line in self.content.splitlines():
            lines += line
            if lines.endswith("\\"):
                lines = lines[:-1]
                continue
            try:
                words = shlex.split(lines, comments=True)
            except ValueError:  # inside a quotation
                lines += "\n"
                continue
            found += split(words)
            lines = ""
        assert not lines, f"{self.at}: {lines}"
        return found


def split(words: list[str]) -> list[list[str]]:
    """The words of a line as its commands."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word in OPERATORS:
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


class Page:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self._tokens = MarkdownIt("commonmark").enable("table").parse(self.text)

    @property
    def name(self) -> str:
        """From the repository's root."""
        return str(self.path.relative_to(ROOT))

    @property
    def blocks(self) -> list[Block]:
        return [
            Block(f"{self.name}:{token.map[0] + 1}", token.info.strip(), token.content)
            for token in self._tokens
            if token.type == "fence" and token.map
        ]

    def block(self, start: str) -> Block:
        """The one block that starts so."""
        [block] = [block for block in self.blocks if block.content.startswith(start)]
        return block

    @property
    def headings(self) -> list[tuple[int, str]]:
        return [
            (int(token.tag[1]), after.content)
            for token, after in zip(self._tokens, self._tokens[1:], strict=False)
            if token.type == "heading_open"
        ]

    @property
    def anchors(self) -> set[str]:
        """As GitHub makes them."""
        return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for _, text in self.headings}

    @property
    def _inline(self) -> Iterator[Token]:
        for token in self._tokens:
            yield from token.children or ()

    @property
    def codes(self) -> list[str]:
        return [token.content.replace("\n", " ") for token in self._inline if token.type == "code_inline"]

    @property
    def links(self) -> list[str]:
        """Where links and pictures lead."""
        return [str(value) for token in self._inline for name, value in token.attrs.items() if name in ("href", "src")]

    @property
    def tables(self) -> list[list[list[str]]]:
        """Each table's rows of cells, the head first."""
        tables: list[list[list[str]]] = []
        for before, token in zip(self._tokens, self._tokens[1:], strict=False):
            if token.type == "table_open":
                tables.append([])
            elif token.type == "tr_open":
                tables[-1].append([])
            elif before.type in ("th_open", "td_open"):
                tables[-1][-1].append(token.content)
        return tables


@cache
def page(name: str) -> Page:
    """A page by its path from the repository's root."""
    return Page(ROOT / name)


def pages() -> list[Page]:
    """All that users read."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/*.md")]
    return [page(str(path.relative_to(ROOT))) for path in sorted(found)]
