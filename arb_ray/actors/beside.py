"""One thing at a time beside a loop's passes: what it waits for holds up nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Found = TypeVar("Found")


class Beside(Generic[Found]):
    """Runs one coroutine; a bug in it comes out at ``result``, which every pass calls."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Found] | None = None

    def begin(self, work: Callable[[], Coroutine[Any, Any, Found]]) -> None:
        """Start ``work``, unless something is under way already."""
        if self._task is None:
            self._task = asyncio.create_task(work())

    async def result(self, patience_s: float = 0.0) -> Found | None:
        """
        Return what came of it, once; None while it is under way and when there is nothing.

        Raises what the work raised.
        """
        if self._task is None:
            return None
        await asyncio.wait((self._task,), timeout=patience_s)
        if not self._task.done():
            return None
        task, self._task = self._task, None
        return None if task.cancelled() else task.result()

    async def cancel(self) -> None:
        """End what is under way, and forget what came of it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
