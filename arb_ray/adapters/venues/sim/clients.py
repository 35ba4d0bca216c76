"""A connected peer of a simulated exchange: bounded writing, limits, liveness."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

WRITE_BUFFER_BYTES_MAX = 4 * 1024 * 1024  # a peer further behind is cut off, as the real ones do
LATE_FRAMES_MAX = 5_000  # frames held by the slow-consumer fault; beyond it the peer is cut off
MESSAGE_BYTES_MAX = 64 * 1024  # of what a peer sends; more ends its connection (1009)


class Limits(msgspec.Struct, frozen=True):
    """A venue's rules for connections; times in seconds."""

    messages: tuple[tuple[int, float], ...]  # (count, within seconds), all of them hold
    connects: tuple[int, float]
    ping_every_s: float = 0.0  # 0: the server sends no pings
    pong_within_s: float = 0.0
    idle_s: float = 0.0  # 0: idle connections live
    lifetime_s: float = 86_400.0
    streams_max: int = 1_024
    status_every_s: float = 10.0


class Budget:
    """Counts events in sliding windows."""

    def __init__(self, windows: tuple[tuple[int, float], ...]) -> None:
        self._windows = windows
        self._stamps: deque[float] = deque(maxlen=max(count for count, _ in windows) + 1)

    def take(self, now_s: float) -> bool:
        """Count one event; false when a window is overfull."""
        self._stamps.append(now_s)
        return all(self._recent(now_s - within) <= count for count, within in self._windows)

    def _recent(self, since_s: float) -> int:
        return sum(1 for stamp in self._stamps if stamp > since_s)


class Counters(msgspec.Struct):
    """What a venue has done since it started."""

    connections: int = 0
    frames: int = 0
    bytes: int = 0
    dropped_slow: int = 0
    dropped_limits: int = 0
    dropped_idle: int = 0
    refused: int = 0
    malformed_requests: int = 0


class Client:
    """One connection."""

    def __init__(
        self,
        request: web.Request,
        ws: web.WebSocketResponse,
        limits: Limits,
        counters: Counters,
        delay_s: float = 0.0,
    ) -> None:
        assert request.transport is not None, "a prepared WebSocket has a transport"
        # aiohttp would wait for a slow peer above this mark, and the whole exchange with it;
        # our own bound lies below it, so writing never waits.
        request.transport.set_write_buffer_limits(high=2 * WRITE_BUFFER_BYTES_MAX)
        self._transport = request.transport
        self.ws = ws
        self.counters = counters
        self.budget = Budget(limits.messages)
        self.streams: dict[str, None] = {}  # as subscribed, in order
        self.extra: dict[str, Any] = {}  # what one venue's server keeps here
        self.is_combined = False
        self.stream_class = ""
        now = asyncio.get_running_loop().time()
        self.connected_s = self.last_in_s = self.last_out_s = self.pinged_s = self.ponged_s = now
        self.delay_s = delay_s
        self._late: deque[tuple[float, bytes, WSMsgType]] = deque()
        self.is_gone = False

    async def send(self, payload: bytes, kind: WSMsgType) -> None:
        """Send a frame now, or later under the slow-consumer fault; cut the peer at its bound."""
        if self.is_gone:
            return
        now = asyncio.get_running_loop().time()
        if self.delay_s or self._late:
            self._late.append((now + self.delay_s, payload, kind))
            if len(self._late) > LATE_FRAMES_MAX:
                self.counters.dropped_slow += 1
                self.abort()
            return
        await self._write(payload, kind, now)

    async def send_text(self, payload: str) -> None:
        """Send a text frame."""
        await self.send(payload.encode(), WSMsgType.TEXT)

    async def flush_late(self) -> None:
        """Send what the slow-consumer fault held back and is due."""
        now = asyncio.get_running_loop().time()
        while self._late and not self.is_gone and self._late[0][0] <= now:
            _, payload, kind = self._late.popleft()
            await self._write(payload, kind, now)

    def abort(self) -> None:
        """Cut the connection without a close frame (the peer sees 1006)."""
        self.is_gone = True
        self._late.clear()
        self._transport.abort()

    async def close(self, code: int, reason: str = "") -> None:
        """Close politely."""
        self.is_gone = True
        await self.ws.close(code=code, message=reason.encode())

    async def ping(self, payload: bytes) -> None:
        """Send a protocol ping and remember when."""
        self.pinged_s = asyncio.get_running_loop().time()
        await self._control(payload, WSMsgType.PING)

    async def pong(self, payload: bytes) -> None:
        """Answer a protocol ping."""
        await self._control(payload, WSMsgType.PONG)

    async def _control(self, payload: bytes, kind: WSMsgType) -> None:
        if not self.is_gone:
            await self._write(payload, kind, asyncio.get_running_loop().time())

    async def _write(self, payload: bytes, kind: WSMsgType, now: float) -> None:
        if self._transport.get_write_buffer_size() > WRITE_BUFFER_BYTES_MAX:
            self.counters.dropped_slow += 1
            self.abort()
            return
        try:
            await self.ws.send_frame(payload, kind)
        except ConnectionError:
            self.is_gone = True  # the reader's loop is about to see the same and clean up
            return
        self.last_out_s = now
        self.counters.frames += 1
        self.counters.bytes += len(payload)


class Topics:
    """Who listens to what: topic to client to the names under which it subscribed."""

    def __init__(self) -> None:
        self._by_topic: dict[tuple[str, str], dict[Client, list[str]]] = {}

    def add(self, topic: tuple[str, str], client: Client, name: str) -> None:
        """Subscribe; ``topic`` is (symbol, channel)."""
        names = self._by_topic.setdefault(topic, {}).setdefault(client, [])
        if name not in names:
            names.append(name)

    def remove(self, topic: tuple[str, str], client: Client, name: str) -> None:
        """Unsubscribe; unknown names are ignored."""
        clients = self._by_topic.get(topic, {})
        names = clients.get(client, [])
        if name in names:
            names.remove(name)
        if not names:
            clients.pop(client, None)
        if not clients:
            self._by_topic.pop(topic, None)

    def forget(self, client: Client) -> None:
        """Remove a client from every topic."""
        for topic in [topic for topic, clients in self._by_topic.items() if client in clients]:
            del self._by_topic[topic][client]
            if not self._by_topic[topic]:
                del self._by_topic[topic]

    def has(self, topic: tuple[str, str]) -> bool:
        """Tell whether anybody listens."""
        return topic in self._by_topic

    def listeners(self, topic: tuple[str, str]) -> list[tuple[Client, str]]:
        """Return who listens, with the name each subscribed under."""
        clients = self._by_topic.get(topic)
        if not clients:
            return []
        return [(client, name) for client, names in clients.items() for name in names]

    def symbols(self) -> set[str]:
        """Return the symbols that anybody listens to."""
        return {symbol for symbol, _ in self._by_topic}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(list(self._by_topic))
