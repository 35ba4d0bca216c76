"""
A host's watch over its node's boards: it looks when it is rung, until nothing is new, and sleeps.

While it is awake nobody rings, so what comes meanwhile is found by the next look and costs no
wake-up. Between two looks the event loop turns once, and everything else has its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from arb_ray.domain.book import TickBatch
from arb_ray.domain.errors import PlaneUnavailable
from arb_ray.ports import Clock, TickSource

SWEEP_S = 0.2
"""How often a host looks everywhere without being asked: at boards that are new, and in case a
feed died between what it wrote and its ring."""


class BoardWatch:
    """Brings what lies on the boards to ``take``; ``why`` says why it cannot, if it cannot."""

    def __init__(
        self,
        source: TickSource,
        clock: Clock,
        *,
        take: Callable[[TickBatch], None],
        missed: Callable[[int], None],
        fail: Callable[[str, BaseException], None],
        log: Any,
    ) -> None:
        self.source = source
        self.why = ""
        self._clock = clock
        self._take = take
        self._missed = missed
        self._fail = fail
        self._log = log
        self._told_missed = 0
        self._is_open = False
        self._is_turning = False

    @property
    def is_open(self) -> bool:
        """Whether feeds can find this host."""
        return self._is_open

    async def run(self, born_ns: int) -> None:
        """Watch for ever; without shared memory, wait for ever and let Ray's plane serve."""
        loop = asyncio.get_running_loop()
        try:
            bell = self.source.open(born_ns)
        except PlaneUnavailable as error:
            self.why = error.problem
            self._log.warning("plane_unavailable", cause=error.problem)
            await loop.create_future()
            return
        self._is_open = True
        loop.add_reader(bell, self._on_bell)
        try:
            while True:
                if not self._is_turning:
                    self._turn(is_all=True)
                await asyncio.sleep(SWEEP_S)
        finally:
            loop.remove_reader(bell)
            self._is_open = False
            self.source.close()

    def _on_bell(self) -> None:
        try:
            self.source.hear()
        except Exception as error:
            self._fail("plane", error)
            raise
        if not self._is_turning:
            self._turn()

    def _turn(self, *, is_all: bool = False) -> None:
        """Look; go on in the loop's next turn as long as something is new, then sleep."""
        self._is_turning = False
        if not self._is_open:
            return
        try:
            is_new = self._look(is_all=is_all)
            if is_new:
                # What a burst leaves on the board meanwhile costs no turn of the loop, and a turn
                # in which nothing is found costs as much as a few looks.
                is_new = self._look(is_all=False)
            if not is_new:
                looked_ns = self._clock.mono_ns()
                self.source.sleep(looked_ns)
                # What came before "I sleep" was seen rang nobody.
                is_new = self._look(is_all=False)
        except Exception as error:
            # A bug of ours: it ends this process like a loop's would.
            self._fail("plane", error)
            raise
        if is_new:
            self.source.wake()
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _look(self, *, is_all: bool) -> bool:
        batches = self.source.look(is_all=is_all)
        missed = self.source.missed - self._told_missed
        if missed:
            self._told_missed += missed
            self._missed(missed)
        for batch in batches:
            self._take(batch)
        return bool(batches)
