"""A process of a cell, as the stage holds it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from typing import Any

from tests.kill_matrix.processes import Part, run_part

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.kill_matrix.processes"])


class Process:
    """A process of the cell, in one of its lives."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.line, theirs = _forks.Pipe()
        self.process = _forks.Process(target=run_part, args=(part, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.is_ready = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.may_end_by = {-signal.SIGKILL} if part.trigger else set()

    def say(self, *word: Any) -> None:
        with contextlib.suppress(OSError):
            self.line.send(word)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if not self.has_ended.is_set() and self.process.pid:
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.may_end_by.add(-signal.SIGKILL)
        self.signal(signal.SIGKILL)


async def comes(event: asyncio.Event, within_s: float) -> bool:
    """Wait for an event; False when it did not come in time."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
