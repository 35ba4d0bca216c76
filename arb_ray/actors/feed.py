"""
The feed actor: one venue's sockets, books and snapshots, fanned out to strategy hosts.

It obeys a ``VenueFeed``, which knows the protocol, and keeps the newest book of every
instrument, so that a host that starts again is given the whole picture at once. Of what one turn
of the loop read, only the newest frame of each book is worked off (``FrameIntake``): a feed that
is slower than its socket falls behind in how much it sees, not in how old it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from arb_ray.actors.fan_out import FanOut
from arb_ray.actors.feed_metrics import FeedMetrics
from arb_ray.actors.feed_ports import Recorder, SnapshotSource, Socket, SocketConnection
from arb_ray.actors.hosting import Loops
from arb_ray.actors.wire import pack
from arb_ray.domain.book import BookUpdate
from arb_ray.domain.errors import ArbError
from arb_ray.domain.instrument import InstrumentId, VenueSymbol
from arb_ray.engine.feed import (
    NOTHING,
    BookChange,
    ConnectionPlan,
    Effect,
    FeedOutput,
    FetchSnapshot,
    Resubscribe,
    Rotate,
    VenueFeed,
)
from arb_ray.engine.frame_intake import FRAMES_MAX, FrameIntake
from arb_ray.engine.overload import Overload
from arb_ray.engine.status import FeedStatus
from arb_ray.ports import Clock, Metrics

SNAPSHOTS_AT_ONCE = 4
"""REST books fetched at the same time; the others wait, and the rate budget rules both."""

SOCKETS_PER_PLAN = 10_000_000
"""More than a plan can use up: one a second for four months."""

TICK_INTERVAL_S = 0.25
METRICS_INTERVAL_S = 2.0


class Feed:
    """Serve one venue."""

    def __init__(
        self,
        *,
        venue: str,
        venue_feed: VenueFeed,
        make_socket: Callable[[ConnectionPlan, Any], Socket],
        fetch_snapshot: SnapshotSource,
        fan_out: FanOut,
        recorder: Recorder | None,
        close_rest: Callable[[], Awaitable[None]],
        clock: Clock,
        metrics: Metrics,
        log: Any,
        rss_mb: Callable[[], float],
        must_share_memory: bool = False,
        loops: Loops | None = None,
    ) -> None:
        self._must_share_memory = must_share_memory
        self._venue = venue
        self._venue_feed = venue_feed
        self._make_socket = make_socket
        self._fetch_snapshot = fetch_snapshot
        self._fan_out = fan_out
        self._recorder = recorder
        self._close_rest = close_rest
        self._clock = clock
        self._mono_ns = clock.mono_ns
        self._metrics = metrics
        self._figures = FeedMetrics(metrics, venue)
        self._log = log
        self._rss_mb = rss_mb
        self._loops = loops or Loops()
        self._epoch = clock.now_ns()
        self._intake = FrameIntake(venue_feed.whole_book_of)
        self._overload = Overload()
        self._seq: dict[InstrumentId, int] = {}
        self._books: dict[InstrumentId, BookChange] = {}
        self._sockets: dict[int, Socket] = {}
        self._snapshot_slots = asyncio.Semaphore(SNAPSHOTS_AT_ONCE)
        self._snapshot_tasks: set[asyncio.Task[None]] = set()
        self._bug: BaseException | None = None
        fan_out.begin(self._epoch, self._again)
        self._cut_mono_ns: dict[int, int] = {}
        self._recovery_ms_max = 0.0
        self._book_updates = 0

    def start(self) -> None:
        """Open every planned connection, and start the clockwork."""
        for plan in self._venue_feed.plans():
            socket = self._make_socket(plan, PlanHandler(self, plan))
            self._sockets[plan.plan] = socket
            self._loops.start(f"socket:{plan.name}", socket.run())
        self._fan_out.start()
        if self._fan_out.plane_why:
            self._log.warning("plane_unavailable", venue=self._venue, cause=self._fan_out.plane_why)
        self._loops.start("tick", self._tick())
        self._loops.start("metrics", self._export())

    # -- what the supervisor asks -------------------------------------------------------

    async def set_routes(self, version: str, routes: dict[str, list[InstrumentId]]) -> None:
        """Serve these instruments to these hosts, and give each host the whole picture."""
        await self._fan_out.set_routes(version, routes)

    async def status(self) -> bytes:
        """Return an encoded ``FeedStatus``."""
        now_ns = self._clock.mono_ns()
        feed, counters = self._venue_feed, self._venue_feed.counters
        alive = feed.alive(now_ns)
        connected = bool(alive) and all(one.is_up for one in alive)
        why = self._why(connected=connected)
        status = FeedStatus(
            ready=not why,
            why=why,
            venue=self._venue,
            connected=connected,
            routes=self._fan_out.version,
            frames=counters.frames + self._intake.conflated,
            frames_conflated=self._intake.conflated,
            overloaded=self._overload.why,
            book_updates=self._book_updates,
            sent=self._fan_out.sent,
            conflated=self._fan_out.conflated,
            reconnects=sum(s.counters.reconnects for s in self._sockets.values()),
            gaps=counters.gaps,
            resyncs=counters.resyncs,
            malformed=counters.malformed,
            unknown=dict(counters.unknown),
            silent=list(feed.silent(now_ns)),
            clock_offset_ms=feed.clock().offset_ms,
            reconnect_ms_max=self._recovery_ms_max,
            queue=self._fan_out.pending,
            plane=self._fan_out.plane,
            plane_why=self._fan_out.plane_why,
            rss_mb=self._rss_mb(),
            born_ns=self._epoch,
        )
        return pack(status)

    async def stop(self) -> None:
        """Close the sockets, then everything else."""
        for socket in self._sockets.values():
            socket.stop()
        await self._loops.stop()
        await self._fan_out.stop()
        for task in self._snapshot_tasks:
            task.cancel()
        await asyncio.gather(*self._snapshot_tasks, return_exceptions=True)
        await self._close_rest()
        if self._recorder is not None:
            self._recorder.close()

    # -- what sockets tell --------------------------------------------------------------

    def on_connected(self, plan: ConnectionPlan, connection: SocketConnection) -> None:
        """Subscribe in full: nothing survives a reconnect."""
        number = socket_number(plan.plan, connection.id)
        output = self._venue_feed.on_connected(plan.plan, number, self._clock.mono_ns())
        for message in self._venue_feed.subscribe_messages(plan.plan):
            connection.send(message)
        self._log.info("ws_connected", venue=self._venue, plan=plan.name, connection=connection.id)
        self._obey(output)

    def on_frame(
        self, plan: int, connection: int, data: bytes, recv_wall_ns: int, recv_mono_ns: int
    ) -> None:
        """Take one frame."""
        if self._recorder is not None:
            self._recorder.frame(recv_wall_ns, data)
        intake = self._intake
        if not intake.waiting:
            asyncio.get_running_loop().call_soon(self._work_off)
        intake.put(plan, connection, data, recv_wall_ns, recv_mono_ns)
        if intake.waiting >= FRAMES_MAX:
            self._work_off()

    def on_alive(self, plan: int, connection: int, mono_ns: int) -> None:
        """Take a pong."""
        self._venue_feed.on_alive(plan, connection, mono_ns)

    def on_sent(self, text: str, wall_ns: int) -> None:
        """Write down what was sent."""
        if self._recorder is not None:
            self._recorder.sent(wall_ns, text)

    def on_disconnected(self, plan: ConnectionPlan, connection: int, reason: str) -> None:
        """Pass the loss on at once: stale books must not be traded on."""
        self._work_off()  # what came before the cut is older than the cut
        now_ns = self._clock.mono_ns()
        self._cut_mono_ns.setdefault(plan.plan, now_ns)
        self._log.warning("ws_disconnected", venue=self._venue, plan=plan.name, reason=reason)
        self._obey(self._venue_feed.on_disconnected(plan.plan, connection, now_ns))
        self._fan_out.hurry()

    def on_alarm(self, plan: ConnectionPlan, failures: int, problem: str) -> None:
        """Tell a person; the socket goes on trying."""
        self._metrics.inc("ws_alarms", venue=self._venue)
        self._log.error(
            "ws_unreachable",
            venue=self._venue,
            plan=plan.name,
            failures=failures,
            problem=problem,
        )

    # -- inside -------------------------------------------------------------------------

    def _work_off(self) -> None:
        """Take what this turn of the loop has read."""
        on_frame = self._venue_feed.on_frame
        try:
            for one in self._intake.take():
                output = on_frame(
                    one.plan, one.connection, one.raw, one.recv_wall_ns, one.recv_mono_ns
                )
                if output is not NOTHING:
                    self._obey(output, one.overwrote)
        except Exception as error:
            # The event loop would only log it.
            self._loops.fail("frames", error)
            raise

    def _obey(self, output: FeedOutput, overwrote: int = 0) -> None:
        if output.books:
            self._publish(output.books, overwrote)
        if output.funding:
            self._fan_out.offer_funding(output.funding)
        for effect in output.effects:
            self._carry_out(effect)

    def _publish(self, changes: Sequence[BookChange], overwrote: int) -> None:
        now_ns = self._mono_ns()
        for change in changes:
            self._books[change.instrument] = change
            self._fan_out.offer(self._update(change, now_ns, overwrote), now_ns)
            if self._cut_mono_ns and change.bids and change.plan in self._cut_mono_ns:
                self._note_recovery(change)
        self._book_updates += len(changes)

    def _update(self, change: BookChange, now_ns: int, overwrote: int = 0) -> BookUpdate:
        seq = self._seq.get(change.instrument, 0) + 1 + overwrote
        self._seq[change.instrument] = seq
        return BookUpdate(
            change.instrument,
            self._epoch,
            seq,
            change.plan,
            change.recv_wall_ns,
            change.exchange_ns,
            now_ns - change.recv_mono_ns,
            change.bids,
            change.asks,
        )

    def _again(self, instruments: Iterable[InstrumentId]) -> Iterable[BookUpdate]:
        now_ns = self._clock.mono_ns()
        known = (self._books.get(one) for one in instruments)
        return [self._update(change, now_ns) for change in known if change is not None]

    def _note_recovery(self, change: BookChange) -> None:
        cut_ns = self._cut_mono_ns.pop(change.plan)
        self._recovery_ms_max = max(self._recovery_ms_max, (change.recv_mono_ns - cut_ns) / 1e6)
        self._metrics.set("ws_recovery_ms", (change.recv_mono_ns - cut_ns) / 1e6, venue=self._venue)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case FetchSnapshot(venue_symbol=venue_symbol):
                task = asyncio.get_running_loop().create_task(self._snapshot(venue_symbol))
                self._snapshot_tasks.add(task)
                task.add_done_callback(self._snapshot_done)
            case Rotate(plan=plan, connection=connection, reason=reason):
                self._log.info("ws_rotates", venue=self._venue, plan=plan, reason=reason)
                for one in self._connections(plan, connection):
                    self._sockets[plan].request_rotation(one)
            case Resubscribe(plan=plan, connection=connection, messages=messages, reason=reason):
                self._log.warning("ws_resubscribes", venue=self._venue, plan=plan, reason=reason)
                for one in self._connections(plan, connection):
                    for message in messages:
                        one.send(message)
            case _:
                raise AssertionError(f"no rule for {effect}")

    def _connections(self, plan: int, connection: int) -> Iterable[Any]:
        sockets = self._sockets[plan].connections
        return [one for one in sockets if socket_number(plan, one.id) == connection]

    async def _snapshot(self, venue_symbol: VenueSymbol) -> None:
        async with self._snapshot_slots:
            try:
                raw = await self._fetch_snapshot(venue_symbol)
            except ArbError as error:
                self._log.warning("snapshot_failed", venue=self._venue, cause=str(error))
                self._venue_feed.on_snapshot_failed(venue_symbol, self._clock.mono_ns())
                return
            self._obey(
                self._venue_feed.on_snapshot(
                    venue_symbol, raw, self._clock.now_ns(), self._clock.mono_ns()
                )
            )

    def _snapshot_done(self, task: asyncio.Task[None]) -> None:
        self._snapshot_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug, not the network: the tick loop raises it, which ends the process.
            self._bug = error

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            await asyncio.sleep(TICK_INTERVAL_S)
            if self._bug is not None:
                raise self._bug
            self._look_at_load((loop.time() - began_s - TICK_INTERVAL_S) * 1e3)
            self._obey(self._venue_feed.on_tick(self._clock.mono_ns()))
            for complaint in self._venue_feed.counters.take_complaints():
                self._log.warning(
                    "venue_complaint", venue=self._venue, **msgspec.to_builtins(complaint)
                )
            if self._recorder is not None:
                self._recorder.flush()

    def _look_at_load(self, loop_lag_ms: float) -> None:
        worked_off, now_ns = self._venue_feed.counters.frames, self._clock.mono_ns()
        if not self._overload.look(now_ns, worked_off, self._intake.conflated, loop_lag_ms):
            return
        if self._overload.is_overloaded:
            self._log.warning("overloaded", venue=self._venue, cause=self._overload.why)
        else:
            self._log.info("overload_over", venue=self._venue)

    def _why(self, *, connected: bool) -> str:
        if not connected:
            return "no connection"
        if not self._fan_out.version:
            return "no routes yet"
        if self._must_share_memory and self._fan_out.plane_why:
            return f"topology.tick_plane is shm: {self._fan_out.plane_why}"
        missing = self._missing()
        return f"no book yet for {missing[:5]}" if missing else ""

    def _missing(self) -> list[str]:
        wanted = self._fan_out.instruments()
        return sorted(one for one in wanted if not self._has_book(one))

    def _has_book(self, instrument: InstrumentId) -> bool:
        book = self._books.get(instrument)
        return book is not None and bool(book.bids)

    async def _export(self) -> None:
        while True:
            await asyncio.sleep(METRICS_INTERVAL_S)
            feed, told, now_ns = self._venue_feed, self._figures, self._clock.mono_ns()
            told.connections(feed.alive(now_ns))
            told.sockets(socket.counters for socket in self._sockets.values())
            told.protocol(feed.counters, self._book_updates)
            told.load(self._intake.conflated, is_overloaded=self._overload.is_overloaded)
            told.books(
                stale=len(self._missing()),
                silent=len(feed.silent(now_ns)),
                rest_used_ratio=self._fetch_snapshot.used_ratio,
            )
            told.clock(feed.clock())
            told.fan_out(self._fan_out)


def socket_number(plan: int, connection: int) -> int:
    """Return a number that is unique in the feed; a transport numbers within its own plan."""
    return plan * SOCKETS_PER_PLAN + connection


class PlanHandler:
    """The transport's handler for one planned connection."""

    def __init__(self, feed: Feed, plan: ConnectionPlan) -> None:
        self._feed = feed
        self._plan = plan
        self._on_frame = feed.on_frame
        self._number = plan.plan
        self._first_number = socket_number(plan.plan, 0)

    def on_connected(self, connection: SocketConnection) -> None:
        """Pass on."""
        self._feed.on_connected(self._plan, connection)

    def on_frame(
        self, connection: SocketConnection, data: bytes, recv_wall_ns: int, recv_mono_ns: int
    ) -> None:
        """Pass on."""
        number = self._first_number + connection.id
        self._on_frame(self._number, number, data, recv_wall_ns, recv_mono_ns)

    def on_alive(self, connection: SocketConnection, mono_ns: int) -> None:
        """Pass on."""
        number = socket_number(self._plan.plan, connection.id)
        self._feed.on_alive(self._plan.plan, number, mono_ns)

    def on_sent(self, connection: SocketConnection, text: str, wall_ns: int) -> None:
        """Pass on."""
        self._feed.on_sent(text, wall_ns)

    def on_disconnected(self, connection: SocketConnection, loss: Any) -> None:
        """Pass on."""
        number = socket_number(self._plan.plan, connection.id)
        self._feed.on_disconnected(self._plan, number, f"{loss.reason}: {loss.detail}")

    def on_alarm(self, failures: int, problem: str) -> None:
        """Pass on."""
        self._feed.on_alarm(self._plan, failures, problem)
