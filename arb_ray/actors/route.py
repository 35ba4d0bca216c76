"""One way of a feed by Ray calls: a mailbox, and the loop that empties it into a sink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from arb_ray.domain.errors import ArbError
from arb_ray.domain.instrument import InstrumentId
from arb_ray.engine.conflation import TickMailbox
from arb_ray.ports import Clock, TickSink

RETRY_S = 0.25
"""Pause after a call that failed: the host is starting again, or its node is away."""


class Route:
    """One host's or one node's mailbox, and the loop that empties it."""

    def __init__(
        self,
        name: str,
        sink: TickSink,
        mailbox: TickMailbox,
        clock: Clock,
        *,
        min_interval_s: float,
        heartbeat_s: float,
        refill: Callable[[Route], None],
        before_take: Callable[[TickMailbox], None],
    ) -> None:
        self.name = name
        self.mailbox = mailbox
        self.instruments: frozenset[InstrumentId] = frozenset()
        self._sink = sink
        self._clock = clock
        self._min_interval_s = min_interval_s
        self._heartbeat_s = heartbeat_s
        self._refill = refill
        self._before_take = before_take
        self._ring = asyncio.Event()
        self._host_born_ns: int | None = None

    def ring(self) -> None:
        """Say that something waits."""
        self._ring.set()

    async def run(self) -> None:
        """Send what waits, newest wins meanwhile."""
        while True:
            await self._wait()
            self._before_take(self.mailbox)
            batch = self.mailbox.take(self._clock.mono_ns())
            if batch is None:
                continue
            try:
                born_ns = await self._sink.deliver(batch)
            except ArbError:
                self.mailbox.answered(is_delivered=False)
                await asyncio.sleep(RETRY_S)
                continue
            self.mailbox.answered(is_delivered=True)
            if born_ns != self._host_born_ns:
                self._host_born_ns = born_ns
                self._refill(self)
            # A call costs a millisecond of CPU however large it is, so let some gather.
            await asyncio.sleep(self._min_interval_s)

    async def _wait(self) -> None:
        if not self.mailbox.waiting:
            try:
                # Not wait_for: before Python 3.12 it can swallow the cancellation of a stop.
                async with asyncio.timeout(self._heartbeat_s):
                    await self._ring.wait()
            except TimeoutError:
                return  # time for a heartbeat
        # Cleared after the wait: a ring that came during the last call (a cut) still counts.
        self._ring.clear()
