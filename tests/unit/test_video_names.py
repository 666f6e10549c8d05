"""M7: what the result tells of a video's URL: its file's name."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.pipeline.assemble import filename_of
from tests.support.sources import SECRET

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=40)


@given(NAMES.filter(lambda name: name not in {".", ".."}))
def test_m7_a_name_comes_back_as_it_was(name: str) -> None:
    """M7: whatever an object is called, its name is told, without the query that signs its URL."""
    assert filename_of(f"https://b.example/videos/{quote(name, safe='')}?{SECRET}") == name


@given(ANY_TEXT)
def test_m7_a_name_is_never_a_path(text: str) -> None:
    """M7: no separators, no control characters, no query, whatever is in the URL's path, encoded or not."""
    for path in (quote(text, safe=""), quote(text)):
        name = filename_of(f"https://b.example/{path}?{SECRET}")
        assert name not in {".", ".."}
        assert not {char for char in name if char in "/\\\x7f" or char < " "}
        assert SECRET not in name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a%2F..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("%2E%2E", ""),
        ("a%5Cb.mp4", "b.mp4"),
        ("a%00b.mp4", "b.mp4"),
        ("", ""),
    ],
)
def test_m7_disguised_paths(path: str, name: str) -> None:
    """M7: separators that come percent-encoded separate as well."""
    assert filename_of(f"https://b.example/{path}") == name
