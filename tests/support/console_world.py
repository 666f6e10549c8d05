"""Jobs as an operator's console meets them, in each state, over a real store; and a talk as long as one likes."""

from __future__ import annotations

import json
import random
import time
from itertools import cycle
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from deployments.warnings import ResultWarning, WarningCode
from serve_app.jobs.job import Attempt, JobOptions, Outcome
from serve_app.jobs.progress import Progress
from serve_app.jobs.stages import Stage
from serve_app.settings import Settings
from serve_app.storage.outbox import Outbox
from serve_app.storage.tables import jobs
from serve_app.storage.timeline import EventKind, Mark
from serve_app.warning_sentences import sentence
from tests.support.edge import edge
from tests.support.jobs import begun, new_job
from tests.support.stores import fail, stores

if TYPE_CHECKING:
    from fastapi import FastAPI

    from serve_app.storage.database import Database

WARNING = ResultWarning(code=WarningCode.SPEECH_UNCERTAIN, seconds=4.25)
WORDS = ("we", "should", "look", "at", "the", "numbers", "again", "because", "nobody", "asked", "why", "they", "rose")
MOODS = ("neutral", "neutral", "neutral", "happy", "sad", "angry", "surprised")
STAGES_S = {
    "extraction": 3.1,
    "detection": 1.9,
    "transcription": 29.0,
    "diarization": 24.4,
    "prosody": 9.3,
    "analysis": 4.2,
}
"""How long those of a talk ran."""


def spans_s(stages_s: dict[str, float]) -> dict[str, tuple[float, float]]:
    """When stages of these lengths ran, after their attempt began: each as soon as it had what it is made from."""
    after = {
        "extraction": (),
        "detection": ("extraction",),
        "diarization": ("extraction",),
        "prosody": ("extraction",),
        "transcription": ("detection",),
        "analysis": ("transcription", "diarization", "prosody"),
    }
    spans: dict[str, tuple[float, float]] = {}
    for stage, needed in after.items():
        if stage in stages_s:
            start_s = max((spans[each][1] for each in needed if each in spans), default=0.0)
            spans[stage] = (start_s, start_s + stages_s[stage])
    return spans


def a_talk(words: int, *, speakers: int = 3, seed: int = 1) -> dict[str, Any]:
    """A result of so many words, 2.8 a second, in segments of 5 to 15."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    segments, at, speaker, text = [], 0.4, 0, cycle(WORDS)
    while words > 0:
        count = min(words, chance.randint(5, 15))
        words -= count
        spoken = []
        for _ in range(count):
            length = chance.uniform(0.12, 0.42)
            voiced = chance.random() < 0.9
            spoken.append(
                {
                    "word": next(text),
                    "start": round(at, 3),
                    "end": round(at + length, 3),
                    "volume_db": round(chance.gauss(-24, 5), 2),
                    "pitch_hz": round(chance.gauss(120 + 45 * speaker, 15), 2) if voiced else 0.0,
                    "voiced": voiced,
                    "confidence": round(1 - chance.random() ** 3, 3),
                }
            )
            at += length + 0.08
        segments.append(
            {
                "start_time": spoken[0]["start"],
                "end_time": spoken[-1]["end"],
                "speaker": {"speaker_id": f"SPEAKER_{speaker:02d}"},
                "text": " ".join(word["word"] for word in spoken),
                "words": spoken,
                "confidence": 0.9,
                "emotion": {"label": chance.choice(MOODS), "confidence": round(chance.uniform(0.3, 0.75), 3)},
            }
        )
        at += chance.uniform(0.1, 0.6)
        speaker = chance.randrange(speakers)
    return {
        "text": " ".join(segment["text"] for segment in segments),
        "language": "en",
        "duration": round(at + 1, 3),
        "metadata": {
            "filename": "talk.mp4",
            "duration": round(at + 1, 3),
            "total_segments": len(segments),
            "unique_speakers": speakers,
            "model_version": "whisper-small+pyannote+prosodic",
            "processing_time": 38.4,
            "device": "cpu",
            "stages": STAGES_S,
            "warnings": [sentence(WARNING, "ko")],
            "warning_codes": [{"code": WARNING.code, **WARNING.amounts}],
        },
        "segments": segments,
    }


class World:
    """A server with nobody behind it: the test is the driver."""

    def __init__(self, database: Database, **settings: Any) -> None:
        self.database = database
        self.ago_s = 0.0
        self.store = stores(database, queue_limit=20_000, running_limit=4, locale="en", clock=self.clock)
        self.outbox = Outbox(database, clock=self.clock)
        self.settings = Settings(profile="local", locale="en", **settings)

    def clock(self) -> float:
        """So that jobs can have begun a while ago."""
        return time.time() - self.ago_s

    @property
    def app(self) -> FastAPI:
        return edge(self.settings, self.database, self.store, self.outbox)

    def submit(self, job_id: str, *, callback: bool = True) -> None:
        self.store.jobs.submit_job(
            new_job(
                job_id,
                "http://127.0.0.1:9/api/upload-video/result" if callback else None,
                video_url="https://v.example/talk.mp4?X-Amz-Signature=secret",
                video_expires_at=time.time() + 3600,
            )
        )

    def begin(self, job_id: str) -> Attempt:
        return begun(self.store, job_id)

    def run(self, job_id: str, result: dict[str, Any]) -> str | None:
        """It ran, and completed with `result`; the callback that is due."""
        took_s = result["metadata"]["processing_time"]
        self.ago_s += took_s + 1.6
        self.submit(job_id)
        attempt = self.begin(job_id)
        began = self.clock()
        self.ago_s -= took_s
        kinds = (EventKind.STAGE_STARTED, EventKind.STAGE_ENDED)
        marks = sorted(
            (
                Mark(at=began + at, kind=kind, stage=stage)
                for stage, span in spans_s(result["metadata"]["stages"]).items()
                for at, kind in zip(span, kinds, strict=True)
            ),
            key=lambda mark: mark.at,
        )
        outcome = Outcome(
            result=json.dumps(result).encode(),
            duration_s=result["duration"],
            processing_s=took_s,
            warnings=len(result["metadata"]["warnings"]),
        )
        ending = self.store.attempts.finish_job(attempt, outcome, marks)
        assert ending is not None
        self.ago_s -= 1.6
        return ending.callback_id

    def tell(self, attempt: Attempt, percent: int, stage: Stage, *marks: Mark) -> None:
        self.store.attempts.save_progress(attempt, Progress(percent=percent, stage=stage), spent_s=0.1, marks=marks)

    def populate(self, *, words: int = 400, result: dict[str, Any] | None = None) -> Attempt:
        """A job in each state, and who works on `running`; the completed one with `result`, or a talk."""
        self.ago_s = 1800
        due = self.run("completed", result or a_talk(words))
        assert due is not None
        claimed = self.outbox.claim(due)
        assert claimed is not None
        fail(self.outbox, claimed, error="http_500")
        self.ago_s = 600
        self.submit("failed", callback=False)
        attempt = self.begin("failed")
        code = {"error_code": "DOWNLOAD_ERROR", "error_message": "The video could not be downloaded"}
        self.store.attempts.finish_job(attempt, Outcome(**code))
        self.ago_s = 12
        self.submit("running")
        attempt = self.begin("running")
        self.ago_s = 0
        now = time.time()
        self.tell(
            attempt,
            46,
            Stage.DIARIZATION,
            Mark(at=now - 12, kind=EventKind.STAGE_STARTED, stage="extraction"),
            Mark(at=now - 8, kind=EventKind.STAGE_ENDED, stage="extraction"),
            Mark(at=now - 8, kind=EventKind.STAGE_STARTED, stage="diarization"),
        )
        for number in range(1, 4):
            self.submit(f"waiting-{number}")
        return attempt

    def store_many(self, count: int) -> None:
        """So many ended jobs, older than all others."""
        now = time.time() - 3600
        zero = dict.fromkeys(("run", "attempt", "progress", "sequence", "spent_s"), 0)
        ended = zero | dict.fromkeys(("video_expires_at", "queued_at", "told_at", "started_at", "finished_at"), now)
        ended |= {"fingerprint": "f", "video_url": "https://v.example/a", "options": JobOptions().model_dump()}
        ended |= {"prefetch": "none", "cancel_requested": False}
        state = (
            {"state": "completed", "stage": "done", "progress": 100},
            {"state": "failed", "stage": "extraction", "error_code": "X"},
        )
        rows = [
            ended
            | {"error_code": None}
            | state[number % 10 == 0]
            | {"job_id": f"stored-{number:05}", "created_at": now - number}
            for number in range(count)
        ]
        with self.database.write() as db:
            db.execute(insert(jobs), rows)
