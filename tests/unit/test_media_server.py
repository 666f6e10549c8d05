from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.cli.media_server import MAX_CONNECTIONS, MediaServer, byte_range

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a b é.mp4"
    path.write_bytes(CONTENT)
    (tmp_path / "secret.txt").write_text("secret")
    return path


def get(url: str, method: str = "GET", **headers: str) -> httpx.Response:
    return httpx.request(method, url, headers=headers, trust_env=False, verify=False)  # noqa: S501 - http, saves time


def test_a_file_is_served_whole_and_in_parts(video: Path) -> None:
    """GET gives all bytes with length, type and ETag; a Range gives just these; HEAD gives no body."""
    with MediaServer([video]) as media:
        whole = get(media.url(video))
        part = get(media.url(video), Range="bytes=1000-")
        head = get(media.url(video), "HEAD")
        outside = get(media.url(video), Range=f"bytes={len(CONTENT)}-")
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["Content-Type"] == "video/mp4"
    assert (part.status_code, part.content) == (206, CONTENT[1000:])
    assert part.headers["Content-Range"] == f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert (head.headers["Content-Length"], head.content) == (str(len(CONTENT)), b"")
    assert (outside.status_code, outside.headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")


def test_a_download_resumes_only_in_the_same_file(video: Path) -> None:
    """If-Range with the old ETag of a changed file gives the new file whole."""
    with MediaServer([video]) as media:
        etag = get(media.url(video)).headers["ETag"]
        same = get(media.url(video), Range="bytes=10-", **{"If-Range": etag})
        video.write_bytes(CONTENT[::-1] + b"more")
        changed = get(media.url(video), Range="bytes=10-", **{"If-Range": etag})
    assert (same.status_code, same.content) == (206, CONTENT[10:])
    assert (changed.status_code, changed.content) == (200, CONTENT[::-1] + b"more")


@pytest.mark.parametrize(
    "path",
    ["/", "/a%20b%20%C3%A9.mp4", "/{}/secret.txt", "/{}/../secret.txt", "/{}/%2e%2e%2fsecret.txt", "/{}/", "/{}"],
)
def test_nothing_else_is_served(video: Path, path: str) -> None:
    """Neither without the secret folder nor any neighbour of the file."""
    with MediaServer([video]) as media:
        base = httpx.URL(media.base_url)
        with socket.create_connection((base.host, base.port or 0), timeout=5) as raw:
            raw.sendall(f"GET {path.format(base.path[1:])} HTTP/1.0\r\n\r\n".encode())
            assert b" 404 " in raw.recv(1000)


def test_a_missing_or_empty_file_is_answered_too(video: Path) -> None:
    """Gone after the start: 404; empty: 200 and no bytes."""
    with MediaServer([video]) as media:
        video.write_bytes(b"")
        empty = get(media.url(video))
        video.unlink()
        gone = get(media.url(video))
    assert (empty.status_code, empty.content, gone.status_code) == (200, b"", 404)


def test_connections_are_bounded_and_closing_does_not_wait_for_them(video: Path) -> None:
    """One connection too many is hung up on; the server closes though the others still sit there."""
    with MediaServer([video]) as media:
        base = httpx.URL(media.base_url)
        idle = [socket.create_connection((base.host, base.port or 0), timeout=5) for _ in range(MAX_CONNECTIONS + 1)]
        assert idle[-1].recv(1) == b""
    for connection in idle:
        connection.close()


def test_two_files_of_one_name_are_refused(video: Path) -> None:
    """The URL would be ambiguous."""
    with pytest.raises(ValueError, match="two files"):
        MediaServer([video, video.parent / "other" / video.name])


@settings(deadline=None)
@given(size=st.integers(0, 50), first=st.none() | st.integers(0, 60), last=st.none() | st.integers(0, 60))
def test_ranges_select_what_slicing_selects(size: int, first: int | None, last: int | None) -> None:
    """`a-b`, `a-` and `-n` mean the same bytes as Python slices; an empty selection is None."""
    span = byte_range(f"bytes={'' if first is None else first}-{'' if last is None else last}", size)
    data = bytes(range(size))
    if first is None:
        wanted = data if last is None else data[max(0, size - last) :]
    else:
        wanted = data[first : None if last is None else last + 1]
    whole = first is None and last is None
    assert (b"" if span is None else data[span[0] : span[1] + 1]) == wanted
    assert (span is None) == (not wanted and not whole)
