"""Judges a run by what the outside has seen, and by the contract.

Looks at answers, callbacks, final states, the disk, the calls of stages and the bytes read from receivers; at no table
and no object of the server. What is asked "in calm" is asked only where nothing was broken shortly before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.simulation.network import NEVER
from tests.simulation.stages import BAD, text_of
from tests.simulation.story import PROBE, QUIET_TURN_S, judges_emotions
from tests.simulation.virtual_time import EPOCH_S
from tests.simulation.world import ANSWER_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.simulation.loop import Process
    from tests.simulation.network import Received
    from tests.simulation.story import Request, Story

RECOVERY_S = 45.0
"""After a fault: a lease that runs out (30 s), a start, and some turns."""
SILENCE_S, HEARTBEAT_SLACK_S = 30.0, 1.0
END_S = 1.5
"""From a job's end until its callback is sent (1 s promised), with the time of the network."""
RETRY_SLACK_S = 3.0
CANCEL_S = 18.0
"""From DELETE until the end of a running job is told: ten seconds of grace, some turns, a slow connection."""
DEADLINE_SLACK_S = 20.0
STORED_S = 1.0
"""An answer of a stage is stored within this time."""
LEARNS_S = 6.5
"""An actor whose attempt is outdated learns it at its next beat, five seconds later at most."""
AUDIO_S = 25.0
"""How long audio may lie about after its job's end."""
ANSWER_BYTES = 90_000
"""What is read of an answer at most: 20,000 bytes, and what one read (64 KB) brings beyond."""
PER_RECEIVER = 5
PROBE_S = 90.0
ON_ITS_WAY_S = 6.0
"""An end may be told so late to a receiver that is slow to connect; the job has been posted again meanwhile."""
ENDED = frozenset(("completed", "failed"))
RUNS = frozenset(("post", "rerun"))
"""The kinds of requests that may begin a run."""
LISTENING = frozenset(
    ("prepare", "download", "detector.detect", "transcriber.transcribe", "diarizer.segment", "prosody.tracks")
)
UNKNOWN = frozenset(("unknown", "SERVICE_UNAVAILABLE"))
"""Outcomes of requests that the server may have carried out all the same."""
FIRST_WAITS_S = (1.0, 5.0, 30.0, 120.0, 300.0)
LATER_WAIT_S, FEW_HOURS_S = 1800.0, 7200.0
"""The longest wait between tries when an end is more than six hours old; the clock may be set forward by hours."""
BREAKER = 4
"""Failures in a row up to which a receiver is surely not taken for dead."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that the contract rules out."""

    rule: str
    job_id: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.job_id}: {self.detail}"


class Checker:
    """Judges one story that is over."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._world = story.world
        self._got = sorted(
            (got for receiver in story.world.receivers.values() for got in receiver.got), key=lambda got: got.at
        )
        self._by_job: defaultdict[str, list[Received]] = defaultdict(list)
        for got in self._got:
            self._by_job[got.job_id].append(got)
        self._requests: defaultdict[str, list[Request]] = defaultdict(list)
        for request in story.requests:
            self._requests[request.job_id].append(request)
        self._receivers = {receiver.name: receiver for receiver in story.world.receivers.values()}

    def violations(self) -> list[Violation]:
        found = [*self._slow_answers(), *self._overloaded_receivers(), *self._bytes_read(), *self._left_audio()]
        found += [
            *self._repeated_stages(),
            *self._too_many_attempts(),
            *self._late_probe(),
            *self._late_retries(),
            *self._too_many_at_once(),
            *self._left_standing(),
            *self._outdated_work(),
            *self._neglected(),
        ]
        for job_id in self._requests:
            for rule in (
                self._lost,
                self._result_gone,
                self._run_needlessly,
                self._doubled,
                self._foreign,
                self._other_options,
                self._disordered,
                self._silent,
                self._late_end,
                self._not_cancelled,
                self._over_deadline,
                self._failed_needlessly,
            ):
                found += [Violation(rule.__name__.strip("_").replace("_", " "), job_id, text) for text in rule(job_id)]
        return found

    def _calm(self, since: float, until: float, *, but: tuple[str, ...] = (), recovery_s: float = RECOVERY_S) -> bool:
        """Whether nothing was broken from `since` to `until`, nor shortly before; what `but` names may have been."""
        return not any(
            began <= until and ended + recovery_s >= since
            for began, ended, kind in self._world.disturbed
            if not kind.startswith(but or ("-",))
        )

    # of the whole server

    def _slow_answers(self) -> Iterator[Violation]:
        for request in self._story.requests:
            took_s = request.until - request.at
            stopped = not self._calm(
                request.at, request.until, but=("database", "actor", "stage", "slow", "full"), recovery_s=2
            )
            if request.kind == "post" and request.outcome != "unknown" and took_s > ANSWER_S and not stopped:
                yield Violation("slow answer", request.job_id, f"{took_s:.1f} s at {request.at:.1f}")
            if request.outcome == "INTERNAL_ERROR" or not (request.outcome.isupper() or request.outcome.islower()):
                yield Violation(
                    "wrong answer", request.job_id, f"{request.kind} at {request.at:.1f}: {request.outcome}"
                )

    def _overloaded_receivers(self) -> Iterator[Violation]:
        """What the manager has in flight at once; of a manager that was replaced some may still be."""
        managers = len(self._story.stops) + sum(kind in {"manager", "server"} for *_, kind in self._world.disturbed)
        for name, count in self._world.network.most_open.items():
            if count > PER_RECEIVER * (1 + managers):
                yield Violation("overloaded receiver", name, f"{count} ends at once")

    def _bytes_read(self) -> Iterator[Violation]:
        for got in self._got:
            if got.read > ANSWER_BYTES:
                yield Violation("bytes read", got.job_id, f"{got.read} of an answer")

    def _left_audio(self) -> Iterator[Violation]:
        seen = set()
        for left in self._story.left:
            began = [each for each in self._requests[left.job_id] if each.kind in RUNS]
            later = [each for each in began if each.until > left.ended_at - ON_ITS_WAY_S]
            known = any(each.at < left.at for each in later)
            if left.job_id in seen or known or left.at - left.ended_at < AUDIO_S:
                continue
            if self._calm(left.ended_at - 40, left.at, recovery_s=60):
                seen.add(left.job_id)
                yield Violation("left audio", left.job_id, f"{left.at - left.ended_at:.0f} s after the end")

    def _repeated_stages(self) -> Iterator[Violation]:
        """D7: after a graceful stop no stage is called again whose answer its job had got before."""
        steps = {"detector.detect", "transcriber.transcribe", "diarizer.cluster", "prosody.tracks", "emotion.analyze"}
        for stop in self._story.stops:
            if not stop.graceful or not self._calm_but_stops(stop.at - RECOVERY_S, stop.until + 5):
                continue
            for call in self._world.stages.calls:
                if call.stage not in steps or call.ended_at is None or call.ended_at >= stop.at - 0.03:
                    continue
                if not self._ran_at(call.video, stop.at, call.caller):
                    continue
                if any(not cut.graceful and call.at < cut.at < call.ended_at + STORED_S for cut in self._story.stops):
                    continue  # nobody got the answer, or had the time to store it
                again = [
                    other.at
                    for other in self._world.stages.calls
                    if (other.video, other.stage) == (call.video, call.stage) and stop.at < other.at
                ]
                if again:
                    yield Violation(
                        "repeated stage",
                        f"video {call.video}",
                        f"{call.stage} again at {again[0]:.2f}, stop {stop.at:.2f}",
                    )

    def _calm_but_stops(self, since: float, until: float) -> bool:
        return self._calm(since, until, but=("server", "slow"), recovery_s=0)

    def _ran_at(self, video: int, at: float, caller: object) -> bool:
        """Whether that process worked on this run until then: nothing else began it anew, nobody posted it again."""
        posts = [each for each in self._story.requests if each.kind in RUNS and each.video == video]
        others = {call.caller for call in self._world.stages.calls if call.video == video and call.at < at}
        job_id = posts[0].job_id
        ended = any(got.ended and got.at < at for got in self._by_job[job_id])
        deletes = [each for each in self._requests[job_id] if each.kind == "cancel"]
        actors = {each for each in others if each.name.startswith("job:")}
        return len(posts) == 1 and not ended and not deletes and actors == {caller}

    def _too_many_attempts(self) -> Iterator[Violation]:
        """The actors that have called a stage for a video, of all its runs; a graceful stop costs no attempt."""
        callers: defaultdict[int, set[object]] = defaultdict(set)
        for call in self._world.stages.calls:
            if call.caller.name.startswith("job:"):
                callers[call.video].add(call.caller)
        for video, actors in callers.items():
            posts = [
                each
                for each in self._story.requests
                if each.kind in RUNS and each.video == video and each.outcome in {"accepted", *UNKNOWN}
            ]
            most = self._story.plan.limits["attempts"] * len(posts) + len(self._story.stops)
            if len(actors) > most:
                yield Violation("too many attempts", posts[0].job_id, f"{len(actors)} actors worked on video {video}")

    def _too_many_at_once(self) -> Iterator[Violation]:
        """Jobs on which stages work at the same time, where nothing was ever broken."""
        spans = [
            (call.at, call.ended_at, call.caller)
            for call in self._world.stages.calls
            if call.ended_at is not None and call.caller.name.startswith("job:")
        ]
        for at, *_ in [] if self._world.disturbed else spans:
            busy = {caller for began, ended, caller in spans if began <= at < ended}
            if len(busy) > self._story.plan.limits["running_jobs"]:
                yield Violation("too many at once", "", f"{len(busy)} jobs at {at:.1f}")
                return

    def _late_probe(self) -> Iterator[Violation]:
        """Once all is well, a job is taken and processed."""
        posts = [each for each in self._requests[PROBE] if each.outcome == "accepted"]
        if not posts or posts[0].until > self._story.healed_at + PROBE_S:
            yield Violation("not taken", PROBE, f"answers: {[each.outcome for each in self._requests[PROBE]][-3:]}")

    def _late_retries(self) -> Iterator[Violation]:
        """An end that was refused is tried again on schedule, whatever other receivers do."""
        for name, receiver in self._receivers.items():
            failures = 0
            tries: defaultdict[str, list[Received]] = defaultdict(list)
            for got in receiver.got:
                if not got.ended:
                    continue
                before = tries[got.message_id]
                before.append(got)
                if got.acknowledged:
                    failures = 0
                    continue
                failures += 1
                if failures > BREAKER:
                    break
                if got.status is None or got.status == 410 or got.answered_at - got.at > 1:
                    continue
                wait_s = FIRST_WAITS_S[min(len(before), len(FIRST_WAITS_S)) - 1] * 1.2
                if "Retry-After" in self._manner_name(name, got.at):
                    wait_s = max(wait_s, 20.0)
                due = got.answered_at + wait_s + RETRY_SLACK_S + (QUIET_TURN_S if self._story.plan.kind == "day" else 0)
                nxt = next(
                    (each.at for each in receiver.got if each.message_id == got.message_id and each.at > got.at), NEVER
                )
                gone = any(
                    each.kind in {"cancel", "post", "rerun", "redeliver"} and each.until > got.at - 60
                    for each in self._requests[got.job_id]
                )
                fine = receiver.well_during(got.answered_at + 0.5, due)
                if nxt > due and due < self._story.over_at and not gone and fine and self._calm(got.at - 5, due):
                    yield Violation(
                        "late retry",
                        got.job_id,
                        f"refused at {got.answered_at:.1f}, tried again at {nxt:.1f}, due {due:.1f}",
                    )

    def _left_standing(self) -> Iterator[Violation]:
        """An actor that stands still is replaced after the lease: another one works, or the job ends."""
        for stood in self._story.stood:
            until = stood.at + RECOVERY_S
            videos = {call.video for call in self._world.stages.calls if call.caller is stood.actor}
            jobs = {each.job_id for each in self._story.requests if each.kind == "post" and each.video in videos}
            if stood.until < until or len(jobs) != 1 or not self._calm(stood.at, until, but=("actor", "stage: ")):
                continue
            (job_id,) = jobs
            gone = any(each.kind == "cancel" for each in self._requests[job_id])
            ended = any(got.ended and got.at <= until for got in self._by_job[job_id])
            goes_on = any(
                call.video in videos and call.caller is not stood.actor and stood.at < call.at <= until
                for call in self._world.stages.calls
            )
            if not (gone or ended or goes_on or self._story.strikes[job_id] > 1):
                yield Violation("left standing", job_id, f"{stood.actor} stood still at {stood.at:.1f}")

    def _outdated_work(self) -> Iterator[Violation]:
        """The actor of an attempt that no longer counts calls no stage once it has had the time to learn it."""
        first: dict[tuple[int, Process], float] = {}
        for call in self._world.stages.calls:
            if call.caller.name.startswith("job:"):
                first.setdefault((call.video, call.caller), call.at)
        for call in self._world.stages.calls:
            began = first.get((call.video, call.caller))
            newer = [at for (video, _), at in first.items() if video == call.video and began is not None and at > began]
            if not newer:
                continue
            woken = [stood.until for stood in self._story.stood if stood.actor is call.caller and stood.at < call.at]
            learned = max(min(newer), *woken) + LEARNS_S if woken else min(newer) + LEARNS_S
            if call.at > learned and self._calm(learned - LEARNS_S, call.at, but=("actor", "stage: ")):
                yield Violation(
                    "outdated work", f"video {call.video}", f"{call.stage} by {call.caller} at {call.at:.1f}"
                )
                return

    def _neglected(self) -> Iterator[Violation]:
        """As long as a receiver is owed an end it is tried, however the clock is set."""
        for name, receiver in self._receivers.items():
            owed: set[str] = set()
            last: Received | None = None
            for got in [got for got in receiver.got if got.ended]:
                if last is not None and owed:
                    longest_s = FIRST_WAITS_S[-1] if got.at < FEW_HOURS_S else LATER_WAIT_S
                    due = last.answered_at + longest_s * 1.2 + RETRY_SLACK_S + 2 * QUIET_TURN_S
                    if got.at > due and self._calm(last.at, due, but=("clock",)):
                        yield Violation("neglected", name, f"tried at {last.at:.1f}, and not before {got.at:.1f}")
                last = got
                settled = got.acknowledged or got.status == 410
                (owed.discard if settled else owed.add)(got.message_id)

    def _manner_name(self, receiver: str, at: float) -> str:
        names = [manner.name for begins, manner in self._receivers[receiver].manners if begins <= at]
        return names[-1] if names else "well"

    # of one job

    def _posts(self, job_id: str) -> list[Request]:
        """Those that the server has taken, or may have."""
        return [each for each in self._requests[job_id] if each.kind in RUNS and each.outcome in {"accepted", *UNKNOWN}]

    def _deleted(self, job_id: str) -> list[Request]:
        return [each for each in self._requests[job_id] if each.kind == "cancel" and each.outcome == "deleted"]

    def _lost(self, job_id: str) -> Iterator[str]:
        """What was answered is there, has ended, and its end was told."""
        posts, final = self._posts(job_id), self._story.finals.get(job_id)
        accepted = [each for each in posts if each.outcome == "accepted"]
        if not accepted or final is None:
            return
        if final.outcome != "found":
            deletes = [
                each
                for each in self._requests[job_id]
                if each.kind == "cancel" and each.outcome in {"deleted", *UNKNOWN}
            ]
            if not any(each.until >= accepted[-1].at for each in deletes):
                yield f"accepted at {accepted[-1].until:.1f}, in the end {final.outcome}"
            return
        if final.answer["status"] not in ENDED:
            yield f"has not ended: {final.answer['status']} {final.answer['progress']} %"
            return
        yield from self._untold(job_id, final)

    def _untold(self, job_id: str, final: Request) -> Iterator[str]:
        told = [got for got in self._by_job[job_id] if got.ended]
        callback = final.answer["callback"]
        newest = max((got.sequence for got in told), default=0)
        heard = [got for got in told if got.sequence == newest and got.acknowledged]
        gone = any(got.status == 410 for got in told)
        receivers = {each.receiver for each in self._posts(job_id)}
        if callback["state"] == "delivered" and not heard:
            yield "delivered, says the status, but no receiver has acknowledged it"
        if callback["state"] == "undelivered" and not gone:
            yield f"given up: {callback['last_error']}"
        may_be_owed = "dead" in receivers and not self._story.plan.dead_recovers
        if callback["state"] in {"none", "pending"} and not may_be_owed:
            yield f"its end is not told: {callback}"
        if told and callback["state"] == "delivered":
            body = max(told, key=lambda got: got.sequence).body
            other = body["status"] == "completed" and body["result"] != final.answer.get("result")
            if body["status"] != final.answer["status"] or other:
                yield "the callback and the status tell different ends"

    def _result_gone(self, job_id: str) -> Iterator[str]:
        """Once a run is completed the job has a result, whatever later runs do, until the job is deleted."""
        completed = [got.at for got in self._by_job[job_id] if got.body["status"] == "completed"]
        completed += [
            each.until for each in self._requests[job_id] if each.answer.get("status") == "completed" and each.answer
        ]
        deletes = [each for each in self._requests[job_id] if each.kind == "cancel"]
        for look in self._requests[job_id]:
            if look.kind != "status" or look.outcome != "found" or look.answer.get("result"):
                continue
            if any(at < look.at and not any(at - 60 < each.until for each in deletes) for at in completed):
                yield f"at {look.at:.1f} {look.answer['status']}, without the result that it had"

    def _run_needlessly(self, job_id: str) -> Iterator[str]:
        """A rerun that was taken without a URL makes no stage listen, and ends well."""
        for request in self._requests[job_id]:
            if request.kind != "rerun" or request.outcome != "accepted" or "video_url" in request.changes:
                continue
            later = [
                each.at for each in self._requests[job_id] if each.kind in {*RUNS, "cancel"} if each.at > request.at
            ]
            until = min(later, default=NEVER)
            calls = [each for each in self._world.stages.calls if each.video == request.video]
            for call in [each for each in calls if request.until < each.at < until and each.stage in LISTENING]:
                if self._calm(request.at - 60, call.at):
                    yield f"{call.stage} at {call.at:.1f}, for a rerun of {request.at:.1f}"

    def _doubled(self, job_id: str) -> Iterator[str]:
        told = [got for got in self._by_job[job_id] if got.ended]
        bodies: dict[str, bytes] = {}
        for got in told:
            if bodies.setdefault(got.message_id, got.raw) != got.raw:
                yield f"other bytes under {got.message_id}"
        if len(bodies) > len(self._posts(job_id)):
            yield f"{len(bodies)} ends of {len(self._posts(job_id))} POSTs"
        redelivered = [each.at for each in self._requests[job_id] if each.kind == "redeliver"]
        acknowledged: dict[str, Received] = {}
        for got in told:
            first = acknowledged.get(got.message_id)
            if first is not None and got.at > first.answered_at:
                renewed = any(first.at - 30 <= at <= got.at for at in redelivered)
                calm = self._calm(first.at - RECOVERY_S, got.at, but=("database", "slow"), recovery_s=0)
                if not renewed and calm:
                    yield f"told again at {got.at:.1f}, acknowledged at {first.answered_at:.1f}"
            if got.acknowledged and got.answered_at - got.at < 19:
                acknowledged.setdefault(got.message_id, got)

    def _videos(self, job_id: str, since: float, until: float) -> set[int]:
        """The videos that the job may have been of, at some time between."""
        deleted = self._deleted(job_id)
        return {
            post.video
            for post in self._posts(job_id)
            if post.at <= until
            and not any(
                delete.at > (post.until if post.outcome == "accepted" else post.at + 60) and delete.until <= since
                for delete in deleted
            )
        }

    def _foreign(self, job_id: str) -> Iterator[str]:
        """No result, and no error, of another video."""
        looks = [each for each in self._requests[job_id] if each.kind == "status" and each.outcome == "found"]
        said = [(each.at, each.at, each.answer) for each in looks]
        said += [(got.at - 30, got.at, got.body) for got in self._by_job[job_id]]
        for since, until, body in said:
            if body["status"] == "completed":
                videos = self._videos(job_id, since, until)
                if body["result"]["text"] not in {text_of(video) for video in videos}:
                    yield f"at {until:.1f} {body['result']['text']!r}, not of {sorted(videos)}"
            if body["status"] == "failed" and body["error_code"] in {"DOWNLOAD_ERROR", "AUDIO_EXTRACTION_ERROR"}:
                videos = self._videos(job_id, since, until)
                if all(video < BAD for video in videos):
                    yield f"at {until:.1f} {body['error_code']} of a good video"

    def _other_options(self, job_id: str) -> Iterator[str]:
        """In the end a job's result is what its last run was asked for: its language, and emotions or none."""
        final = self._story.finals.get(job_id)
        posts = [each for each in self._posts(job_id) if each.kind == "post"]
        reruns = [each for each in self._requests[job_id] if each.kind == "rerun"]
        if final is None or final.answer.get("status") != "completed" or len({each.video for each in posts}) != 1:
            return
        if any(each.outcome in UNKNOWN or posts[-1].until > each.at for each in reruns):
            return  # which options count is not known here
        asked = {"language": "en", "emotion_detection": judges_emotions(posts[0].video)}
        for rerun in reruns:
            if rerun.outcome == "accepted":
                asked |= {name: value for name, value in rerun.changes.items() if name in asked}
        result = final.answer["result"]
        judged = {"emotion" in each for each in result["segments"]}
        failed = any(each["code"] == "EMOTION_FAILED" for each in result["metadata"]["warning_codes"])
        if result["language"] != asked["language"]:
            yield f"in {result['language']}, asked for {asked}"
        if judged not in ({asked["emotion_detection"]}, set(), {False} if failed else set()):
            yield f"emotions of some segments: {sorted(judged)}, asked for {asked}"

    def _disordered(self, job_id: str) -> Iterator[str]:
        """One number, one callback; numbers rise as they are sent; within a run progress rises and the end is last."""
        owner: dict[int, str] = {}
        first: dict[str, Received] = {}
        for got in self._by_job[job_id]:
            if owner.setdefault(got.sequence, got.message_id) != got.message_id:
                yield f"two callbacks have number {got.sequence}"
            first.setdefault(got.message_id, got)
        newest: Received | None = None
        for got in first.values():
            if newest is not None and got.sequence < newest.sequence and self._calm(newest.at - 60, got.at):
                yield f"number {got.sequence} was sent at {got.at:.1f}, after {newest.sequence}"
            if newest is None or got.sequence > newest.sequence:
                newest = got
        in_order = sorted(first.values(), key=lambda got: got.sequence)
        for before, after in pairwise(in_order):
            new_run = any(post.at < after.at for post in self._posts(job_id)[1:])
            if before.ended and not new_run:
                yield f"number {after.sequence} follows the end"
            if (
                not before.ended
                and after.body["progress"] < before.body["progress"]
                and not new_run
                and not after.ended
            ):
                yield f"progress fell from {before.body['progress']} to {after.body['progress']}"

    def _silent(self, job_id: str) -> Iterator[str]:
        """At most 30 s between two callbacks of a job that has not ended."""
        posts = self._posts(job_id)
        if len(posts) != 1 or posts[0].outcome != "accepted" or self._deleted(job_id):
            return
        receiver = self._receivers[posts[0].receiver]
        end = next((got.at for got in self._by_job[job_id] if got.ended), self._story.over_at)
        times = [posts[0].until, *(got.at for got in self._by_job[job_id] if got.at <= end), end]
        for before, after in pairwise(sorted(times)):
            quiet = after - before > SILENCE_S + HEARTBEAT_SLACK_S
            if quiet and receiver.well_during(before - 60, after, quick=True) and self._calm(before, after):
                yield f"nothing for {after - before:.1f} s from {before:.1f}"

    def _late_end(self, job_id: str) -> Iterator[str]:
        """The end is told within a second."""
        final = self._story.finals.get(job_id)
        if final is None or final.outcome != "found" or final.answer["status"] not in ENDED:
            return
        told = [got for got in self._by_job[job_id] if got.ended]
        finished_at = datetime.fromisoformat(final.answer["finished_at"]).timestamp() - EPOCH_S
        newest = max((got.sequence for got in told), default=0)
        sent_at = min((got.at for got in told if got.sequence == newest), default=NEVER)
        receiver = self._receivers[self._posts(job_id)[-1].receiver]
        late = sent_at - finished_at > END_S and receiver.well_during(finished_at - 120, sent_at, quick=True)
        calm = self._calm(finished_at - RECOVERY_S, min(sent_at, finished_at + 30)) and not self._clock_was_set()
        if late and calm:
            yield f"ended at {finished_at:.1f}, told at {sent_at:.1f}"

    def _clock_was_set(self) -> bool:
        return any(kind == "clock" for *_, kind in self._world.disturbed)

    def _not_cancelled(self, job_id: str) -> Iterator[str]:
        """A running job ends soon after DELETE, whatever its actor does."""
        receivers = [self._receivers[post.receiver] for post in self._posts(job_id)]
        for cancel in self._requests[job_id]:
            latest = cancel.until + CANCEL_S
            if (cancel.kind, cancel.outcome) != ("cancel", "ending") or latest > self._story.over_at:
                continue
            ended_at = min((got.at for got in self._by_job[job_id] if got.ended and got.at >= cancel.at), default=NEVER)
            ended_at = min(
                [ended_at, *(each.at for each in self._deleted(job_id) if each.at >= cancel.at)]
            )  # had ended
            well = all(receiver.well_during(cancel.at - 60, latest) for receiver in receivers)
            if ended_at > latest and well and self._calm(cancel.at, latest, but=("actor", "stage", "api", "full")):
                yield f"asked at {cancel.until:.1f}, told at {ended_at:.1f}"

    def _over_deadline(self, job_id: str) -> Iterator[str]:
        """A job that runs ends within its processing time, whatever its stages and its disk do."""
        final = self._story.finals.get(job_id)
        if final is None or final.outcome != "found" or not final.answer.get("started_at") or self._clock_was_set():
            return
        if final.answer["status"] not in ENDED:
            return
        began, ended = (
            datetime.fromisoformat(final.answer[name]).timestamp() - EPOCH_S for name in ("started_at", "finished_at")
        )
        limit_s = self._story.plan.limits["processing_s"]
        until = began + limit_s + DEADLINE_SLACK_S
        if ended > until and self._calm(began, until, but=("stage", "full", "network", "api"), recovery_s=5):
            yield f"ran for {ended - began:.0f} s, {final.answer.get('error_code')}"

    def _failed_needlessly(self, job_id: str) -> Iterator[str]:
        """A job of a good video that is not cancelled ends well, unless its actors died as often as attempts permit."""
        final = self._story.finals.get(job_id)
        failures = {got.at for got in self._by_job[job_id] if got.body.get("error_code") == "INTERNAL_ERROR"}
        if final is not None and final.outcome == "found" and final.answer["status"] == "failed":
            failures.add(datetime.fromisoformat(final.answer["finished_at"]).timestamp() - EPOCH_S)
        for at in sorted(failures):
            posts = [each for each in self._posts(job_id) if each.at < at]
            if not posts or posts[-1].video >= BAD or posts[-1].outcome != "accepted":
                continue
            began = min(post.at for post in posts if post.video == posts[-1].video)
            cancelled = any(each.kind == "cancel" and each.until >= began for each in self._requests[job_id])
            tolerated = ("database", "slow", "actor", "manager", "server", "ray", "api", "stage: ")
            strikes = self._story.strikes[job_id] + sum(kind == "server" for *_, kind in self._world.disturbed)
            spent = strikes >= self._story.plan.limits["attempts"]
            if not cancelled and not spent and self._calm(began, at, but=tolerated):
                yield f"at {at:.1f} after {strikes} strikes"
                return


def violations(story: Story) -> Sequence[Violation]:
    return Checker(story).violations()


def summary(story: Story) -> Counter[str]:
    """What happened in a run, to see that runs reach what they are meant to."""
    counts = Counter({f"{each.kind} {each.outcome}": 0 for each in story.requests})
    counts.update(f"{each.kind} {each.outcome}" for each in story.requests)
    counts["callbacks"] = sum(len(receiver.got) for receiver in story.world.receivers.values())
    counts["ends"] = sum(got.ended for receiver in story.world.receivers.values() for got in receiver.got)
    counts["stage calls"] = len(story.world.stages.calls)
    counts["processes"] = len(story.world.ray.processes)
    return counts
