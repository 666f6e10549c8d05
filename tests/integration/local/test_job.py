"""The main job over the wire: real Ray, real ffmpeg, real sockets, real speech."""

from __future__ import annotations

import io
import json
import time
from datetime import datetime
from itertools import pairwise

import pytest
import webvtt
from pyannote.core import Annotation, Segment, Timeline
from pyannote.database.util import load_rttm
from pyannote.metrics.diarization import DiarizationErrorRate
from standardwebhooks import Webhook

from serve_app.cli.samples import read_stm
from serve_app.jobs.progress import BANDS
from tests.integration.local.conftest import WEBHOOK_SECRET
from tests.support.contract import Completed, Result, assert_keeps_the_rules
from tests.support.word_errors import word_error_rate


@pytest.fixture(scope="module")
def story(server, sources, conversation, tmp_path_factory):
    """The conversation, from the POST to the end: the answer's seconds, all callbacks, the status afterwards."""
    from tests.support.backend import Backend

    with Backend() as backend:
        began = time.monotonic()
        answer = server.post(sources.file(conversation), fastapi_base_url=backend.url)
        answered_s = time.monotonic() - began
        job_id = answer.json()["job_id"]
        backend.wait_end(job_id, within_s=120)
        time.sleep(1.5)
        yield answered_s, answer, backend.of(job_id), server.status(job_id)


def test_the_answer_comes_at_once(story):
    """The first answer is under 5 s."""
    answered_s, answer, _, _ = story
    assert answered_s < 5
    assert answer.json()["status"] == "processing"


def test_progress_is_told_as_promised(story):
    """Integers that never go back, in their stage's band, every stage told, never longer apart than the heartbeat."""
    _, _, callbacks, _ = story
    percents = [got.body["progress"] for got in callbacks]
    assert all(isinstance(percent, int) for percent in percents)
    assert percents == sorted(percents)
    assert percents[0] < 10
    assert (percents[-1], percents.count(100)) == (100, 1)
    assert all(later.at - earlier.at < 5 for earlier, later in pairwise(callbacks))
    told = {low for low, high in BANDS.values() for percent in percents if low <= percent < high}
    assert {10, 25, 40, 60} & told, percents
    for got in callbacks[:-1]:
        assert set(got.body) == {"job_id", "status", "progress", "message"}
        assert got.body["status"] == "processing"


def test_the_result_is_there_as_a_file(story, server):
    """Through Serve: an RTTM names the result's speakers where they speak, and other formats say what they are."""
    _, answer, _, status = story
    job_id, result = answer.json()["job_id"], status["result"]
    rttm = server.http.get(f"/api/upload-video/jobs/{job_id}/export", params={"format": "rttm"}).text
    turns = load_rttm(io.StringIO(rttm))[job_id]
    assert set(turns.labels()) == {segment["speaker"]["speaker_id"] for segment in result["segments"]}
    first, last = result["segments"][0]["start_time"], max(segment["end_time"] for segment in result["segments"])
    assert tuple(turns.get_timeline().extent()) == pytest.approx((first, last))
    subtitles = server.http.get(f"/api/upload-video/jobs/{job_id}/export", params={"format": "vtt", "speakers": False})
    assert subtitles.headers["content-disposition"] == f'attachment; filename="{job_id}.vtt"'
    assert webvtt.WebVTT.from_string(subtitles.text, strict=True).captions[0].text.split()[0] in result["text"]


def test_callbacks_are_signed_numbered_and_unique(story):
    """Standard Webhooks headers that verify, a rising X-ML-Sequence, one id per callback, the contract's path."""
    _, _, callbacks, _ = story
    for got in callbacks:
        assert got.path == "/api/upload-video/result"
        assert got.headers["user-agent"] == "ML-Server/1.0"
        assert got.headers["content-type"] == "application/json"
        Webhook(WEBHOOK_SECRET).verify(got.raw, got.headers)
    sequences = [got.sequence for got in callbacks]
    assert sequences == sorted(set(sequences))
    assert len({got.headers["webhook-id"] for got in callbacks}) == len(callbacks)


def test_the_result_is_the_contracts(story):
    """Every field of the contract with its type and range, no other, and the rules of times and speakers."""
    _, _, callbacks, _ = story
    assert_keeps_the_rules(Completed.model_validate_json(callbacks[-1].raw).result)


def test_the_status_holds_the_very_result(story):
    """The look-up gives the object that the callback carried, and knows that it was delivered."""
    _, _, callbacks, state = story
    assert state["result"] == callbacks[-1].body["result"]
    assert (state["status"], state["progress"]) == ("completed", 100)
    assert state["callback"] == {"state": "delivered", "attempts": 1, "last_error": None}


def test_the_timeline_tells_when_each_stage_ran(server, story):
    """Each stage has its beginning and its end there, as far apart as the result says; they overlap."""
    _, _, _, status = story
    events = server.http.get(f"/api/upload-video/jobs/{status['job_id']}/timeline").json()["events"]
    at = {(event["event"], event["detail"]): datetime.fromisoformat(event["at"]) for event in events}
    for stage, seconds in status["result"]["metadata"]["stages"].items():
        ran = at["stage_ended", stage] - at["stage_started", stage]
        assert ran.total_seconds() == pytest.approx(seconds, abs=0.3), stage
    assert at["stage_started", "diarization"] < at["stage_ended", "transcription"]


def test_w5_nothing_follows_the_end(story):
    """W5: after the acknowledged terminal callback: nothing."""
    _, _, callbacks, _ = story
    assert [got.ended for got in callbacks].index(True) == len(callbacks) - 1


def test_the_speakers_are_right(story, conversation):
    """Two speakers, and words under the reference's turns belong to one speaker each (word-level DER bound)."""
    _, _, _, state = story
    result = Result.model_validate_json(json.dumps(state["result"]))
    assert result.metadata.unique_speakers == 2
    reference = load_rttm(conversation.with_suffix(".rttm"))["sample"]
    spoken = Annotation()
    for segment in result.segments:
        spoken[Segment(segment.start_time, segment.end_time)] = segment.speaker.speaker_id
    confusion = DiarizationErrorRate(collar=0.0, skip_overlap=True)(
        reference, spoken, uem=Timeline([Segment(0, result.duration)]), detailed=True
    )
    assert confusion["confusion"] / confusion["total"] < 0.15, confusion


def test_the_words_are_right(story, conversation):
    """A real telephone call, whose language is found: fewer than a quarter of its words are wrong."""
    _, _, _, state = story
    result = Result.model_validate_json(json.dumps(state["result"]))
    reference = " ".join(line.text for line in read_stm(conversation.with_suffix(".stm")))
    assert word_error_rate(reference, result.text) < 0.25, result.text
    assert (result.language, result.metadata.language_probability) == ("en", pytest.approx(1, abs=0.1))


def test_clear_speech_is_right(server, sources, clear, backend):
    """The clear clip through the whole server: its words, the right number of speakers, honest metadata."""
    url = sources.file(clear, "a%20clear%20talk.flac")
    job_id = server.start(url, fastapi_base_url=backend.url, language="en")
    result = Completed.model_validate_json(backend.wait_end(job_id, within_s=120).raw).result
    assert_keeps_the_rules(result)
    reference = " ".join(line.text for line in read_stm(clear.with_suffix(".stm")))
    assert word_error_rate(reference, result.text) < 0.05, result.text
    assert result.metadata.unique_speakers == 2
    assert result.metadata.filename == "a clear talk.flac"
    assert result.metadata.model_version.startswith("whisperx-base+")
    assert "EMOTION_BY_RULES" in {warning.code for warning in result.metadata.warning_codes}
    assert all(segment.emotion is not None for segment in result.segments if len(segment.words) > 3)


def test_emotion_can_be_left_out(server, sources, short):
    """emotion_detection false: no emotion fields, and no warning about how emotions are judged."""
    job_id = server.start(sources.file(short), emotion_detection=False, max_workers=1)
    result = server.wait(job_id)["result"]
    assert result["segments"]
    assert not any("emotion" in segment for segment in result["segments"])
    assert not any("EMOTION" in warning["code"] for warning in result["metadata"]["warning_codes"])


def test_ten_jobs_at_once_all_complete(server, sources, short, backend):
    """Ten jobs that arrive together all complete, each with its own result."""
    url = sources.file(short)
    ids = [server.start(url, fastapi_base_url=backend.url, language="en") for _ in range(10)]
    assert server.http.get("/health").json()["jobs"]["running"] > 1
    results = [backend.wait_end(job_id, within_s=180).body["result"]["text"] for job_id in ids]
    assert len(set(results)) == 1
    assert results[0]
