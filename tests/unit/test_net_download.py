"""Downloads: bounded in every direction, resumed after a cut, and silent about the URL's query."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import shutil
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deployments.errors import DownloadError, FileTooLargeError, JobError, OutOfResourcesError
from deployments.net.download import Downloaded, download, time_left_s
from deployments.net.policy import DownloadLimits, VideoPolicy
from tests.support.servers import (
    Request,
    Server,
    cutting,
    dripping,
    endless,
    hanging,
    head,
    in_turn,
    promising,
    reset,
    resetting,
    serving,
    short,
    status,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.servers import Handler

LOCAL = VideoPolicy(schemes={"http"}, networks=("127.0.0.0/8",), ports="*")
SECRET = "s3cr3t"  # noqa: S105 - stands for the signature of a presigned URL
QUERY = f"X-Amz-Expires=60&X-Amz-Signature={SECRET}"
LIMITS = DownloadLimits(
    max_bytes=1_000_000,
    deadline_s=5,
    connect_s=1,
    stall_s=0.2,
    min_bytes_per_s=10_000,
    pace_window_s=0.2,
    max_tries=3,
    pause_s=0,
    disk_reserve_bytes=0,
)
IN_MEMORY = "/dev/shm"  # noqa: S108 - a disk that stands still for a minute is no fault of what is tested here
BODY = random.Random(1).randbytes(300_000)  # noqa: S311 - any bytes do


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if Path(IN_MEMORY).is_dir() else None) as folder:
        yield Path(folder)


def fetch(handler: Handler, to: Path, *, policy: VideoPolicy = LOCAL, **limits: Any) -> tuple[Downloaded, Server]:
    """Download from `handler` into the file `to`."""

    async def main() -> tuple[Downloaded, Server]:
        async with serving(handler) as server:
            bounds = LIMITS.model_copy(update=limits)
            return await download(server.url(query=QUERY), to, policy=policy, limits=bounds), server

    return asyncio.run(main())


def test_a_file_arrives_whole(tmp_path: Path) -> None:
    """One GET, the bytes, the ETag."""
    got, server = fetch(whole(BODY, ETag='"v1"'), tmp_path / "v")
    assert (tmp_path / "v").read_bytes() == BODY
    assert got == Downloaded(size_bytes=len(BODY), etag='"v1"', cuts=0)
    (request,) = server.requests
    assert request.method == "GET"
    assert request.target.endswith(QUERY)
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("told", [True, False])
async def test_progress_counts_bytes(tmp_path: Path, *, told: bool) -> None:
    """Progress rises to the whole; the total is told where the server tells it."""
    body = BODY * 10
    seen: list[tuple[int, int | None]] = []

    async def chunked(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, Transfer_Encoding="chunked") + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        await writer.drain()

    async with serving(whole(body) if told else chunked) as server:
        await download(
            server.url(),
            tmp_path / "v",
            policy=LOCAL,
            limits=LIMITS.model_copy(update={"max_bytes": 10_000_000}),
            on_progress=lambda done, total: seen.append((done, total)),
        )
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (len(body), len(body) if told else None)
    assert len(seen) >= 3


BAD: list[tuple[str, Handler, type[JobError], str]] = [
    ("403", status(403), DownloadError, "http_403"),
    ("404", status(404), DownloadError, "http_404"),
    ("410", status(410), DownloadError, "http_410"),
    ("500", status(500), DownloadError, "http_500"),
    ("503", status(503), DownloadError, "http_503"),
    ("206 unasked", status(206), DownloadError, "http_206"),
    ("204", status(204), DownloadError, "http_204"),
    ("redirect to nowhere", status(302), DownloadError, "http_302"),
    ("redirect inside", status(302, Location="http://169.254.169.254/"), DownloadError, "not_allowed"),
    ("redirect to a file", status(302, Location="file:///etc/passwd"), DownloadError, "not_allowed"),
    ("redirect to nonsense", status(302, Location="http://[::1/"), DownloadError, "not_allowed"),
    ("redirect to itself", status(302, Location="/again"), DownloadError, "too_many_redirects"),
    ("0 bytes", whole(b""), DownloadError, "empty"),
    ("short", short(BODY, missing=5), DownloadError, "cut_off"),
    ("endless", endless, FileTooLargeError, ""),
    ("too long by header", promising(1_000_001), FileTooLargeError, ""),
    ("too long by counting", whole(bytes(1_000_001)), FileTooLargeError, ""),
    ("dripping", dripping(), DownloadError, "too_slow"),
    ("hanging", hanging, DownloadError, "timeout"),
    ("hanging half-way", promising(100), DownloadError, "timeout"),
    ("reset at once", resetting(), DownloadError, "cut_off"),
    ("reset half-way", resetting(BODY), DownloadError, "cut_off"),
]


@contextmanager
def refusal(reason: str) -> Iterator[None]:
    """The download fails, for this reason."""
    with pytest.raises(DownloadError) as caught:
        yield
    assert caught.value.values == {"reason": reason}


@pytest.mark.parametrize(("handler", "kind", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_m5_lying_servers(
    handler: Handler, kind: type[JobError], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """M5: each lie has its error, soon; M7: and neither error nor log holds the query or a path."""
    caplog.set_level(logging.DEBUG)
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        fetch(handler, tmp_path / "v", stall_s=0.2 if reason == "timeout" else 2)
    assert time.monotonic() - began < 3
    assert caught.value.values.get("reason", "") == reason
    told = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    told += "".join(traceback.format_exception(caught.value)) + caught.value.sentence("ko") + _chain(caught.value)
    assert SECRET not in told
    assert "127.0.0.1" not in caught.value.sentence("en") + _chain(caught.value)


def _chain(error: BaseException | None) -> str:
    """What an error and all errors behind it say, whether shown or not."""
    return "" if error is None else f"{error!r} {_chain(error.__cause__)} {_chain(error.__context__)}"


async def test_an_absent_server(tmp_path: Path) -> None:
    """Nobody listens: `unreachable`."""
    async with serving(hanging) as server:
        pass
    with refusal("unreachable"):
        await download(server.url(), tmp_path / "v", policy=LOCAL, limits=LIMITS)


def test_m5_the_limit_itself_passes(tmp_path: Path) -> None:
    """A file of exactly the allowed size is no error."""
    assert fetch(whole(bytes(1_000_000)), tmp_path / "v")[0].size_bytes == 1_000_000


def test_m5_the_limit_is_told_in_megabytes(tmp_path: Path) -> None:
    """The public sentence names the limit, and a length in the header costs no download."""
    with pytest.raises(FileTooLargeError) as caught:
        fetch(promising(3 << 30), tmp_path / "v", max_bytes=2 << 30)
    assert "2048 MB" in str(caught.value)
    assert (tmp_path / "v").stat().st_size == 0


def test_m5_the_deadline_holds_for_the_whole(tmp_path: Path) -> None:
    """A server that is fast enough at each moment is cut when the time is up."""
    began = time.monotonic()
    with refusal("timeout"):
        fetch(dripping(0.005), tmp_path / "v", min_bytes_per_s=0, deadline_s=0.3)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(("share", "passes"), [(0.5, False), (4.0, True)])
def test_m5_the_floor_on_speed(share: float, tmp_path: Path, *, passes: bool) -> None:
    """M5: a steady line below the floor is `too_slow` after a window, one above it is left alone for many windows."""
    floor, window_s = 20_000, 0.3
    body = BODY[: round(4 * window_s * share * floor)]

    async def steady(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, Content_Length=len(body)))
        began = asyncio.get_running_loop().time()
        for at in range(0, len(body), 500):
            await asyncio.sleep(began + at / (share * floor) - asyncio.get_running_loop().time())
            writer.write(body[at : at + 500])
            await writer.drain()

    pace = {"min_bytes_per_s": floor, "pace_window_s": window_s, "stall_s": 2}
    if passes:
        assert fetch(steady, tmp_path / "v", **pace)[0].size_bytes == len(body)
    else:
        began = time.monotonic()
        with refusal("too_slow"):
            fetch(steady, tmp_path / "v", **pace)
        assert time.monotonic() - began < 3 * window_s


def test_m5_a_slow_disk_is_not_a_slow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The floor on speed is the server's: the time that our own disk takes does not count."""

    async def slowly(write: Callable[..., int], block: bytearray) -> int:
        await asyncio.sleep(0.4)
        return write(block)

    monkeypatch.setattr("deployments.net.download.BLOCK_BYTES", len(BODY) // 4)
    monkeypatch.setattr(asyncio, "to_thread", slowly)
    assert fetch(whole(BODY), tmp_path / "v", min_bytes_per_s=500_000)[0].size_bytes == len(BODY)


def test_m1_a_link_in_the_videos_place_is_not_followed(tmp_path: Path) -> None:
    """M1: where a link lies in the way, what it leads to is neither written nor emptied."""
    (tmp_path / "other").write_bytes(b"another job's")
    (tmp_path / "v").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        fetch(whole(BODY), tmp_path / "v")
    assert (tmp_path / "other").read_bytes() == b"another job's"


def test_m5_a_full_disk_is_told_before_the_download(tmp_path: Path) -> None:
    """Where the file would not fit, nothing is fetched."""
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OutOfResourcesError):
        fetch(promising(free + (1 << 30)), tmp_path / "v", max_bytes=free * 2)
    with pytest.raises(OutOfResourcesError):
        fetch(whole(BODY), tmp_path / "v", disk_reserve_bytes=2 * free)


def test_m5_a_disk_that_fills_up(tmp_path: Path) -> None:
    """A write that finds no room is a lack of resources, not a crash."""
    with pytest.raises(OutOfResourcesError):
        fetch(whole(BODY), Path("/dev/full"))


@pytest.mark.parametrize("hops", [0, 1, 3, 4])
def test_redirects_are_followed_within_bounds(hops: int, tmp_path: Path) -> None:
    """Three hops are followed (S3 answers 307 for new buckets), the fourth is not."""

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        at = int(request.target.strip("/").split("?")[0] or 0) if request.target[1:2].isdigit() else 0
        await (status(307, Location=f"/{at + 1}") if at < hops else whole(BODY))(request, writer)

    if hops > 3:
        with pytest.raises(DownloadError, match="redirects"):
            fetch(handle, tmp_path / "v")
    else:
        _, server = fetch(handle, tmp_path / "v")
        assert len(server.requests) == hops + 1
        assert (tmp_path / "v").read_bytes() == BODY


async def test_a_redirect_to_a_forbidden_address_reaches_nobody(tmp_path: Path) -> None:
    """The canary on an address that is not named gets no connection, neither by address nor by name."""
    async with serving(whole(BODY), host="127.0.0.1") as canary:
        for target in (canary.url(), f"http://inside.example:{canary.port}/", f"//127.0.0.1:{canary.port}/"):
            async with serving(status(302, Location=target), host="127.0.0.2") as server:
                policy = LOCAL.model_validate({**LOCAL.model_dump(), "networks": ("127.0.0.2/32",)})
                with pytest.raises(DownloadError, match="not allowed"):
                    await download(server.url(), tmp_path / "v", policy=policy, limits=LIMITS, resolve=_resolve_inside)
        assert canary.connections == 0


@pytest.mark.parametrize("rules", [{"hosts": ("127.0.0.1",)}, {"ports": ()}], ids=["host", "port"])
async def test_each_hop_is_checked_like_the_first_url(rules: dict[str, Any], tmp_path: Path) -> None:
    """A redirect breaks no rule that the first URL must keep, such as the list of hosts or ports."""
    async with serving(whole(BODY)) as other:
        target = f"http://localhost:{other.port}/"
        async with serving(status(302, Location=target)) as server:
            policy = LOCAL.model_validate({**LOCAL.model_dump(), **rules})
            if "ports" in rules:
                policy = policy.model_copy(update={"ports": (server.port,)})
            with pytest.raises(DownloadError, match="not allowed"):
                await download(server.url(), tmp_path / "v", policy=policy, limits=LIMITS)
            assert server.connections == 1
        assert other.connections == 0


async def _resolve_inside(_: str, __: int) -> list[str]:
    return ["127.0.0.1"]


async def test_a_forbidden_url_makes_no_connection(tmp_path: Path) -> None:
    """What the policy refuses is refused here, too, whoever forgot to ask before."""
    async with serving(whole(BODY)) as server:
        with pytest.raises(DownloadError, match="not allowed"):
            await download(server.url(), tmp_path / "v", policy=VideoPolicy(), limits=LIMITS)
        assert server.connections == 0


def resume(tmp_path: Path, *, size: int, cuts: int, etags: Callable[[int], str]) -> tuple[Downloaded, Server, bytes]:
    """Fetch `size` bytes over a line that is cut `cuts` times."""
    body = random.Random(2).randbytes(size)  # noqa: S311

    async def main() -> tuple[Downloaded, Server, bytes]:
        box: list[Server] = []
        handler = cutting(lambda: box[0], body, every=-(-size // (cuts + 1)), etags=etags)
        async with serving(handler) as server:
            box.append(server)
            limits = LIMITS.model_copy(update={"max_bytes": size, "deadline_s": 30, "stall_s": 5})
            return await download(server.url(query=QUERY), tmp_path / "v", policy=LOCAL, limits=limits), server, body

    return asyncio.run(main())


@pytest.mark.parametrize("size", [20_000_000, pytest.param(200_000_000, marks=pytest.mark.full)])
def test_m6_twenty_cuts(tmp_path: Path, size: int) -> None:
    """M6: after 20 cuts (of 200 MB: the promise's own figure) the digest is right and nothing was sent twice."""
    got, server, body = resume(tmp_path, size=size, cuts=20, etags=lambda _: '"v1"')
    with (tmp_path / "v").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(body).digest()
    assert got.cuts == 20
    assert server.sent_bytes == len(body)
    assert [request.headers.get("if-range") for request in server.requests] == [None] + ['"v1"'] * 20


def answering(body: bytes, *, chunked: bool) -> Callable[[Request], bytes]:
    """All bytes of an honest answer to each request, for one version of `body`; ranges are heeded."""

    def answer(request: Request) -> bytes:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        part = body[start:]
        where = {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        if chunked:
            pieces = (part[:7], part[7:])
            sent = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"
            return head(206 if start else 200, Transfer_Encoding="chunked", ETag='"v1"', **where) + sent
        return head(206 if start else 200, Content_Length=len(part), ETag='"v1"', **where) + part

    return answer


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_m6_a_cut_at_any_byte(how: str, tmp_path: Path, *, chunked: bool) -> None:
    """M6: wherever the first answer breaks off, in its head, a chunk's size or its body, the file arrives whole."""
    body = BODY[:24]
    answer = answering(body, chunked=chunked)
    cut_at = 0

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        whole_answer = answer(request)
        first = len(server.requests) == 1
        writer.write(whole_answer[: cut_at if first else None])
        await writer.drain()
        if first and how == "reset":
            reset(writer)

    limits = LIMITS.model_copy(update={"stall_s": 10, "deadline_s": 60, "pace_window_s": 10})
    async with serving(handle) as server:
        for cut_at in range(len(answer(Request("GET", "/", {})))):
            server.requests.clear()
            got = await download(server.url(query=QUERY), tmp_path / "v", policy=LOCAL, limits=limits)
            assert (tmp_path / "v").read_bytes() == body, cut_at
            assert got.cuts == len(server.requests) - 1, cut_at


def test_m6_a_changed_file_fails(tmp_path: Path) -> None:
    """M6: where the ETag has changed after a cut, two files must not be glued together."""
    with refusal("changed"):
        resume(tmp_path, size=100_000, cuts=3, etags=lambda answer: f'"v{answer // 2}"')


def test_m6_without_a_version_a_cut_starts_over(tmp_path: Path) -> None:
    """A server without ETag and date cannot be resumed from: the file is fetched anew, and right."""
    answers = (short(BODY[:1000], missing=len(BODY) - 1000), short(BODY[:70_000], missing=1), whole(BODY))
    got, server = fetch(in_turn(*answers), tmp_path / "v")
    assert not any("range" in request.headers for request in server.requests)
    assert (tmp_path / "v").read_bytes() == BODY
    assert got.cuts == 2


def test_m6_a_server_that_ignores_ranges_starts_over(tmp_path: Path) -> None:
    """The same ETag with 200 instead of 206: the whole comes again, and the start is not kept twice."""
    answers = (short(BODY[:200_000], missing=100_000, ETag='"v1"'), whole(BODY, ETag='"v1"'))
    fetch(in_turn(*answers), tmp_path / "v")
    assert (tmp_path / "v").read_bytes() == BODY


@pytest.mark.parametrize(
    "answer",
    [
        head(206, Content_Length=1, Content_Range="bytes 5-5/300000", ETag='"v1"'),
        head(206, Content_Length=1, Content_Range="bytes 200000-299999/300001", ETag='"v1"'),
        head(206, Content_Length=1, ETag='"v1"'),
        head(206, Content_Length=1, Content_Range="bytes 200000-299999/300000", ETag='"v2"'),
        head(416, Content_Length=0),
    ],
)
def test_m6_a_wrong_part_is_not_glued_on(answer: bytes, tmp_path: Path) -> None:
    """A part that does not fit where the first one ended is refused."""

    async def wrong_part(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer + b"x")
        await writer.drain()

    with refusal("changed"):
        fetch(in_turn(short(BODY[:200_000], missing=100_000, ETag='"v1"'), wrong_part), tmp_path / "v")


def test_an_expired_url_after_a_cut(tmp_path: Path) -> None:
    """Where the URL has expired meanwhile, its status is the reason."""
    with refusal("http_403"):
        fetch(in_turn(short(BODY, missing=5, ETag='"v1"'), status(403)), tmp_path / "v")


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_passing_troubles_are_mended(failures: int, tmp_path: Path) -> None:
    """Two bad answers in a row are survived, with three tries the third ends it."""
    handle = in_turn(*[status(503), status(500), resetting()][:failures], whole(BODY))
    if failures < 3:
        assert fetch(handle, tmp_path / "v")[0].cuts == failures
    else:
        with pytest.raises(DownloadError):
            fetch(handle, tmp_path / "v")


def test_m5_a_crumb_per_connection_does_not_go_on_for_ever(tmp_path: Path) -> None:
    """Cuts are bounded, progress or not."""

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        where = f"bytes {start}-999/1000"
        writer.write(head(206 if start else 200, Content_Length=1000 - start, Content_Range=where, ETag='"v"') + b"x")
        await writer.drain()
        reset(writer)

    with pytest.raises(DownloadError, match="cut off"):
        fetch(handle, tmp_path / "v", max_cuts=7)


async def test_cancelling_closes_the_connection(tmp_path: Path) -> None:
    """A cancelled download stops within a moment."""
    async with serving(dripping()) as server:
        limits = LIMITS.model_copy(update={"min_bytes_per_s": 0})
        task = asyncio.create_task(download(server.url(), tmp_path / "v", policy=LOCAL, limits=limits))
        await server.arrived.wait()
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 0.5


NOW = 1_735_376_400.0  # 2024-12-28T09:00:00Z


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("X-Amz-Date=20241228T090000Z&X-Amz-Expires=3600&X-Amz-Signature=x", 3600.0),
        ("X-Amz-Date=20241228T083000Z&X-Amz-Expires=3600", 1800.0),
        ("x-amz-date=20241228T083000Z&x-amz-expires=3600", 1800.0),
        ("X-Amz-Date=20241228T080000Z&X-Amz-Expires=60", 0.0),
        ("X-Goog-Date=20241228T090000Z&X-Goog-Expires=900", 900.0),
        (f"AWSAccessKeyId=a&Expires={int(NOW) + 70}&Signature=x", 70.0),
        (f"Expires={int(NOW) - 70}", 0.0),
        ("", 3000.0),
        ("X-Amz-Date=yesterday&X-Amz-Expires=60", 3000.0),
        ("X-Amz-Date=20241228T090000Z", 3000.0),
        ("Expires=never", 3000.0),
    ],
)
def test_the_time_a_presigned_url_has_left(query: str, expected: float) -> None:
    """Read from the URL where it tells, else an hour from its arrival (ten minutes ago here)."""
    assert time_left_s(f"https://b.s3.amazonaws.com/v?{query}", now=NOW, received=NOW - 600) == expected
    assert time_left_s("http://[::1", now=NOW) == 3600.0  # no URL at all
