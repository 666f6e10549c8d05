from __future__ import annotations

import _thread
import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from serve_app.cli import submit as submit_module
from serve_app.cli.child_process import free_port
from serve_app.cli.client import ServerClient, is_loopback
from serve_app.cli.media_server import MediaServer
from serve_app.cli.submit import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, print_status, submit
from tests.support.fake_ml_server import Script, create_app, result_for
from tests.support.live_server import serving
from tests.support.screen import Screen

if TYPE_CHECKING:
    from pathlib import Path

URL = "http://127.0.0.1:1/video.mp4"


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_module, "POLL_S", 0.01)


@pytest.fixture
def console() -> Screen:
    return Screen()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "my video.mp4"
    path.write_bytes(b"not really a video" * 1000)
    return path


def test_a_local_file_is_fetched_and_the_transcript_printed(video: Path, console: Screen, tmp_path: Path) -> None:
    """--wait: the server gets the file's very bytes; progress, transcript and JSON follow; exit 0."""
    script = Script(queue_positions=(2, 1))
    saved = tmp_path / "result.json"
    with serving(create_app(script)) as url:
        options = {"language": "en", "max_workers": 2, "enable_gpu": True, "fastapi_base_url": None}
        code = submit(url, str(video), options, wait=True, save_to=saved, console=console)
    request = script.requests[0]
    assert code == EXIT_OK
    assert script.fetched_sha256 == [hashlib.sha256(video.read_bytes()).hexdigest()]
    assert str(uuid.UUID(request["job_id"])) == request["job_id"]
    assert (request["language"], request["max_workers"], request["enable_gpu"]) == ("en", 2, True)
    assert "fastapi_base_url" not in request
    output = console.text
    assert output.index("number 2 in the queue") < output.index("number 1 in the queue") < output.index("Transcribing")
    assert f"{url}/api/upload-video/status/{request['job_id']}" in output
    assert "Hello there" in output
    assert json.loads(saved.read_text()) == result_for(request["video_url"])


def test_a_url_without_wait_returns_at_once(console: Screen) -> None:
    """The job's id and status URL, and not a single look at the job."""
    looks: list[str] = []
    script = Script(on_status=looks.append)
    with serving(create_app(script)) as url:
        code = submit(url, URL, {"fastapi_base_url": "http://127.0.0.1:9"}, console=console)
    assert (code, looks) == (EXIT_OK, [])
    assert script.requests[0]["video_url"] == URL
    assert script.requests[0]["fastapi_base_url"] == "http://127.0.0.1:9"
    assert script.requests[0]["job_id"] in console.text


def test_a_local_file_without_wait_is_served_until_it_is_fetched(video: Path, console: Screen) -> None:
    """The command stays while the server still needs the file, and returns though the job goes on."""
    script = Script(queue_positions=(1,), stop_at=26)
    with serving(create_app(script)) as url:
        code = submit(url, str(video), console=console)
    assert code == EXIT_OK
    assert len(script.fetched_sha256) == 1
    assert "ml-server status" in console.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(script.requests[0]["video_url"], trust_env=False)


def test_a_failed_job_ends_with_its_code(video: Path, console: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    """Non-zero, with the server's sentence and the error code on stderr."""
    script = Script(error=("AUDIO_EXTRACTION_ERROR", "Audio extraction failed (no audio track)"))
    with serving(create_app(script)) as url:
        code = submit(url, str(video), wait=True, console=console)
    assert code == EXIT_FAILED
    assert "Audio extraction failed (no audio track) [AUDIO_EXTRACTION_ERROR]" in capsys.readouterr().err


def test_a_job_that_fails_while_its_file_is_fetched_is_told_without_waiting(
    video: Path, console: Screen, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --wait too, an end before the file was fetched is a failure, not a silent success."""
    monkeypatch.setattr(MediaServer, "url", lambda *_: URL)
    with serving(create_app(Script())) as url:
        assert submit(url, str(video), console=console) == EXIT_FAILED
    assert "[DOWNLOAD_ERROR]" in capsys.readouterr().err


def test_a_refusal_is_the_servers_own_sentence(console: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    """A contract error is shown as a sentence with its code and when to come back."""
    script = Script(refusal=(400, "VIDEO_URL_NOT_ALLOWED", "video_url must use https"))
    with serving(create_app(script)) as url:
        assert submit(url, URL, console=console) == EXIT_FAILED
    error = capsys.readouterr().err
    assert error == "The server refused: video_url must use https (try again in 7 s) [VIDEO_URL_NOT_ALLOWED]\n"


def test_an_answer_in_no_known_form_is_told_too(console: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    """A proxy's text page instead of the server."""
    app = FastAPI()
    app.post("/api/upload-video/process-video")(lambda: PlainTextResponse("<h1>Bad gateway</h1>", status_code=502))
    with serving(app) as url:
        assert submit(url, URL, console=console) == EXIT_FAILED
    assert "HTTP 502" in capsys.readouterr().err


def test_no_server_gives_the_command_that_starts_one(console: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    """Connection refused is a sentence, not a traceback."""
    assert submit(f"http://127.0.0.1:{free_port()}", URL, console=console) == EXIT_FAILED
    assert "ml-server up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("server_url", "video_name", "words"),
    [
        ("http://127.0.0.1:1", "nowhere.mp4", "There is no file"),
        ("https://ml.example.com", "my video.mp4", "Give it an https URL"),
        ("http://[bad", "my video.mp4", "is no address of a server"),
        ("127.0.0.1:8080", "my video.mp4", "is no address of a server"),
    ],
)
def test_impossible_calls_are_explained(
    video: Path, capsys: pytest.CaptureFixture[str], server_url: str, video_name: str, words: str
) -> None:
    """No such file; a file for a server that cannot reach it; an address that is none."""
    assert submit(server_url, str(video.parent / video_name)) == EXIT_FAILED
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("progress", "prospect"), [(45, "goes on without us"), (0, "will fail: the server had not fetched the file yet")]
)
def test_ctrl_c_tells_what_becomes_of_the_job(video: Path, console: Screen, progress: int, prospect: str) -> None:
    """While waiting: exit 130, whether the job can go on without the file that we served, and how to find it."""
    looks = iter(range(100))

    def interrupt(_job_id: str) -> None:
        if next(looks) == 6:
            _thread.interrupt_main()

    script = Script(stop_at=progress, on_status=interrupt)
    with serving(create_app(script)) as url:
        code = submit(url, str(video), wait=True, console=console)
    assert code == EXIT_INTERRUPTED
    assert f"The job {prospect}. To see it: ml-server status {script.requests[0]['job_id']}" in console.text


def test_a_server_that_restarts_is_waited_for(video: Path, console: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that fail to come for a while do not end the waiting; a server that stays away does."""
    script = Script()
    calls = 0
    answer = ServerClient.status

    def flaky(self: ServerClient, job_id: str) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls % 2:
            with ServerClient(f"http://127.0.0.1:{free_port()}") as nobody:
                return answer(nobody, job_id)
        return answer(self, job_id)

    monkeypatch.setattr(ServerClient, "status", flaky)
    with serving(create_app(script)) as url:
        assert submit(url, str(video), wait=True, console=console) == EXIT_OK
        monkeypatch.setattr(submit_module, "PATIENCE_S", -1)
        assert submit(url, str(video), wait=True, console=console) == EXIT_FAILED


def test_status_prints_a_job(video: Path, console: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    """Running, completed and unknown jobs; only the unknown one is an error."""
    script = Script(stop_at=45)
    with serving(create_app(script)) as url:
        assert submit(url, str(video), console=console) == EXIT_OK
        job_id = script.requests[0]["job_id"]
        assert print_status(url, job_id, console=console) == EXIT_OK
        assert "processing, 45 %: Identifying the speakers" in console.text
        script.stop_at = None
        for _ in range(5):
            assert print_status(url, job_id, console=console) == EXIT_OK
        assert "Hello there" in console.text
        assert print_status(url, "unknown", console=console) == EXIT_FAILED
    assert "There is no such job" in capsys.readouterr().err


def test_the_key_is_sent(console: Screen) -> None:
    """Where the server wants keys, `api_key` goes out as a bearer token."""
    seen: list[str | None] = []
    app = FastAPI()

    @app.middleware("http")
    async def look(request: Any, call_next: Any) -> Any:
        seen.append(request.headers.get("authorization"))
        return await call_next(request)

    with serving(app) as url:
        submit(url, URL, api_key="k", console=console)
        submit(url, URL, console=console)
    assert seen == ["Bearer k", None]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080"])
def test_loopback_is_recognised(url: str) -> None:
    """This machine's own addresses."""
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url", ["https://ml.example.com", "http://127.0.0.1.example.com", "http://10.0.0.1", "nonsense", "http://[bad"]
)
def test_other_hosts_are_not_loopback(url: str) -> None:
    """Nothing else is, whatever it looks like."""
    assert not is_loopback(url)
