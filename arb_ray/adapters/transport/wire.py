"""
What a WebSocket library must do for us, whichever it is.

A ``Wire`` is one open socket of a library; ``websockets_wire`` and ``picows_wire`` make them.
Both hand their frames to an ``Inbox``, on the event loop and without a queue in between: what
the consumer does with a message delays the next read, so the kernel's buffer, and by it the
sender, is the only place where messages wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
from websockets.exceptions import InvalidProxy, InvalidURI
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from arb_ray.adapters.transport.connection_policy import ConnectionPolicy, Reason

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

MAX_EARLY_MESSAGES = 1_024
"""Messages between the handshake and the first ``start``, which is a turn of the loop or two;
reading stops at once, so they are what one read of the socket brought. Past it they are
dropped and ``Inbox.overrun`` says so."""


class WireClosed(Exception):
    """The socket is gone or going; ``Wire.read`` tells how."""


class ConnectFailed(Exception):
    """No connection came about. ``retry_after_s`` is what the venue asked for, else 0."""

    def __init__(self, problem: str, retry_after_s: float = 0.0) -> None:
        super().__init__(problem[:200])
        self.problem = problem[:200]
        self.retry_after_s = retry_after_s


class End(msgspec.Struct, frozen=True):
    """How a wire ended; ``code`` is the peer's close code, None if it sent none."""

    reason: Reason
    code: int | None
    detail: str


class Clocks(msgspec.Struct, frozen=True):
    """Where stamps come from: ns UTC, and ns of a clock that only goes forward."""

    wall_ns: Callable[[], int] = time.time_ns
    mono_ns: Callable[[], int] = time.monotonic_ns


Take = Callable[[bytes, int, int], None]
"""Called with a message and the wall and monotonic stamps of the read that completed it."""


class Wire(Protocol):
    """One open WebSocket."""

    async def read(self, take: Take) -> End:
        """
        Deliver messages until the wire ends, and tell how.

        What ``take`` raises is raised here, after which nothing more is delivered.
        """
        ...

    async def send(self, text: str) -> None:
        """
        Write a text message; waits while the write buffer is full.

        Raises:
            WireClosed: Nothing can be written any more.
        """
        ...

    async def ping(self, on_pong: Callable[[], None]) -> None:
        """
        Write a ping; ``on_pong`` is called at most once, when its answer comes.

        Raises:
            WireClosed: Nothing can be written any more.
        """
        ...

    async def close(self, timeout_s: float) -> None:
        """Close politely if the peer answers within ``timeout_s``, else by force."""
        ...


Opener = Callable[[ConnectionPolicy, Clocks], Awaitable[Wire]]
"""Opens a wire; raises ``ConnectFailed``."""


class Inbox:
    """
    Whole messages out of frames, delivered directly.

    The library's callbacks are no place to raise from, so a bug of the consumer is kept for
    ``ended`` and everything after it is dropped.
    """

    def __init__(self, max_message_bytes: int, clocks: Clocks) -> None:
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.overrun = 0
        self._max_message_bytes = max_message_bytes
        self._take: Take | None = None
        self._early: list[tuple[bytes, int, int]] = []
        self._parts: list[bytes] = []  # of a message that comes in fragments
        self._parts_bytes = 0
        self._wall, self._mono = clocks.wall_ns, clocks.mono_ns
        self._wall_ns = self._mono_ns = 0

    def stamp(self) -> None:
        """Note that bytes have just left the socket: once a read, before any parsing."""
        self._wall_ns = self._wall()
        self._mono_ns = self._mono()

    def message(self, data: bytes) -> None:
        """Deliver a message that came in one frame."""
        take = self._take
        if take is None:
            self._keep(data)
            return
        try:
            take(data, self._wall_ns, self._mono_ns)
        except BaseException as bug:  # noqa: BLE001 - raised by whoever awaits ``ended``
            self._take = _drop
            self.fail(bug)

    def fragment(self, data: bytes, *, is_first: bool, is_last: bool) -> bool:
        """Add a part, and deliver the whole; False when it grew beyond the bound."""
        if is_first:
            self._parts, self._parts_bytes = [], 0
        self._parts_bytes += len(data)
        if self._parts_bytes > self._max_message_bytes:
            self._parts = []
            return False
        self._parts.append(data)
        if is_last:
            whole, self._parts = b"".join(self._parts), []
            self.message(whole)
        return True

    def start(self, take: Take) -> None:
        """Deliver what came before anybody asked, and from now on at once."""
        early, self._early = self._early, []
        self._take = take
        now = self._wall_ns, self._mono_ns
        for data, self._wall_ns, self._mono_ns in early:
            self.message(data)
        self._wall_ns, self._mono_ns = now

    def stop(self) -> None:
        """Drop whatever comes from now on."""
        self._take = _drop

    def end(self, end: End) -> None:
        """Note the end; only the first counts."""
        if not self.ended.done():
            self.ended.set_result(end)

    def fail(self, bug: BaseException) -> None:
        """Note a bug, which ends the wire too."""
        if not self.ended.done():
            self.ended.set_exception(bug)

    def _keep(self, data: bytes) -> None:
        if len(self._early) < MAX_EARLY_MESSAGES:
            self._early.append((data, self._wall_ns, self._mono_ns))
        else:
            self.overrun += 1


def _drop(_data: bytes, _wall_ns: int, _mono_ns: int) -> None:
    """Take nothing any more."""


def proxy_of(url: str) -> str | None:
    """
    Return the proxy that the environment names for ``url``, None for a direct connection.

    A proxy never stands between us and our own machine.

    Raises:
        ConnectFailed: The environment names a proxy that is none.
    """
    if urlsplit(url).hostname in LOOPBACK:
        return None
    try:
        return get_proxy(parse_uri(url))
    except (InvalidProxy, InvalidURI) as fault:
        raise ConnectFailed(f"{type(fault).__name__}: {fault}") from fault


def retry_after_s(header: str | None, at_most_s: float) -> float:
    """Read a Retry-After: both venues send whole seconds; a date counts as "not said"."""
    if header is None or not header.strip().isdecimal():
        return 0.0
    return min(float(header), at_most_s)
