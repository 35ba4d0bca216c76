"""
From one feed to its strategy hosts: through the node's board, or one call in flight per host.

A host that hangs up its bell on this node is served by shared memory (``board_routes.py``). Every
other one has a mailbox: it lives on another node, has no shared memory, or is starting. A slow
host slows nobody else; what it misses is overwritten and counted. One that starts again answers
with another birth stamp and is given every book anew.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from arb_ray.actors.board_routes import BoardRoutes
from arb_ray.actors.hosting import Loops
from arb_ray.domain.book import BookUpdate, ConnectionAlive, FundingUpdate
from arb_ray.domain.errors import ArbError, PlaneUnavailable
from arb_ray.domain.instrument import InstrumentId
from arb_ray.engine.clock_offset import ClockEstimate
from arb_ray.engine.conflation import TickMailbox
from arb_ray.ports import BookBoard, Clock, TickSink

RETRY_S = 0.25
"""Pause after a call that failed: the host is starting again, or its node is away."""

REACH_S = 0.25
"""How often a feed looks which hosts can be served by shared memory."""


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
        make_board: Callable[[int], BookBoard] | None = None,
        loops: Loops | None = None,
    ) -> None:
        self._make_board = make_board
        self._board: BoardRoutes | None = None
        self._plane_why = ""
        self._moving = asyncio.Lock()
        self._wanted: dict[str, frozenset[InstrumentId]] = {}
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

    def start(self) -> None:
        """Open the board, if this node has shared memory and the settings want it."""
        if self._make_board is None:
            return
        try:
            board = self._make_board(self._epoch)
        except PlaneUnavailable as error:
            self._plane_why = error.problem
            return
        self._board = BoardRoutes(
            board,
            feed=self._feed,
            epoch=self._epoch,
            clock=self._clock,
            alive=self._alive,
            clock_estimate=self._clock_estimate,
        )
        self._loops.start("plane", self._watch_board(self._board))

    @property
    def plane_why(self) -> str:
        """Why this feed has no board although one is wanted; else nothing."""
        return self._plane_why

    @property
    def plane(self) -> str:
        """What carries the ticks now: ``shm``, ``ray``, or ``shm+ray``."""
        names = ["shm"] * bool(self.on_board) + ["ray"] * bool(self._routes)
        return "+".join(names) or ("shm" if self._board else "ray")

    @property
    def on_board(self) -> int:
        """How many hosts are served by shared memory."""
        return len(self._board.hosts) if self._board else 0

    @property
    def by_calls(self) -> int:
        """How many hosts are served by Ray calls."""
        return len(self._routes)

    @property
    def sent(self) -> int:
        """Updates delivered to hosts, or laid where they read."""
        return self._sum("delivered") + (self._board.sent if self._board else 0)

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
        return frozenset().union(*self._wanted.values())

    async def set_routes(self, version: str, routes: Mapping[str, list[InstrumentId]]) -> None:
        """Serve these instruments to these hosts from now on."""
        async with self._moving:
            for name in [name for name in self._wanted if name not in routes]:
                await self._end_route(name)
                if self._board is not None:
                    self._board.leave(name)
            self._wanted = {name: frozenset(wanted) for name, wanted in routes.items()}
            for name, wanted in self._wanted.items():
                await self._serve(name, wanted)
            self._index()
            self.version = version

    async def _serve(self, name: str, wanted: frozenset[InstrumentId]) -> None:
        """Put a host on the board if it can be reached there; on a route of its own if not."""
        board = self._board
        if board is not None and not board.reach(name):
            new = board.serve(name, wanted)
            now_ns = self._clock.mono_ns()
            for update in self._again(new):
                board.offer(update, now_ns)
            await self._end_route(name)
            return
        if board is not None:
            board.leave(name)
        route = self._routes.get(name)
        if route is None:
            route = self._routes[name] = self._make_route(name, wanted)
            self._loops.start(f"route:{name}", route.run())
        route.instruments = wanted
        route.mailbox.retarget(wanted)
        self._refill(route)

    async def _end_route(self, name: str) -> None:
        if name in self._routes:
            await self._loops.cancel(f"route:{name}")
            counts = self._routes.pop(name).mailbox.counts
            self._gone.update(msgspec.structs.asdict(counts))

    def _index(self) -> None:
        index: dict[InstrumentId, tuple[Route, ...]] = {}
        for route in self._routes.values():
            for instrument in route.instruments:
                index[instrument] = (*index.get(instrument, ()), route)
        self._by_instrument = index

    async def _watch_board(self, board: BoardRoutes) -> None:
        """Tell for ever what lives, and move a host when it comes to the board or leaves it."""
        pulse_s = min(self._heartbeat_ms / 1e3, REACH_S)
        due_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pulse_s)
            board.pulse()
            if loop.time() < due_s:
                continue
            due_s = loop.time() + REACH_S
            async with self._moving:
                for name, wanted in self._wanted.items():
                    if (not board.reach(name)) != (name in board.hosts):
                        await self._serve(name, wanted)
                        self._index()

    def offer(self, update: BookUpdate, now_mono_ns: int) -> None:
        """Leave an update for every host that wants it."""
        if self._board is not None:
            self._board.offer(update, now_mono_ns)
        for route in self._by_instrument.get(update.instrument, ()):
            route.mailbox.offer(update, now_mono_ns)
            route.ring()

    def offer_funding(self, updates: Iterable[FundingUpdate]) -> None:
        """Leave funding for every host that wants it; it travels with the next batch."""
        for update in updates:
            if self._board is not None:
                self._board.offer_funding(update)
            for route in self._by_instrument.get(update.instrument, ()):
                route.mailbox.offer_funding(update)

    def hurry(self) -> None:
        """Send now: a connection was cut."""
        if self._board is not None:
            self._board.hurry()
        for route in self._routes.values():
            self._report(route.mailbox)
            route.ring()

    async def stop(self) -> None:
        """End all routes, and take the board away."""
        await self._loops.stop()
        if self._board is not None:
            self._board.stop()
            self._board = None

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
