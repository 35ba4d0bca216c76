"""A socket that breaks: how long is waited, when it is forgiven, what is asked for again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from arb_ray.adapters.storage.process import free_port
from arb_ray.adapters.transport.backoff import BackoffPolicy
from arb_ray.adapters.transport.connection import Connection, Handler
from arb_ray.adapters.transport.connection_policy import ConnectionPolicy
from arb_ray.adapters.transport.websocket import ReconnectingWebSocket
from arb_ray.app.stability.check import Check, require

INITIAL_S, MAXIMUM_S, STABLE_S = 0.02, 0.16, 0.3
GRACE_S = 0.15
"""What an attempt itself, and a busy machine, may add to a wait."""

ATTEMPTS = 7
WAIT_S = 10.0


class _Venue:
    """A server that counts, and breaks its connections when told."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[str] = []
        self.live: set[ServerConnection] = set()
        self._server: Server | None = None

    async def open(self) -> None:
        self._server = await serve(self._serve, "127.0.0.1", self.port, close_timeout=0.2)

    async def close(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
            await server.wait_closed()

    def cut(self) -> None:
        for one in tuple(self.live):
            one.transport.abort()

    async def _serve(self, connection: ServerConnection) -> None:
        self.live.add(connection)
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                self.asked.append(str(text))
        self.live.discard(connection)


class _Consumer(Handler):
    """Asks for the same two streams on every connection."""

    def __init__(self) -> None:
        self.connected = 0
        self.problems: list[float] = []

    def on_connected(self, connection: Connection) -> None:
        self.connected += 1
        connection.send("subscribe BTC")
        connection.send("subscribe ETH")

    def on_frame(self, *_: Any) -> None:
        """Nothing is sent to us."""

    def on_alive(self, *_: Any) -> None:
        """Pongs are not looked at."""

    def on_sent(self, *_: Any) -> None:
        """What was sent is counted where it arrives."""

    def on_disconnected(self, *_: Any) -> None:
        """The loss shows in the next connection."""

    def on_alarm(self, *_: Any) -> None:
        self.problems.append(asyncio.get_running_loop().time())


@contextlib.asynccontextmanager
async def _client(port: int) -> AsyncIterator[tuple[ReconnectingWebSocket, _Consumer]]:
    consumer = _Consumer()
    policy = ConnectionPolicy(
        venue="stability",
        url=f"ws://127.0.0.1:{port}",
        backoff=BackoffPolicy(
            initial_s=INITIAL_S, maximum_s=MAXIMUM_S, jitter=0.0, stable_s=STABLE_S
        ),
        close_timeout_s=0.2,
        alarm_after_failures=1,
    )
    client = ReconnectingWebSocket(policy, consumer, rng=random.Random(1))  # noqa: S311 - no jitter is drawn
    task = asyncio.create_task(client.run())
    try:
        yield client, consumer
    finally:
        client.stop()
        await task


async def _until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - a counter of another task
                await asyncio.sleep(0.005)
    except TimeoutError:
        require(False, f"after {WAIT_S:g} s it had not come to this: {what}")


async def _maximum_backoff() -> str:
    async with _client(free_port()) as (client, consumer):
        await _until(lambda: client.failures >= ATTEMPTS, f"{ATTEMPTS} attempts")
        times = consumer.problems[:ATTEMPTS]
    waits = [after - before for before, after in itertools.pairwise(times)]
    wanted = [min(MAXIMUM_S, INITIAL_S * 2**n) for n in range(len(waits))]
    for number, (wait, least) in enumerate(zip(waits, wanted, strict=True), 1):
        require(wait >= least * 0.9, f"wait {number} was {wait:.3f} s, and {least:g} s was due")
        require(wait <= least + GRACE_S, f"wait {number} was {wait:.3f} s, {least:g} s was due")
    return f"{len(waits)} waits grew to {max(waits):.3f} s, the maximum is {MAXIMUM_S:g} s"


async def _counter_reset() -> str:
    venue = _Venue(free_port())
    async with _client(venue.port) as (client, consumer):
        await _until(lambda: client.failures >= 3, "three failures in a row")
        await venue.open()
        try:
            await _until(lambda: bool(venue.live), "a connection")
            await asyncio.sleep(STABLE_S * 1.5)
            venue.cut()
            await _until(lambda: consumer.connected >= 2, "the next connection")
            failures = client.failures
            require(failures <= 1, f"{failures} failures count after a connection that was stable")
        finally:
            await venue.close()
    return "a stable connection ends the row of failures: 1 counts after its loss"


async def _resubscription() -> str:
    venue = _Venue(free_port())
    await venue.open()
    try:
        async with _client(venue.port):
            for round_trip in (1, 2, 3):
                count = 2 * round_trip
                await _until(lambda: len(venue.asked) >= count, f"{count} subscriptions")  # noqa: B023
                venue.cut()
    finally:
        await venue.close()
    require(
        venue.asked[:6] == ["subscribe BTC", "subscribe ETH"] * 3, f"asked for {venue.asked[:6]}"
    )
    return "each of 3 connections asked for both streams"


CHECKS = (
    Check("websocket: maximum backoff", _maximum_backoff),
    Check("websocket: counter reset", _counter_reset),
    Check("websocket: resubscription", _resubscription),
)
