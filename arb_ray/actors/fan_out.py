"""
From one feed to its strategy hosts: by the node's board, or one call in flight per node or host.

A host that hangs up its bell on this node is served by shared memory (``board_routes.py``); those
of another node by one call to one of them, which lays the books on a board there
(``relay_routes.py``). Every other one has a mailbox of its own: it is alone on its node, has no
shared memory, or is starting. A slow host slows nobody else; what it misses is overwritten and
counted. One that starts again answers with another birth stamp and is given every book anew.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from arb_ray.actors.board_routes import BoardRoutes
from arb_ray.actors.hosting import Loops
from arb_ray.actors.relay_routes import ASK_S, RelayMap
from arb_ray.actors.route import Route
from arb_ray.domain.book import BookUpdate, ConnectionAlive, FundingUpdate
from arb_ray.domain.errors import PlaneUnavailable
from arb_ray.domain.instrument import InstrumentId
from arb_ray.engine.clock_offset import ClockEstimate
from arb_ray.engine.conflation import TickMailbox
from arb_ray.ports import BookBoard, Clock, TickSink

REACH_S = 0.25
"""How often a feed looks which hosts can be served by shared memory."""


RELAY = "relay:"
"""Before the host's name in that of a route which serves its whole node."""


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
        relay_for: Callable[[str], TickSink] | None = None,
        ask_neighbours: Callable[[str], Awaitable[Sequence[str]]] | None = None,
        loops: Loops | None = None,
    ) -> None:
        self._make_board = make_board
        self._relay_for = relay_for
        self._relays = RelayMap(ask_neighbours) if relay_for and ask_neighbours else None
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
        self._start_relays()
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
            fail=self._loops.fail,
        )
        self._loops.start("plane", self._watch_board(self._board))

    def _start_relays(self) -> None:
        if self._relays is not None:
            self._loops.start("relays", self._watch_relays(self._relays))

    @property
    def plane_why(self) -> str:
        """Why this feed has no board although one is wanted; else nothing."""
        return self._plane_why

    @property
    def plane(self) -> str:
        """What carries the ticks now: ``shm``, ``relay``, ``ray``, or some of them with a +."""
        hosts = (("shm", self.on_board), ("relay", self.by_relay), ("ray", self.by_calls))
        names = [name for name, count in hosts if count]
        return "+".join(names) or ("shm" if self._board else "ray")

    @property
    def on_board(self) -> int:
        """How many hosts are served by shared memory."""
        return len(self._board.hosts) if self._board else 0

    @property
    def by_calls(self) -> int:
        """How many hosts are called one by one."""
        return sum(not way.startswith(RELAY) for way in self._routes)

    @property
    def by_relay(self) -> int:
        """How many hosts elsewhere are served by one of them, for its whole node."""
        return max(0, len(self._wanted) - self.on_board - self.by_calls)

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
            if self._board is not None:
                for name in self._wanted.keys() - routes.keys():
                    self._board.leave(name)
            self._wanted = {name: frozenset(wanted) for name, wanted in routes.items()}
            await self._arrange(is_told=True)
            self.version = version

    async def _arrange(self, *, is_told: bool = False) -> None:
        """Serve each host by the best way there is; ``is_told``: give all of them everything."""
        ways: dict[str, frozenset[InstrumentId]] = {}
        for name, wanted in self._wanted.items():
            if self._board is not None and not self._board.reach(name):
                self._to_board(self._board, name, wanted)
                continue
            if self._board is not None:
                self._board.leave(name)
            relay = self._relays.relay_of(name) if self._relays else None
            way = RELAY + relay if relay else name
            ways[way] = ways.get(way, frozenset()) | wanted
        for way in [way for way in self._routes if way not in ways]:
            await self._end_route(way)
        for way, wanted in ways.items():
            self._to_route(way, wanted, is_told=is_told)
        self._index()

    def _to_board(self, board: BoardRoutes, name: str, wanted: frozenset[InstrumentId]) -> None:
        new = board.serve(name, wanted)
        now_ns = self._clock.mono_ns()
        for update in self._again(new):
            board.offer(update, now_ns)

    def _to_route(self, way: str, wanted: frozenset[InstrumentId], *, is_told: bool) -> None:
        route = self._routes.get(way)
        if route is None:
            route = self._routes[way] = self._make_route(way, wanted)
            self._loops.start(f"route:{way}", route.run())
        elif route.instruments == wanted and not is_told:
            return
        route.instruments = wanted
        route.mailbox.retarget(wanted)
        self._refill(route)

    async def _end_route(self, way: str) -> None:
        await self._loops.cancel(f"route:{way}")
        counts = self._routes.pop(way).mailbox.counts
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
                here = {name for name in self._wanted if not board.reach(name)}
                if here != board.hosts:
                    await self._arrange()

    async def _watch_relays(self, relays: RelayMap) -> None:
        """Find out for ever which hosts elsewhere share a node."""
        while True:
            await asyncio.sleep(ASK_S)
            here = self._board.hosts if self._board else frozenset()
            if await relays.renew(self._wanted.keys() - here):
                async with self._moving:
                    await self._arrange()

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
        if name.startswith(RELAY):
            assert self._relay_for is not None
            sink = self._relay_for(name.removeprefix(RELAY))
        else:
            sink = self._sink_for(name)
        return Route(
            name,
            sink,
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
