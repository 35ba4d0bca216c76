"""
The end of hosts in order: no entries any more, what is under way finished, positions closed.

A host that crashes after it was drained comes back and knows nothing of it, so it is drained
once more; one that does not answer is asked again until the time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from arb_ray.domain.errors import ArbError, OutcomeUnknown, StoreUnavailable

ANSWER_MARGIN_S = 5.0
"""Beyond the time that a host has for its trades: so long its answer may take."""


class DrainTerms(msgspec.Struct, frozen=True):
    """Whether positions are closed, how long all may take, how often is looked."""

    flatten: bool
    timeout_s: float
    pause_s: float


class Drain:
    """
    Drains hosts, all at once.

    ``complain`` takes a sentence for whoever asked; ``born_ns`` tells the processes of a host
    apart and is kept up by ``keep_up``, which is called at every look: feeds must go on
    bringing books, or no exit would fill.
    """

    def __init__(
        self,
        links: Any,
        terms: DrainTerms,
        *,
        born_ns: Mapping[str, int],
        complain: Callable[[str], None],
        log: Any,
    ) -> None:
        self._links = links
        self._terms = terms
        self._born_ns = born_ns
        self._complain = complain
        self._log = log

    async def run(self, names: Sequence[str], keep_up: Callable[[], Awaitable[None]]) -> None:
        """Drain; returns when every host has answered, or its time is over."""
        deadline_s = asyncio.get_running_loop().time() + self._terms.timeout_s
        born = {name: self._born_ns.get(name, 0) for name in names}
        tasks = {name: asyncio.create_task(self._one(name, deadline_s)) for name in names}
        while True:
            await keep_up()
            for name, task in tasks.items():
                is_reborn = self._born_ns.get(name, 0) != born[name]
                if task.done() and is_reborn and asyncio.get_running_loop().time() < deadline_s:
                    born[name] = self._born_ns.get(name, 0)
                    tasks[name] = asyncio.create_task(self._one(name, deadline_s))
            waiting = [task for task in tasks.values() if not task.done()]
            if not waiting:
                break
            await asyncio.wait(waiting, timeout=self._terms.pause_s)
        left = {name: task.result() for name, task in tasks.items()}
        for name, count in left.items():
            if count and self._terms.flatten:
                self._complain(f"{count} positions of {name} stay open: they could not be closed")

    async def _one(self, name: str, deadline_s: float) -> int:
        """Drain one host; return how many positions it keeps."""
        loop = asyncio.get_running_loop()
        while True:
            left_s = max(0.0, deadline_s - loop.time())
            try:
                kept = await self._links.call(
                    name, "drain", self._terms.flatten, left_s, timeout_s=left_s + ANSWER_MARGIN_S
                )
                return int(kept or 0)
            except ArbError as error:
                is_worth_it = isinstance(error, OutcomeUnknown | StoreUnavailable)
                if is_worth_it and loop.time() < deadline_s:
                    self._log.warning("drain_repeated", actor=name, cause=str(error))
                    await asyncio.sleep(self._terms.pause_s)
                    continue
                self._log.error("drain_failed", actor=name, cause=str(error))
                self._complain(f"{name} could not be drained: {error}")
                return 0
