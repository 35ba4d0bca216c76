"""
The wire of ``picows``, an optional extra (``pip install .[fast]``): a parser in C.

The library leaves more to its user than ``websockets`` does, and that part is here: putting
fragments together within the bound, answering a close frame, waiting while the write buffer
is full, and cleaning up after an attempt that was given up. It has no compression.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSParsedURL,
    WSProtocolError,
    WSTransport,
    ws_connect,
)
from python_socks import ProxyError

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

NO_STATUS = 1005
"""What RFC 6455 calls a close frame without a code."""

READ_BUFFER_BYTES = 1 << 16
"""Room for a burst of some hundred frames in one read; it grows where a frame needs more."""

MAX_PINGS_UNDER_WAY = 16
"""Pings that wait for their pong; an answer to one older than these proves nothing."""

CLOSING_TURNS = 10
"""Turns of the loop that an attempt's transport gets to close its socket."""

_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
_PONG, _CLOSE = WSMsgType.PONG, WSMsgType.CLOSE


class _Attempt:
    """The sockets of one attempt, the transports that were made of them, and its end."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self._transports: list[WSTransport] = []
        self._is_given_up = False

    def connected(self, transport: WSTransport) -> None:
        """Let the transport wait, unread, for somebody who takes what comes."""
        if self._is_given_up:
            transport.disconnect(graceful=False)
            return
        self._transports.append(transport)
        transport.underlying_transport.pause_reading()

    async def give_up(self) -> None:
        """Close everything, in whatever state it is."""
        self._is_given_up = True
        for transport in self._transports:
            if not transport.is_disconnected:
                transport.disconnect(graceful=False)
        # One that still waits for its handshake is not ours yet; an end of stream makes the
        # library close the socket, in a turn or two of the loop.
        for one in self.sockets:
            with contextlib.suppress(OSError):  # it never got as far, or is gone
                one.shutdown(socket.SHUT_RDWR)
        for _ in range(CLOSING_TURNS):
            if all(one.fileno() < 0 for one in self.sockets):
                return
            await asyncio.sleep(0)
        for one in self.sockets:
            one.close()  # no transport was made of it


class _Listener(WSListener):
    """What the library calls, all on the event loop."""

    def __init__(self, attempt: _Attempt, max_message_bytes: int, clocks: Clocks) -> None:
        super().__init__()
        self._attempt = attempt
        self.inbox = Inbox(max_message_bytes, clocks)
        self._max_message_bytes = max_message_bytes
        self.writable = asyncio.Event()
        self.writable.set()
        self.gone = asyncio.Event()
        self.closed: End | None = None  # the peer's goodbye
        self.pongs: dict[bytes, Callable[[], None]] = {}  # what to call, by the ping's payload
        self._transport: WSTransport | None = None
        self._is_new_read = True

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Read no further until somebody takes what comes."""
        self._transport = transport
        self._attempt.connected(transport)

    def start(self, take: Take) -> None:
        """Deliver from now on."""
        self.inbox.start(take)
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.underlying_transport.resume_reading()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame; the stamp is of the read that brought it, not of its turn."""
        inbox = self.inbox
        if self._is_new_read:
            inbox.stamp()
        self._is_new_read = frame.last_in_buffer
        kind = frame.msg_type
        if frame.payload_size > self._max_message_bytes:
            return  # refused by the parser already, which yet delivers it if it comes at once
        if (kind is _TEXT or kind is _BINARY) and frame.fin:
            inbox.message(frame.get_payload_as_bytes())
        else:
            self._other(transport, frame, kind)

    def _other(self, transport: WSTransport, frame: WSFrame, kind: WSMsgType) -> None:
        data = frame.get_payload_as_bytes()
        if kind in {_TEXT, _BINARY, _CONTINUATION}:
            first = kind is not _CONTINUATION
            if not self.inbox.fragment(data, is_first=first, is_last=frame.fin):
                raise WSProtocolError(WSCloseCode.MESSAGE_TOO_BIG, "fragments exceed the bound")
        elif kind is _PONG:
            if (told := self.pongs.pop(data, None)) is not None:
                told()
        elif kind is _CLOSE:
            code = int.from_bytes(data[:2], "big") if data else NO_STATUS
            if self.closed is None and not transport.is_close_frame_sent:
                self.closed = End(Reason.CLOSED, code, data[2:].decode("utf-8", "replace"))
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Let go of whoever waits."""
        self.pongs.clear()
        self.gone.set()
        self.writable.set()

    def pause_writing(self) -> None:
        """The write buffer is full."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """The write buffer has room."""
        self.writable.set()


class PicowsWire:
    """One open connection of the library; see ``Wire``."""

    def __init__(self, transport: WSTransport, listener: _Listener) -> None:
        self._transport = transport
        self._listener = listener
        self._pings = 0

    async def read(self, take: Take) -> End:
        """Deliver until the end."""
        inbox = self._listener.inbox
        self._listener.start(take)
        gone = asyncio.ensure_future(self._listener.gone.wait())
        try:
            ends: tuple[asyncio.Future[Any], ...] = (gone, inbox.ended)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if inbox.ended.done():
                return inbox.ended.result()
            return await self._end()
        finally:
            inbox.stop()
            gone.cancel()

    async def send(self, text: str) -> None:
        """Write a text message."""
        self._transport.send(_TEXT, text.encode())
        await self._drained()

    async def ping(self, on_pong: Callable[[], None]) -> None:
        """Write a ping."""
        self._pings += 1
        payload = self._pings.to_bytes(8, "big")
        pongs = self._listener.pongs
        pongs[payload] = on_pong
        if len(pongs) > MAX_PINGS_UNDER_WAY:
            del pongs[next(iter(pongs))]
        self._transport.send_ping(payload)
        await self._drained()

    async def close(self, timeout_s: float) -> None:
        """Close the socket."""
        if not self._listener.gone.is_set():
            self._listener.inbox.stop()
            self._resume()
            if not self._transport.is_close_frame_sent:
                self._transport.send_close(WSCloseCode.OK)
            await self._is_gone_within(timeout_s)
        if not self._listener.gone.is_set():
            self._transport.disconnect(graceful=False)
            await self._listener.gone.wait()

    async def _drained(self) -> None:
        await self._listener.writable.wait()
        if self._listener.gone.is_set() or self._transport.underlying_transport.is_closing():
            raise WireClosed

    def _resume(self) -> None:
        # The peer's answer must be read, also where nobody ever took a message.
        if not self._transport.underlying_transport.is_reading():
            self._transport.underlying_transport.resume_reading()

    async def _is_gone_within(self, timeout_s: float) -> bool:
        waiting = asyncio.ensure_future(self._listener.gone.wait())
        await asyncio.wait({waiting}, timeout=timeout_s)
        waiting.cancel()
        return self._listener.gone.is_set()

    async def _end(self) -> End:
        if self._listener.closed is not None:
            return self._listener.closed
        try:
            await self._transport.wait_disconnected()
        except WSProtocolError as fault:
            code = int(getattr(fault.code, "value", fault.code))
            if code == WSCloseCode.MESSAGE_TOO_BIG.value:
                return End(Reason.OVERSIZE, None, str(fault))
            return End(Reason.PROTOCOL, None, f"{code} {fault}")
        return End(Reason.CUT, None, "end of stream")


async def open_picows(policy: ConnectionPolicy, clocks: Clocks) -> PicowsWire:
    """
    Open a connection.

    Raises:
        ConnectFailed: It did not come about, whatever the cause.
    """
    attempt = _Attempt()

    async def connected(url: WSParsedURL) -> socket.socket:
        attempt.sockets.append(await _connected_socket(url.host, url.port))
        return attempt.sockets[-1]

    try:
        async with asyncio.timeout(policy.connect_timeout_s):
            transport, listener = await ws_connect(
                lambda: _Listener(attempt, policy.max_frame_bytes, clocks),
                policy.url,
                proxy=proxy_of(policy.url),
                socket_factory=connected,
                # Ours bounds the whole attempt; a redirect or a proxy takes part of it.
                websocket_handshake_timeout=policy.connect_timeout_s,
                max_frame_size=policy.max_frame_bytes,
                read_buffer_init_size=READ_BUFFER_BYTES,
            )
    except WSHandshakeError as refused:
        await attempt.give_up()
        raise _refusal(refused, policy) from refused
    except (OSError, TimeoutError, ProxyError, WSError) as failure:
        await attempt.give_up()
        raise ConnectFailed(f"{type(failure).__name__}: {failure}") from failure
    except asyncio.CancelledError:
        await attempt.give_up()
        raise
    if not isinstance(listener, _Listener):  # the library has none to give
        raise ConnectFailed("the connection was closed in the handshake")
    return PicowsWire(transport, listener)


async def _connected_socket(host: str, port: int) -> socket.socket:
    """Connect to the first address of ``host`` that answers."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"no address for {host}")
    for family, kind, number, _, address in found:
        tried = socket.socket(family, kind, number)
        tried.setblocking(False)
        try:
            await loop.sock_connect(tried, address)
        except OSError as refused:
            tried.close()
            failure = refused
        except BaseException:
            tried.close()
            raise
        else:
            return tried
    raise failure


def _refusal(refused: WSHandshakeError, policy: ConnectionPolicy) -> ConnectFailed:
    response = refused.response
    if response is None or response.status == HTTPStatus.SWITCHING_PROTOCOLS:
        return ConnectFailed(f"{type(refused).__name__}: {refused}")
    asked_s = retry_after_s(response.headers.get("Retry-After"), policy.retry_after_max_s)
    problem = f"server rejected WebSocket connection: HTTP {int(response.status)}"
    return ConnectFailed(problem, asked_s)
