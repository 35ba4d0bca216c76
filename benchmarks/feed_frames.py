"""Frames as the venues send them, of books that move; the same ones for everybody and every run."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence

import msgspec

COINS = ("BTC", "ETH", "XRP", "SOL", "DOGE", "ADA", "TRX", "AVAX", "LINK", "DOT")
START_MS = 1_790_000_000_000
LEVELS_OF_DIFF = 12  # changed levels a side; recorded BTCUSDT diffs of 100 ms have 5 to 40
SNAPSHOT_LEVELS = 1_000


class Kind(msgspec.Struct, frozen=True):
    """One kind of frame: who sends it, and whether it is of the order book."""

    name: str
    venue: str
    is_book: bool


KINDS = (
    Kind("upbit orderbook 15", "upbit", is_book=True),
    Kind("binance depth diff", "binance_spot", is_book=True),
    Kind("binance depth20", "binance_spot", is_book=True),
    Kind("binance bookTicker", "binance_spot", is_book=False),
)


def kind_named(name: str) -> Kind:
    """Return a kind by its name."""
    return next(kind for kind in KINDS if kind.name == name)


def frames(kind: Kind, count: int) -> list[bytes]:
    """Return ``count`` frames, a symbol after the other."""
    rng = random.Random(7)
    makers = {
        "upbit orderbook 15": _upbit,
        "binance depth diff": _diff,
        "binance depth20": _partial,
        "binance bookTicker": _ticker,
    }
    return [makers[kind.name](rng, number) for number in range(count)]


def snapshot(coin: str) -> bytes:
    """Return the REST book that diffs of ``coin`` continue from update 1 on."""
    price = _price(coin)
    sides = {
        name: [[f"{price + sign * level * 0.01:.2f}", "1.50000000"] for level in levels]
        for name, sign, levels in (
            ("bids", -1, range(1, SNAPSHOT_LEVELS + 1)),
            ("asks", 1, range(1, SNAPSHOT_LEVELS + 1)),
        )
    }
    return json.dumps({"lastUpdateId": 1} | sides).encode()


def _price(coin: str) -> float:
    return 1_000.0 * (1 + COINS.index(coin))


def _turn(number: int) -> tuple[str, int]:
    return COINS[number % len(COINS)], number // len(COINS)


def _compact(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _upbit(rng: random.Random, number: int) -> bytes:
    coin, turn = _turn(number)
    best = 1_000 * (_price(coin) + rng.randrange(-5, 5))
    units = [
        {
            "ask_price": best + 1_000 * (level + 1),
            "bid_price": best - 1_000 * level,
            "ask_size": round(rng.uniform(0.001, 30), 8),
            "bid_size": round(rng.uniform(0.001, 30), 8),
        }
        for level in range(15)
    ]
    return _compact(
        {
            "type": "orderbook",
            "code": f"KRW-{coin}",
            "timestamp": START_MS + 10 * turn,
            "total_ask_size": 123.45678901,
            "total_bid_size": 98.76543210,
            "orderbook_units": units,
            "stream_type": "REALTIME",
            "level": 0,
        }
    )


def _diff(rng: random.Random, number: int) -> bytes:
    coin, turn = _turn(number)
    price = _price(coin)
    sides = []
    for sign in (-1, 1):
        # Most changes are far from the market and some delete, as recordings have it.
        far = sorted(rng.sample(range(2, SNAPSHOT_LEVELS), LEVELS_OF_DIFF - 2))
        sizes = [0.0 if rng.random() < 0.2 else rng.uniform(0.001, 30) for _ in far]
        near = [(1, rng.uniform(0.001, 30))] if turn % 2 else [(1, 1.5), (2, rng.uniform(0, 9))]
        levels = sorted(dict([*zip(far, sizes, strict=True), *near]).items())
        sides.append([[f"{price + sign * at * 0.01:.2f}", f"{size:.8f}"] for at, size in levels])
    return _compact(
        {
            "stream": f"{coin.lower()}usdt@depth@100ms",
            "data": {
                "e": "depthUpdate",
                "E": START_MS + 100 * turn,
                "s": f"{coin}USDT",
                "U": 5 * turn + 2,
                "u": 5 * turn + 6,
                "b": sides[0],
                "a": sides[1],
            },
        }
    )


def _partial(rng: random.Random, number: int) -> bytes:
    coin, turn = _turn(number)
    best = _price(coin) + rng.randrange(-5, 5)
    sides = [
        [[f"{best + sign * (at + 1) / 2:.2f}", f"{rng.uniform(0.001, 30):.8f}"] for at in range(20)]
        for sign in (-1, 1)
    ]
    return _compact(
        {
            "stream": f"{coin.lower()}usdt@depth20@100ms",
            "data": {"lastUpdateId": 100 + turn, "bids": sides[0], "asks": sides[1]},
        }
    )


def _ticker(rng: random.Random, number: int) -> bytes:
    coin, turn = _turn(number)
    best = _price(coin) + rng.randrange(-5, 5)
    return _compact(
        {
            "stream": f"{coin.lower()}usdt@bookTicker",
            "data": {
                "u": 400_000 + turn,
                "s": f"{coin}USDT",
                "b": f"{best:.8f}",
                "B": f"{rng.uniform(0.001, 30):.8f}",
                "a": f"{best + 0.01:.8f}",
                "A": f"{rng.uniform(0.001, 30):.8f}",
            },
        }
    )


def mean_bytes(some: Sequence[bytes]) -> float:
    """Return the mean size of a frame."""
    return sum(itertools.starmap(len, ((one,) for one in some))) / len(some)
