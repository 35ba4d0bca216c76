"""
The exchanges of ``tick_path``, and what writes a load of frames to a feed's socket.

The doors are the simulated exchanges' own servers (handshake, subscriptions, pings); the frames
are theirs byte for byte. Only the writing differs: a cell's frames are built before it begins and
written in bulk, a slice each millisecond, and every frame of a slice has the stamp of the moment
before that write. The best bid's size tells which row of the table a frame is, on any plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from arb_ray.adapters.venues.sim import binance_wire, upbit_wire
from arb_ray.adapters.venues.sim.binance_server import SPOT_LIMITS, BinanceServer
from arb_ray.adapters.venues.sim.book_shape import Book
from arb_ray.adapters.venues.sim.coins import E8
from arb_ray.adapters.venues.sim.faults import FaultPlan
from arb_ray.adapters.venues.sim.upbit_server import UPBIT_LIMITS, UpbitServer
from benchmarks.tick_tables import Tables

SLICE_S = 0.001
ROW_BASE = 1_000_000
"""Added to a row's number, so that every best bid is deep enough for any order."""

KRW = 1_400
UPBIT_INTERVAL_S = 1.0
PRICES = 16  # steps of a symbol's walk, up and down again


class LoadDone(msgspec.Struct, frozen=True):
    """What a cell's generator did."""

    sent: int
    took_s: float
    cpu_s: float
    late_ms_max: float  # how late its latest slice was
    buffered_bytes_max: int  # what the feed's socket did not take at once


class Door:
    """Both venues on one port, for the feeds of one stage."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._codes = [f"KRW-{symbol}" for symbol in symbols]
        no_faults = FaultPlan()
        self.binance = BinanceServer(_Spot(), no_faults, SPOT_LIMITS)
        self.upbit = UpbitServer(_Upbit(), no_faults, UPBIT_LIMITS)
        self._runner: web.AppRunner | None = None
        self._beat: asyncio.Task[None] | None = None

    async def open(self) -> int:
        """Listen; return the port."""
        app = web.Application()
        app.add_routes([*self.binance.routes(), *self.upbit.routes()])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._beat = asyncio.create_task(self._publish_upbit())
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Hang up."""
        assert self._beat is not None
        assert self._runner is not None
        self._beat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._beat
        await self._runner.cleanup()

    @property
    def transport(self) -> Any:
        """The transport to Binance's feed; the first connection's, there is one."""
        (client,) = self.binance.clients
        return client._transport  # noqa: SLF001 (frames are written past the server's own sender)

    async def _publish_upbit(self) -> None:
        """Send every Upbit book once a second: quiet, present, and not what is measured."""
        number = 0
        while True:
            await asyncio.sleep(UPBIT_INTERVAL_S)
            number += 1
            at_ms = time.time_ns() // 1_000_000
            for index, code in enumerate(["KRW-USDT", *self._codes]):
                price = KRW if not index else price_of(index - 1) * KRW
                book = Book(
                    ((price * E8, E8 * (5_000 + number % 2)),), (((price + 1) * E8, E8 * 5_000),)
                )
                wanted = self.upbit.wanted("orderbook", code)
                rendered = {
                    (units, is_simple): upbit_wire.orderbook(
                        code, at_ms, book, units, stream_type="REALTIME", is_simple=is_simple
                    )
                    for units, is_simple in wanted
                }
                await self.upbit.publish("orderbook", code, rendered)


class Generator:
    """Lives in an actor of its own; all stages of a run have their doors here."""

    def __init__(self, folder: str, symbols: Sequence[str], seed: int) -> None:
        self._tables = Tables(Path(folder))
        self._symbols = list(symbols)
        self._random = random.Random(seed)
        self._doors: dict[str, Door] = {}
        self.frames: list[bytes] = []
        self._order: list[int] = []  # which symbol each row is of
        self._update_id = 1_000_000_000

    async def open(self, stage: str) -> int:
        """Open a stage's doors; return their port."""
        door = self._doors[stage] = Door(self._symbols)
        return await door.open()

    async def close(self, stage: str) -> None:
        """Close a stage's doors."""
        await self._doors.pop(stage).close()

    def transport(self, stage: str) -> Any:
        """Return the transport to a stage's feed of Binance."""
        return self._doors[stage].transport

    def symbol_of(self, row: int) -> str:
        """Return the symbol of a row that was prepared."""
        return self._symbols[self._order[row]]

    async def prepare(self, count: int) -> None:
        """Build the frames of a cell: every symbol once a round, each round in another order."""
        self._tables.clear(count)
        frames: list[bytes] = []
        self._order.clear()
        order = list(range(len(self._symbols)))
        while len(frames) < count:
            self._random.shuffle(order)
            for index in order[: count - len(frames)]:
                frames.append(self._frame(index, len(frames)))
                self._order.append(index)
            await asyncio.sleep(0)
        self.frames = frames

    async def run(self, stage: str, per_s: int) -> LoadDone:
        """Write what was prepared at so many a second."""
        transport = self._doors[stage].transport
        frames, sent = self.frames, self._tables.sent.rows
        count, at, late_s, buffered = len(frames), 0, 0.0, 0
        cpu_s, began = time.process_time(), time.perf_counter()
        while at < count:
            passed = time.perf_counter() - began
            due = min(count, int(passed * per_s) + 1)
            if due > at:
                late_s = max(late_s, passed - at / per_s)
                piece = b"".join(frames[at:due])
                now_ns = time.monotonic_ns()
                for row in range(at, due):
                    sent[row] = now_ns
                transport.write(piece)
                buffered = max(buffered, transport.get_write_buffer_size())
                at = due
            await asyncio.sleep(SLICE_S)
        took_s = time.perf_counter() - began
        return LoadDone(at, took_s, time.process_time() - cpu_s, late_s * 1e3, buffered)

    async def first_books(self, stage: str) -> None:
        """Send each symbol one book outside the tables."""
        pieces = [self._frame(index, -ROW_BASE) for index in range(len(self._symbols))]
        self._doors[stage].transport.write(b"".join(pieces))

    async def is_connected(self, stage: str) -> bool:
        """Tell whether both feeds have subscribed to everything."""
        door = self._doors[stage]
        subscribed = [len(client.streams) for client in door.binance.clients]
        wanted = [len(client.extra["wanted"]) for client in door.upbit.clients]
        return subscribed == [len(self._symbols)] and wanted == [len(self._symbols) + 1]

    def _frame(self, index: int, row: int) -> bytes:
        self._update_id += 1
        symbol = f"{self._symbols[index]}USDT"
        step = self._update_id % (2 * PRICES)
        tick = E8 // 100
        bid = price_of(index) * E8 + tick * min(step, 2 * PRICES - step)
        size = (row + ROW_BASE) * E8 if row >= 0 else E8
        spell = binance_wire.Spelling(symbol, 8, 8)
        payload = binance_wire.spot_book_ticker(
            spell, self._update_id, (bid, size), (bid + tick, 7_000 * E8)
        )
        text = binance_wire.enveloped(f"{symbol.lower()}@bookTicker", payload)
        assert 126 <= len(text) < 1 << 16
        return b"\x81\x7e" + len(text).to_bytes(2, "big") + text


def price_of(index: int) -> int:
    """Return a symbol's price in USDT."""
    return 100 + 10 * index


def row_of(best_bid_size: float) -> int:
    """Return the row that a book's best bid tells; below 0 for one outside the tables."""
    return int(best_bid_size) - ROW_BASE


class _Spot:
    """Enough of a market for the doors of Binance."""

    venue = "binance_spot"

    def now_ms(self) -> int:
        """Return the exchange's clock."""
        return time.time_ns() // 1_000_000

    async def depth(self, symbol: str, limit: int) -> str | None:
        """Return nothing: no feed here asks for a snapshot."""
        return None

    def exchange_info(self) -> dict[str, Any]:
        """Return an empty list."""
        return {"symbols": []}

    def premium_index(self) -> list[dict[str, Any]]:
        """Return nothing."""
        return []

    def on_subscribed(self) -> None:
        """Need not know."""


class _Upbit:
    """Enough of a market for the doors of Upbit."""

    def now_ms(self) -> int:
        """Return the exchange's clock."""
        return time.time_ns() // 1_000_000

    def snapshot(self, kind: str, code: str, units: int, *, is_simple: bool) -> str | None:
        """Return nothing: the next second's frame is the first."""
        return None

    def markets(self) -> list[dict[str, Any]]:
        """Return nothing."""
        return []

    def orderbooks(self, codes: list[str], count: int) -> str | None:
        """Return nothing."""
        return None

    def tickers(self, codes: list[str]) -> str | None:
        """Return nothing."""
        return None

    def tick_sizes(self, codes: list[str]) -> list[dict[str, Any]] | None:
        """Return nothing."""
        return None

    def on_subscribed(self) -> None:
        """Need not know."""
