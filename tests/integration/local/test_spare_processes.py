"""A process for the next job is there before the job is, with all that it has to import."""

from contextlib import suppress
from pathlib import Path

from serve_app.orchestration.spare_processes import HOOK
from tests.support.process import held_still, until


def test_a_job_takes_the_process_that_is_ready(server, sources, short):
    """Its actor's process was idle before the POST, and another one takes its place while the job runs."""

    def spares() -> set[int]:
        return {pid for pid in server.processes("ray::IDLE") if HOOK.encode() in environment(pid)}

    until(lambda: spares() and not server.drivers)
    ready = spares()
    with held_still(server.replicas("EmotionAnalyzer")):
        job_id = server.start(sources.file(short))
        until(lambda: server.drivers)
        assert set(server.drivers) <= ready
        until(lambda: spares() - ready)
    assert server.wait(job_id, within_s=120)["status"] == "completed"


def environment(pid: int) -> bytes:
    """What a process was started with; nothing where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""
