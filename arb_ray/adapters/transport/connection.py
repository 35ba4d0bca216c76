"""
One live WebSocket connection: reading, sending within the budget, proving it is alive.

A library's keepalive is switched off and replaced by ours, for three reasons. It counts
only pongs, so a socket full of frames whose pong is queued behind them would be closed; ours
takes any frame or pong as life. Its pings would bypass the message budget, and Binance counts
pings among the incoming messages that it limits. And its time-out waits for a closing
handshake, which a dead network never finishes. The server's own pings are still answered by
the library, inside its protocol layer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Protocol

from arb_ray.adapters.transport.connection_policy import (
    ConnectionPolicy,
    Counters,
    Loss,
    Reason,
)
from arb_ray.adapters.transport.rate_limit import Budget
from arb_ray.adapters.transport.wire import Wire, WireClosed
from arb_ray.domain.errors import RateLimited

# A keeper that wakes this late was not scheduled: frames may be waiting unread in the kernel,
# and silence is judged only after the loop has had GRACE_S to read them.
OVERSLEPT_S = 0.5
GRACE_S = 0.1


class Handler(Protocol):
    """
    The consumer, called directly on the event loop: no queue lies between socket and book.

    The methods must not block. What they raise is a bug and ends the client's ``run``. For
    one connection the calls are ``on_connected``, then frames and pongs, then one
    ``on_disconnected``; during a rotation two connections interleave, told apart by ``id``.
    """

    def on_connected(self, connection: Connection) -> None:
        """Subscribe here, in full, on each connection: nothing survives a reconnect."""

    def on_frame(
        self, connection: Connection, data: bytes, recv_wall_ns: int, recv_mono_ns: int
    ) -> None:
        """
        Take one message, text or binary alike as bytes; it also proves the connection alive.

        The stamps are of the socket read that completed it, taken before any parsing.
        """

    def on_alive(self, connection: Connection, mono_ns: int) -> None:
        """Take a pong: the connection is alive although it had nothing to say."""

    def on_sent(self, connection: Connection, text: str, wall_ns: int) -> None:
        """Take note that a message of ``send`` went out (a recording wants to know)."""

    def on_disconnected(self, connection: Connection, loss: Loss) -> None:
        """Take the end; no frame of this connection follows."""

    def on_alarm(self, failures: int, problem: str) -> None:
        """Tell a person: so many failures in a row. The client goes on trying regardless."""


class Connection:
    """
    One open connection, as the consumer sees it and as the client runs it.

    ``id`` counts up from 1 within one client. ``outage_ns`` is the time from the noticed loss
    of the last connection to this one's opening, None for the first one and for a rotation.
    """

    def __init__(
        self,
        *,
        ident: int,
        wire: Wire,
        policy: ConnectionPolicy,
        handler: Handler,
        counters: Counters,
        wall_ns: Callable[[], int],
        mono_ns: Callable[[], int],
    ) -> None:
        self.id = ident
        self.opened_mono_ns = mono_ns()
        self.last_alive_mono_ns = self.opened_mono_ns
        self.outage_ns: int | None = None
        self.is_open = True
        self.is_ageing = False  # a successor is wanted or already here
        self._wire = wire
        self._policy = policy
        self._handler = handler
        self._on_frame = handler.on_frame
        self._counters = counters
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._budget = Budget(policy.message_windows)
        self._pending: deque[str] = deque()
        self._pings_due: deque[str | None] = deque()  # None is a protocol ping
        self._to_write = asyncio.Event()
        self._pong = asyncio.Event()
        self._ended: asyncio.Future[Loss] = asyncio.get_running_loop().create_future()

    def send(self, text: str) -> None:
        """
        Queue a text message; it leaves when the message budget allows, in order.

        On a connection that has ended it is dropped and counted: the next one subscribes in
        full anyway.

        Raises:
            RateLimited: ``pending_messages_max`` messages are waiting; this one was not taken.
        """
        if not self.is_open:
            self._counters.sends_dropped += 1
            return
        if len(self._pending) >= self._policy.pending_messages_max:
            self._counters.sends_refused += 1
            wait_s = self._budget.delay_s(self._mono_ns() / 1e9)
            # We say it in the venue's stead, with the status that it would use.
            raise RateLimited(self._policy.venue, 429, wait_s)
        self._pending.append(text)
        self._to_write.set()

    def end(self, reason: Reason, detail: str) -> None:
        """Ask for the end; ``serve`` returns it. Repeats and late calls change nothing."""
        if not self._ended.done():
            self._ended.set_result(self._loss(reason, None, detail))

    async def serve(self) -> Loss:
        """
        Deliver frames until the connection ends, and return why.

        The socket is left to ``close``. Only bugs (of the handler, of ours) are raised.
        """
        reader = asyncio.create_task(self._read())
        keeper = asyncio.create_task(self._keep())
        writer = asyncio.create_task(self._write(reader))
        # The reader stands first: it knows the close code when several end together.
        ends: tuple[asyncio.Future[Loss], ...] = (reader, keeper, writer, self._ended)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_open = False
            self._counters.sends_dropped += len(self._pending)
            finished = [end for end in ends if end.done()]
            for task in (reader, keeper, writer):
                task.cancel()
            await asyncio.gather(reader, keeper, writer, return_exceptions=True)
        # Each is asked, so that a bug beside an ordinary end is raised too.
        losses = [end.result() for end in finished]
        return losses[0]

    async def close(self) -> None:
        """Close the wire, politely if the peer answers within ``close_timeout_s``."""
        self.is_open = False
        await self._wire.close(self._policy.close_timeout_s)

    async def _read(self) -> Loss:
        end = await self._wire.read(self._take)
        self._counters.oversize += end.reason is Reason.OVERSIZE
        return self._loss(end.reason, end.code, end.detail)

    def _take(self, data: bytes, read_wall_ns: int, read_mono_ns: int) -> None:
        # As bytes, text or not: the decoders want bytes, and a text message that is not UTF-8
        # is a malformed frame for the codec to count, not a reason to reconnect.
        self.last_alive_mono_ns = read_mono_ns
        counters = self._counters
        counters.frames += 1
        counters.bytes += len(data)
        self._on_frame(self, data, read_wall_ns, read_mono_ns)

    async def _write(self, reader: asyncio.Task[Loss]) -> Loss:
        try:
            while True:
                await self._to_write.wait()
                if (wait_s := self._budget.delay_s(self._mono_ns() / 1e9)) > 0:
                    await asyncio.sleep(wait_s)
                elif self._pings_due:
                    await self._send_ping(self._pings_due.popleft())
                elif self._pending:
                    text = self._pending.popleft()
                    self._spend()
                    await self._wire.send(text)
                    self._counters.sent += 1
                    self._handler.on_sent(self, text, self._wall_ns())
                else:
                    self._to_write.clear()
        except WireClosed:
            # The reader meets the same end behind the last frames, and knows its close code.
            await asyncio.wait({reader})
            return reader.result()

    async def _send_ping(self, payload: str | None) -> None:
        self._spend()
        self._counters.pings += 1
        if payload is None:
            await self._wire.ping(self._note_pong)
        else:
            await self._wire.send(payload)

    def _spend(self) -> None:
        self._budget.spend(self._mono_ns() / 1e9)

    def _note_pong(self) -> None:
        # The handler is called by the keeper: this comes from within the library.
        self._counters.pongs += 1
        self.last_alive_mono_ns = max(self.last_alive_mono_ns, self._mono_ns())
        self._pong.set()

    async def _keep(self) -> Loss:
        """Ask for pings when they are due and judge silence; never waits for the network."""
        policy = self._policy
        silence_ns = int(policy.silence_timeout_s * 1e9)
        every_ns: dict[str | None, int] = {}
        if policy.ping_interval_s is not None:
            every_ns[None] = int(policy.ping_interval_s * 1e9)
        if policy.text_ping is not None:
            every_ns[policy.text_ping] = int(policy.text_ping_interval_s * 1e9)
        due_ns = {payload: self.opened_mono_ns + each for payload, each in every_ns.items()}
        while True:
            wake_ns = min([self.last_alive_mono_ns + silence_ns, *due_ns.values()])
            await self._wait_for_pong((wake_ns - self._mono_ns()) / 1e9)
            now_ns = self._mono_ns()
            if now_ns - self.last_alive_mono_ns >= silence_ns:
                if now_ns - wake_ns > OVERSLEPT_S * 1e9:
                    await asyncio.sleep(GRACE_S)
                if self._mono_ns() - self.last_alive_mono_ns >= silence_ns:
                    self._counters.silence_timeouts += 1
                    detail = f"no frame and no pong in {policy.silence_timeout_s:g} s"
                    return self._loss(Reason.SILENCE, None, detail)
            for payload, at_ns in due_ns.items():
                if now_ns >= at_ns:
                    due_ns[payload] = now_ns + every_ns[payload]
                    self._ask_ping(payload)

    def _ask_ping(self, payload: str | None) -> None:
        if payload not in self._pings_due:  # one of each kind may wait for the budget
            self._pings_due.append(payload)
            self._to_write.set()

    async def _wait_for_pong(self, at_most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, at_most_s)):
                await self._pong.wait()
        if self._pong.is_set():
            self._pong.clear()
            self._handler.on_alive(self, self.last_alive_mono_ns)

    def _loss(self, reason: Reason, code: int | None, detail: str) -> Loss:
        return Loss(reason, code, detail[:200], self._mono_ns())
