"""Upbit's frames, byte for byte: keys, their order and the spelling of numbers as on the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from arb_ray.adapters.venues.sim.book_shape import Book, Rows
from arb_ray.adapters.venues.sim.coins import E8
from arb_ray.adapters.venues.sim.instruments import Trade

DIGITS_E8 = 8
NUMBERS_CACHED = 16_384  # spellings kept, 4 MB: fifty books on show, full within two minutes

SHORT_KEYS: Final = {
    "orderbook": {
        "type": "ty", "code": "cd", "timestamp": "tms", "total_ask_size": "tas",
        "total_bid_size": "tbs", "orderbook_units": "obu", "ask_price": "ap",
        "bid_price": "bp", "ask_size": "as", "bid_size": "bs", "stream_type": "st",
        "level": "lv",
    },
    "trade": {
        "type": "ty", "code": "cd", "timestamp": "tms", "trade_date": "td",
        "trade_time": "ttm", "trade_timestamp": "ttms", "trade_price": "tp",
        "trade_volume": "tv", "ask_bid": "ab", "prev_closing_price": "pcp", "change": "c",
        "change_price": "cp", "sequential_id": "sid", "best_ask_price": "bap",
        "best_ask_size": "bas", "best_bid_price": "bbp", "best_bid_size": "bbs",
        "stream_type": "st",
    },
    "ticker": {
        "type": "ty", "code": "cd", "opening_price": "op", "high_price": "hp",
        "low_price": "lp", "trade_price": "tp", "prev_closing_price": "pcp", "change": "c",
        "change_price": "cp", "signed_change_price": "scp", "change_rate": "cr",
        "signed_change_rate": "scr", "trade_volume": "tv", "acc_trade_volume": "atv",
        "acc_trade_volume_24h": "atv24h", "acc_trade_price": "atp",
        "acc_trade_price_24h": "atp24h", "trade_date": "tdt", "trade_time": "ttm",
        "trade_timestamp": "ttms", "ask_bid": "ab", "acc_ask_volume": "aav",
        "acc_bid_volume": "abv", "market_state": "ms", "delisting_date": "dd",
        "timestamp": "tms", "stream_type": "st",
    },
}  # fmt: skip
"""DEFAULT key to SIMPLE key, by message type (Upbit's websocket pages, v1.6.4)."""


@lru_cache(maxsize=NUMBERS_CACHED)
def number(value_e8: int) -> str:
    """
    Spell a number as Upbit's servers do: Java's ``Double.toString``.

    ``1.16539E8`` from ten million on, ``7.9276E-4`` below a thousandth, else ``127.0``.
    """
    digits = str(value_e8)
    exponent = len(digits) - 1 - DIGITS_E8
    if value_e8 and not -3 <= exponent < 7:
        return f"{digits[0]}.{digits[1:].rstrip('0') or '0'}E{exponent}"
    whole, rest = divmod(value_e8, E8)
    return f"{whole}.{f'{rest:08d}'.rstrip('0') or '0'}"


@lru_cache(maxsize=NUMBERS_CACHED)
def plain(value_e8: int) -> str:
    """Spell a number without exponent and without needless zeros, as SIMPLE frames do."""
    whole, rest = divmod(value_e8, E8)
    return f"{whole}.{rest:08d}".rstrip("0") if rest else str(whole)


def fixed(value_e8: int) -> str:
    """Spell a number with eight decimals, as trade frames do."""
    whole, rest = divmod(value_e8, E8)
    return f"{whole}.{rest:08d}"


def orderbook(
    code: str, at_ms: int, book: Book, units: int, *, stream_type: str, is_simple: bool
) -> str:
    """Render one orderbook frame with ``units`` units; a thin side is padded with zeros."""
    bids, asks = book.bids[:units], book.asks[:units]
    total_ask = number(sum(size for _, size in book.asks))
    total_bid = number(sum(size for _, size in book.bids))
    rows = _units(bids, asks, is_simple=is_simple)
    if is_simple:
        return (
            f'{{"ty":"orderbook","cd":"{code}","tms":{at_ms},"tas":{total_ask},'
            f'"tbs":{total_bid},"obu":[{rows}],"st":"{stream_type}","lv":0}}'
        )
    return (
        f'{{"type":"orderbook","code":"{code}","timestamp":{at_ms},'
        f'"total_ask_size":{total_ask},"total_bid_size":{total_bid},'
        f'"orderbook_units":[{rows}],"stream_type":"{stream_type}","level":0}}'
    )


def _units(bids: Rows, asks: Rows, *, is_simple: bool) -> str:
    longer = max(len(bids), len(asks))
    nothing = ((0, 0),)
    bids += nothing * (longer - len(bids))
    asks += nothing * (longer - len(asks))
    if is_simple:
        return ",".join(
            f'{{"ap":{plain(ap)},"bp":{plain(bp)},"as":{number(az)},"bs":{number(bz)}}}'
            for (ap, az), (bp, bz) in zip(asks, bids, strict=True)
        )
    return ",".join(
        f'{{"ask_price":{number(ap)},"bid_price":{number(bp)},'
        f'"ask_size":{number(az)},"bid_size":{number(bz)}}}'
        for (ap, az), (bp, bz) in zip(asks, bids, strict=True)
    )


def trade(
    code: str, one: Trade, book: Book, closing: int, *, stream_type: str, is_simple: bool
) -> str:
    """Render one trade frame; the exchange sends it some 46 ms after the trade (W)."""
    at = datetime.fromtimestamp(one.at_ms / 1_000, UTC)
    (bid, bid_size), (ask, ask_size) = book.bids[0], book.asks[0]
    values = {
        "type": '"trade"',
        "code": f'"{code}"',
        "timestamp": str(one.at_ms + 46),
        "trade_date": f'"{at:%Y-%m-%d}"',
        "trade_time": f'"{at:%H:%M:%S}"',
        "trade_timestamp": str(one.at_ms),
        "trade_price": fixed(one.price),
        "trade_volume": fixed(one.size),
        "ask_bid": '"ASK"' if one.is_taker_sell else '"BID"',
        "prev_closing_price": fixed(closing),
        "change": f'"{_change(one.price - closing)}"',
        "change_price": fixed(abs(one.price - closing)),
        "sequential_id": str(one.id),
        "best_ask_price": plain(ask),
        "best_ask_size": number(ask_size),
        "best_bid_price": plain(bid),
        "best_bid_size": number(bid_size),
        "stream_type": f'"{stream_type}"',
    }
    return _render("trade", values, is_simple=is_simple)


def ticker(
    code: str, one: Trade, closing: int, at_ms: int, *, stream_type: str, is_simple: bool
) -> str:
    """Render one ticker frame; the day's volumes are made up, its prices are consistent."""
    at = datetime.fromtimestamp(one.at_ms / 1_000, UTC)
    change = one.price - closing
    rate = change / closing
    volume = one.size * 5_000
    turnover = volume * one.price // E8
    values = {
        "type": '"ticker"',
        "code": f'"{code}"',
        "opening_price": number(closing),
        "high_price": number(max(closing, one.price)),
        "low_price": number(min(closing, one.price)),
        "trade_price": number(one.price),
        "prev_closing_price": fixed(closing),
        "change": f'"{_change(change)}"',
        "change_price": fixed(abs(change)),
        "signed_change_price": f"{'-' if change < 0 else ''}{fixed(abs(change))}",
        "change_rate": f"{abs(rate):.10f}",
        "signed_change_rate": f"{rate:.10f}",
        "trade_volume": fixed(one.size),
        "acc_trade_volume": fixed(volume),
        "acc_trade_volume_24h": fixed(2 * volume),
        "acc_trade_price": fixed(turnover),
        "acc_trade_price_24h": fixed(2 * turnover),
        "trade_date": f'"{at:%Y%m%d}"',
        "trade_time": f'"{at:%H%M%S}"',
        "trade_timestamp": str(one.at_ms),
        "ask_bid": '"ASK"' if one.is_taker_sell else '"BID"',
        "acc_ask_volume": fixed(volume // 2),
        "acc_bid_volume": fixed(volume - volume // 2),
        "market_state": '"ACTIVE"',
        "delisting_date": "null",
        "timestamp": str(at_ms),
        "stream_type": f'"{stream_type}"',
    }
    return _render("ticker", values, is_simple=is_simple)


def error(name: str, message: str) -> str:
    """Render an error frame; the exchange closes with 1000 after it."""
    return f'{{"error":{{"name":"{name}","message":"{message}"}}}}'


def _render(kind: str, values: dict[str, str], *, is_simple: bool) -> str:
    keys = SHORT_KEYS[kind]
    return (
        "{"
        + ",".join(f'"{keys[key] if is_simple else key}":{value}' for key, value in values.items())
        + "}"
    )


def _change(difference: int) -> str:
    return "RISE" if difference > 0 else "FALL" if difference < 0 else "EVEN"
