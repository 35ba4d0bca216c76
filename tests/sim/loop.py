"""
An event loop on virtual time, and processes that can be killed on it.

The shells under test sleep, time out and lock as they do in production; nothing of them is
replaced but time. When no callback is ready the clock jumps to the next timer, so an hour of
silence costs nothing and the same seed takes the same steps.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

MIDNIGHT_NS = 20_000 * 86_400 * 10**9  # UTC; a seed may begin some seconds before it
NS_PER_S = 10**9

_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Deadlock(Exception):
    """Nothing is ready and nothing is timed: the simulation waits for ever."""


class _NoSockets:
    """The loop's selector: it waits for nobody, and moves time instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout_s: float | None) -> list[Any]:
        if timeout_s is None:
            raise Deadlock
        self._loop.now_s += timeout_s
        return []

    def close(self) -> None:
        """Nothing was opened."""


class VirtualLoop(asyncio.base_events.BaseEventLoop):
    """asyncio's own loop; only its time and its selector are ours."""

    def __init__(self, start_ns: int) -> None:
        super().__init__()
        self.now_s = 0.0
        self._start_ns = start_ns
        self._selector = _NoSockets(self)
        self._clock_resolution = 1e-9
        self.set_task_factory(_start_task)
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return self.now_s

    def now_ns(self) -> int:
        """The true time, ns UTC."""
        return self._start_ns + round(self.now_s * NS_PER_S)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody is asleep in a selector."""


def _start_task(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    context = options.get("context")
    process = context.get(_process) if context is not None else _process.get()
    task = asyncio.Task(coroutine, loop=loop, **options)
    if process is not None:
        process.adopt(task)
    return task


class Process:
    """
    What lives and dies together: tasks, and the calls they make to the outside.

    A killed process gets no answer any more and nothing that it calls happens: whatever its
    code still does while it is torn down stays inside it.
    """

    def __init__(self, name: str, loop: VirtualLoop, on_death: Callable[[Process], None]) -> None:
        self.name = name
        self.is_alive = True
        self._loop = loop
        self._on_death = on_death
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order of their birth
        self._context = contextvars.copy_context()
        self._context.run(_process.set, self)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Own a task that was started by one of ours."""
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function as code of this process."""
        return self._context.copy().run(function, *arguments)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as code of this process."""
        return self._loop.create_task(coroutine, context=self._context.copy())

    def kill(self) -> None:
        """End it between two instructions, as SIGKILL does."""
        if not self.is_alive:
            return
        self.is_alive = False
        for task in list(self._tasks):
            task.cancel()
        self._on_death(self)

    async def hang(self) -> Any:
        """Wait for the end that has already been decided."""
        await self._loop.create_future()


class ProcessClock:
    """A process' two clocks; its wall clock may be wrong by a constant."""

    def __init__(self, loop: VirtualLoop, offset_ns: int = 0) -> None:
        self._loop = loop
        self._offset_ns = offset_ns

    def now_ns(self) -> int:
        return self._loop.now_ns() + self._offset_ns

    def mono_ns(self) -> int:
        return round(self._loop.now_s * NS_PER_S)

    async def sleep_until_ns(self, due_ns: int, key: str) -> None:
        await asyncio.sleep(max(0, due_ns - self.now_ns()) / NS_PER_S)
