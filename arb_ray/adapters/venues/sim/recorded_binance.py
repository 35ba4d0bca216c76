"""A Binance recording behind Binance's doors: streams verbatim, REST books kept consistent."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgspec

from arb_ray.adapters.storage.recordings import RecordedFrame
from arb_ray.adapters.venues.sim import binance_wire as wire
from arb_ray.adapters.venues.sim.binance_server import BinanceServer, topic_of

BUFFERED_DIFFS_MAX = 2_000  # diffs kept until a symbol's snapshot comes; older ones are dropped
SNAPSHOT_WAIT_S = 15.0  # how long a REST reply may wait for the recorded snapshot ...
DIFF_WAIT_S = 2.0  # ... and, once there is a book, for the next diff
SAMPLED_FRAMES = 2_000  # frames read for decimals at the start of a file, then every 50th
QUOTES: Final = ("USDT", "FDUSD", "USDC", "BUSD", "BTC", "ETH", "BNB", "EUR", "TRY")

_ENVELOPE = re.compile(r'\s*\{"stream":"([^"]+)","data":(.*)\}\s*', re.DOTALL)
_LEVEL = re.compile(r'\["([0-9.]+)","([0-9.]+)"\]')
_TOUCH = re.compile(r'"b":"([0-9.]+)","B":"([0-9.]+)"')
_SYMBOL = re.compile(r"symbol=([A-Z0-9_]+)")


class _Diff(msgspec.Struct):
    first_id: int = msgspec.field(name="U")
    last_id: int = msgspec.field(name="u")
    bids: list[tuple[str, str]] = msgspec.field(name="b")
    asks: list[tuple[str, str]] = msgspec.field(name="a")
    previous_id: int | None = msgspec.field(name="pu", default=None)


class _Snapshot(msgspec.Struct):
    update_id: int = msgspec.field(name="lastUpdateId")
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class _Bare(msgspec.Struct):
    """What names a payload that came without an envelope."""

    symbol: str = msgspec.field(name="s", default="")
    event: str = msgspec.field(name="e", default="bookTicker")


_DIFFS = msgspec.json.Decoder(_Diff)
_SNAPSHOTS = msgspec.json.Decoder(_Snapshot)
_BARES = msgspec.json.Decoder(_Bare)


class RecordedBook:
    """One symbol's book as the recording has built it so far."""

    def __init__(self, *, is_usdm: bool) -> None:
        self._is_usdm = is_usdm
        self._bids: dict[str, str] = {}
        self._asks: dict[str, str] = {}
        self._waiting: deque[_Diff] = deque(maxlen=BUFFERED_DIFFS_MAX)
        self.update_id = 0
        self.is_synced = False
        self.moved = asyncio.Event()

    def reseed(self, raw: str) -> None:
        """Begin from a recorded REST reply, unless the book is in step already."""
        if self.is_synced:
            return
        snapshot = _SNAPSHOTS.decode(raw)
        self._bids = dict(snapshot.bids)
        self._asks = dict(snapshot.asks)
        self.update_id = snapshot.update_id
        self.is_synced = True
        waiting, self._waiting = self._waiting, deque(maxlen=BUFFERED_DIFFS_MAX)
        is_first = True
        for diff in waiting:
            is_first = not self._apply(diff, is_first=is_first) and is_first
        self.moved.set()

    def update(self, diff: _Diff) -> None:
        """Apply a diff, or keep it for the snapshot; a break waits for the next snapshot."""
        if not self.is_synced:
            self._waiting.append(diff)
            return
        self._apply(diff, is_first=False)
        self.moved.set()

    def render(self, limit: int) -> str:
        """Return the present book as a REST body."""
        bids = sorted(self._bids.items(), key=lambda row: Decimal(row[0]), reverse=True)[:limit]
        asks = sorted(self._asks.items(), key=lambda row: Decimal(row[0]))[:limit]
        body = {"lastUpdateId": self.update_id, "bids": bids, "asks": asks}
        return msgspec.json.encode(body).decode()

    def _apply(self, diff: _Diff, *, is_first: bool) -> bool:
        if diff.last_id < self.update_id + (0 if self._is_usdm else 1):
            return False
        if self._is_usdm:
            spans = diff.first_id <= self.update_id <= diff.last_id
            continues = diff.previous_id == self.update_id or spans
        else:
            continues = diff.first_id <= self.update_id + 1
        if not continues and not is_first:
            self.is_synced = False
            self._waiting.append(diff)
            return False
        for side, rows in ((self._bids, diff.bids), (self._asks, diff.asks)):
            for price, size in rows:
                if float(size):
                    side[price] = size
                else:
                    side.pop(price, None)
        self.update_id = diff.last_id
        return True


class RecordedSource:
    """Everything of one Binance venue in the recordings."""

    def __init__(
        self, venue: str, clock_ms: Callable[[], int], subscribed: Callable[[], None]
    ) -> None:
        self.venue = venue
        self.speed = 1.0
        self._is_usdm = venue == "binance_usdm"
        self._clock_ms = clock_ms
        self._subscribed = subscribed
        self._decimals: dict[str, list[int]] = {}  # symbol: most price and size decimals seen
        self._rows: dict[str, dict[str, Any]] = {}  # symbol: its row of a recorded exchangeInfo
        self._has_snapshot: set[str] = set()
        self._books: dict[str, RecordedBook] = {}
        self._seen = 0

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols with at least one recorded frame."""
        return tuple(sorted(self._decimals))

    def scan(self, frame: RecordedFrame) -> None:
        """Learn symbols and grids from a frame before anything is served."""
        if frame.request is not None:
            if "exchangeInfo" in frame.request:
                for row in msgspec.json.decode(frame.raw).get("symbols", []):
                    self._rows[row["symbol"]] = row
            elif named := _SYMBOL.search(frame.request):
                self._has_snapshot.add(named[1])
            return
        stream, payload = split(frame.raw)
        if not stream:
            return
        symbol = stream.partition("@")[0].upper()
        known = self._decimals.setdefault(symbol, [0, 0])
        self._seen += 1
        if self._seen > SAMPLED_FRAMES and self._seen % 50:
            return
        for price, size in (*_TOUCH.findall(payload), *_LEVEL.findall(payload)):
            known[0] = max(known[0], _decimals(price))
            known[1] = max(known[1], _decimals(size))

    async def play(self, server: BinanceServer, frame: RecordedFrame) -> None:
        """Let one frame happen now."""
        if frame.request is not None:
            named = _SYMBOL.search(frame.request)
            if named and "depth" in frame.request:
                self._book(named[1]).reseed(frame.raw)
            return
        stream, payload = split(frame.raw)
        if not stream:
            return  # a control reply of the recorder's own connection
        topic = topic_of(stream)
        await server.publish(topic, payload)
        if topic[1] == "diff":
            # After the publish: whoever asks by REST has this diff in hand already.
            self._book(topic[0].upper()).update(_DIFFS.decode(payload))

    def now_ms(self) -> int:
        """Return the recording's clock."""
        return self._clock_ms()

    def on_subscribed(self) -> None:
        """Start the recording, if this was what it waited for."""
        self._subscribed()

    async def depth(self, symbol: str, limit: int) -> str | None:
        """
        Return the book right after a diff was published (or at the recorded snapshot).

        A client that subscribed first holds that diff, so the sequence rules of both
        markets are met whenever it asks.
        """
        if symbol not in self._has_snapshot:
            return None
        book = self._book(symbol)
        book.moved.clear()
        try:
            wait_s = DIFF_WAIT_S if book.is_synced else SNAPSHOT_WAIT_S
            await asyncio.wait_for(book.moved.wait(), wait_s)
        except TimeoutError:
            pass  # a quiet book: its present state continues at the next diff all the same
        return book.render(limit) if book.is_synced else None

    def exchange_info(self) -> dict[str, Any]:
        """Return the recorded rows of the symbols seen, or rows made from their decimals."""
        return {
            "timezone": "UTC",
            "serverTime": self.now_ms(),
            "rateLimits": [],
            "exchangeFilters": [],
            "symbols": [
                self._rows.get(symbol) or self._row(symbol) for symbol in sorted(self._decimals)
            ],
        }

    def premium_index(self) -> list[dict[str, Any]]:
        """Return nothing: a recording's funding is what its markPrice frames say."""
        return []

    def _row(self, symbol: str) -> dict[str, Any]:
        quote = next((quote for quote in QUOTES if symbol.endswith(quote)), "USDT")
        price, size = (_grid(decimals) for decimals in self._decimals[symbol])
        notional: dict[str, Any] = {"filterType": "NOTIONAL", "minNotional": "5.00000000"}
        if self._is_usdm:
            notional = {"filterType": "MIN_NOTIONAL", "notional": "5"}
        most = wire.fixed(10**20)
        return {
            "symbol": symbol,
            "pair": symbol,
            "contractType": "PERPETUAL",
            "status": "TRADING",
            "baseAsset": symbol.removesuffix(quote),
            "quoteAsset": quote,
            "marginAsset": quote,
            "isSpotTradingAllowed": not self._is_usdm,
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": price, "maxPrice": most,
                 "tickSize": price},
                {"filterType": "LOT_SIZE", "minQty": size, "maxQty": most, "stepSize": size},
                {"filterType": "MARKET_LOT_SIZE", "minQty": size, "maxQty": most,
                 "stepSize": size},
                notional,
            ],
        }  # fmt: skip

    def _book(self, symbol: str) -> RecordedBook:
        return self._books.setdefault(symbol, RecordedBook(is_usdm=self._is_usdm))


def split(raw: str) -> tuple[str, str]:
    """Return stream name and payload; an empty name for what is no market data."""
    if enveloped := _ENVELOPE.fullmatch(raw):
        return enveloped[1], enveloped[2]
    try:
        bare = _BARES.decode(raw)
    except msgspec.DecodeError:
        return "", ""
    channel = {"depthUpdate": "depth@100ms", "markPriceUpdate": "markPrice@1s"}.get(
        bare.event, bare.event
    )
    return (f"{bare.symbol.lower()}@{channel}", raw) if bare.symbol else ("", "")


def _decimals(text: str) -> int:
    return len(text.partition(".")[2].rstrip("0"))


def _grid(decimals: int) -> str:
    return format(Decimal(1).scaleb(-decimals), "f")
