"""What happens in one run: who posts what, and what breaks meanwhile. All of it is drawn from the seed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from deployments.extraction.scratch import folder_name
from serve_app.api.errors import ApiError, UnavailableError
from serve_app.api.schemas import ProcessVideoRequest, RerunRequest
from serve_app.jobs.states import ACTOR_PREFIX
from serve_app.orchestration import manager, manager_client
from serve_app.orchestration.job_actor import MANAGER_NAME
from tests.simulation import stages
from tests.simulation.network import GONE, MANNERS, WELL, Manner
from tests.simulation.stages import BAD, MISSING, video_url
from tests.simulation.virtual_time import CLOCK
from tests.simulation.world import RECEIVERS, Unreachable, World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from serve_app.api.service import JobService
    from tests.simulation.loop import Process
    from tests.simulation.network import Received

DAY_S = 86_400.0
TURN_S, CHECK_EVERY_S = manager.TURN_S, manager_client.CHECK_EVERY_S
QUIET_TURN_S = 20.0
"""Between two turns of the manager, and two looks of the API at it, while nothing happens for a day."""
SETTLE_S = 900.0
"""The longest that all may take to end once nothing breaks any more."""
LAST_LOOK_S = 12.0
"""What comes too late, or once too often, still shows."""
PROBE = "probe"
OPEN = frozenset(("accepted", "processing"))
RERUNS: tuple[dict[str, Any], ...] = (
    {},
    {"emotion_detection": False},
    {"emotion_detection": True},
    {"num_speakers": 2},
    {"num_speakers": None},
    {"start_s": 0.5},
    {"language": "ko"},
    {"language": "en"},
)
"""What reruns change."""


def judges_emotions(video: int) -> bool:
    """Return whether a POST of this video asks for emotions."""
    return video % 4 == 0


@dataclass(slots=True, kw_only=True)
class Request:
    """A request of a client and what came of it."""

    kind: str
    """post, rerun, status, cancel (DELETE), redeliver."""
    job_id: str
    at: float
    video: int = 0
    receiver: str = ""
    until: float = float("inf")
    outcome: str = "unknown"
    """accepted, found, ending, deleted, redelivered, or the code of the error; unknown: no answer came."""
    answer: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    """Of a rerun: the body."""


@dataclass(slots=True, kw_only=True)
class Stop:
    """The server was stopped and started again."""

    at: float
    graceful: bool
    """It was drained in time."""
    until: float = 0.0


@dataclass(slots=True, kw_only=True)
class Left:
    """Audio of a job that had ended for a while."""

    at: float
    job_id: str
    ended_at: float


@dataclass(slots=True, kw_only=True)
class Stood:
    """The actor of a job stood still."""

    at: float
    until: float
    actor: Process


@dataclass(kw_only=True)
class Plan:
    """What kind of run it is."""

    kind: str
    jobs: int
    seconds: float
    limits: dict[str, Any]
    faults: list[str]
    work_s: tuple[float, float] = (0.05, 2.0)
    """What a call of a stage takes, least and most."""
    download_s: tuple[float, float] = (0.05, 4.0)
    bad: float = 0.1
    """The share of videos that cannot be processed."""
    again: float = 0.3
    """The share of jobs that are deleted and posted again, with another video, as soon as their end is told."""
    cancels: float = 0.15
    reruns: float = 0.2
    """The share of jobs that are run again with other options when their end is told."""
    dead_recovers: bool = False
    """The receiver that is dead is well again before the end."""


KINDS = (("calm", 2), ("queue", 2), ("crowd", 3), ("again", 5), ("stops", 4), ("storm", 6), ("full", 1))


def _kind_of(seed: int, random: Random) -> str:
    """Draw the kind of a seed's run; every hundredth is a day, every tenth has a bad database and no other trouble."""
    drawn = random.choices([name for name, _ in KINDS], [weight for _, weight in KINDS])[0]
    if seed % 100 == 0:
        return "day"
    return "database" if seed % 10 == 5 else drawn


def plan_of(seed: int, random: Random) -> Plan:
    kind = _kind_of(seed, random)
    limits = {
        "running_jobs": random.choice((1, 2, 3)),
        "queued_jobs": 60,
        "processing_s": 120.0,
        "attempts": random.choice((1, 2, 3)),
        "prefetches": random.choice((0, 2)),
    }
    plan = Plan(kind=kind, jobs=random.randint(2, 6), seconds=random.uniform(20, 60), limits=limits, faults=[])
    names = list(FAULTS)
    match kind:
        case "queue":
            plan.jobs, plan.work_s, limits["running_jobs"] = random.randint(10, 16), (0.1, 1.0), 1
            plan.again = plan.bad = plan.reruns = 0.0
        case "crowd":
            plan.jobs, plan.bad, plan.work_s = random.randint(20, 40), 0.9, (0.01, 0.05)
            limits["running_jobs"] = 3
            plan.again = plan.cancels = 0.05
        case "again":
            plan.again, plan.cancels, plan.jobs = 0.9, 0.6, random.randint(1, 3)
            plan.reruns = 0.0
            plan.work_s, plan.download_s = (0.5, 6.0), (0.5, 20.0)
            limits["attempts"] = 3
            plan.faults = random.choices(("lose an actor", "kill an actor", "stop an actor"), k=3)
        case "stops":
            plan.faults = random.choices(
                ("stop gracefully", "stop gracefully", "stop at once", "deploy", "slow database for actors"), k=4
            )
            plan.work_s = random.choice(((0.05, 2.0), (0.5, 6.0)))
        case "storm":
            plan.faults = random.choices(names, k=random.randint(1, 5))
            plan.work_s = random.choice(((0.05, 2.0), (0.5, 6.0)))
        case "full":
            limits["processing_s"] = 40.0
            plan.seconds = 130.0
            plan.faults = ["nearly full for long"]
            plan.again = plan.cancels = plan.reruns = 0.0
        case "database":
            plan.faults = random.choices(
                ("database away", "database locked", "slow database", "failing database", "silent commits"), k=3
            )
            plan.again = plan.cancels = 0.0
        case "day":
            plan.jobs, plan.dead_recovers = random.randint(6, 12), True
            plan.again = plan.cancels = plan.reruns = 0.0
    return plan


class Story:
    """One run over a world."""

    def __init__(self, seed: int, template: Path) -> None:
        self.seed = seed
        self.random = Random(f"story {seed}")
        self.plan = plan_of(seed, self.random)
        self.world = World(seed, template, **self.plan.limits)
        self.world.stages.work_s, self.world.stages.download_s = self.plan.work_s, self.plan.download_s
        self.requests: list[Request] = []
        self.stops: list[Stop] = []
        self.left: list[Left] = []
        self.notes: list[tuple[float, str]] = []
        """What was broken and when, for the history."""
        self.ended_at: dict[str, float] = {}
        self.finals: dict[str, Request] = {}
        """The last look at each job."""
        self.stood: list[Stood] = []
        self.strikes = Counter[str]()
        """How often the actor of a job was broken."""
        self.healed_at = self.over_at = 0.0
        self._video = 0
        self._again: set[str] = set()
        self._rerun: set[str] = set()
        self._posted: dict[str, tuple[int, str]] = {}
        """The newest video and receiver of each job."""
        self._stopping = asyncio.Lock()
        self._tasks: list[asyncio.Task[Any]] = []
        self._end = asyncio.Event()
        for receiver in self.world.receivers.values():
            receiver.on_callback = partial(self._on_callback, receiver.name)

    def run(self) -> None:
        try:
            self.world.run(self._tell())
        finally:
            self.world.close()

    def note(self, what: str) -> None:
        self.notes.append((CLOCK.now, what))

    async def _tell(self) -> None:
        world, plan = self.world, self.plan
        world.start()
        self._plan_receivers()
        watcher = asyncio.create_task(self._watch_scratch())
        jobs = [f"job-{number}" for number in range(plan.jobs)]
        for job_id in jobs:
            self._start(self._client(job_id))
        for fault in plan.faults:
            self._start(self._break(fault))
        await asyncio.sleep(plan.seconds)
        await asyncio.gather(*self._tasks)
        if plan.kind == "day":
            await self._quiet_day(jobs)
        self._heal()
        await self._settle([*jobs, PROBE])
        watcher.cancel()
        self.over_at = CLOCK.now

    async def _quiet_day(self, jobs: list[str]) -> None:
        """The rest of a day: `dead` is well again at some hour, the clock is set now and then, else nothing happens.

        The manager turns less often, and is looked at less often, for the sake of this machine.
        """
        for job_id in jobs:
            while (await self.look(job_id)).answer.get("status") in OPEN:  # noqa: ASYNC110 - a client polls
                await asyncio.sleep(5.0)
        over_at = CLOCK.now + DAY_S
        dead = next(receiver for receiver in self.world.receivers.values() if receiver.name == "dead")
        dead.manners.append((CLOCK.now + self.random.uniform(0.1, 0.9) * DAY_S, WELL))
        manager.TURN_S = manager_client.CHECK_EVERY_S = QUIET_TURN_S
        try:
            while CLOCK.now < over_at:
                await asyncio.sleep(self.random.uniform(0.02, 0.3) * DAY_S)
                await _set_clock(self, (-3600.0, 3600.0))
        finally:
            manager.TURN_S, manager_client.CHECK_EVERY_S = TURN_S, CHECK_EVERY_S

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    def _plan_receivers(self) -> None:
        """`quick` is always well; `second` has one bad while; `odd` changes; `dead` stays bad to the end."""
        random, end_s = self.random, self.plan.seconds
        by_name = {receiver.name: receiver for receiver in self.world.receivers.values()}
        begins = random.uniform(0, end_s / 2)
        by_name["second"].manners = [(begins, random.choice(MANNERS)), (begins + random.uniform(0.5, 20), WELL)]
        by_name["odd"].manners = [
            (at, random.choice((*MANNERS, SLOW_TO_CONNECT, WELL, GONE)))
            for at in sorted(random.uniform(0, end_s) for _ in range(4))
        ]
        if self.plan.kind == "queue":
            by_name["odd"].manners = [(0.0, SLOW_TO_CONNECT)]
        by_name["odd"].manners.append((end_s, random.choice((WELL, SLOW_TO_CONNECT))))
        by_name["dead"].manners = [(0.0, random.choice([each for each in MANNERS if not each.takes]))]

    # the clients

    async def _ask(self, request: Request, call: Callable[[JobService], Awaitable[Any]]) -> Request:
        request.at = CLOCK.now
        self.requests.append(request)
        try:
            answer = await self.world.request(call)
        except Unreachable:
            request.until = CLOCK.now
            return request
        except ApiError as error:
            request.outcome = error.code
        except SQLAlchemyError:  # as the API's handler answers
            request.outcome = UnavailableError.code
        except Exception as error:  # noqa: BLE001 - a 500
            request.outcome = type(error).__name__
        else:
            request.outcome, request.answer = OUTCOMES[request.kind](answer)
        request.until = CLOCK.now
        return request

    async def post(self, job_id: str, video: int, receiver: str) -> Request:
        body = ProcessVideoRequest(
            job_id=job_id,
            video_url=video_url(video, self.random.getrandbits(32)),
            fastapi_base_url=f"http://{RECEIVERS[receiver]}:8000",
            language="en",
            emotion_detection=judges_emotions(video),
        )
        self._posted[job_id] = (video, receiver)
        request = Request(kind="post", job_id=job_id, video=video, receiver=receiver, at=0.0)
        return await self._ask(request, lambda service: service.submit(body))

    async def rerun(self, job_id: str, changes: dict[str, Any], *, signed: bool) -> Request:
        """Ask for another run; `signed`: with a fresh URL, without which only what needs no sound is taken."""
        video, receiver = self._posted[job_id]
        if signed:
            changes = changes | {"video_url": video_url(video, self.random.getrandbits(32))}
        body = RerunRequest(**changes)
        request = Request(kind="rerun", job_id=job_id, video=video, receiver=receiver, changes=changes, at=0.0)
        return await self._ask(request, lambda service: service.rerun(job_id, body))

    async def look(self, job_id: str) -> Request:
        return await self._ask(Request(kind="status", job_id=job_id, at=0.0), lambda service: service.status(job_id))

    async def delete(self, job_id: str) -> Request:
        return await self._ask(
            Request(kind="cancel", job_id=job_id, at=0.0), lambda service: service.cancel_or_delete(job_id)
        )

    async def redeliver(self, job_id: str) -> Request:
        return await self._ask(
            Request(kind="redeliver", job_id=job_id, at=0.0), lambda service: service.redeliver(job_id)
        )

    def new_video(self) -> int:
        self._video += 1
        share = self.random.random()
        if share >= self.plan.bad:
            return self._video
        return self._video + (BAD if share > self.plan.bad / 2 else MISSING)

    def _receiver(self) -> str:
        weights = {"crowd": (2, 2, 4, 8), "queue": (1, 1, 8, 0), "day": (1, 1, 1, 1)}.get(self.plan.kind, (6, 3, 2, 1))
        return self.random.choices(list(RECEIVERS), weights)[0]

    async def post_until_answered(self, job_id: str, video: int, receiver: str) -> None:
        while not self._end.is_set():
            request = await self.post(job_id, video, receiver)
            if request.outcome not in {"unknown", "SERVICE_UNAVAILABLE", "INSUFFICIENT_RESOURCES"}:
                return
            await asyncio.sleep(self.random.uniform(0.2, 3.0))

    async def _client(self, job_id: str) -> None:
        random, plan = self.random, self.plan
        await asyncio.sleep(
            random.uniform(2.0, plan.seconds * (0.2 if plan.kind in {"crowd", "full", "queue"} else 0.6))
        )
        video, receiver = self.new_video(), self._receiver()
        if random.random() < plan.again:
            self._again.add(job_id)
        elif random.random() < plan.reruns:
            self._rerun.add(job_id)
        await self.post_until_answered(job_id, video, receiver)
        for _ in range(random.choice((0, 0, 1, 2))):
            await asyncio.sleep(random.uniform(0.0, 12.0))
            match random.choice(("post", "status", "redeliver", "cancel")):
                case "post":
                    await self.post(job_id, video, receiver)
                case "status":
                    await self.look(job_id)
                case "redeliver":
                    await self.redeliver(job_id)
                case "cancel" if random.random() < plan.cancels:
                    await self.delete(job_id)
        if random.random() < plan.cancels:
            await asyncio.sleep(random.uniform(0.0, 8.0))
            await self.delete(job_id)

    def _on_callback(self, name: str, got: Received) -> float:
        """The backend's handler: it may delete the job and post another under its id before, or after, it answers."""
        if not got.ended:
            return 0.0
        self.ended_at[got.job_id] = CLOCK.now
        if got.job_id in self._rerun:
            self._start(self._run_again(got.job_id))
        if got.job_id not in self._again:
            return 0.0
        if self.random.random() < 0.5:
            self._again.discard(got.job_id)
        inside = self.random.choice((True, False))
        self._start(self._delete_and_post(got.job_id, name, 0.0 if inside else self.random.uniform(0.02, 1.0)))
        return self.random.uniform(0.0, 2.0) if inside else 0.0

    async def _run_again(self, job_id: str) -> None:
        """Ask for a rerun inside the callback's handler or later, and look at it; now and then once more."""
        random = self.random
        if random.random() < 0.6:
            self._rerun.discard(job_id)
        await asyncio.sleep(random.choice((0.0, random.uniform(0.0, 5.0))))
        changes = random.choice(RERUNS)
        request = await self.rerun(job_id, changes, signed=random.random() < 0.6)
        if request.outcome == "INVALID_REQUEST":
            await self.rerun(job_id, changes, signed=True)
        await asyncio.sleep(random.uniform(0.0, 3.0))
        await self.look(job_id)

    async def _delete_and_post(self, job_id: str, receiver: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        request = await self.delete(job_id)
        if request.outcome == "deleted":
            await self.post_until_answered(job_id, self.new_video(), receiver)

    # what breaks

    async def _break(self, name: str) -> None:
        random = self.random
        await asyncio.sleep(random.uniform(3.0, self.plan.seconds * (0.1 if self.plan.kind == "full" else 0.8)))
        self.note(name)
        await FAULTS[name](self)

    async def during(self, kind: str, seconds: float, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self.world.disturb(kind, CLOCK.now + seconds)
        begin()
        await asyncio.sleep(seconds)
        end()
        self.note(f"{kind}: over")

    def actors(self, prefix: str) -> list[Process]:
        found = [actor.process for name, actor in self.world.ray.actors.items() if name.startswith(prefix)]
        return [process for process in found if process is not None and not process.dead and not process.given_up]

    def pick(self, prefix: str) -> Process | None:
        found = self.actors(prefix)
        return self.random.choice(found) if found else None

    def strike(self, process: Process) -> None:
        """Count the trouble of a job's actor, and have the job's client give up, now and then, and post another."""
        actor = self.world.ray.actors.get(process.name)
        if actor is None or process.name == MANAGER_NAME:
            return
        job_id = actor.args[0]
        self.strikes[job_id] += 1
        if self.plan.kind == "again":
            self._again.add(job_id)
            self._start(self._give_up(job_id))

    async def _give_up(self, job_id: str) -> None:
        await asyncio.sleep(self.random.uniform(0.0, 6.0))
        await self.delete(job_id)

    async def stop_server(self, *, graceful: bool) -> None:
        world = self.world
        async with self._stopping:
            if world.api is None:
                return
            stop = Stop(at=CLOCK.now, graceful=False)
            self.stops.append(stop)
            world.disturb("server", CLOCK.now + 60)
            if graceful:
                manager = world.ray.actors.get(MANAGER_NAME)
                began = CLOCK.now
                await world.stop_gracefully()
                stop.graceful = manager is not None and CLOCK.now - began < 20
            else:
                world.stop_at_once()
            self.note("server down")
            await asyncio.sleep(self.random.uniform(0.5, 15.0))
            world.start()
            stop.until = CLOCK.now
            self.note("server up")

    def _heal(self) -> None:
        world = self.world
        faults = world.database
        faults.away = faults.locked = faults.nearly_full = False
        faults.slow_s = faults.slow_for_actors_s = faults.fails = faults.silent = 0.0
        world.ray.away, world.ray.start_s = False, (0.3, 2.0)
        world.stages.faults.clear()
        world.network.slowness = 1.0
        for process in list(world.ray.processes):
            process.database_cut = False
            if process.stopped:
                world.ray.resume(process)
        self.healed_at = CLOCK.now
        self.note("all is well again")

    async def _settle(self, jobs: list[str]) -> None:
        """Wait until all have ended and been told, or until they should have; then look at each once more."""
        self._start(self.post_until_answered(PROBE, 8000, "quick"))
        deadline = CLOCK.now + SETTLE_S
        waiting = jobs
        while CLOCK.now < deadline:
            await asyncio.sleep(5.0)
            waiting = [job_id for job_id in waiting or jobs if not self._is_settled(await self.look(job_id))]
            if not waiting and all(task.done() for task in self._tasks):
                waiting = [job_id for job_id in jobs if not self._is_settled(await self.look(job_id))]
                if not waiting:
                    break
        self._end.set()
        await asyncio.sleep(LAST_LOOK_S)
        self.finals = {job_id: await self.look(job_id) for job_id in jobs}

    def _is_settled(self, look: Request) -> bool:
        if look.outcome != "found":
            return look.outcome == "JOB_NOT_FOUND" and look.job_id != PROBE
        callback = look.answer["callback"]["state"]
        dead = any(each.job_id == look.job_id and each.receiver == "dead" for each in self.requests)
        dead = dead and not self.plan.dead_recovers
        return look.answer["status"] in {"completed", "failed"} and (callback != "pending" or dead)

    async def _watch_scratch(self) -> None:
        """Look from time to time whether audio lies about whose job has ended."""
        while True:
            await asyncio.sleep(5.0)
            folders = {path.split("/")[2] for path in self.world.stages.scratch() if path.count("/") > 1}
            for job_id, ended_at in self.ended_at.items():
                if {folder_name(job_id), job_id} & folders:
                    self.left.append(Left(at=CLOCK.now, job_id=job_id, ended_at=ended_at))


SLOW_TO_CONNECT = Manner(name="slow to connect", connect_s=4.0)


def _found(answer: Any) -> tuple[str, dict[str, Any]]:
    return "found", json.loads(answer)


OUTCOMES: dict[str, Callable[[Any], tuple[str, dict[str, Any]]]] = {
    "post": lambda answer: ("accepted", answer),
    "rerun": lambda answer: ("accepted", answer),
    "status": _found,
    "cancel": lambda answer: ("deleted", {}) if answer is None else ("ending", answer.model_dump()),
    "redeliver": lambda _: ("redelivered", {}),
}


# Faults: each takes the story, does its harm, and undoes it.


async def _kill(story: Story, prefix: str, kind: str) -> None:
    if process := story.pick(prefix):
        story.strike(process)
        story.world.disturb(kind, CLOCK.now + 5)
        story.note(f"killed {process}")
        story.world.ray.end(process)


async def _stop_process(story: Story, prefix: str, kind: str) -> None:
    if process := story.pick(prefix):
        story.note(f"stopped {process}")
        story.strike(process)
        seconds = story.random.choice((story.random.uniform(1, 8), story.random.uniform(8, 90)))
        world = story.world
        if kind == "actor":
            story.stood.append(Stood(at=CLOCK.now, until=CLOCK.now + seconds, actor=process))
        await story.during(kind, seconds, lambda: world.ray.stop(process), lambda: world.ray.resume(process))


async def _lose(story: Story, prefix: str, kind: str) -> None:
    """Ray takes it for dead, and it runs on: at once or after it stood still, with or without its calls."""
    if process := story.pick(prefix):
        story.note(f"lost {process}")
        story.strike(process)
        world, random = story.world, story.random
        stands_s = random.choice((0.0, random.uniform(5, 40)))
        seconds = random.uniform(5, 60)
        world.disturb(kind, CLOCK.now + stands_s + seconds)
        world.ray.lose(process, cut=random.random() < 0.3)
        if stands_s:
            story.stood.append(Stood(at=CLOCK.now, until=CLOCK.now + stands_s, actor=process))
            world.ray.stop(process)
            await asyncio.sleep(stands_s)
            world.ray.resume(process)
            story.note(f"{process} goes on")
        await asyncio.sleep(seconds)
        world.ray.end(process)


async def _cut_database(story: Story, prefix: str, kind: str) -> None:
    if process := story.pick(prefix):
        story.note(f"{process} does not reach the database")
        story.strike(process)
        await story.during(
            kind,
            story.random.uniform(3, 50),
            lambda: setattr(process, "database_cut", True),
            lambda: setattr(process, "database_cut", False),
        )


async def _crash_loop(story: Story) -> None:
    """One job's actor dies again and again, as soon as it has begun to work."""
    if (process := story.pick(ACTOR_PREFIX)) is None:
        return
    name = process.name
    story.world.disturb("actor", CLOCK.now + 30)
    until = CLOCK.now + 25
    while CLOCK.now < until and not story._end.is_set():
        actor = story.world.ray.actors.get(name)
        working = actor.process if actor is not None and actor.instance is not None else None
        if working is not None and not working.dead:
            await asyncio.sleep(story.random.uniform(0.02, 0.5))
            story.strike(working)
            story.world.ray.end(working)
        await asyncio.sleep(0.02)


async def _set(
    story: Story, kind: str, owner: Any, most_s: float, *, least_s: float = 2.0, **values: tuple[Any, Any]
) -> None:
    """Give attributes of `owner` other values for a while; `values` are those and the usual ones."""

    def put(which: int) -> None:
        for name, pair in values.items():
            setattr(owner, name, pair[which])

    await story.during(kind, story.random.uniform(least_s, most_s), lambda: put(0), lambda: put(1))


def _database(
    name: str, value: Any, usual: Any, most_s: float = 50.0, kind: str = "database", *, least_s: float = 2.0
) -> Any:
    return lambda story: _set(story, kind, story.world.database, most_s, least_s=least_s, **{name: (value, usual)})


async def _stage_fault(story: Story) -> None:
    name = story.random.choice(list(stages.FAULTS))
    faults = story.world.stages.faults
    share = story.random.choice((0.1, 0.5, 1.0))
    await story.during(
        f"stage {name}",
        story.random.uniform(2, 40),
        lambda: faults.__setitem__(name, share),
        lambda: faults.pop(name, None) and None,
    )


async def _set_clock(story: Story, choices_s: Sequence[float] = (-3600.0, -45.0, 45.0, 3600.0)) -> None:
    story.world.disturb("clock", CLOCK.now + 5)
    by_s = story.random.choice(choices_s)
    story.note(f"set the clock by {by_s:.0f} s")
    CLOCK.wall_offset_s += by_s


async def _drain_a_lost_manager(story: Story) -> None:
    """The manager is lost, another leads, and then the first one's node is stopped gracefully."""
    process = story.pick(MANAGER_NAME)
    actor = story.world.ray.actors.get(MANAGER_NAME)
    if process is None or actor is None or actor.instance is None:
        return
    instance, world = actor.instance, story.world
    world.disturb("manager", CLOCK.now + 120)
    world.ray.lose(process, cut=False)
    process.database_cut = True
    await asyncio.sleep(story.random.uniform(35, 70))
    process.database_cut = story.random.random() < 0.2
    await asyncio.sleep(story.random.uniform(0.0, 0.9))
    world.ray.run_in(process, lambda: world.loop.create_task(instance.drain()))
    await asyncio.sleep(10.0)
    world.ray.end(process)


async def _restart_api(story: Story) -> None:
    if story.world.api is not None:
        story.world.disturb("api", CLOCK.now + 3)
        story.world.start_api()


async def _deploy(story: Story) -> None:
    """Another release: its API replaces the manager."""
    world = story.world
    if world.api is not None:
        world.disturb("server", CLOCK.now + 15)
        world.settings = world.settings.model_copy(update={"release": f"at {CLOCK.now:.0f}"})
        world.start_api()


async def _kill_extractor(story: Story) -> None:
    story.world.disturb("stage: its replica died", CLOCK.now + 5)
    story.world.stages.kill_extractor()


async def _lose_audio(story: Story) -> None:
    story.world.disturb("stage: its audio is lost", CLOCK.now + 5)
    story.world.stages.lose_audio()


async def _slow_starts(story: Story) -> None:
    slow = (5.0, story.random.choice((20.0, 90.0)))
    await _set(story, "ray", story.world.ray, 40.0, start_s=(slow, (0.3, 2.0)))


FAULTS: dict[str, Callable[[Story], Awaitable[None]]] = {
    "kill an actor": lambda story: _kill(story, ACTOR_PREFIX, "actor"),
    "kill the manager": lambda story: _kill(story, MANAGER_NAME, "manager"),
    "stop an actor": lambda story: _stop_process(story, ACTOR_PREFIX, "actor"),
    "stop the manager": lambda story: _stop_process(story, MANAGER_NAME, "manager"),
    "lose an actor": lambda story: _lose(story, ACTOR_PREFIX, "actor"),
    "lose the manager": lambda story: _lose(story, MANAGER_NAME, "manager"),
    "cut an actor from the database": lambda story: _cut_database(story, ACTOR_PREFIX, "actor"),
    "cut the manager from the database": lambda story: _cut_database(story, MANAGER_NAME, "manager"),
    "drain a lost manager": _drain_a_lost_manager,
    "crash loop": _crash_loop,
    "database away": _database("away", True, False),
    "database locked": _database("locked", True, False, 30.0),
    "nearly full": _database("nearly_full", True, False, 120.0, "full"),
    "nearly full for long": _database("nearly_full", True, False, 120.0, "full", least_s=90.0),
    "slow database": _database("slow_s", 2.0, 0.0, 30.0, "slow"),
    "slow database for actors": _database("slow_for_actors_s", 3.0, 0.0, 50.0, "slow"),
    "failing database": _database("fails", 0.2, 0.0),
    "silent commits": _database("silent", 0.2, 0.0),
    "failing stages": _stage_fault,
    "kill the extractor": _kill_extractor,
    "lose the audio": _lose_audio,
    "set the clock": _set_clock,
    "restart the API": _restart_api,
    "deploy": _deploy,
    "stop gracefully": lambda story: story.stop_server(graceful=True),
    "stop at once": lambda story: story.stop_server(graceful=False),
    "slow network": lambda story: _set(story, "network", story.world.network, 40.0, slowness=(50.0, 1.0)),
    "slow starts": _slow_starts,
    "Ray away": lambda story: _set(story, "ray", story.world.ray, 40.0, away=(True, False)),
}
