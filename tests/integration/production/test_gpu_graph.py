"""serve_config.yaml for real: production engines on small models, fake GPUs, keys, contract 1.0, English."""

from __future__ import annotations

import time

from tests.support import servers
from tests.support.process import ROOT

SPEECH = ROOT / "tests" / "data" / "speech"
HEALTH_AGE_S = 2
"""Health may be half a second old, at either replica."""


def test_the_old_contract_end_to_end(server, sources, backend):
    """Contract 1.0: `accepted`, no status_url, callbacks to the old path, English messages, a result."""
    answer = server.post(sources.file(SPEECH / "english_awb.ogg"), fastapi_base_url=backend.url)
    assert answer.json()["status"] == "accepted"
    assert "status_url" not in answer.json()
    end = backend.wait_end(answer.json()["job_id"], within_s=120)
    assert end.path == "/api/v1/ml/ml-results"
    assert end.body["message"] == "Video processing completed"
    assert end.body["result"]["segments"]


def test_two_languages_at_once(server, sources, spoken):
    """English and Korean jobs side by side: each video's own language is found, its words are right and timed."""
    names = ("english_espeak.ogg", "korean_espeak.ogg")
    ids = [server.start(sources.file(SPEECH / name)) for name in names]
    for name, job_id in zip(names, ids, strict=True):
        state = server.wait(job_id, within_s=120)
        assert state["status"] == "completed", state
        result = state["result"]
        assert (result["language"], result["text"]) == (spoken[name]["language"], spoken[name]["text"])
        metadata = result["metadata"]
        assert 0.5 < metadata["language_probability"] <= 1
        assert metadata["model_version"] == "whisperx-asr+ctc-wav2vec2+pyannote-diarizer+emotion"
        assert metadata["device"] == "cpu"
        assert metadata["unique_speakers"] == 1
        assert metadata["warnings"] == []
        words = [word for segment in result["segments"] for word in segment["words"]]
        assert " ".join(word["word"] for word in words) == result["text"]
        assert all(0 < word["end"] - word["start"] < 1.5 for word in words)
        assert all(0 <= segment["emotion"]["confidence"] <= 1 for segment in result["segments"])


def test_a_language_is_asked_for(server, sources, spoken):
    """`language` of the request is what is heard, and no probability is told; a language that Whisper lacks is 400."""
    job_id = server.start(sources.file(SPEECH / "korean_espeak_f3.ogg"), language="ko", emotion_detection=False)
    result = server.wait(job_id, within_s=60)["result"]
    assert (result["language"], result["text"]) == ("ko", spoken["korean_espeak_f3.ogg"]["text"])
    assert "language_probability" not in result["metadata"]
    assert server.post(sources.file(SPEECH / "english_slt.ogg"), language="tlh").status_code == 400


def test_a_key_is_wanted(server):
    """auth: keys over the wire: 401 in the contract's form without one, /health open."""
    bare = server.http.get("/api/upload-video/jobs", headers={"authorization": ""})
    assert (bare.status_code, bare.json()["error"]["code"]) == (401, "UNAUTHORIZED")
    assert server.http.get("/health", headers={"authorization": ""}).status_code == 200


def test_the_queue(server, sources, backend):
    """Two run, two wait in order and are told so, the next gets 503; places fall as those before end."""
    slow = sources.serve(servers.dripping())
    ids = [server.start(slow, job_id=f"queue-{i}", fastapi_base_url=backend.url) for i in range(4)]
    running, other, second, third = ids
    server.wait(running, "processing")
    server.wait(other, "processing")
    assert [server.status(job_id)["queue_position"] for job_id in (second, third)] == [1, 2]
    refused = server.post(slow)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "INSUFFICIENT_RESOURCES")
    assert int(refused.headers["retry-after"]) >= 1
    deadline = time.monotonic() + HEALTH_AGE_S
    while (health := server.http.get("/health")).json()["accepting"]:
        assert time.monotonic() < deadline
    assert health.status_code == 200
    waiting = backend.wait(third, lambda came: len(came) >= 2, within_s=60)
    assert {(got.body["status"], got.body["progress"]) for got in waiting} == {("processing", 0)}
    server.cancel(running)
    server.wait(second, "processing", within_s=60)
    assert server.status(third)["queue_position"] == 1
    assert server.cancel(third).json()["status"] == "failed"
    assert backend.wait_end(third, within_s=30).body["error_code"] == "CANCELLED"
    server.cancel(second)
    server.cancel(other)
    backend.wait_end(second, within_s=60)
    deadline = time.monotonic() + 30
    while server.http.get("/health").json()["jobs"]["running"]:
        assert time.monotonic() < deadline
