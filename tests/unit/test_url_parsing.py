"""W10, M7: whatever comes as a URL is refused, or understood by all of us in the same way."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import quote, urlsplit

import httpx
from hypothesis import example, given
from hypothesis import strategies as st

from deployments.net.addresses import refused
from deployments.net.download import time_left_s
from deployments.net.policy import AddressRefusedError, CallbackPolicy, VideoPolicy, check_callback_url, check_video_url
from serve_app.pipeline.assemble import filename_of

LISTED = "ecg-backend"
CALLBACKS = CallbackPolicy(origins=(f"http://{LISTED}:8000",))
MESS = st.text("htps:/\\@?#[]%.0123456789abcdefx\t\n \u3002\uff0e\uff0f\u2044-_~", max_size=40)
URLS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["https://", "HTTPS://", "https:/", "https:\\\\", "http://", "//", ""]),
        st.sampled_from(["", "u:p@", "127.0.0.1@", f"{LISTED}:8000@", "\\@"]),
        st.one_of(MESS, st.ip_addresses().map(str), st.sampled_from(["v.example", LISTED, "localhost", "[::1]"])),
        st.sampled_from(["", ":443", ":8000", ":0443", ":", ":x"]),
        st.one_of(MESS, st.just("/v.mp4?X-Amz-Signature=1")),
    ),
)


@given(URLS)
@example("https://v.example\\@127.0.0.1/")
@example("https://127.0.0.1\\.v.example/")
@example("https://v.example:443#@127.0.0.1/")
def test_w10_parsers_agree_on_what_passes(url):
    """W10: of a URL that passes, httpx and urllib name the same host; it is no address that is refused."""
    try:
        check_video_url(url, VideoPolicy())
    except AddressRefusedError:
        return
    host = httpx.URL(url).raw_host.decode().lower()
    assert httpx.URL(url).scheme == "https"
    assert "@" not in urlsplit(url).netloc
    if host.isascii() and url.isascii():
        assert (urlsplit(url).hostname or "").lower() == host
    try:
        address = ip_address(host)
    except ValueError:
        return
    assert not refused(address)


@given(URLS)
@example(f"http://{LISTED}:8000\\@evil.example/")
@example(f"http://evil.example\\@{LISTED}:8000/")
@example(f"http://{LISTED}:8000.evil.example/")
def test_w10_a_callback_that_passes_goes_to_the_listed_origin(url):
    """W10: whatever passes the whitelist is connected to at the listed host and port, by httpx' own reading."""
    try:
        check_callback_url(url, CALLBACKS)
    except AddressRefusedError:
        return
    read = httpx.URL(url)
    assert (read.scheme, read.host.rstrip("."), read.port, read.userinfo) == ("http", LISTED, 8000, b"")


@given(st.one_of(URLS, st.text()), st.floats(0, 1e10), st.text(max_size=30))
def test_d13_no_url_breaks_the_clock(url, now, value):
    """D13: how long a URL lives is a number for any text, its parameters garbage or not."""
    for text in (
        url,
        f"https://v.example/?X-Amz-Date={value}&X-Amz-Expires={value}",
        f"https://v.example/?Expires={value}",
        f"https://v.example/?{quote(value)}",
    ):
        assert time_left_s(text, now=now) >= 0


@given(st.one_of(URLS, st.text(max_size=30).map("https://v.example/{}".format)))
def test_m7_a_filename_holds_no_query(url):
    """M7: the result's filename never breaks on a URL that is accepted, and holds nothing of its query."""
    try:
        check_video_url(url, VideoPolicy())
    except AddressRefusedError:
        return
    if "#" not in url:
        assert "s3cret" not in filename_of(f"{url}{'&' if '?' in url else '?'}X-Amz-Signature=s3cret")
