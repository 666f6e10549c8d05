"""Downloads a video: streamed to disk, counted, resumed after a cut, within limits. Knows nothing about media."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, TypeAlias
from urllib.parse import parse_qsl, quote, urlsplit

import httpx

from deployments import logs
from deployments.errors import DISK_ERRORS, DownloadError, FileTooLargeError, OutOfResourcesError
from deployments.net import source_answers
from deployments.net.client import USER_AGENT, CheckedTransport, NetError, Resolve, exchange, resolve
from deployments.net.policy import MIB, AddressRefusedError, DownloadLimits, VideoPolicy, check_video_url

if TYPE_CHECKING:
    from pathlib import Path

HEAD_BYTES = 512
"""By these bytes a page of text is known."""
BLOCK_BYTES = MIB
"""Bytes per write, which happens off the event loop."""
URL_LIFE_S = 3600.0
"""Lifetime of a URL that does not state one: the contract's one hour."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

OnProgress: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes received and the total, None where the server does not state it."""

_log = logs.get_logger("net.download")


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """A finished download: its size, its strong ETag if any, and how often the connection was cut."""

    size_bytes: int
    etag: str | None
    cuts: int


class _CutError(Exception):
    """A try failed and another one may succeed. `reason` is that of a DownloadError."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def download(
    url: str,
    to: Path,
    *,
    policy: VideoPolicy,
    limits: DownloadLimits,
    on_progress: OnProgress | None = None,
    resolve: Resolve = resolve,
) -> Downloaded:
    """Download `url` into the file `to`, which is created or overwritten.

    After a cut it continues where it stopped (`Range` with `If-Range`) if the server gave a version of the file (a
    strong ETag, else a date); otherwise it starts again. A body with a Content-Encoding (gzip, deflate), which object
    stores send as it was stored, is decoded and counted as decoded; after a cut it starts again.

    Raises:
        DownloadError: Not allowed, unreachable, an error status, cut off, too slow, changed meanwhile, empty, a page
            of text, an unknown encoding.
        FileTooLargeError: By Content-Length or by counting.
        OutOfResourcesError: No room on the disk, or it fails.
    """
    transport = CheckedTransport(policy, resolve=resolve)
    try:
        async with asyncio.timeout(limits.deadline_s):
            with open(to, "wb", opener=_not_through_a_link) as file:  # noqa: ASYNC230 - Path has no opener
                return await _Transfer(
                    url=url, file=file, transport=transport, policy=policy, limits=limits, on_progress=on_progress
                ).run()
    except TimeoutError:
        raise DownloadError(reason="timeout") from None
    except OSError as error:
        if error.errno in DISK_ERRORS:
            _log.warning("video not stored", extra={"error": os.strerror(error.errno)})
            raise OutOfResourcesError from None
        raise
    finally:
        await transport.aclose()


def time_left_s(url: str, *, now: float, received: float | None = None) -> float:
    """Return the remaining lifetime of a presigned URL in seconds, 0 if it has expired.

    Read from `X-Amz-Date` + `X-Amz-Expires` (S3, signature 4; Google's `X-Goog-` likewise) or `Expires` (S3
    signature 2, CloudFront: an epoch). A URL without one is assumed to live an hour from `received`, else from `now`;
    both are epoch seconds.
    """
    expires = _expiry(url)
    if expires is None:
        expires = (now if received is None else received) + URL_LIFE_S
    return max(0.0, expires - now)


def _expiry(url: str) -> float | None:
    try:
        query = {key.lower(): value for key, value in parse_qsl(urlsplit(url).query)}
        for prefix in ("x-amz", "x-goog"):
            if f"{prefix}-date" in query and f"{prefix}-expires" in query:
                signed = datetime.strptime(query[f"{prefix}-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return signed.timestamp() + int(query[f"{prefix}-expires"])
        return float(int(query["expires"]))
    except (KeyError, ValueError, OverflowError):
        return None


def _not_through_a_link(path: str, flags: int) -> int:
    """Open `path` without following a symbolic link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


@dataclass(slots=True, kw_only=True)
class _Transfer:
    """One download over several tries: the open file, and what is known of the remote file."""

    url: str
    file: BinaryIO
    transport: httpx.AsyncBaseTransport
    policy: VideoPolicy
    limits: DownloadLimits
    on_progress: OnProgress | None
    received: int = 0
    total: int | None = None
    etag: str | None = None
    version: str | None = None
    decoder: source_answers.Decoder | None = None
    content_type: str = ""
    window_start_s: float = 0.0
    """Start of the interval over which the speed is measured."""
    window_bytes: int = 0

    async def run(self) -> Downloaded:
        furthest = fruitless = cuts = 0
        while True:
            try:
                await self._try()
            except _CutError as cut:
                cuts += 1
                fruitless = 0 if self.received > furthest else fruitless + 1
                furthest = max(furthest, self.received)
                _log.info("download cut", extra={"reason": cut.reason, "received_bytes": self.received, "cuts": cuts})
                if fruitless >= self.limits.max_tries or cuts >= self.limits.max_cuts:
                    raise DownloadError(reason=cut.reason) from None
                await asyncio.sleep(self.limits.pause_s * 2**fruitless)
            else:
                break
        if self.received == 0:
            raise DownloadError(reason="empty")
        return Downloaded(size_bytes=self.received, etag=self.etag, cuts=cuts)

    async def _try(self) -> None:
        """Request the file, follow redirects, read to the end. Raises _CutError where another try may succeed."""
        self._check(self.url)
        url = self.url
        try:
            for _ in range(self.limits.max_redirects + 1):
                request = httpx.Request("GET", url, headers=self._headers(), extensions=self._extensions(url))
                async with exchange(
                    self.transport, request, connect_s=self.limits.connect_s, stall_s=self.limits.stall_s
                ) as response:
                    if response.status_code not in _REDIRECTS:
                        await self._take(response)
                        return
                    url = await self._next_hop(url, response)
        except NetError as error:
            if error.kind == "not_allowed":
                raise DownloadError(reason="not_allowed") from None
            raise _CutError(error.kind) from None
        raise DownloadError(reason="too_many_redirects")

    def _check(self, url: str) -> None:
        try:
            check_video_url(url, self.policy)
        except AddressRefusedError as error:
            _log.warning("download refused", extra={"rule": error.reason})
            raise DownloadError(reason="not_allowed") from None

    async def _next_hop(self, url: str, response: httpx.Response) -> str:
        location: str | None = response.headers.get("Location")
        if not location:
            raise DownloadError(reason=await _refusal(response))
        try:
            target = location if urlsplit(location).scheme else str(httpx.URL(url).join(location))
            httpx.URL(target)
        except (httpx.InvalidURL, ValueError):
            raise DownloadError(reason="not_allowed") from None
        self._check(target)
        return target

    def _extensions(self, url: str) -> dict[str, bytes]:
        """Return what has httpcore send the path as it is. A proxy's requests have a target of their own."""
        return {} if self.policy.proxy else {"target": _target(url).encode()}

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        if self.received and self.version:
            headers |= {"Range": f"bytes={self.received}-", "If-Range": self.version}
        return headers

    async def _take(self, response: httpx.Response) -> None:
        """Check the answer's status and headers, then write its body."""
        status = response.status_code
        if status in _TRANSIENT:
            raise _CutError(f"http_{status}")
        if status == httpx.codes.OK:
            await self._start_over(response)
        elif status == httpx.codes.PARTIAL_CONTENT and self.received:
            self._check_part(response)
        else:
            changed = status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and self.received
            raise DownloadError(reason="changed" if changed else await _refusal(response))
        self._check_size(self.total or 0)
        self._check_room((self.total or self.received) - self.received)
        await self._read(response)
        if self.decoder is None and self.total is not None and self.received != self.total:
            raise _CutError("cut_off")

    async def _start_over(self, response: httpx.Response) -> None:
        """Start the file from its beginning; in a later try its version must be the same."""
        etag = response.headers.get("ETag")
        version = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        if self.version is not None and version != self.version:
            raise DownloadError(reason="changed")
        try:
            self.decoder = source_answers.decoder(response.headers.get("Content-Encoding", ""))
        except source_answers.UnknownEncodingError:
            raise DownloadError(reason="encoding") from None
        self.etag, self.version = etag, version if self.decoder is None else None
        self.content_type = response.headers.get("Content-Type", "")
        self.total = _length(response.headers)
        if self.received:
            await asyncio.to_thread(self.file.truncate, 0)
            self.file.seek(0)
            self.received = 0

    def _check_part(self, response: httpx.Response) -> None:
        """Continue the file: the answer must be the requested part of the same version."""
        etag = response.headers.get("ETag")
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != self.received:
            raise DownloadError(reason="changed")
        total = int(match[3]) if match[3] != "*" else self.total
        if (etag is not None and etag != self.etag) or (self.total is not None and total != self.total):
            raise DownloadError(reason="changed")
        self.total = total

    async def _read(self, response: httpx.Response) -> None:
        self.window_start_s, self.window_bytes = time.monotonic(), 0
        block = bytearray()
        try:
            async for chunk in response.aiter_raw():
                self._check_pace(len(chunk))
                for part in (chunk,) if self.decoder is None else self.decoder.decode(chunk):
                    self._check_size(self.received + len(block) + len(part))
                    block += part
                    if len(block) >= BLOCK_BYTES:
                        full, block = block, bytearray()
                        await self._write(full)
            if self.decoder is not None:
                self.decoder.end()
        except source_answers.DamagedEncodingError:
            raise _CutError("cut_off") from None
        except httpx.HTTPError:
            await self._write(block)  # what has come need not come again
            raise
        await self._write(block)

    async def _write(self, block: bytearray) -> None:
        if not block:
            return
        if self.received == 0 and source_answers.is_page(bytes(block[:HEAD_BYTES]), self.content_type):
            code = source_answers.error_code({}, bytes(block[: source_answers.ERROR_BYTES]))
            raise DownloadError(reason=f"page {code}".strip())
        began_s = time.monotonic()
        await asyncio.to_thread(self.file.write, block)
        self.window_start_s += time.monotonic() - began_s  # a slow disk is not the server's fault
        self.received += len(block)
        self._check_room(0)
        if self.on_progress is not None:
            self.on_progress(self.received, None if self.decoder else self.total)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.limits.max_bytes:
            raise FileTooLargeError(limit_mb=self.limits.max_bytes / MIB)

    def _check_pace(self, count: int) -> None:
        """Count received bytes; at the end of each window, raise DownloadError where they came too slowly."""
        self.window_bytes += count
        passed_s = time.monotonic() - self.window_start_s
        if passed_s < self.limits.pace_window_s:
            return
        if self.window_bytes < self.limits.min_bytes_per_s * passed_s:
            raise DownloadError(reason="too_slow")
        self.window_start_s, self.window_bytes = time.monotonic(), 0

    def _check_room(self, wanted_bytes: int) -> None:
        if shutil.disk_usage(self.file.fileno()).free < wanted_bytes + self.limits.disk_reserve_bytes:
            raise OutOfResourcesError


def _target(url: str) -> str:
    """Return path and query byte for byte as they were signed, what no request line may have percent-encoded.

    Keys of objects may have `.` and `..` as segments, which `httpx.URL` would resolve.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return quote(target, safe="!#$%&'()*+,/:;=?@[]~-._|")


async def _refusal(response: httpx.Response) -> str:
    """Return the reason of an answer that is no video: the status, and the store's code word where it tells one."""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= source_answers.ERROR_BYTES:
            break
    return f"http_{response.status_code} {source_answers.error_code(response.headers, body)}".strip()


def _length(headers: httpx.Headers) -> int | None:
    value = headers.get("Content-Length", "")
    return int(value) if value.isascii() and value.isdigit() else None
