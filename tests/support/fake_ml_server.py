"""An ML Server without Ray or engines that keeps the wire contract: for tests of what talks to it.

It fetches the video (so a test sees whether it could), walks through the contract's progress, sends callbacks with ids
and sequence, and ends with a constructed result. Where a request names no backend, the job moves on by one step with
each status call instead: such tests need no clock. As a program it takes the arguments of `ml-server up`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGES = (
    (0, "Getting ready"),
    (12, "Extracting the audio"),
    (26, "Detecting speech"),
    (45, "Identifying the speakers"),
    (65, "Transcribing"),
    (80, "Analysing emotion"),
    (95, "Putting the result together"),
)

WORD_FIELDS = ("word", "start", "end", "volume_db", "pitch_hz", "voiced", "confidence")
SPOKEN: tuple[tuple[str, str, tuple[tuple[Any, ...], ...]], ...] = (
    ("SPEAKER_00", "happy", (("Hello", 6.7, 7.1, -20.0, 210.0, True), ("there", 7.1, 7.3, -24.0, 190.0, False))),
    ("SPEAKER_01", "neutral", (("Oh", 7.7, 7.9, -31.0, 120.0, True), ("hello", 7.9, 8.4, -29.0, 140.0, True))),
)


@dataclass
class Script:
    """What the fake does with the jobs that it gets, and what it saw."""

    error: tuple[str, str] | None = None
    """Code and message of the failure that ends every job."""
    refusal: tuple[int, str, str] | None = None
    """HTTP status, code and message of the answer to every request."""
    queue_positions: tuple[int, ...] = ()
    twice: bool = False
    """Send each callback twice, and the one before it once more."""
    callbacks_before_answer: bool = False
    unhealthy_answers: int = 0
    """How often `/health` answers 503 first."""
    stop_at: int | None = None
    """Stay at this progress for good."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    fetched_sha256: list[str] = field(default_factory=list)
    callback_answers: list[dict[str, Any]] = field(default_factory=list)
    on_status: Any = None
    """Called with each status request."""


def result_for(video_url: str) -> dict[str, Any]:
    """A result as the contract draws it."""
    segments = [
        {
            "start_time": words[0][1],
            "end_time": words[-1][2],
            "speaker": {"speaker_id": speaker},
            "text": " ".join(word[0] for word in words),
            "confidence": 0.8,
            "emotion": {"label": emotion, "confidence": 0.7},
            "words": [dict(zip(WORD_FIELDS, (*word, 0.8), strict=True)) for word in words],
        }
        for speaker, emotion, words in SPOKEN
    ]
    return {
        "text": " ".join(segment["text"] for segment in segments),
        "language": "en",
        "duration": 30.0,
        "metadata": {
            "filename": video_url.partition("?")[0].rpartition("/")[2],
            "duration": 30.0,
            "total_segments": len(segments),
            "unique_speakers": 2,
            "model_version": "fake-1",
            "processing_time": 1.5,
            "device": "cpu",
            "stages": {"extraction": 0.5, "transcription": 1.0},
            "warnings": ["this is a fake"],
        },
        "segments": segments,
    }


class FakeJob:
    """One job: its state as the status endpoint tells it, and the generator that moves it on."""

    def __init__(self, request: dict[str, Any], script: Script) -> None:
        self.request = request
        self.script = script
        self.state: dict[str, Any] = {"job_id": request["job_id"], "status": "accepted", "progress": 0, "message": ""}
        self.steps = self._walk()

    def _walk(self) -> Iterator[dict[str, Any]]:
        """Yield the state after each step; None of them is skipped."""
        for position in self.script.queue_positions:
            yield self._set(status="accepted", progress=0, message="Waiting", queue_position=position)
        self.state.pop("queue_position", None)
        for progress, message in STAGES:
            yield self._set(status="processing", progress=progress, message=message)
            while progress == self.script.stop_at:
                yield self.state
            if progress == STAGES[1][0] and not self._fetch():
                return
        if self.script.error:
            yield self._fail(*self.script.error)
            return
        result = result_for(self.request["video_url"])
        yield self._set(status="completed", progress=100, message="Done", result=result)

    def _fetch(self) -> bool:
        try:
            body = httpx.get(self.request["video_url"], trust_env=False).raise_for_status().content
        except httpx.HTTPError:
            self._fail("DOWNLOAD_ERROR", "The video could not be downloaded")
            return False
        self.script.fetched_sha256.append(hashlib.sha256(body).hexdigest())
        return True

    def _fail(self, code: str, message: str) -> dict[str, Any]:
        return self._set(status="failed", message=message, error_code=code, error_message=message)

    def _set(self, **changes: Any) -> dict[str, Any]:
        self.state = self.state | changes
        return self.state

    def run_with_callbacks(self) -> None:
        """Walk to the end, telling the backend each step; a backend that is gone ends it."""
        with suppress(httpx.HTTPError):
            self._tell_each_step()

    def _tell_each_step(self) -> None:
        base_url = self.request["fastapi_base_url"]
        with httpx.Client(base_url=base_url, trust_env=False, headers={"User-Agent": "ML-Server/1.0"}) as http:
            before: list[tuple[dict[str, str], bytes]] = []
            for sequence, state in enumerate(self.steps, start=1):
                headers = {"webhook-id": f"msg_{uuid.uuid4()}", "X-ML-Sequence": str(sequence)}
                callback = (headers | {"Content-Type": "application/json"}, json.dumps(state).encode())
                for headers_sent, body in [callback, callback, *before] if self.script.twice else [callback]:
                    answer = http.post("/api/upload-video/result", content=body, headers=headers_sent)
                    self.script.callback_answers.append(answer.raise_for_status().json())
                before = [callback]
                if state["progress"] == self.script.stop_at:
                    return


def create_app(script: Script) -> FastAPI:
    app = FastAPI()
    jobs: dict[str, FakeJob] = {}

    @app.post("/api/upload-video/process-video")
    async def process_video(request: Request) -> JSONResponse:
        body = await request.json()
        script.requests.append(body)
        if script.refusal:
            return error_answer(*script.refusal, job_id=body.get("job_id"))
        job_id = body["job_id"]
        job = jobs[job_id] = FakeJob(body, script)
        if body.get("fastapi_base_url"):
            thread = threading.Thread(target=job.run_with_callbacks, daemon=True)
            thread.start()
            if script.callbacks_before_answer:
                await asyncio.to_thread(thread.join)
        answer = {"job_id": job_id, "status": "processing", "message": "비디오 처리가 시작되었습니다"}
        return JSONResponse(answer | {"status_url": f"/api/upload-video/status/{job_id}", "estimated_time": 300})

    @app.get("/api/upload-video/status/{job_id}")
    def status(job_id: str) -> JSONResponse:
        if script.on_status:
            script.on_status(job_id)
        job = jobs.get(job_id)
        if job is None:
            return error_answer(404, "JOB_NOT_FOUND", "There is no such job", job_id=job_id)
        if not job.request.get("fastapi_base_url"):
            next(job.steps, None)
        return JSONResponse(job.state)

    app.get("/health")(lambda: health(script))
    return app


def health(script: Script) -> JSONResponse:
    """Broken as often as the script says, then healthy."""
    script.unhealthy_answers -= 1
    if script.unhealthy_answers >= 0:
        return JSONResponse({"status": "unhealthy", "failing": ["Diarizer"]}, status_code=503)
    return JSONResponse({"status": "healthy", "version": "fake", "accepting": True})


def error_answer(http_status: int, code: str, message: str, *, job_id: str | None) -> JSONResponse:
    """The contract's error body."""
    error = {"code": code, "message": message, "job_id": job_id}
    return JSONResponse({"error": error, "message": message}, status_code=http_status, headers={"Retry-After": "7"})


def main() -> None:
    """Be started as `ml-server up` is. `--script` is JSON for `Script`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("up")
    parser.add_argument("--config")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state-dir")
    parser.add_argument("--script", default="{}")
    parser.add_argument("--say-and-exit")
    arguments = parser.parse_args()
    if arguments.say_and_exit:
        raise SystemExit(arguments.say_and_exit)
    script = Script(**json.loads(arguments.script))
    uvicorn.run(create_app(script), host="127.0.0.1", port=arguments.port, timeout_graceful_shutdown=2)


if __name__ == "__main__":
    main()
