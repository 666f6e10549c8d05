"""The checks of a URL before any connection."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.net.policy import (
    AddressRefusedError,
    CallbackPolicy,
    VideoPolicy,
    check_callback_url,
    check_video_url,
)

LOCAL = VideoPolicy(schemes={"http", "https"}, networks=("127.0.0.0/8", "::1/128"), ports="*")
CALLBACKS = CallbackPolicy(
    networks=("127.0.0.0/8", "::1/128"),
    origins=("http://ecg-backend:8000", "https://api.example.com", "http://127.0.0.1:*", "http://[::1]:9000"),
)


def rule(url: str, policy: VideoPolicy | CallbackPolicy) -> str | None:
    """The rule that refuses `url`, None where it passes."""
    try:
        if isinstance(policy, VideoPolicy):
            check_video_url(url, policy)
        else:
            check_callback_url(url, policy)
    except AddressRefusedError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://bucket.s3.ap-northeast-2.amazonaws.com/a/video.mp4?X-Amz-Signature=1", None),
        ("HTTPS://Example.COM.:443/x", None),
        ("https://8.8.8.8/x", None),
        ("https://[2606:4700:4700::1111]/x", None),
        ("https://bücher.example/x", None),
        ("http://example.com/x", "scheme"),
        ("ftp://example.com/x", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("//example.com/x", "scheme"),
        (" https://example.com/x", "scheme"),
        ("example.com", "scheme"),
        ("", "scheme"),
        ("https:///x", "malformed"),
        ("https://exa mple.com/", "malformed"),
        ("https://ex%61mple.com/", "malformed"),
        ("https://a\tb.com/", "malformed"),
        ("https://[fe80::1%25eth0]/", "address"),
        ("https://[::1", "malformed"),
        ("https://\uff11\uff12\uff17.0.0.1/", "malformed"),
        ("https://example.com:99999/", "port"),
        ("https://example.com:0/", "port"),
        ("https://example.com:8443/", "port"),
        ("https://example.com:80/", "port"),
        ("https://user:pw@example.com/", "credentials"),
        ("https://user@example.com/", "credentials"),
        ("https://evil.com\\@127.0.0.1/x", "credentials"),
        ("https://127.0.0.1/", "address"),
        ("https://127。0。0。1/", "address"),
        ("https://127.0.0.1./", "address"),
        ("https://localhost/", "address"),
        ("https://LOCALHOST./", "address"),
        ("https://a.localhost/", "address"),
        ("https://127.1/", "address"),
        ("https://2130706433/", "address"),
        ("https://0x7f000001/", "address"),
        ("https://0x7f.0.0.1/", "address"),
        ("https://0177.0.0.1/", "malformed"),
        ("https://8.8.2056/", "address"),
        ("https://1.2.3.4.5/", "address"),
        ("https://169.254.169.254/latest/meta-data/", "address"),
        ("https://[::1]/", "address"),
        ("https://[::ffff:127.0.0.1]/", "address"),
        ("https://[64:ff9b::7f00:1]/", "address"),
        ("https://10.0.0.1/", "address"),
    ],
)
def test_video_urls_in_production(url: str, expected: str | None) -> None:
    """Production takes https to public hosts on the usual port, and nothing dressed up as such."""
    assert rule(url, VideoPolicy()) == expected


def test_video_urls_with_the_local_rules() -> None:
    """The local rules take http on any port of this machine, and still no other private network."""
    for url in ("http://127.0.0.1:51234/v.mp4", "http://localhost:8000/v", "http://[::1]:1/v", "https://example.com/"):
        assert rule(url, LOCAL) is None
    for url in ("http://10.0.0.1/", "http://0.0.0.0:8000/", "http://[::ffff:127.0.0.1]/", "http://127.1:8000/"):
        assert rule(url, LOCAL) == "address"


def test_host_patterns() -> None:
    """Where hosts are listed, the others are refused; a pattern does not reach over its fixed end."""
    policy = VideoPolicy(hosts=("*.s3.*.amazonaws.com", "cdn.example.com"))
    assert rule("https://bucket.s3.us-east-1.amazonaws.com/v", policy) is None
    assert rule("https://CDN.example.com/v", policy) is None
    assert rule("https://my.bucket.s3.us-east-1.amazonaws.com/v", policy) is None
    for host in ("bucket.s3.us-east-1.amazonaws.com.evil.net", "xcdn.example.com", "example.com", "s3.amazonaws.com"):
        assert rule(f"https://{host}/v", policy) == "host"
    one_bucket = VideoPolicy(hosts=("ecg-bucket.s3.*.amazonaws.com",))
    assert rule("https://ecg-bucket.s3.us-east-1.amazonaws.com/v", one_bucket) is None
    for host in ("ecg-bucket.s3.evil-bucket.s3.us-east-1.amazonaws.com", "ecg-bucket.s3.a.b.amazonaws.com"):
        assert rule(f"https://{host}/v", one_bucket) == "host"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://ecg-backend:8000", None),
        ("http://ecg-backend:8000/api/upload-video/result", None),
        ("HTTP://ECG-Backend:8000/", None),
        ("https://api.example.com", None),
        ("https://api.example.com:443/base", None),
        ("http://127.0.0.1:1/", None),
        ("http://127.0.0.1/", None),
        ("http://[::1]:9000", None),
        ("https://ecg-backend:8000", "origin"),
        ("http://ecg-backend", "origin"),
        ("http://ecg-backend:8001", "origin"),
        ("http://ecg-backend.evil.com:8000", "origin"),
        ("http://api.example.com", "origin"),
        ("https://127.0.0.1:1", "origin"),
        ("http://127.0.0.2:1", "origin"),
        ("http://[::1]:9001", "origin"),
        ("http://ecg-backend:8000@evil.com/", "credentials"),
        ("http://u:p@ecg-backend:8000/", "credentials"),
        ("http://ecg-backend:8000/?to=x", "malformed"),
        ("http://ecg-backend:8000/#x", "malformed"),
        ("javascript:alert(1)", "scheme"),
    ],
)
def test_callback_urls(url: str, expected: str | None) -> None:
    """A callback goes to an origin on the list, exactly: scheme, host and port."""
    assert rule(url, CALLBACKS) == expected


def test_nothing_listed_nothing_allowed() -> None:
    """An empty callback list allows no callback."""
    assert rule("https://example.com/", CallbackPolicy()) == "origin"


@pytest.mark.parametrize(
    "settings",
    [
        {"origins": ["http://10.0.0.5:8000"]},
        {"origins": ["http://localhost:8000"]},
        {"origins": ["ecg-backend:8000"]},
        {"origins": ["http://*.example.com"]},
        {"origins": ["http://Example.com"]},
        {"origins": ["http://example.com/path"]},
        {"networks": ["10.0.0.1/8"]},
        {"hosts": ["example.com"]},
    ],
)
def test_unsound_callback_settings_stop_the_start(settings: dict[str, list[str]]) -> None:
    """A list that would never match, or lies in a network that is not named, is refused when it is read."""
    with pytest.raises(ValidationError):
        CallbackPolicy.model_validate(settings)


@given(st.text(max_size=60))
def test_no_text_breaks_the_check(text: str) -> None:
    """Whatever comes as a URL either passes or is refused with a rule's name, which holds nothing of it."""
    for url in (text, f"https://{text}", f"https://{text}/", f"https://example.com:{text}"):
        assert rule(url, VideoPolicy()) in {
            None,
            *["malformed", "scheme", "credentials", "host", "port", "address", "origin"],
        }


def test_settings_load_without_the_http_library() -> None:
    """Reading settings stays light: no HTTP library, no numpy."""
    code = "import sys, deployments.extraction.config; print(sorted({'httpx', 'numpy', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
