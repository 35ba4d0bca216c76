"""
How a plain class lives in a Ray actor: loops that start with it and never end quietly.

Ray repeats ``__init__``, and nothing else, after a crash; an exception there leaves the
actor dead for good. So constructors connect to nothing, loops start at birth, and a loop
that ends takes the process with it: an actor that answers calls but no longer works is
worse than a dead one, which Ray starts again.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

CANCEL_AGAIN_S = 0.5
"""After so long a loop that has not ended is cancelled once more."""

EXIT_LOOP_ENDED = 70  # EX_SOFTWARE of sysexits.h: shows in Ray's log why the worker went


def _exit_process(name: str, error: BaseException | None) -> None:
    try:
        # A line like any other: a traceback may quote a secret, which only the log keeps out.
        log = structlog.get_logger("arb_ray.actors.hosting")
        log.error("loop_ended", loop=name, exc_info=error)
        sys.stderr.flush()
    finally:
        os._exit(EXIT_LOOP_ENDED)  # also where the log is what failed


class Loops:
    """An actor's background loops. The first that ends, ends the process (or the test)."""

    def __init__(self, on_end: Callable[[str, BaseException | None], None] = _exit_process) -> None:
        self._on_end = on_end
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_stopping = False

    def start(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """Start a loop that must run for as long as the actor lives."""
        assert name not in self._tasks, "a loop has one name and one life"
        task = asyncio.get_running_loop().create_task(loop, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._is_stopping or self._tasks.get(name) is not task:
            return
        # A loop that was cancelled by accident (an inner task was) has ended too.
        self._on_end(name, asyncio.CancelledError() if task.cancelled() else task.exception())

    def fail(self, name: str, error: BaseException) -> None:
        """Report a bug in a task beside the loops: it ends the process like a loop's."""
        if not self._is_stopping:
            self._on_end(name, error)

    async def cancel(self, name: str) -> None:
        """End one loop that is not wanted any more."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def stop(self) -> None:
        """Cancel all loops and wait for them; after this nothing of the actor runs."""
        self._is_stopping = True
        waiting = set(self._tasks.values())
        while waiting:
            for task in waiting:
                task.cancel()
            # A library can swallow a cancellation, so it is repeated until it is obeyed.
            _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN_S)
        self._tasks.clear()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the loops that are running."""
        return tuple(name for name, task in self._tasks.items() if not task.done())
