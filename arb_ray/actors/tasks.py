"""Where a host's tasks run: on the event loop, with failures that end the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol


class Tasks(Protocol):
    """Runs coroutines beside the caller. A replay's clock runs them too."""

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Run it; what it raises is a bug."""
        ...


class LoopTasks:
    """Tasks of the running event loop; the first that fails is reported to ``on_bug``."""

    def __init__(self, on_bug: Callable[[str, BaseException], None]) -> None:
        self._on_bug = on_bug
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Run it, and hold on to it until it is done."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_bug(task.get_name(), error)

    async def cancel_all(self) -> None:
        """Cancel what still runs."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
