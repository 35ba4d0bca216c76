"""
The wire of the ``websockets`` library, with its queue and its reader's wake-ups taken out.

``recv()`` costs a future, a queue and a turn of the loop per message, half of what the library
costs at all. Here the frame goes to the consumer from within the library's own callback;
parsing, closing handshake and pings stay the library's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event

from arb_ray.adapters.transport.connection_policy import ConnectionPolicy, Reason
from arb_ray.adapters.transport.wire import (
    Clocks,
    ConnectFailed,
    End,
    Inbox,
    Take,
    WireClosed,
    proxy_of,
    retry_after_s,
)

_DATA = (Opcode.TEXT, Opcode.BINARY)


class _Direct(ClientConnection):
    """The library's connection, handing its data frames over at once."""

    inbox: Inbox

    def data_received(self, data: bytes) -> None:
        """Stamp, then parse."""
        self.inbox.stamp()
        super().data_received(data)

    def process_event(self, event: Event) -> None:
        """Take data frames; the handshake's answer, pongs and closing are the library's."""
        if type(event) is not Frame:
            super().process_event(event)
        elif event.opcode in _DATA and event.fin:
            # The library forbids a new message within a fragmented one, and bounds their sum.
            self.inbox.message(bytes(event.data))
        elif event.opcode in _DATA or event.opcode is Opcode.CONT:
            is_first = event.opcode is not Opcode.CONT
            self.inbox.fragment(bytes(event.data), is_first=is_first, is_last=event.fin)
        else:
            super().process_event(event)


class WebsocketsWire:
    """One open connection of the library; see ``Wire``."""

    def __init__(self, socket: _Direct) -> None:
        self._socket = socket
        self._inbox = socket.inbox

    async def read(self, take: Take) -> End:
        """Deliver until the end."""
        self._inbox.start(take)
        gone = asyncio.ensure_future(self._socket.wait_closed())
        try:
            ends: tuple[asyncio.Future[Any], ...] = (gone, self._inbox.ended)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._inbox.ended.done():
                return self._inbox.ended.result()
            return self._end()
        finally:
            self._inbox.stop()
            gone.cancel()

    async def send(self, text: str) -> None:
        """Write a text message."""
        try:
            await self._socket.send(text)
        except ConnectionClosed as closed:
            raise WireClosed from closed

    async def ping(self, on_pong: Callable[[], None]) -> None:
        """Write a ping."""
        try:
            pong = await self._socket.ping()
        except ConnectionClosed as closed:
            raise WireClosed from closed
        assert isinstance(pong, asyncio.Future)

        def told(pong: asyncio.Future[float]) -> None:
            if not pong.cancelled() and pong.exception() is None:
                on_pong()

        pong.add_done_callback(told)

    async def close(self, timeout_s: float) -> None:
        """Close the socket."""
        # The library bounds only the handshake; a full write buffer would hold it for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * timeout_s):
                await self._socket.close()
        self._socket.transport.abort()
        await self._socket.wait_closed()

    def _end(self) -> End:
        closed = self._socket.protocol.close_exc
        ours, theirs = closed.sent, closed.rcvd
        if theirs is not None and (ours is None or closed.rcvd_then_sent):
            return End(Reason.CLOSED, theirs.code, theirs.reason)
        if ours is not None and ours.code == CloseCode.MESSAGE_TOO_BIG:
            return End(Reason.OVERSIZE, None, ours.reason)
        if ours is not None:
            return End(Reason.PROTOCOL, None, f"{ours.code.real} {ours.reason}")
        return End(Reason.CUT, None, str(closed.__cause__ or "end of stream"))


async def open_websockets(policy: ConnectionPolicy, clocks: Clocks) -> WebsocketsWire:
    """
    Open a connection.

    Raises:
        ConnectFailed: It did not come about, whatever the cause.
    """

    def make(*args: Any, **kwargs: Any) -> _Direct:
        socket = _Direct(*args, **kwargs)
        socket.inbox = Inbox(policy.max_frame_bytes, clocks)
        return socket

    try:
        socket = await connect(
            policy.url,
            # No Origin header: Upbit puts whoever sends one into a group of one request
            # in ten seconds (docs.upbit.com, rate limits).
            origin=None,
            compression="deflate" if policy.compression else None,
            proxy=proxy_of(policy.url),
            open_timeout=policy.connect_timeout_s,
            ping_interval=None,  # see the head of connection.py
            close_timeout=policy.close_timeout_s,
            max_size=policy.max_frame_bytes,
            create_connection=cast("type[ClientConnection]", make),
        )
    except InvalidStatus as refused:
        asked = refused.response.headers.get("Retry-After")
        asked_s = retry_after_s(asked, policy.retry_after_max_s)
        raise ConnectFailed(str(refused), asked_s) from refused
    except (OSError, TimeoutError, WebSocketException) as failure:
        raise ConnectFailed(f"{type(failure).__name__}: {failure}") from failure
    assert isinstance(socket, _Direct)
    return WebsocketsWire(socket)
