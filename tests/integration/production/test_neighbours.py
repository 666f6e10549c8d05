"""Jobs that share a recogniser: what happens to one, or to their replica, costs the others nothing."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.contract import checked
from tests.support.sounds import TEXTS, in_a_row, speech, written

SAID = {
    "mine": ("english_espeak", "english_espeak_f3", "english_espeak", "english_espeak_f3", "english_espeak"),
    "theirs": ("korean_espeak", "korean_espeak", "korean_espeak_f3", "korean_espeak", "korean_espeak_f3"),
}
"""Each is cut into several chunks."""
LANGUAGES = {"mine": "en", "theirs": "ko"}
DIARIZED = 60
"""Progress of a job whose diarization is done, long after its first chunks went to the recogniser."""


@pytest.fixture(scope="module")
def videos(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("neighbours")
    return {
        name: sources.file(written(folder / f"{name}.wav", in_a_row(*(speech(part) for part in parts))))
        for name, parts in SAID.items()
    }


@pytest.fixture(scope="module")
def alone(server, videos):
    """What each video gives by itself."""
    words = {}
    for name, video in videos.items():
        job_id = server.start(video, language=LANGUAGES[name])
        words[name] = words_of(server.wait(job_id))
        assert [word for word, _, _ in words[name]] == " ".join(TEXTS[part] for part in SAID[name]).split()
    return words


def words_of(state):
    assert state["status"] == "completed", state
    result = checked(state["result"])
    assert result.metadata.warnings == []
    return [(word.word, word.start, word.end) for segment in result.segments for word in segment.words]


@contextmanager
def waiting_at_the_recogniser(server, videos):
    """Both jobs with chunks at the one replica, which is held while it computes: yields its process and their ids."""
    [pid] = server.replicas("Transcriber")
    os.kill(pid, signal.SIGSTOP)
    try:
        ids = {name: server.start(video, language=LANGUAGES[name]) for name, video in videos.items()}
        deadline = time.monotonic() + 120
        while min(server.status(job_id)["progress"] for job_id in ids.values()) < DIARIZED:
            assert time.monotonic() < deadline, [server.status(job_id) for job_id in ids.values()]
            time.sleep(0.1)
        let_compute(pid)
        yield pid, ids
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def let_compute(pid):
    """Lets a held replica take what waits for it and begin, then holds it in the middle of that.

    A router gives nothing to a replica that does not answer: until then all calls are at their jobs.
    """
    before, deadline = processor_ticks(pid), time.monotonic() + 10
    os.kill(pid, signal.SIGCONT)
    while processor_ticks(pid) < before + 4:
        assert time.monotonic() < deadline
    os.kill(pid, signal.SIGSTOP)


def processor_ticks(pid):
    """Processor time of a process so far, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_cancelled_neighbour(server, videos, alone):
    """Of two jobs on one replica one is cancelled: it ends at once, the other gets the words that it gets alone."""
    with waiting_at_the_recogniser(server, videos) as (pid, ids):
        assert server.cancel(ids["theirs"]).status_code == 202
        cancelled = server.wait(ids["theirs"], within_s=60)
        assert (cancelled["status"], cancelled["error_code"]) == ("failed", "CANCELLED")
        assert server.status(ids["mine"])["status"] == "processing"
    assert words_of(server.wait(ids["mine"])) == alone["mine"]
    assert server.replicas("Transcriber") == [pid]


def test_a_replica_that_dies(server, videos, alone):
    """The recogniser is killed (-9) under two jobs: their chunks are heard by the next replica, word for word."""
    with waiting_at_the_recogniser(server, videos) as (pid, ids):
        os.kill(pid, signal.SIGKILL)
    for name, job_id in ids.items():
        assert words_of(server.wait(job_id)) == alone[name]
    assert pid not in server.replicas("Transcriber")
