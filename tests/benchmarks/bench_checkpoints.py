"""What keeping an hour's answers costs: bytes, and milliseconds to encode and write them and to read them back.

The answers of `canned`, with numbers that need all their digits; SQLite with durable commits in the temporary folder.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deployments.speech_detector.chunks import join_spans
from deployments.speech_detector.config import PIECE_S
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.passages import chunks_of, whole
from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ, AudioInfo, Emotion, Span, Tracks, Turn, WordProsody, pieces
from serve_app.jobs.job import Attempt, JobOptions, NewJob, Outcome
from serve_app.pipeline.checkpoint_codec import PartialTranscript, Step, decode, encode
from serve_app.pipeline.segments import segments_of
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.database import Database
from serve_app.storage.job_store import JobStore
from tests.benchmarks import canned
from tests.benchmarks.report import say, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deployments.types import Transcript

DURATION_S = 3600.0
TIMES = 5
"""The median of so many is told."""


def main(_arguments: Sequence[str] = ()) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'jobs.db'}")
        database.create()
        store, checkpoints = JobStore(database, queue_limit=1, running_limit=1), Checkpoints(database)
        attempt = _started(store)
        costs = {step: _cost(step, answer, attempt, checkpoints) for step, answer in _answers().items()}
        end_ms = _median_ms([_timed(lambda: store.finish(attempt, Outcome(result=b"{}")))])
        database.close()
    total = tuple(map(sum, zip(*costs.values(), strict=True)))
    rows = [(step, *map(_shown, cost)) for step, cost in (*costs.items(), ("all", total))]
    say(table(("an hour's", "kB", "encode, ms", "write, ms", "read and decode, ms"), rows))
    say(f"\nThe job's end, which deletes them: {end_ms:.1f} ms.")


def _started(store: JobStore) -> Attempt:
    url = "https://v/1.mp4"
    store.submit(
        NewJob(job_id="a", video_url=url, video_expires_at=0, callback_url=None, options=JobOptions(), fingerprint="f")
    )
    store.admit()
    store.begin_attempt("a", 1)
    return Attempt(job_id="a", run=1, number=1)


def _cost(step: Step, answer: Any, attempt: Attempt, checkpoints: Checkpoints) -> tuple[float, ...]:
    body = encode(step, answer)
    found = checkpoints.find
    ways: tuple[Callable[[], object], ...] = (
        lambda: encode(step, answer),
        lambda: checkpoints.keep(attempt, step, body),
        lambda: decode(step, found(attempt.job_id, attempt.run, step) or b""),
    )
    return len(body) / 1000, *(_median_ms([_timed(way) for _ in range(TIMES)]) for way in ways)


def _timed(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def _median_ms(seconds: Sequence[float]) -> float:
    return 1000 * statistics.median(seconds)


def _shown(number: float) -> str:
    return f"{number:.1f}"


def _answers() -> dict[Step, Any]:
    dice = np.random.default_rng(0)
    spans = join_spans([canned.detect(None, np.zeros(0, np.int16), piece) for piece in pieces(DURATION_S, PIECE_S)])
    chunks = chunks_of(whole(spans, "en"), spans, TranscriberConfig(engine="whisperx").max_chunk_s)
    heard = PartialTranscript(
        chunks=chunks,
        language_probability=0.9,
        warnings=[],
        transcripts={number: _transcript(chunk, dice) for number, chunk in enumerate(chunks)},
    )
    turns = [
        Turn(start_s=start_s + dice.random() / 10, end_s=start_s + canned.TURN_S, speaker=number % 2)
        for number, start_s in enumerate(np.arange(0, DURATION_S, canned.TURN_S).tolist())
    ]
    utterances = (utterance for transcript in heard.transcripts.values() for utterance in transcript.utterances)
    segments = segments_of(utterances, turns)
    frames = dice.random((2, round(DURATION_S * FRAMES_PER_S)), np.float32)
    return {
        Step.EXTRACTION: AudioInfo(duration_s=DURATION_S, samples=round(DURATION_S * SAMPLE_RATE_HZ), sha256="0" * 64),
        Step.DETECTION: spans,
        Step.PARTIAL_TRANSCRIPT: heard,
        Step.TRANSCRIPTION: heard,
        Step.DIARIZATION: turns,
        Step.TRACKS: Tracks(start_s=0.0, f0_hz=frames[0], level_dbfs=frames[1]),
        Step.PROSODY: [
            [WordProsody(volume_db=-dice.random(), pitch_hz=dice.random(), voiced=True) for _ in segment.words]
            for segment in segments
        ],
        Step.EMOTION: [Emotion(label="neutral", confidence=dice.random()) for _ in segments],
    }


def _transcript(chunk: Span, dice: np.random.Generator) -> Transcript:
    """A chunk's words, whose numbers are as long as real ones."""
    written = canned._transcript(chunk.start_s, chunk.duration_s)
    (utterance,) = written.utterances
    words = tuple(
        replace(word, start_s=word.start_s + dice.random() / 1000, confidence=dice.random())
        for word in canned._timed(utterance).words
    )
    return replace(written, utterances=(replace(utterance, words=words),))
