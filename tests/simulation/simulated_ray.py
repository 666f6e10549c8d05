"""Ray as the product uses it: named actors in processes of their own, calls between them, and how all of that fails.

In place of the module `ray` in those modules of the product that import it. Exceptions are Ray's own.
"""

from __future__ import annotations

import asyncio
import inspect
from contextvars import Context, copy_context
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray.exceptions import ActorDiedError, ActorUnavailableError, RaySystemError
from ray.runtime_env import RuntimeEnv

from serve_app.jobs.states import ACTOR_PREFIX
from tests.simulation.loop import PROCESS, Process, current
from tests.simulation.virtual_time import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from random import Random

    from tests.simulation.loop import VirtualLoop

CUT_OFF_S = 20.0
"""After which a call over a cut connection fails."""
SPARE_S = 0.05
"""How long the start of an actor takes for which there is a process."""
STOPPED_KILL_S = 5.0
"""After which a stopped process is killed that was to end (Ray 2.60, measured)."""


class Reply:
    """The answer to a call that is awaited, or not; cancelling who awaits it does not cancel the call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[Any] = loop.create_future()
        self.called_at = CLOCK.now
        self.task: asyncio.Task[Any] | None = None
        self.on_cancel: Callable[[], None] | None = None

    def __await__(self) -> Any:
        return asyncio.shield(self.future).__await__()

    def cancel(self) -> None:
        if self.on_cancel is not None:
            self.on_cancel()

    def answer(self, value: Any) -> None:
        if not self.future.done():
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # retrieved: nobody may be waiting


class Actor:
    """A named actor over all its incarnations."""

    def __init__(self, name: str, cls: type, args: tuple[Any, ...]) -> None:
        self.name, self.cls, self.args = name, cls, args
        self.dead = False
        self.process: Process | None = None
        self.instance: Any = None
        self.waiting: list[Callable[[], None]] = []
        """Calls that came before the constructor had returned."""


class Handle:
    """What code holds of an actor."""

    def __init__(self, ray: SimulatedRay, actor: Actor) -> None:
        self._ray, self._actor = ray, actor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(self._actor.cls, name):
            raise AttributeError(name)
        return SimpleNamespace(remote=lambda *args: self._ray.call(self._actor, name, args))


class SimulatedRay:
    """The cluster: its processes and actors."""

    def __init__(self, random: Random, loop: VirtualLoop) -> None:
        self._random, self._loop = random, loop
        self.processes: list[Process] = []
        self.actors: dict[str, Actor] = {}
        self._by_pid: dict[int, Actor] = {}
        self.away = False
        """Whether the cluster's control store does not answer."""
        self.start_s = (0.3, 2.0)
        """How long a process takes to start, least and most."""
        self._spare_at = 0.0
        """When the next process that was started ahead is ready."""
        self.util = SimpleNamespace(list_named_actors=self._list)

    # processes

    def spawn(self, name: str) -> Process:
        process = Process(100 + len(self.processes), name)
        self.processes.append(process)
        return process

    def run_in(self, process: Process, work: Callable[..., Any], *args: Any) -> Any:
        """Call `work` as code of a process."""
        context = copy_context()
        context.run(PROCESS.set, process)
        return context.run(work, *args)

    def later(self, delay_s: float, work: Callable[..., Any], *args: Any) -> None:
        """Call `work` as Ray does itself, whatever process this is."""
        Context().run(self._loop.call_later, delay_s, work, *args)

    def end(self, process: Process) -> None:
        """End a process, as by SIGKILL: what it was called for fails."""
        if process.dead:
            return
        process.dead = True
        self._loop.ready.hold(process)
        for tell in list(process.on_death.values()):
            tell()
        process.on_death.clear()

    def stop(self, process: Process) -> None:
        if not process.dead and not process.stopped:
            process.stopped = True
            self._loop.ready.hold(process)

    def resume(self, process: Process) -> None:
        if not process.dead and process.stopped:
            self._loop.ready.resume(process)

    # actors

    def remote(self, cls: type) -> Any:
        def options(*, name: str, get_if_exists: bool = False, **_: Any) -> Any:
            return SimpleNamespace(remote=lambda *args: self._create(name, cls, args, get_if_exists=get_if_exists))

        return SimpleNamespace(options=options)

    def _create(self, name: str, cls: type, args: tuple[Any, ...], *, get_if_exists: bool) -> Handle:
        self._check_reached()
        actor = self.actors.get(name)
        if actor is None:
            actor = self.actors[name] = Actor(name, cls, args)
            slow_s = self._random.uniform(*self.start_s)
            self.later(SPARE_S if self._takes_spare(name) else slow_s, self._begin, actor)
        elif not get_if_exists:
            raise ValueError(name)
        return Handle(self, actor)

    def _takes_spare(self, name: str) -> bool:
        """Whether a process has been started ahead for a job's actor: the next is ready some seconds later."""
        taken = name.startswith(ACTOR_PREFIX) and self._loop.time() >= self._spare_at
        if taken:
            self._spare_at = self._loop.time() + self.start_s[1]
        return taken

    def _begin(self, actor: Actor) -> None:
        if actor.dead:
            return
        actor.process = process = self.spawn(actor.name)
        self._by_pid[process.pid] = actor
        process.on_death[0] = lambda: self.later(self._random.uniform(0.05, 1.0), self._notice_death, actor, process)
        self.run_in(process, self._loop.call_soon, self._construct, actor, process)

    def _construct(self, actor: Actor, process: Process) -> None:
        try:
            instance = actor.cls(*actor.args)
        except Exception:  # noqa: BLE001 - Ray does not restart an actor whose constructor fails
            self.later(0.0, self._forget, actor)
            self.end(process)
            return
        if actor.process is process:
            actor.instance = instance
            waiting, actor.waiting = actor.waiting, []
            for deliver in waiting:
                self.later(0.0, deliver)

    def _notice_death(self, actor: Actor, process: Process) -> None:
        """Restart an actor whose process has died, or seems to have; `kill` has ended the others for good."""
        if actor.dead or actor.process is not process:
            return
        actor.process = actor.instance = None
        self.later(self._random.uniform(*self.start_s), self._begin, actor)

    def lose(self, process: Process, *, cut: bool) -> None:
        """Have Ray take a process for dead that runs on; `cut`: its calls do not arrive either."""
        process.given_up, process.ray_cut = True, cut
        if actor := self._by_pid.get(process.pid):
            self.later(self._random.uniform(0.1, 3.0), self._notice_death, actor, process)

    def _forget(self, actor: Actor) -> None:
        actor.dead = True
        if self.actors.get(actor.name) is actor:
            del self.actors[actor.name]
        waiting, actor.waiting = actor.waiting, []
        for deliver in waiting:
            deliver()

    def kill(self, handle: Handle) -> None:
        self._check_reached()
        actor = handle._actor
        if actor.dead:
            return
        self._forget(actor)
        if actor.process is not None and not actor.process.given_up:
            delay_s = STOPPED_KILL_S if actor.process.stopped else self._random.uniform(0.0, 0.05)
            self.later(delay_s, self.end, actor.process)

    def get_actor(self, name: str, _namespace: str = "") -> Handle:
        self._check_reached()
        if name not in self.actors:
            raise ValueError(name)
        return Handle(self, self.actors[name])

    def _list(self, *, all_namespaces: bool) -> list[dict[str, str]]:
        assert all_namespaces
        self._check_reached()
        return [{"name": name, "namespace": "ml-server"} for name in self.actors]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(current_actor=Handle(self, self._by_pid[current().pid]), runtime_env=RuntimeEnv())

    def nodes(self) -> list[Any]:
        return []

    def is_initialized(self) -> bool:
        return True

    def _check_reached(self) -> None:
        if self.away or current().given_up:
            raise RaySystemError("the control store is not reached")

    # calls

    def latency_s(self) -> float:
        return 0.002 + 0.01 * self._random.random()

    def call(self, actor: Actor, name: str, args: tuple[Any, ...]) -> Reply:
        reply = Reply(self._loop)
        caller = current()
        if caller.ray_cut:
            self.later(CUT_OFF_S, reply.fail, ActorUnavailableError("cut off", None))
        else:
            self.later(self.latency_s(), self._deliver, actor, name, args, reply, caller)
        return reply

    def _deliver(self, actor: Actor, name: str, args: tuple[Any, ...], reply: Reply, caller: Process) -> None:
        if actor.dead:
            reply.fail(ActorDiedError())
        elif actor.instance is None:
            actor.waiting.append(lambda: self._deliver(actor, name, args, reply, caller))
        elif actor.process is None or actor.process.dead or actor.process.given_up:
            self.later(1.0, reply.fail, ActorUnavailableError("restarting", None))
        else:
            self.execute(actor.process, getattr(actor.instance, name), args, reply, caller)

    def execute(
        self, process: Process, method: Callable[..., Any], args: tuple[Any, ...], reply: Reply, caller: Process
    ) -> None:
        """Run a method in a process, and bring its answer back."""
        key = id(reply)
        process.on_death[key] = lambda: self.later(self.latency_s(), reply.fail, ActorDiedError())

        def back(tell: Callable[[Any], None], value: Any) -> None:
            process.on_death.pop(key, None)
            if process.ray_cut or caller.ray_cut:
                self.later(CUT_OFF_S, reply.fail, ActorUnavailableError("cut off", None))
            else:
                self.later(self.latency_s(), tell, value)

        async def run() -> None:
            try:
                value = method(*args)
                if inspect.isawaitable(value):
                    value = await value
            except asyncio.CancelledError:
                back(reply.fail, ActorUnavailableError("cancelled", None))
                raise
            except Exception as error:  # noqa: BLE001 - goes to the caller
                back(reply.fail, error)
            else:
                back(reply.answer, value)

        reply.task = self.run_in(process, self._task, run())
        reply.on_cancel = reply.task.cancel

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._loop.create_task(work)
