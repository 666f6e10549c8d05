"""An event loop on the virtual clock, in which processes take turns as the seed decides.

A process is known by a context variable, so tasks, timers and threads that it starts belong to it. Within a process
callbacks run in the order in which they became ready, as asyncio promises; between processes there is no order. What
production code gives to a thread runs in one piece, some virtual time later: as a transaction does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tests.simulation.virtual_time import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

STEP_S = 1e-6
"""What a round of callbacks takes: code that waits until a moment has come must see it come."""
STEPS_IN_A_ROW = 100_000
"""More rounds without any wait between are a loop that never waits."""


class Process:
    """A process of the simulated machine."""

    def __init__(self, pid: int, name: str) -> None:
        self.pid = pid
        self.name = name
        self.dead = False
        self.stopped = False
        """As by SIGSTOP: nothing of it runs, its timers wait."""
        self.ray_cut = False
        """Whether it reaches neither Ray nor other processes through Ray."""
        self.given_up = False
        """Whether Ray has taken it for dead, while its calls to other processes still arrive."""
        self.database_cut = False
        self.ready: deque[asyncio.Handle] = deque()
        self.listed = False
        """Whether `Ready` has it among those with something to run."""
        self.on_death: dict[int, Callable[[], None]] = {}

    def __repr__(self) -> str:
        return f"{self.name}[{self.pid}]"


PROCESS: ContextVar[Process] = ContextVar("process")
OUTSIDE = Process(1, "outside")


def current() -> Process:
    """The process whose code runs; `OUTSIDE` for clients, receivers and Ray itself."""
    return PROCESS.get(OUTSIDE)


class Ready:
    """What is ready to run, by process; in place of the loop's queue."""

    def __init__(self, random: Random) -> None:
        self._random = random.random
        self._runnable: list[Process] = []
        self._count = 0

    def append(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(PROCESS, OUTSIDE)
        if process.dead:
            return
        process.ready.append(handle)
        if not process.stopped:
            self._count += 1
            if not process.listed:
                process.listed = True
                self._runnable.append(process)

    def popleft(self) -> asyncio.Handle:
        runnable = self._runnable
        while runnable:
            index = int(self._random() * len(runnable)) if len(runnable) > 1 else 0
            process = runnable[index]
            if process.ready and not process.stopped and not process.dead:
                self._count -= 1
                handle = process.ready.popleft()
                if not process.ready:
                    self._unlist(index)
                return handle
            self._unlist(index)
        self._count = 0
        return _NOTHING

    def _unlist(self, index: int) -> None:
        self._runnable[index].listed = False
        self._runnable[index] = self._runnable[-1]
        self._runnable.pop()

    def waiting(self) -> list[str]:
        """What is ready, for the message of an error."""
        return [f"{process}: {handle}" for process in self._runnable for handle in process.ready]

    def resume(self, process: Process) -> None:
        process.stopped = False
        if process.ready and not process.listed:
            process.listed = True
            self._runnable.append(process)
            self._count += len(process.ready)

    def hold(self, process: Process) -> None:
        """Run nothing of a process that was stopped, or that is dead."""
        if process.listed:
            self._unlist(self._runnable.index(process))
            self._count -= len(process.ready)
        if process.dead:
            process.ready.clear()

    def __len__(self) -> int:
        return self._count

    def clear(self) -> None:
        for process in self._runnable:
            process.ready.clear()
            process.listed = False
        self._runnable.clear()
        self._count = 0


class _Cancelled:
    _cancelled = True
    _scheduled = False


_NOTHING: Any = _Cancelled()


class StuckError(Exception):
    """The simulated world stands still, or never waits."""


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. `thread_s` gives the time that a thread's work takes: before it is done, and after it."""

    def __init__(self, random: Random, thread_s: Callable[[], tuple[float, float]]) -> None:
        super().__init__()
        self._random = random
        self._thread_s = thread_s
        self._ready: Any = Ready(random)
        self._selector: Any = self
        self._clock_resolution = 1e-9
        self._steps = 0
        self._busy_until: dict[Any, float] = {}

    @property
    def ready(self) -> Ready:
        return self._ready

    def time(self) -> float:
        return CLOCK.now

    def select(self, timeout: float | None) -> list[Any]:
        """Go to the time of the next timer, in place of waiting for it."""
        if timeout is None:
            raise StuckError("nothing is left to happen")
        if timeout > 0:
            CLOCK.now += timeout
            self._steps = 0
        else:
            CLOCK.now += STEP_S
            self._steps += 1
            if self._steps > STEPS_IN_A_ROW:
                raise StuckError(f"time does not go on: {[*self._ready.waiting()][:5]}")
        return []

    def _process_events(self, _events: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, work: Callable[..., Any], *args: Any) -> Any:
        """Run `work` in one piece, after the time that a thread takes; one after the other where there is one thread.

        As with a real thread, cancelling who waits for it does not stop it once it has begun.
        """
        future = self.create_future()
        before_s, after_s = self._thread_s()
        begins = CLOCK.now
        if getattr(executor, "_max_workers", 0) == 1:
            begins = max(begins, self._busy_until.get(executor, 0.0))
            self._busy_until[executor] = begins + before_s

        def tell(error: BaseException | None, answer: Any) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

        def run() -> None:
            if future.cancelled() and self._random.random() < 0.5:
                return
            error, answer = None, None
            try:
                answer = work(*args)
            except Exception as raised:  # noqa: BLE001 - goes to who waits
                error = raised
            if after_s:
                self.call_later(after_s, tell, error, answer)
            else:
                tell(error, answer)

        self.call_at(begins + before_s, run)
        return future

    async def shutdown_default_executor(self, *_: Any) -> None:
        pass
