"""
The two clocks: the machine's, and a recording's.

``VirtualClock`` also runs tasks, so that a replay can tell when everything that an event
set off has either finished or gone to sleep. Only then does time move on, which is what
makes two replays of one recording alike.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Coroutine
from typing import Any


class SystemClock:
    """Wall clock and monotonic clock of this machine."""

    def now_ns(self) -> int:
        """Return ns UTC."""
        return time.time_ns()

    def mono_ns(self) -> int:
        """Return the monotonic clock."""
        return time.monotonic_ns()

    async def sleep_until_ns(self, due_ns: int, key: str) -> None:
        """Wait for an instant of the wall clock; one that has passed returns at once."""
        await asyncio.sleep(max(0, due_ns - time.time_ns()) / 1e9)


class VirtualClock:
    """A recording's time; it stands still until ``advance`` moves it."""

    def __init__(self, start_ns: int) -> None:
        self._now_ns = start_ns
        self._sleepers: list[tuple[int, str, int, asyncio.Future[None]]] = []
        self._order = 0
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    def now_ns(self) -> int:
        """Return the recording's time, ns UTC."""
        return self._now_ns

    def mono_ns(self) -> int:
        """Return the same: within a replay one clock serves for both."""
        return self._now_ns

    async def sleep_until_ns(self, due_ns: int, key: str) -> None:
        """Sleep until ``advance`` reaches ``due_ns``; equal instants wake in order of ``key``."""
        if due_ns <= self._now_ns:
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (due_ns, key, self._order, woken))
        self._leave()
        await woken

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task whose sleeps are on this clock."""
        self._enter()
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def next_due(self) -> tuple[int, str] | None:
        """Return when the next sleeper wakes, and its key."""
        return self._sleepers[0][:2] if self._sleepers else None

    async def settle(self) -> None:
        """Wait until every task has finished or sleeps. Raises what a task raised."""
        await self._idle.wait()
        if self._error is not None:
            raise self._error

    async def wake_next(self) -> None:
        """Move to the next sleeper's instant, wake it, and wait until all is quiet again."""
        due_ns, _, _, woken = heapq.heappop(self._sleepers)
        self._now_ns = max(self._now_ns, due_ns)
        self._enter()
        woken.set_result(None)
        await self.settle()

    async def advance(self, to_ns: int) -> None:
        """Wake every sleeper due until ``to_ns``, in order, and stand there."""
        while self._sleepers and self._sleepers[0][0] <= to_ns:
            await self.wake_next()
        self._now_ns = max(self._now_ns, to_ns)

    def _enter(self) -> None:
        self._running += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._running -= 1
        assert self._running >= 0, "only spawned tasks may sleep on a virtual clock"
        if not self._running:
            self._idle.set()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()
        self._leave()
