"""Our own feed for the benchmark: everything from the frame to the hand-over of the book."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

from arb_ray.actors.fan_out import FanOut
from arb_ray.actors.feed import Feed, PlanHandler
from arb_ray.actors.feed_ports import SnapshotSource
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.venues.binance.feed import BinanceFeed
from arb_ray.adapters.venues.upbit.feed import UpbitFeed
from arb_ray.domain.book import BookUpdate
from arb_ray.domain.instrument import Instrument, InstrumentId, Venue, VenueSymbol
from arb_ray.domain.instrument import Kind as Market
from arb_ray.domain.money import KRW, USDT, Asset
from arb_ray.engine.feed import FeedOptions, VenueFeed
from arb_ray.ports import Metrics
from benchmarks.feed_frames import COINS, Kind, snapshot

DEPTH_MODES = {
    "binance depth diff": "diff",
    "binance depth20": "partial",
    "binance bookTicker": "top",
    "upbit orderbook 15": "partial",
}


class Published:
    """
    In the fan-out's place: it counts what the feed hands over, and keeps the newest.

    What lies behind it (board or call) is measured by ``benchmarks.plane`` and ``tick_path``.
    """

    version, plane, plane_why = "1", "none", ""

    def __init__(self) -> None:
        self.count = 0
        self.books: dict[InstrumentId, BookUpdate] = {}

    def begin(self, _epoch: int, _again: Any) -> None:
        """Take nothing."""

    def hurry(self) -> None:
        """Wake nobody."""

    def offer_funding(self, _updates: Iterable[Any]) -> None:
        """Take nothing."""

    def offer(self, update: BookUpdate, _now_mono_ns: int) -> None:
        """Take a book."""
        self.count += 1
        self.books[update.instrument] = update


class _Quiet:
    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _Snapshots:
    used_ratio = 0.0

    async def __call__(self, venue_symbol: VenueSymbol) -> bytes:
        return snapshot(venue_symbol.removesuffix("USDT"))


class _Connection:
    id = 1

    def send(self, text: str) -> None:
        """Say nothing."""


class OurFeed:
    """A feed of ten coins with its handler, as an actor has it, and no process around."""

    def __init__(self, kind: Kind) -> None:
        self.published = Published()
        self.venue_feed = _venue_feed(kind)
        self._feed = Feed(
            venue=kind.venue,
            venue_feed=self.venue_feed,
            make_socket=cast("Any", None),  # it is never started: the benchmark has the socket
            fetch_snapshot=cast("SnapshotSource", _Snapshots()),
            fan_out=cast("FanOut", self.published),
            recorder=None,
            close_rest=cast("Any", None),
            clock=SystemClock(),
            metrics=cast("Metrics", _Quiet()),
            log=_Quiet(),
            rss_mb=lambda: 0.0,
        )
        self.handler = PlanHandler(self._feed, self.venue_feed.plans()[0])
        self._kind = kind

    async def take_all(self, frames: list[bytes]) -> float:
        """Take frames without a socket; return the CPU seconds, scaled to all of them."""
        connection = _Connection()
        on_frame, wall_ns, mono_ns = self.handler.on_frame, time.time_ns, time.monotonic_ns
        self.handler.on_connected(connection)
        first = frames[: len(COINS)]
        for frame in first:
            on_frame(connection, frame, wall_ns(), mono_ns())
        await asyncio.sleep(0)
        if self._kind.name == "binance depth diff":
            await asyncio.sleep(0.1)  # the feed asked for snapshots when it saw the first diffs
            assert self.venue_feed.counters.snapshots == len(COINS)
        before = self.published.count
        rest = frames[len(COINS) :]
        began = time.process_time()
        for begin in range(0, len(rest), len(COINS)):
            # One of each coin: what a feed takes at the end of a turn holds no second of a book.
            for frame in rest[begin : begin + len(COINS)]:
                on_frame(connection, frame, wall_ns(), mono_ns())
            await asyncio.sleep(0)
        took_s = time.process_time() - began
        assert self.published.count - before == len(rest), "every frame publishes a book"
        return took_s * len(frames) / len(rest)


def _venue_feed(kind: Kind) -> VenueFeed:
    venue = Venue(kind.venue)
    options = FeedOptions(
        instruments=tuple(_instrument(coin, venue) for coin in COINS),
        depth_mode=cast("Any", DEPTH_MODES[kind.name]),
    )
    return UpbitFeed(options) if venue is Venue.UPBIT else BinanceFeed(venue, options)


def _instrument(coin: str, venue: Venue) -> Instrument:
    if venue is Venue.UPBIT:
        name, quote, symbol = f"upbit:{coin}-KRW", KRW, f"KRW-{coin}"
    else:
        name, quote, symbol = f"binance_spot:{coin}-USDT", USDT, f"{coin}USDT"
    return Instrument(
        InstrumentId(name), Asset(coin), quote, venue, Market.SPOT, VenueSymbol(symbol)
    )
