"""
The one WebSocket client: it reconnects for ever, and rotates without a gap.

``run`` keeps one good connection open. A network failure, whatever it is, leads to the next
attempt, after the backoff and within the connect budget; an alarm tells when many failed in a
row. Only a bug (the handler raised) or the caller's ``stop`` ends ``run``.

A connection that is too old, or of which ``request_rotation`` was asked, is replaced by
overlap: its successor is opened and subscribed while it still delivers; it is closed when the
consumer retires it or the overlap time is over, and never while it is the only one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from arb_ray.adapters.transport.backoff import Backoff
from arb_ray.adapters.transport.connection import (
    Connection,
    Handler,
)
from arb_ray.adapters.transport.connection_policy import (
    ConnectionPolicy,
    Counters,
    Loss,
    Reason,
)
from arb_ray.adapters.transport.rate_limit import Budget
from arb_ray.adapters.transport.wire import Clocks, ConnectFailed, Wire
from arb_ray.adapters.transport.wire_choice import opener_of

__all__ = [
    "Connection",
    "ConnectionPolicy",
    "Counters",
    "Handler",
    "Loss",
    "Reason",
    "ReconnectingWebSocket",
]


class ReconnectingWebSocket:
    """
    Keep a subscribed connection to ``policy.url`` and deliver its frames to ``handler``.

    ``connect_budget`` may be shared by the clients of one process, because venues limit
    connection attempts by IP address; without it the policy's windows make one.
    ``rng`` draws the jitter; the clocks are ``time.time_ns`` and ``time.monotonic_ns``.
    """

    def __init__(
        self,
        policy: ConnectionPolicy,
        handler: Handler,
        *,
        connect_budget: Budget | None = None,
        rng: random.Random | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.counters = Counters()
        self._policy = policy
        self._handler = handler
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._connect_budget = connect_budget or Budget(policy.connect_windows)
        uniform = (rng or random.SystemRandom()).random
        self._backoff = Backoff(policy.backoff, uniform)
        self._delay_s = 0.0  # before the next attempt
        self._open_wire = opener_of(policy)
        self._opener: asyncio.Task[Wire | ConnectFailed] | None = None
        self._serving: dict[asyncio.Task[Loss], Connection] = {}
        # Sockets on their way out; each is gone within twice the close time-out.
        self._closing: set[asyncio.Task[None]] = set()
        self._uncovered_since_ns: int | None = None
        self._changed = asyncio.Event()
        self._stopping = False
        self._running = False

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Return the open connections, oldest first: none, one, or two in a rotation."""
        return tuple(self._serving.values())

    @property
    def failures(self) -> int:
        """Return the failures in a row (attempts, and connections that died young)."""
        return self._backoff.failures

    async def run(self) -> None:
        """
        Serve until ``stop`` or cancellation; then close what is open.

        Raises:
            Exception: What the handler raised, unchanged. Never a network failure.
        """
        assert not self._running, "one run at a time"
        self._running, self._stopping = True, False
        self._changed.clear()
        try:
            while not self._stopping:
                await self._wait_for_change(self._reconcile())
                self._collect()
        except BaseException as end:
            # After a bug the handler is in an unknown state and is not called again.
            await self._shut_down(tell=isinstance(end, asyncio.CancelledError))
            raise
        else:
            await self._shut_down(tell=True)
        finally:
            self._running = False

    def stop(self) -> None:
        """Ask ``run`` to close everything and return."""
        self._stopping = True
        self._changed.set()

    def send(self, connection: Connection, text: str) -> None:
        """Queue a text message on one connection: see ``Connection.send``."""
        connection.send(text)

    def request_rotation(self, connection: Connection) -> None:
        """
        Replace a connection by overlap (Binance's serverShutdown).

        Asked of a connection that is not yet stable it counts as a failure and is backed off:
        a venue that says goodbye to every newcomer must not make us spin.
        """
        if not connection.is_open or connection.is_ageing:
            return
        connection.is_ageing = True
        uptime_s = (self._mono_ns() - connection.opened_mono_ns) / 1e9
        if uptime_s < self._policy.backoff.stable_s:
            self._delay_s = self._backoff.lost(uptime_s)
        self._changed.set()

    def retire(self, connection: Connection, why: str) -> None:
        """
        Close a connection now.

        After a rotation: the successor has delivered all that the old one did. Otherwise:
        the consumer gives it up, which is a failure like any loss and is backed off.
        """
        connection.end(Reason.RETIRED, why)

    def _reconcile(self) -> float | None:
        """Compare what is with what should be, act, and return the seconds to the next look."""
        now_ns = self._mono_ns()
        deadlines_ns: list[int] = []
        fresh: list[Connection] = []
        for connection in self.connections:
            if self._policy.max_age_s is not None and not connection.is_ageing:
                old_ns = connection.opened_mono_ns + int(self._policy.max_age_s * 1e9)
                connection.is_ageing = now_ns >= old_ns
                deadlines_ns.append(old_ns)
            if not connection.is_ageing:
                fresh.append(connection)
        if not fresh:
            if self._opener is None:
                self._opener = asyncio.create_task(self._open(self._delay_s))
            return None  # the opener's end or an event will wake us
        over_ns = fresh[-1].opened_mono_ns + int(self._policy.overlap_s * 1e9)
        for connection in self.connections:
            if connection.is_ageing and now_ns >= over_ns:
                connection.end(Reason.RETIRED, "replaced by a newer connection")
            elif connection.is_ageing:
                deadlines_ns.append(over_ns)
        waits_s = [max(0.0, (at_ns - now_ns) / 1e9) for at_ns in deadlines_ns]
        return min(waits_s, default=None)

    async def _wait_for_change(self, at_most_s: float | None) -> None:
        changed = asyncio.create_task(self._changed.wait())
        watched: set[asyncio.Task[object]] = {changed, *self._serving}
        if self._opener is not None:
            watched.add(self._opener)
        try:
            await asyncio.wait(watched, timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            self._changed.clear()

    def _collect(self) -> None:
        """Take the ends of connections, then the opener's result; raises a handler's bug."""
        for task in [task for task in self._serving if task.done()]:
            connection = self._serving.pop(task)
            self._close_later(connection)
            self._lost(connection, task.result())
        if self._opener is not None and self._opener.done():
            opener, self._opener = self._opener, None
            opened = opener.result()
            if isinstance(opened, ConnectFailed):
                self._failed(opened)
            else:
                self._connected(opened)

    async def _open(self, delay_s: float) -> Wire | ConnectFailed:
        await asyncio.sleep(delay_s)
        # Others may share the budget, so its answer after a sleep can be another sleep.
        while (  # noqa: ASYNC110
            wait_s := self._connect_budget.delay_s(self._mono_ns() / 1e9)
        ) > 0:
            await asyncio.sleep(wait_s)
        self._connect_budget.spend(self._mono_ns() / 1e9)
        try:
            return await self._open_wire(self._policy, Clocks(self._wall_ns, self._mono_ns))
        except ConnectFailed as failure:
            return failure

    def _connected(self, wire: Wire) -> None:
        self.counters.connects += 1
        connection = Connection(
            ident=self.counters.connects,
            wire=wire,
            policy=self._policy,
            handler=self._handler,
            counters=self.counters,
            wall_ns=self._wall_ns,
            mono_ns=self._mono_ns,
        )
        self._delay_s = 0.0
        for older in self.connections[:-1]:
            older.end(Reason.RETIRED, "two connections at most")
        if self._serving:
            self.counters.rotations += 1
        elif self._uncovered_since_ns is not None:
            self.counters.reconnects += 1
            connection.outage_ns = connection.opened_mono_ns - self._uncovered_since_ns
            outage_ms = connection.outage_ns / 1e6
            self.counters.last_outage_ms = outage_ms
            self.counters.max_outage_ms = max(self.counters.max_outage_ms, outage_ms)
        try:
            self._handler.on_connected(connection)
        except BaseException:
            self._close_later(connection)
            raise
        self._serving[asyncio.create_task(connection.serve())] = connection

    def _lost(self, connection: Connection, loss: Loss) -> None:
        if not self._serving:
            self._uncovered_since_ns = loss.mono_ns
        replaced = connection.is_ageing and any(not c.is_ageing for c in self.connections)
        if loss.reason is not Reason.RETIRED:
            self.counters.losses += 1
        if not replaced:
            uptime_s = (loss.mono_ns - connection.opened_mono_ns) / 1e9
            self._delay_s = self._backoff.lost(uptime_s)
        self._handler.on_disconnected(connection, loss)
        if not replaced:
            self._maybe_alarm(f"{loss.reason}: {loss.detail}")

    def _failed(self, failure: ConnectFailed) -> None:
        self.counters.connect_failures += 1
        self._delay_s = max(self._backoff.failed(), failure.retry_after_s)
        self._maybe_alarm(failure.problem)

    def _maybe_alarm(self, problem: str) -> None:
        if self._backoff.failures % self._policy.alarm_after_failures == 0:
            self.counters.alarms += 1
            self._handler.on_alarm(self._backoff.failures, problem)

    def _close_later(self, connection: Connection) -> None:
        task = asyncio.create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _shut_down(self, *, tell: bool) -> None:
        if self._opener is not None:
            self._opener.cancel()
            opened = (await asyncio.gather(self._opener, return_exceptions=True))[0]
            if not isinstance(opened, BaseException):
                await opened.close(self._policy.close_timeout_s)
            self._opener = None
        serving, self._serving = self._serving, {}
        for task, connection in serving.items():
            connection.end(Reason.STOPPED, "the client was stopped")
            self._close_later(connection)
            if not tell:
                task.cancel()
        for connection, loss in zip(
            serving.values(), await asyncio.gather(*serving, return_exceptions=True), strict=True
        ):
            if isinstance(loss, Loss) and tell:
                self._handler.on_disconnected(connection, loss)
        await asyncio.gather(*self._closing)
