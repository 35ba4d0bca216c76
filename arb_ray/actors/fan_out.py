"""
From one feed to its strategy hosts: one mailbox and one call in flight per host.

A slow host slows nobody else; what it misses is overwritten and counted. A host that starts
again answers with another birth stamp and is given every book anew.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from arb_ray.actors.hosting import Loops
from arb_ray.domain.book import BookUpdate, ConnectionAlive, FundingUpdate
from arb_ray.domain.errors import ArbError
from arb_ray.domain.instrument import InstrumentId
from arb_ray.engine.clock_offset import ClockEstimate
from arb_ray.engine.conflation import TickMailbox
from arb_ray.ports import Clock, TickSink

RETRY_S = 0.25
"""Pause after a call that failed: the host is starting again, or its node is away."""


class Route:
    """One host's mailbox and the loop that empties it."""

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


class FanOut:
    """All routes of one feed."""

    def __init__(
        self,
        *,
        feed: str,
        node: str,
        clock: Clock,
        sink_for: Callable[[str], TickSink],
        min_interval_ms: int,
        heartbeat_ms: int,
        alive: Callable[[int], Iterable[ConnectionAlive]],
        clock_estimate: Callable[[], ClockEstimate],
        loops: Loops | None = None,
    ) -> None:
        self._feed = feed
        self._node = node
        self._clock = clock
        self._sink_for = sink_for
        self._min_interval_s = min_interval_ms / 1e3
        self._heartbeat_ms = heartbeat_ms
        self._alive = alive
        self._clock_estimate = clock_estimate
        self._loops = loops or Loops()
        self._epoch = 0
        self._again: Callable[[Iterable[InstrumentId]], Iterable[BookUpdate]] = lambda _: ()
        self._routes: dict[str, Route] = {}
        self._gone: Counter[str] = Counter()  # of routes that were ended: totals do not shrink
        self._by_instrument: dict[InstrumentId, tuple[Route, ...]] = {}
        self.version = ""

    def begin(
        self, epoch: int, again: Callable[[Iterable[InstrumentId]], Iterable[BookUpdate]]
    ) -> None:
        """Take the feed's epoch, and how to get its newest books once more."""
        self._epoch, self._again = epoch, again

    @property
    def sent(self) -> int:
        """Updates delivered to hosts."""
        return self._sum("delivered")

    @property
    def conflated(self) -> int:
        """Updates overwritten before they were sent."""
        return self._sum("conflated")

    @property
    def batches(self) -> int:
        """Batches delivered to hosts, heartbeats among them."""
        return self._sum("batches")

    @property
    def pending(self) -> int:
        """Updates that wait for a host now."""
        return sum(route.mailbox.waiting for route in self._routes.values())

    def _sum(self, name: str) -> int:
        total: int = self._gone[name]
        for route in self._routes.values():
            total += getattr(route.mailbox.counts, name)
        return total

    def instruments(self) -> frozenset[InstrumentId]:
        """Everything that some host wants of this feed."""
        return frozenset(self._by_instrument)

    async def set_routes(self, version: str, routes: Mapping[str, list[InstrumentId]]) -> None:
        """Serve these instruments to these hosts from now on."""
        for name in [name for name in self._routes if name not in routes]:
            await self._loops.cancel(f"route:{name}")
            counts = self._routes.pop(name).mailbox.counts
            self._gone.update(msgspec.structs.asdict(counts))
        for name, instruments in routes.items():
            route = self._routes.get(name)
            if route is None:
                route = self._routes[name] = self._make_route(name, instruments)
                self._loops.start(f"route:{name}", route.run())
            route.instruments = frozenset(instruments)
            route.mailbox.retarget(instruments)
            self._refill(route)
        index: dict[InstrumentId, tuple[Route, ...]] = {}
        for route in self._routes.values():
            for instrument in route.instruments:
                index[instrument] = (*index.get(instrument, ()), route)
        self._by_instrument = index
        self.version = version

    def offer(self, update: BookUpdate, now_mono_ns: int) -> None:
        """Leave an update for every host that wants it."""
        for route in self._by_instrument.get(update.instrument, ()):
            route.mailbox.offer(update, now_mono_ns)
            route.ring()

    def offer_funding(self, updates: Iterable[FundingUpdate]) -> None:
        """Leave funding for every host that wants it; it travels with the next batch."""
        for update in updates:
            for route in self._by_instrument.get(update.instrument, ()):
                route.mailbox.offer_funding(update)

    def hurry(self) -> None:
        """Send now: a connection was cut."""
        for route in self._routes.values():
            self._report(route.mailbox)
            route.ring()

    async def stop(self) -> None:
        """End all routes."""
        await self._loops.stop()

    def _make_route(self, name: str, instruments: Iterable[InstrumentId]) -> Route:
        mailbox = TickMailbox(
            feed=self._feed,
            feed_epoch=self._epoch,
            node=self._node,
            instruments=instruments,
            heartbeat_ns=self._heartbeat_ms * 1_000_000,
        )
        return Route(
            name,
            self._sink_for(name),
            mailbox,
            self._clock,
            min_interval_s=self._min_interval_s,
            heartbeat_s=self._heartbeat_ms / 1e3,
            refill=self._refill,
            before_take=self._report,
        )

    def _report(self, mailbox: TickMailbox) -> None:
        now_ns = self._clock.mono_ns()
        for one in self._alive(now_ns):
            mailbox.set_alive(one.connection, now_ns - one.age_ns, is_up=one.is_up)
        estimate = self._clock_estimate()
        # A venue whose streams carry no stamp has no known offset, and no doubt about it.
        skew_ms = estimate.uncertainty_ms if math.isfinite(estimate.uncertainty_ms) else 0.0
        mailbox.set_clock(estimate.offset_ms, skew_ms)

    def _refill(self, route: Route) -> None:
        """Offer every newest book once more, as a new update of its old age."""
        now_ns = self._clock.mono_ns()
        for update in self._again(route.instruments):
            route.mailbox.offer(update, now_ns)
        route.ring()
