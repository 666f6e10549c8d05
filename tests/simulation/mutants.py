"""Faults that are put into the product's code, to prove that the simulator sees them."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Change:
    """One text of a module, and what is put in its place."""

    module: str
    before: str
    after: str

    @property
    def path(self) -> Path:
        return ROOT / f"{self.module.replace('.', '/')}.py"


MUTANTS: dict[str, tuple[Change, ...]] = {
    "audit 3: identities by name": (
        Change("serve_app.storage.job_store", '"token": secrets.token_hex(8),', '"token": "",'),
    ),
    "audit 7: a limit on starts": (
        Change("serve_app.orchestration.manager", "free = DELIVERIES - self._delivering.total()", "free = DELIVERIES"),
        Change("serve_app.orchestration.manager", "free, dict(self._delivering)", "free, {}"),
    ),
    "audit 8: dead receivers in `due`": (
        Change(
            "serve_app.storage.outbox",
            "            or_(receivers.c.origin.is_(None), ~failing, receivers.c.next_probe_at <= now),\n",
            "",
        ),
        Change("serve_app.storage.outbox", "select(ranked).where(ranked.c.rank <= ranked.c.most)", "select(ranked)"),
        Change("serve_app.storage.outbox", "if row.rank <= free.get(row.origin, limit)", "if row"),
    ),
    "audit 9: the drain without a fence": (
        Change("serve_app.storage.server_state", "        if not lease.is_held(db):\n            return False\n", ""),
    ),
    "audit 10: checkpoints not flushed": (
        Change(
            "serve_app.orchestration.job_runner",
            "                await checkpoints.flush()  # they would not count after it\n",
            "",
        ),
    ),
    "404 taken for 410": (
        Change(
            "serve_app.callbacks.sender",
            "elif answer and answer.status == GONE:",
            "elif answer and answer.status in {404, GONE}:",
        ),
    ),
    "answers read without a limit": (
        Change("deployments.net.client", "        if read >= max_bytes:\n            return\n", ""),
    ),
    "no end of the grace after a cancel": (
        Change(
            "serve_app.orchestration.job_supervisor",
            "return CancelledJobError() if time.monotonic() - since > CANCEL_GRACE_S else None",
            "return None if since else None",
        ),
    ),
    "spent time not counted": (
        Change("serve_app.orchestration.job_supervisor", "if max(job.spent_s, idle_s) >", "if idle_s >"),
    ),
    "audio not discarded by the job": (
        Change("serve_app.orchestration.job_runner", "await asyncio.gather(self._discard(), ", "await asyncio.gather("),
    ),
    "heartbeat not stopped": (
        Change(
            "serve_app.orchestration.job_supervisor",
            '                self.tasks.cancel("heartbeat", now.job_id)  # it must not arrive after what the actor sends\n',
            "",
        ),
    ),
    "no limit of attempts in the job": (
        Change(
            "serve_app.orchestration.job_runner",
            "        if job.attempt > limits.attempts:\n            return self._failure(InternalJobError())\n",
            "",
        ),
    ),
    # ten more
    "no fence of the attempt": (
        Change("serve_app.storage.job_rows", "        jobs.c.attempt == attempt.number,\n", ""),
        Change(
            "serve_app.storage.attempt_store",
            "if job is None or Attempt.of(job) != attempt or job.state.ended:",
            "if job is None or job.token != attempt.token or job.state.ended:",
        ),
    ),
    "a sequence number not raised at the end": (
        Change("serve_app.storage.job_rows", "            sequence=jobs.c.sequence + 1,\n", ""),
    ),
    "numbers begin anew after a deletion": (
        Change("serve_app.storage.job_store", "sequence=deleted_sequence(db)))", "sequence=0 * deleted_sequence(db)))"),
    ),
    "an acknowledgement that is not stored is forgotten": (
        Change(
            "serve_app.callbacks.sender",
            "await _store_for_sure(partial(self._outbox.mark_delivered, callback))",
            "await asyncio.to_thread(self._outbox.mark_delivered, callback)",
        ),
    ),
    "no claim before a try": (
        Change(
            "serve_app.storage.outbox",
            ".values(next_try_at=now + CLAIM_S, attempts=",
            ".values(next_try_at=now, attempts=",
        ),
    ),
    "an end that is not stored is given up": (
        Change(
            "serve_app.orchestration.attempt",
            '            log.exception("not stored yet", extra=logs.about(job_id))\n            await asyncio.sleep(next(waits_s))',
            "            raise",
        ),
    ),
    "a job actor that stands still is left": (
        Change(
            "serve_app.orchestration.job_supervisor",
            "(job.run_id, job.attempt, job.beats)) > LEASE_S:",
            "(job.run_id, job.attempt, job.beats)) > 1e9:",
        ),
    ),
    "the lease never runs out": (
        Change(
            "serve_app.storage.leases",
            'return unchanged_s > LEASE_S or is_gone(row["holder"])',
            "return unchanged_s > 1e9",
        ),
    ),
    "no heartbeat while a job waits": (
        Change(
            "serve_app.storage.job_queue",
            '{"queued": now - since_s,',
            '{"queued": now - 10 * since_s,',
        ),
    ),
    "more jobs at once than have room": (
        Change(
            "serve_app.storage.job_queue",
            "free = self._running_limit - count_by_state(db).running",
            "free = 2 * self._running_limit - count_by_state(db).running",
        ),
    ),
    "missing audio fails the job": (
        Change(
            "serve_app.pipeline.stage_client",
            "        except AudioMissingError:\n",
            "        except ZeroDivisionError:\n",
        ),
    ),
    "waits not shortened when the clock was set back": (
        Change("serve_app.orchestration.manager", "        self._back_s += self._clock_jumps.set_back_s()\n", ""),
        Change("serve_app.orchestration.manager", "        shorten_waits(self._database)\n", ""),
    ),
    # reruns
    "a rerun keeps the words of another language": (
        Change("serve_app.pipeline.reuse", "return source_of(source, *given) if given else source", "return source"),
    ),
    "a rerun that needs sound is taken without a URL": (
        Change("serve_app.api.submissions", "sound = needs_sound(", "sound = False and needs_sound("),
    ),
    "checkpoints go with the run": (
        Change(
            "serve_app.storage.job_store",
            "            self._begin_next_run(db, known, fresh)\n            detail",
            "            self._begin_next_run(db, known, fresh)\n"
            "            db.execute(delete(checkpoints).where(checkpoints.c.job_id == known.job_id))\n            detail",
        ),
    ),
    "the result goes when a rerun begins": (
        Change(
            "serve_app.storage.job_store",
            '            detail = " ".join(("rerun",',
            "            db.execute(delete(results).where(results.c.job_id == known.job_id))\n"
            '            detail = " ".join(("rerun",',
        ),
    ),
    "the end of the run before is told on": (
        Change(
            "serve_app.storage.job_store",
            'state=CallbackState.UNDELIVERED, last_error="a new run began"',
            'last_error="a new run began"',
        ),
    ),
    "numbers begin anew with a rerun": (
        Change(
            "serve_app.storage.job_store",
            "fresh = self._fresh(rerun, now) | {",
            'fresh = self._fresh(rerun, now) | {"sequence": 0} | {',
        ),
    ),
}
"""The first five and the next seven were once in the code, or were not seen by its tests."""


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, changes: tuple[Change, ...]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> Any:
        source = Path(self.path).read_text(encoding="utf-8")
        for change in self._changes:
            if source.count(change.before) != 1:
                raise ValueError(f"{fullname} has this text {source.count(change.before)} times: {change.before!r}")
            source = source.replace(change.before, change.after)
        return compile(source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, changes: tuple[Change, ...]) -> None:
        self._changes = changes

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> Any:
        changes = tuple(each for each in self._changes if each.module == fullname)
        if not changes:
            return None
        path = str(changes[0].path)
        return importlib.util.spec_from_file_location(fullname, path, loader=_Loader(fullname, path, changes))


def apply(name: str) -> None:
    """Put a fault into the code that is imported from now on."""
    modules = {change.module for change in MUTANTS[name]}
    loaded = sorted(modules & sys.modules.keys())
    if loaded:
        raise RuntimeError(f"already imported: {loaded}")
    sys.meta_path.insert(0, _Finder(MUTANTS[name]))
