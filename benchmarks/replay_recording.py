"""A recording of Upbit and Binance spot that is drawn from a seed, in the venues' own frames."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import zstandard

from arb_ray.adapters.storage.recordings import RecordedFrame

START_NS = 1_790_000_000 * 10**9
FX_KRW = 1_400.0
LEVELS = 10
BASE_USDT = 100.0
SYMBOLS = (
    "BTC", "ETH", "XRP", "SOL", "DOGE", "ADA", "TRX", "AVAX", "LINK", "DOT",
    "BCH", "NEAR", "ETC", "APT", "XLM", "HBAR", "SUI", "ATOM", "AAVE", "ALGO",
)  # fmt: skip


def write_recording(
    path: Path, *, symbols: Sequence[str], frames: int, seed: int = 1, swing_bps: float = 60.0
) -> Path:
    """
    Write ``frames`` frames of books, a millisecond apart, and return ``path``.

    Each coin's premium wanders within ``swing_bps``: beyond some 45 entries pay.
    """
    encode = msgspec.json.Encoder().encode
    packed = zstandard.ZstdCompressor(level=3)
    lines = (encode(frame) + b"\n" for frame in _frames(symbols, frames, seed, swing_bps))
    path.write_bytes(packed.compress(b"".join(lines)))
    return path


def _frames(
    symbols: Sequence[str], count: int, seed: int, swing_bps: float
) -> Iterator[RecordedFrame]:
    chance = random.Random(seed)
    premium = dict.fromkeys(symbols, 0.0)
    price = dict.fromkeys(symbols, BASE_USDT)
    for number in range(count):
        at_ns = START_NS + number * 1_000_000
        turn = number % (2 * len(symbols) + 1)
        if turn == 2 * len(symbols):
            yield RecordedFrame(at_ns, "upbit", _upbit("KRW-USDT", FX_KRW, 1.0, at_ns, chance, 1e5))
            continue
        symbol = symbols[turn // 2]
        if turn % 2:
            price[symbol] *= 1 + chance.gauss(0, 0.2) / 1e4
            text = _binance(symbol, price[symbol], number, chance)
            yield RecordedFrame(at_ns, "binance_spot", text)
        else:
            step = premium[symbol] + chance.gauss(0, swing_bps / 12)
            premium[symbol] = max(-swing_bps, min(swing_bps, step))
            mid = price[symbol] * FX_KRW * (1 + premium[symbol] / 1e4)
            text = _upbit(f"KRW-{symbol}", mid, mid * 1e-5, at_ns, chance, 50.0)
            yield RecordedFrame(at_ns, "upbit", text)


def _upbit(
    code: str, mid: float, tick: float, at_ns: int, chance: random.Random, size: float
) -> str:
    units = [
        {
            "ask_price": round(mid + tick * (i + 0.5), 4),
            "bid_price": round(mid - tick * (i + 0.5), 4),
            "ask_size": round(size * chance.uniform(0.5, 1.5), 4),
            "bid_size": round(size * chance.uniform(0.5, 1.5), 4),
        }
        for i in range(LEVELS)
    ]
    return json.dumps(
        {
            "type": "orderbook",
            "code": code,
            "timestamp": at_ns // 1_000_000,
            "total_ask_size": 1.0,
            "total_bid_size": 1.0,
            "orderbook_units": units,
            "stream_type": "REALTIME",
            "level": 0,
        },
        separators=(",", ":"),
    )


def _binance(symbol: str, mid: float, number: int, chance: random.Random) -> str:
    def side(sign: int) -> list[list[str]]:
        return [
            [f"{mid * (1 + sign * 1e-5 * (i + 0.5)):.4f}", f"{50 * chance.uniform(0.5, 1.5):.4f}"]
            for i in range(LEVELS)
        ]

    data = {"lastUpdateId": number + 1, "bids": side(-1), "asks": side(1)}
    stream = f"{symbol.lower()}usdt@depth{LEVELS}@100ms"
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":"))
