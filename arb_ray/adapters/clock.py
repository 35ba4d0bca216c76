"""
The two clocks: the machine's, and a recording's.

``VirtualClock`` also runs tasks, one at a time and in order: each until it has finished or
gone to sleep on this clock. Only when all have does time move on. So two replays of one
recording take the same steps, however long a database takes to answer in between.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any


class SystemClock:
    """
    Wall clock and monotonic clock of this machine.

    Both are asked at every tick, so the interpreter's own functions stand here, not around them.
    """

    now_ns = staticmethod(time.time_ns)
    mono_ns = staticmethod(time.monotonic_ns)

    async def sleep_until_ns(self, due_ns: int, key: str) -> None:
        """Wait for an instant of the wall clock; one that has passed returns at once."""
        await asyncio.sleep(max(0, due_ns - time.time_ns()) / 1e9)


class VirtualClock:
    """A recording's time; it stands still until ``advance`` or ``set`` moves it."""

    def __init__(self, start_ns: int) -> None:
        self._now_ns = start_ns
        self._sleepers: list[tuple[int, str, int, asyncio.Future[None]]] = []
        self._order = 0
        self._ready: deque[tuple[str, Coroutine[Any, Any, None]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._error: BaseException | None = None

    def now_ns(self) -> int:
        """Return the recording's time, ns UTC."""
        return self._now_ns

    def mono_ns(self) -> int:
        """Return the same: within a replay one clock serves for both."""
        return self._now_ns

    async def sleep_until_ns(self, due_ns: int, key: str) -> None:
        """Sleep until time reaches ``due_ns``; equal instants wake in order of ``key``."""
        if due_ns <= self._now_ns:
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (due_ns, key, self._order, woken))
        assert not self._quiet.is_set(), "only spawned tasks may sleep on a virtual clock"
        self._quiet.set()
        await woken

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Queue a task; ``settle`` runs it when those before it are quiet."""
        self._ready.append((name, coroutine))

    def next_due(self) -> tuple[int, str] | None:
        """Return when the next sleeper wakes, and its key."""
        return self._sleepers[0][:2] if self._sleepers else None

    async def settle(self) -> None:
        """Run what is queued until everything has finished or sleeps. Raises a task's error."""
        while self._ready:
            name, coroutine = self._ready.popleft()
            self._quiet.clear()
            task = asyncio.get_running_loop().create_task(coroutine, name=name)
            self._tasks.add(task)
            task.add_done_callback(self._done)
            await self._until_quiet()

    async def wake_next(self) -> None:
        """Move to the next sleeper's instant, wake it, and settle."""
        due_ns, _, _, woken = heapq.heappop(self._sleepers)
        self.set(due_ns)
        if woken.done():
            return  # its task was cancelled in its sleep
        self._quiet.clear()
        woken.set_result(None)
        await self._until_quiet()
        await self.settle()

    async def advance(self, to_ns: int) -> None:
        """Wake every sleeper due until ``to_ns``, in order, and stand there."""
        while self._sleepers and self._sleepers[0][0] <= to_ns:
            await self.wake_next()
        self.set(to_ns)

    def set(self, now_ns: int) -> None:
        """Stand at ``now_ns``, or stay where a later instant was reached; wakes nobody."""
        self._now_ns = max(self._now_ns, now_ns)

    async def _until_quiet(self) -> None:
        await self._quiet.wait()
        if self._error is not None:
            raise self._error

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()
        self._quiet.set()
