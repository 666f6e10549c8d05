"""What can be wrong with a video, over the wire: each ends in a clear error of the contract, and nothing leaks."""

from __future__ import annotations

import socket
from itertools import pairwise

import pytest

from tests.support import servers
from tests.support.clips import run_ffmpeg, silence
from tests.support.sources import SECRET

GIB = 1 << 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def dead_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


def assert_fails(server, backend, url: str, code: str, *words: str, within_s: float = 40) -> None:
    """The job ends `failed` with `code`, in callback and status alike, and neither tells what it must not."""
    job_id = server.start(url, fastapi_base_url=backend.url)
    end = backend.wait_end(job_id, within_s=within_s)
    assert set(end.body) == {"job_id", "status", "progress", "message", "error_message", "error_code"}
    assert (end.body["status"], end.body["error_code"]) == ("failed", code), end.body
    assert end.body["progress"] < 100
    for word in words:
        assert word in end.body["error_message"]
    state = server.http.get(f"/api/upload-video/status/{job_id}")
    assert (state.json()["error_code"], state.json()["error_message"]) == (code, end.body["error_message"])
    for text in [got.raw.decode() for got in backend.of(job_id)] + [state.text]:
        assert SECRET not in text
        assert "/" not in end.body["error_message"].replace("http://", "")
        assert "Traceback" not in text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "body"),
        (b"{", "not valid JSON"),
        (b"[1]", "JSON object"),
        (b"{}", "job_id is required"),
        (b'{"job_id": "a"}', "video_url is required"),
        (b'{"job_id": "", "video_url": "http://127.0.0.1:9/v.mp4"}', "job_id"),
        (b'{"job_id": "../a", "video_url": "http://127.0.0.1:9/v.mp4"}', "job_id"),
        (b'{"job_id": 7, "video_url": "http://127.0.0.1:9/v.mp4"}', "job_id"),
        (b'{"job_id": "a", "video_url": ""}', "video_url"),
        (b'{"job_id": "a", "video_url": "http://127.0.0.1:9/' + b"v" * 9000 + b'"}', "video_url"),
        (b'{"job_id": "a", "video_url": "http://127.0.0.1:9/v.mp4", "language": "klingon"}', "auto, af, am"),
        (b'{"job_id": "a", "video_url": "http://127.0.0.1:9/v.mp4", "max_workers": 99}', "max_workers"),
        (b'{"job_id": "a", "video_url": "http://127.0.0.1:9/v.mp4", "enable_gpu": "yes"}', "enable_gpu"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_request_that_is_wrong(server, body, words):
    """No JSON; missing, empty, wrong and huge fields; an unknown language: 400 in the contract's form, naming it."""
    headers = {"content-type": "application/json"}
    answer = server.http.post("/api/upload-video/process-video", content=body, headers=headers)
    assert answer.status_code == 400
    content = answer.json()
    assert set(content) == {"error", "message"}
    assert set(content["error"]) == {"code", "message", "job_id"}
    assert content["error"]["code"] == "INVALID_REQUEST"
    assert words in content["message"] == content["error"]["message"]


def test_a_request_that_is_huge(server):
    """A body over 64 kB: 413 in the contract's form."""
    answer = server.post("http://127.0.0.1:9/v.mp4", padding="x" * 70_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "REQUEST_TOO_LARGE")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (servers.status(403), ("DOWNLOAD_ERROR", "HTTP 403")),
        (servers.status(404), ("DOWNLOAD_ERROR", "HTTP 404")),
        (servers.status(410), ("DOWNLOAD_ERROR", "HTTP 410")),
        (servers.whole(b""), ("DOWNLOAD_ERROR",)),
        (servers.short(bytes(50_000), missing=50_000), ("DOWNLOAD_ERROR",)),
        (servers.promising(3 * GIB), ("FILE_TOO_LARGE",)),
        (servers.endless, ("FILE_TOO_LARGE",)),
        (servers.whole(b"just words\n" * 500), ("AUDIO_EXTRACTION_ERROR",)),
    ],
    ids=["403", "404", "410", "empty", "cut off", "too large by header", "too large by counting", "text"],
)
def test_a_source_that_has_no_video(server, backend, sources, source, error):
    """An expired URL, nothing, half of it again and again, too much, told or counted, and words: each has its code."""
    assert_fails(server, backend, sources.serve(source), *error)


def test_a_source_that_is_not_there(server, backend, dead_port):
    """Nobody listens: DOWNLOAD_ERROR."""
    assert_fails(server, backend, f"http://127.0.0.1:{dead_port}/v.mp4?{SECRET}", "DOWNLOAD_ERROR")


def test_a_source_that_hangs_and_a_stage_that_is_silent(server, backend, sources):
    """A source that never answers ends in DOWNLOAD_ERROR, and the heartbeat holds while nothing happens."""
    job_id = server.start(sources.serve(servers.hanging), fastapi_base_url=backend.url)
    end = backend.wait_end(job_id, within_s=90)
    assert end.body["error_code"] == "DOWNLOAD_ERROR"
    heard = backend.of(job_id)
    gaps = [later.at - earlier.at for earlier, later in pairwise(heard)]
    assert len(heard) >= 3
    assert max(gaps) < 10, gaps  # every 2 s here


def test_a_video_without_sound(server, backend, sources, folder):
    """No audio track: AUDIO_EXTRACTION_ERROR."""
    path = folder / "mute.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=5:duration=2", "-c:v", "mpeg4", path)
    assert_fails(server, backend, sources.file(path), "AUDIO_EXTRACTION_ERROR")


def test_sixty_one_minutes(server, backend, sources, folder):
    """Longer than the limit: VIDEO_TOO_LONG, named in minutes."""
    path = folder / "long.flac"
    silence(folder / "long.wav", 61 * 60)
    run_ffmpeg("-i", folder / "long.wav", path)
    assert_fails(server, backend, sources.file(path), "VIDEO_TOO_LONG", "60")


def test_silence(server, backend, sources, folder):
    """A video without speech completes: no segments, empty text, no speakers, the requested language."""
    path = folder / "silence.wav"
    silence(path, 5)
    job_id = server.start(sources.file(path), fastapi_base_url=backend.url)
    result = backend.wait_end(job_id).body["result"]
    assert (result["segments"], result["text"], result["language"]) == ([], "", "auto")
    assert (result["metadata"]["total_segments"], result["metadata"]["unique_speakers"]) == (0, 0)
    assert result["duration"] == pytest.approx(5, abs=0.05)


def test_an_audio_file_and_a_real_video(server, backend, sources, folder, short):
    """Sound alone works, and a video of the same sound gives the same words at the same times."""
    path = folder / "picture.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=5:duration=4")
    run_ffmpeg(
        *picture, "-i", short, "-map", "0:v", "-map", "1:a", "-c:v", "mpeg4", "-c:a", "flac", "-strict", "-2", path
    )
    ids = [server.start(sources.file(each), fastapi_base_url=backend.url) for each in (short, path)]
    audio, video = [backend.wait_end(job_id).body["result"] for job_id in ids]
    assert audio["text"]
    assert video["text"] == audio["text"]
    for one, other in zip(audio["segments"], video["segments"], strict=True):
        assert one["start_time"] == pytest.approx(other["start_time"], abs=0.03)


def test_nothing_of_it_is_in_the_logs(server):
    """After all of the above: no query of a presigned URL in the log, and a canonical line for each job."""
    log = (server.state_dir / "logs" / "ml-server.jsonl").read_text()
    assert SECRET not in log
    assert log.count('"message": "job ended"') >= 10
