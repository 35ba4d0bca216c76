"""
One contender in a process of its own: it reads frames when told to, and tells its CPU seconds.

    python -m benchmarks.feed_reader "picows, bare"     # told by lines of JSON on stdin

CPU is counted from the first frame that arrived to the last, so that neither the connection nor
a wait for the sender is in it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from benchmarks.feed_frames import KINDS, Kind, frames, kind_named


class Task(msgspec.Struct, frozen=True):
    """What to read: over a socket from ``port`` at ``rate`` a second (0: as it comes), or not."""

    kind: str
    count: int
    port: int = 0
    rate: int = 0


class Span:
    """The CPU and wall clock between the first and the last of ``count`` frames."""

    def __init__(self, count: int) -> None:
        self.left = count
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[tuple[float, float]] = loop.create_future()
        self._count = count
        self._began = (0.0, 0.0)

    def note(self) -> None:
        """Count a frame."""
        left = self.left = self.left - 1
        if left == self._count - 1:
            self.begin()
        elif left == 0:
            self.end()

    def begin(self) -> None:
        """Note the first frame."""
        self._began = (time.process_time(), time.perf_counter())

    def end(self) -> None:
        """Note the last one."""
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        self.done.set_result((cpu_s - self._began[0], wall_s - self._began[1]))


Read = Callable[[str, Kind, int], Awaitable[tuple[float, float]]]


async def _websockets(url: str, kind: Kind, count: int, *, decodes: bool) -> tuple[float, float]:
    from websockets.asyncio.client import connect

    span, take = Span(count), _bare_decoder(kind) if decodes else None
    async with connect(url, compression=None, max_size=None, ping_interval=None) as socket:
        while span.left:
            data = await socket.recv(decode=False)
            if take is not None:
                take(data)
            span.note()
    return await span.done


async def _picows(url: str, kind: Kind, count: int, *, decodes: bool) -> tuple[float, float]:
    import picows

    span, take = Span(count), _bare_decoder(kind) if decodes else None

    class Listener(picows.WSListener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            data = frame.get_payload_as_bytes()
            if take is not None:
                take(data)
            span.note()

    transport, _ = await picows.ws_connect(Listener, url)
    told = await span.done
    transport.disconnect(graceful=False)
    return told


async def _aiohttp(url: str, kind: Kind, count: int, *, decodes: bool) -> tuple[float, float]:
    import aiohttp

    span, take = Span(count), _bare_decoder(kind) if decodes else None
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        while span.left:
            message = await socket.receive()
            if take is not None:
                take(message.data)
            span.note()
    return await span.done


async def _ours(url: str, kind: Kind, count: int, *, transport: str) -> tuple[float, float]:
    from arb_ray.adapters.transport.connection_policy import ConnectionPolicy
    from arb_ray.adapters.transport.websocket import ReconnectingWebSocket
    from benchmarks.feed_ours import OurFeed

    feed, span = OurFeed(kind), Span(count)
    take = feed.handler.on_frame

    def counted(connection: Any, data: bytes, wall_ns: int, mono_ns: int) -> None:
        take(connection, data, wall_ns, mono_ns)
        span.note()

    feed.handler.on_frame = counted  # type: ignore[method-assign, assignment]
    policy = ConnectionPolicy(venue=kind.venue, url=f"{url}/asks", transport=transport)  # type: ignore[arg-type]
    client = ReconnectingWebSocket(policy, feed.handler)
    running = asyncio.create_task(client.run())
    ends: tuple[asyncio.Future[Any], ...] = (running, span.done)
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    client.stop()
    await running
    return await span.done


def _bare_decoder(kind: Kind) -> Callable[[Any], Any]:
    """Return typed decoding of a frame, which keeps the newest by symbol and checks nothing."""
    from benchmarks.feed_bare import decoder_of

    return decoder_of(kind)


def readers() -> dict[str, Read]:
    """Return who reads a socket."""

    def bare(read: Any, *, decodes: bool) -> Read:
        return lambda url, kind, count: read(url, kind, count, decodes=decodes)

    def ours(transport: str) -> Read:
        return lambda url, kind, count: _ours(url, kind, count, transport=transport)

    return {
        "websockets, bare": bare(_websockets, decodes=False),
        "websockets, decoding": bare(_websockets, decodes=True),
        "ours on websockets": ours("websockets"),
        "picows, bare": bare(_picows, decodes=False),
        "picows, decoding": bare(_picows, decodes=True),
        "ours on picows": ours("picows"),
        "aiohttp, bare": bare(_aiohttp, decodes=False),
    }


def handlers() -> dict[str, Callable[[Kind, list[bytes]], float]]:
    """Return who takes frames without a socket; each returns CPU seconds for all frames."""
    from benchmarks import feed_peers

    def ours(kind: Kind, some: list[bytes]) -> float:
        from benchmarks.feed_ours import OurFeed

        async def take() -> float:
            return await OurFeed(kind).take_all(some)

        return asyncio.run(take())

    return {"ours": ours, "cryptofeed": feed_peers.cryptofeed, "ccxt.pro": feed_peers.ccxt_pro}


def main() -> None:
    """Do tasks from stdin until it ends."""
    name = sys.argv[1]
    made: dict[str, list[bytes]] = {}
    for line in sys.stdin:
        task = msgspec.json.decode(line, type=Task)
        kind = kind_named(task.kind)
        if task.port:
            url = f"ws://127.0.0.1:{task.port}/{KINDS.index(kind)}/{task.count}/{task.rate}"
            cpu_s, wall_s = asyncio.run(_within(readers()[name](url, kind, task.count)))
        else:
            some = made.setdefault(task.kind, frames(kind, task.count))
            cpu_s = wall_s = handlers()[name](kind, some)
        print(msgspec.json.encode([cpu_s, wall_s]).decode(), flush=True)


async def _within(reading: Awaitable[tuple[float, float]]) -> tuple[float, float]:
    return await asyncio.wait_for(reading, 60)


if __name__ == "__main__":
    main()
