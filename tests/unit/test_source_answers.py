"""Sources that send something else than a video: encoded bodies, pages, error codes; and keys byte for byte."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import pytest

from deployments.errors import DownloadError, FileTooLargeError
from deployments.net import source_answers
from deployments.net.download import download
from deployments.net.policy import DownloadLimits, VideoPolicy
from tests.support.servers import head, in_turn, serving, short, status, whole

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from tests.support.servers import Handler, Request

POLICY = VideoPolicy(schemes=("http",), ports="*", networks=("127.0.0.0/8",))
LIMITS = DownloadLimits(pause_s=0.01, max_bytes=1 << 20)
VIDEO = bytes(range(256)) * 1000


async def fetched(handler: Handler, folder: Path, path: str = "/video.mp4", limits: DownloadLimits = LIMITS) -> bytes:
    async with serving(handler) as server:
        await download(server.url(path), folder / "video", policy=POLICY, limits=limits)
    return (folder / "video").read_bytes()


def deflate(data: bytes, bits: int) -> bytes:
    packer = zlib.compressobj(wbits=bits)
    return packer.compress(data) + packer.flush()


ENCODED = {
    "gzip": (gzip.compress(VIDEO), "gzip"),
    "two members": (gzip.compress(VIDEO[:1000]) + gzip.compress(VIDEO[1000:]), "gzip"),
    "padded": (gzip.compress(VIDEO) + bytes(512), "x-gzip"),
    "deflate": (deflate(VIDEO, 15), "deflate"),
    "raw deflate": (deflate(VIDEO, -15), "Deflate"),
    "chunked upload": (VIDEO, "aws-chunked"),
    "gzip and chunked upload": (gzip.compress(VIDEO), "gzip,aws-chunked"),
    "says gzip and is not": (VIDEO, "gzip"),
    "identity": (VIDEO, "identity"),
}


@pytest.mark.parametrize("name", ENCODED)
async def test_encoded_bodies_are_decoded(name: str, tmp_path: Path) -> None:
    """Object stores send header and bytes as they were stored, whatever was asked for."""
    body, encoding = ENCODED[name]
    assert await fetched(whole(body, Content_Encoding=encoding), tmp_path) == VIDEO


async def test_a_bomb_is_too_large(tmp_path: Path) -> None:
    """Decoded bytes count: a megabyte that becomes a gigabyte is refused at the limit."""
    packer = zlib.compressobj(9, wbits=31)
    first, again = (packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    bomb = first + 63 * again  # after a full flush the same bytes may stand again
    assert len(bomb) < LIMITS.max_bytes
    with pytest.raises(FileTooLargeError):
        await fetched(whole(bomb, Content_Encoding="gzip"), tmp_path)
    assert (tmp_path / "video").stat().st_size <= LIMITS.max_bytes


async def test_an_encoded_body_that_is_cut_starts_again(tmp_path: Path) -> None:
    """No Range on encoded bytes: their places are not the file's."""
    body = gzip.compress(VIDEO)
    asked: list[Request] = []

    async def second(request: Request, writer: asyncio.StreamWriter) -> None:
        asked.append(request)
        writer.write(head(200, Content_Length=len(body), Content_Encoding="gzip", ETag='"1"') + body)

    cut = short(body, missing=100, Content_Encoding="gzip", ETag='"1"')
    assert await fetched(in_turn(cut, second), tmp_path) == VIDEO
    assert "range" not in {name.lower() for name in asked[0].headers}


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "compress"])
async def test_other_encodings_are_named(encoding: str, tmp_path: Path) -> None:
    """What is not decoded is refused as such."""
    with pytest.raises(DownloadError) as caught:
        await fetched(whole(VIDEO, Content_Encoding=encoding), tmp_path)
    assert caught.value.values == {"reason": "encoding"}


PAGES = {
    "xml": (b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>', "application/xml", "page NoSuchKey"),
    "bare": (b"<Error><Code>SecretWord</Code></Error>", "video/mp4", "page"),
    "html": (b"\n  <!DOCTYPE html><title>Sign in</title>", "text/html", "page"),
    "json": (b'{"error": "expired"}', "application/json; charset=utf-8", "page"),
}


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_is_no_video(name: str, tmp_path: Path) -> None:
    """200 with a page of text is an error of the source; its code word is told if it is of the list."""
    body, content_type, reason = PAGES[name]
    with pytest.raises(DownloadError) as caught:
        await fetched(whole(body, Content_Type=content_type), tmp_path)
    assert caught.value.values == {"reason": reason}


async def test_other_text_is_left_to_the_decoder(tmp_path: Path) -> None:
    """A text that somebody uploaded is no fault of the source."""
    assert await fetched(whole(b"a text" * 100, Content_Type="text/plain"), tmp_path) == b"a text" * 100


def refusal(code: int, body: bytes, **headers: object) -> Handler:
    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(code, Content_Length=len(body), **headers) + body)

    return answer


def error(code: str, message: str = "m") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


REFUSALS = {
    "signature": (403, error("SignatureDoesNotMatch"), "HTTP 403: SignatureDoesNotMatch"),
    "expired": (403, error("AccessDenied", "Request has expired"), "HTTP 403: RequestExpired"),
    "denied": (403, error("AccessDenied"), "HTTP 403: AccessDenied"),
    "archived": (403, error("InvalidObjectState"), "HTTP 403: InvalidObjectState"),
    "no key": (404, error("NoSuchKey"), "HTTP 404: NoSuchKey"),
    "region": (301, error("PermanentRedirect"), "HTTP 301: PermanentRedirect"),
    "a secret": (403, error("sk12345"), "HTTP 403"),
    "nothing": (403, b"", "HTTP 403"),
    "endless": (403, b"x" * 200_000, "HTTP 403"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_the_stores_code_word_is_told(name: str, tmp_path: Path) -> None:
    """From a closed list, so that a backend can tell "sign again" from "wrong key"; nothing else of the body."""
    code, body, told = REFUSALS[name]
    with pytest.raises(DownloadError) as caught:
        await fetched(refusal(code, body), tmp_path)
    assert str(caught.value) == f"The video could not be downloaded ({told})"


async def test_azure_tells_its_code_in_a_header(tmp_path: Path) -> None:
    """Where the body is empty, too."""
    with pytest.raises(DownloadError) as caught:
        await fetched(status(404, x_ms_error_code="BlobNotFound"), tmp_path)
    assert caught.value.values == {"reason": "http_404 BlobNotFound"}


KEYS = [
    "/a/x/../y.mp4",
    "/a/./y.mp4",
    "/a//y.mp4",
    "/a/%2e%2e/y.mp4",
    "/a/+%2B%2F=';&.mp4",
    "/%ED%95%9C.mp4",
    "/a%20b.mp4",
    "/..",
]


ENCODED_KEYS = [("/한 글.mp4", "/%ED%95%9C%20%EA%B8%80.mp4"), ("/a<b>.mp4", "/a%3Cb%3E.mp4")]
"""What no request line may have is encoded, as every client does."""


@pytest.mark.parametrize(("given", "sent"), [*((key, key) for key in KEYS), *ENCODED_KEYS])
async def test_keys_are_sent_byte_for_byte(given: str, sent: str, tmp_path: Path) -> None:
    """A key is sent as it was signed, dots and all."""
    async with serving(whole(VIDEO)) as server:
        await download(server.url(given), tmp_path / "video", policy=POLICY, limits=LIMITS)
    assert [request.target.partition("?")[0] for request in server.requests] == [sent]


def test_codes_are_words() -> None:
    """No code could carry anything of a request."""
    assert all(code.isalpha() for code in source_answers.CODES)
