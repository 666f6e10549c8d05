"""A graph without Ray: handles whose methods are given functions, and a job to run over them."""

from __future__ import annotations

from typing import Any

import numpy as np

from deployments.transcriber.config import TranscriberConfig
from deployments.types import AudioInfo, Emotion, Span, Tracks, Transcript, Turn, Utterance, Word, WordProsody
from serve_app.jobs.job import Job, JobOptions
from serve_app.jobs.states import JobState
from serve_app.pipeline.stage_client import StageHandles
from serve_app.testing import FakeHandle

SECONDS = 20.0
EARS = TranscriberConfig(model="base.en", max_chunk_s=8)
"""Each stretch of speech is a chunk, and no language is asked for."""


def fails(error: Exception):
    def call(*_: Any) -> Any:
        raise error

    return call


def heard(_audio: Any, chunk: Span, _language: str, _job_id: str, _speech: Any) -> Transcript:
    """One word per second of the chunk."""
    words = tuple(
        Word(
            start_s=chunk.start_s + i, end_s=chunk.start_s + i + 0.5, text=f"w{chunk.start_s + i:.0f}", probability=0.5
        )
        for i in range(int(chunk.duration_s))
    )
    text = " ".join(word.text for word in words)
    return Transcript(
        language="en", utterances=(Utterance(start_s=chunk.start_s, end_s=chunk.end_s, text=text, words=words),)
    )


def measure(_tracks: Any, segments: Any) -> Any:
    return [(WordProsody(volume_db=-20.0, pitch_hz=200.0, voiced=True),) * len(segment.words) for segment in segments]


def graph(**replaced: Any) -> StageHandles:
    tracks = Tracks(start_s=0, f0_hz=np.zeros(4, np.float32), level_dbfs=np.zeros(4, np.float32))
    stages: dict[str, Any] = {
        "extractor": FakeHandle(
            prepare=lambda *_, **__: AudioInfo(duration_s=SECONDS + 1, samples=int(SECONDS * 16_000), sha256=""),
            load=lambda *_: None,
        ),
        "detector": FakeHandle(detect=lambda _audio, _piece: [Span(start_s=0, end_s=8), Span(start_s=10, end_s=18)]),
        "transcriber": FakeHandle(transcribe=heard),
        "aligner": None,
        "diarizer": FakeHandle(
            segment=lambda *_: "s",
            embed=lambda *_: "e",
            cluster=lambda *_: [Turn(start_s=9, end_s=20, speaker=4), Turn(start_s=0, end_s=9, speaker=7)],
        ),
        "prosody": FakeHandle(tracks=lambda *_: tracks, measure=measure),
        "emotion": FakeHandle(
            analyze=lambda _audio, _tracks, segments, _job_id: [Emotion(label="happy", confidence=0.4)] * len(segments)
        ),
    }
    return StageHandles(**stages | replaced)


def job(**options: Any) -> Job:
    fields = dict.fromkeys(Job.__dataclass_fields__)
    return Job(
        **fields
        | {
            "job_id": "a",
            "state": JobState.RUNNING,
            "run": 1,
            "video_url": "http://h/a%20b.mp4?s",
            "options": JobOptions(**options),
        }
    )
