"""
The message handlers of cryptofeed and ccxt.pro, fed by hand: no network, the same books.

cryptofeed reads Upbit in short keys only, so it is given the same books in those (a third fewer
bytes). Both get their symbols and the snapshots of diffs set beforehand. A peer ends where its
user's callback or future gets the book.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from decimal import Decimal
from typing import Any

from benchmarks.feed_frames import COINS, Kind, snapshot

SHORT = {
    "type": "ty", "code": "cd", "timestamp": "tms", "total_ask_size": "tas",
    "total_bid_size": "tbs", "orderbook_units": "obu", "ask_price": "ap", "bid_price": "bp",
    "ask_size": "as", "bid_size": "bs", "stream_type": "st", "level": "lv",
}  # fmt: skip

NOT_READ = ("binance depth20",)
"""Neither peer has a rule for a partial book on a combined stream."""


def has(package: str, kind: Kind) -> bool:
    """Tell whether a peer is installed and reads frames of ``kind``."""
    return kind.name not in NOT_READ and importlib.util.find_spec(package) is not None


def cryptofeed(kind: Kind, frames: list[bytes]) -> float:
    """Return the CPU seconds of cryptofeed's message handler for the frames."""
    return asyncio.run(_cryptofeed(kind, frames))


async def _cryptofeed(kind: Kind, frames: list[bytes]) -> float:
    from cryptofeed.defines import L2_BOOK, TICKER
    from cryptofeed.exchanges import Binance, Upbit
    from cryptofeed.symbols import Symbols
    from cryptofeed.types import OrderBook

    taken: dict[str, Any] = {}

    async def take(told: Any, _receipt: float) -> None:
        taken[told.symbol] = told

    exchange = Upbit if kind.venue == "upbit" else Binance
    quote = "KRW" if kind.venue == "upbit" else "USDT"
    theirs = {f"{coin}-{quote}": _theirs(coin, kind) for coin in COINS}
    Symbols.set(exchange.id, theirs, {"instrument_type": dict.fromkeys(theirs, "spot")})
    channel = TICKER if kind.name == "binance bookTicker" else L2_BOOK
    feed = exchange(symbols=list(theirs), channels=[channel], callbacks={channel: take})
    if kind.name == "binance depth diff":
        for coin in COINS:
            sides = json.loads(snapshot(coin))
            pair = f"{coin}-USDT"
            feed.last_update_id[pair] = sides["lastUpdateId"]
            book = OrderBook(exchange.id, pair, max_depth=0, bids={}, asks={})
            book.book.bids = {Decimal(price): Decimal(size) for price, size in sides["bids"]}
            book.book.asks = {Decimal(price): Decimal(size) for price, size in sides["asks"]}
            feed._l2_book[pair] = book  # noqa: SLF001 - as its own snapshot request does
    texts = [_shortened(one) if kind.venue == "upbit" else one.decode() for one in frames]
    began = time.process_time()
    for text in texts:
        await feed.message_handler(text, None, time.time())
    took_s = time.process_time() - began
    assert len(taken) == len(COINS), "every coin's book reached the callback"
    return took_s


def ccxt_pro(kind: Kind, frames: list[bytes]) -> float:
    """Return the CPU seconds of ccxt.pro's message handler for the frames, parsing included."""
    return asyncio.run(_ccxt_pro(kind, frames))


async def _ccxt_pro(kind: Kind, frames: list[bytes]) -> float:
    import ccxt.pro

    exchange = ccxt.pro.upbit() if kind.venue == "upbit" else ccxt.pro.binance()
    quote = "KRW" if kind.venue == "upbit" else "USDT"
    exchange.set_markets(
        [
            {
                "id": _theirs(coin, kind),
                "symbol": f"{coin}/{quote}",
                "base": coin,
                "quote": quote,
                "type": "spot",
                "spot": True,
                "contract": False,
            }
            for coin in COINS
        ]
    )
    client = exchange.client("wss://stream.binance.com:9443/ws")
    for coin in COINS:
        symbol = f"{coin}/{quote}"
        exchange.orderbooks[symbol] = exchange.order_book({}, 1_000)
        if kind.name == "binance depth diff":
            sides = json.loads(snapshot(coin))
            levels = {
                side: [[float(one) for one in level] for level in sides[side]]
                for side in ("bids", "asks")
            }
            exchange.orderbooks[symbol].reset(levels | {"symbol": symbol, "nonce": 1})
    texts = [one.decode() for one in frames]
    began = time.process_time()
    for text in texts:
        # As its client does with what a socket brings.
        message = json.loads(text)
        exchange.handle_message(client, message.get("data", message))
    took_s = time.process_time() - began
    known = exchange.bidsasks if kind.name == "binance bookTicker" else exchange.orderbooks
    assert len(known) == len(COINS), "every coin's book was kept"
    await exchange.close()
    return took_s


def _theirs(coin: str, kind: Kind) -> str:
    return f"KRW-{coin}" if kind.venue == "upbit" else f"{coin}USDT"


def _shortened(frame: bytes) -> str:
    book = json.loads(frame)
    book["orderbook_units"] = [
        {SHORT[key]: value for key, value in unit.items()} for unit in book["orderbook_units"]
    ]
    return json.dumps({SHORT[key]: value for key, value in book.items()}, separators=(",", ":"))
