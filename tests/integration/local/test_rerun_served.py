"""A job that runs again with other options, over the wire: the real graph, and a backend that is told each end."""

from __future__ import annotations

from tests.support.process import held_still, until


def rerun(server, job_id, **fields):
    return server.http.post(f"/api/upload-video/jobs/{job_id}/rerun", json=fields)


def test_a_rerun_computes_what_changed_and_replaces_the_result_at_its_end(server, sources, short, backend):
    """First without the sound, then with it: old results stay readable, each run tells its end, sequences rise."""
    url = sources.file(short)
    job_id = server.start(url, fastapi_base_url=backend.url, language="en", emotion_detection=True)
    first = server.wait(job_id, "completed", within_s=180)["result"]
    assert {"transcription", "diarization"} <= set(first["metadata"]["stages"])
    assert all("emotion" in segment for segment in first["segments"])

    backend.wait(job_id, lambda came: ends(came) == 1, within_s=20)
    assert rerun(server, job_id, emotion_detection=False).status_code == 202
    backend.wait(job_id, lambda came: ends(came) == 2, within_s=120)
    second = server.status(job_id)["result"]
    assert second["metadata"]["stages"] == {}
    assert (second["text"], second["segments"][0]["words"]) == (first["text"], first["segments"][0]["words"])
    assert all("emotion" not in segment for segment in second["segments"])

    refused = rerun(server, job_id, max_speakers=1)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    with held_still(server.replicas("Diarizer")):
        assert rerun(server, job_id, max_speakers=1, video_url=url).status_code == 202
        until(lambda: server.status(job_id)["status"] == "processing")
        assert server.status(job_id)["result"] == second
        assert rerun(server, job_id).status_code == 409
    backend.wait(job_id, lambda came: ends(came) == 3, within_s=120)
    third = server.status(job_id)["result"]
    assert "transcription" not in third["metadata"]["stages"]
    assert {"extraction", "diarization"} <= set(third["metadata"]["stages"])
    assert (third["text"], third["metadata"]["unique_speakers"]) == (first["text"], 1)

    told = backend.of(job_id)
    assert [got.sequence for got in told] == sorted(got.sequence for got in told)
    assert [got.body["result"] for got in told if got.ended] == [first, second, third]
    assert len({got.message_id for got in told if got.ended}) == 3


def ends(came):
    """How many runs have told their end."""
    return sum(got.ended for got in came)
