"""
The calibration sheet's tables A, C and F as intervals, and where they contradict each other.

A number is written with a limited precision, or as a range over coins: what it says is the
interval, and a measurement inside the interval agrees with it.
"""

from __future__ import annotations

import math
from typing import Final

Interval = tuple[float, float]

A_SAMPLES: Final = 1_806
A_DAYS: Final = 210.0  # 2026-01-25..08-23
C_DAYS: Final = 21.0  # 2025-09-01..21, of which 5,556 bars were there
C_BARS: Final = 5_556
F_MINUTES: Final = 11


def about(value: float, digit: float) -> Interval:
    """Return what a number says whose last written digit is worth ``digit``."""
    return value - digit / 2, value + digit / 2


def _a(
    mean: float, std: float, quantiles: tuple[float, ...], over: tuple[Interval, ...]
) -> dict[str, Interval]:
    names = ("p01", "p05", "p50", "p95", "p99")
    digits = (1.0, 1.0, 0.1, 1.0, 1.0)
    rows = {"mean": about(mean, 0.1), "std": about(std, 0.1)}
    rows |= {n: about(q, d) for n, q, d in zip(names, quantiles, digits, strict=True)}
    return rows | dict(zip(("over10", "over15", "over20", "over30"), over, strict=True))


A: Final[dict[str, dict[str, Interval]]] = {
    "BTC": _a(
        0.4, 7.0, (-15, -11, 0.5, 12, 16),
        (about(15, 1), about(2.7, 0.1), about(0.4, 0.1), about(0.06, 0.01)),
    ),
    "ETH": _a(
        0.2, 7.8, (-18, -12, 0.2, 13, 19),
        (about(19, 1), about(4.9, 0.1), about(0.9, 0.1), about(0.2, 0.1)),
    ),
    "XRP": _a(
        -0.4, 8.4, (-21, -13, -0.6, 13, 18),
        (about(21, 1), about(6.4, 0.1), about(1.8, 0.1), about(0.2, 0.1)),
    ),
}  # fmt: skip

C_UPBIT: Final = {"BTC": 7.0, "ETH": 12.9, "SOL": 17.7, "XRP": 13.1}
C_BINANCE: Final = {"BTC": 9.3, "ETH": 18.1, "SOL": 21.6, "XRP": 16.3}
C_CORRELATION: Final[dict[str, Interval]] = {
    "BTC": about(0.78, 0.01), "ETH": (0.90, 0.93), "SOL": (0.90, 0.93), "XRP": (0.90, 0.93),
}  # fmt: skip

C: Final[dict[str, Interval]] = {
    "factor 5 min": about(4.5, 0.1),
    "factor 1 h": about(10.9, 0.1),
    "factor 1 d": about(40, 1),
    **{f"premium less mean {coin}": (4.2, 4.8) for coin in C_UPBIT},
    "ETH-BTC": about(7.4, 0.1),
    "SOL-BTC": about(7.1, 0.1),
    "XRP-BTC": about(6.6, 0.1),
    "acf 5 min": (0.52, 0.63),
    "acf 1 h": (0.26, 0.38),
    "acf 4 h": (0.11, 0.19),
    "P(abs>15) %": (1.7, 3.2),
    "P(abs>20) %": (0.1, 0.5),
    "P(abs>30) %": (0.0, 0.05),
    **{f"Binance {coin}": about(std, 0.1) for coin, std in C_BINANCE.items()},
    **{f"Upbit {coin}": about(std, 0.1) for coin, std in C_UPBIT.items()},
    **{f"correlation {coin}": within for coin, within in C_CORRELATION.items()},
}

# The grids' ticks of 2024-08 turn F's spreads into ticks, because prices moved since and
# ticks did not: 0.01 USDT was 0.0016 bps of BTC and 0.037 of ETH, 0.1 was 0.016.
F: Final[dict[str, dict[str, Interval]]] = {
    "spot BTC": {
        "spread median, ticks": (1, 1), "spread p95, bps": about(0.16, 0.01),
        "top bid median, USDT": about(65_000, 1_000), "depth ev/s": about(10.0, 0.1),
        "levels/event median": about(22, 1), "mid 0.1 s": about(0.33, 0.01),
        "mid 1 s": about(1.25, 0.01), "mid 5 s": about(3.1, 0.1),
        "max 1 s / std": about(9.0, 1.0), "bookTicker/s": about(112, 1),
    },
    "spot ETH": {
        "spread median, ticks": (1, 1), "spread p95, bps": about(0.30, 0.01),
        "top bid median, USDT": about(14_000, 1_000), "depth ev/s": about(9.9, 0.1),
        "levels/event median": about(18, 1), "bookTicker/s": about(90, 1),
    },
    "perp BTC": {
        "spread median, ticks": (1, 1), "spread p95, ticks": (2, 2),
        "top bid median, USDT": about(165_000, 1_000), "basis mean": about(-3.7, 0.1),
        "basis std": about(0.57, 0.01), "bookTicker/s": about(192, 1),
    },
    "perp ETH": {
        "spread median, ticks": (1, 1), "spread p95, ticks": (1, 1),
        "top bid median, USDT": about(36_000, 1_000), "basis mean": about(-4.4, 0.1),
        "basis std": about(0.57, 0.01), "bookTicker/s": about(157, 1),
    },
}  # fmt: skip


def implied_change_bps(upbit: float, binance: float, correlation: float) -> float:
    """Return how much KRW per USDT, as a coin implies it, changes between two closes."""
    return math.sqrt(upbit**2 + binance**2 - 2 * correlation * upbit * binance)


def change_by_returns_bps() -> float:
    """Return the coins' mean implied change (rms) by C's returns, correlations at their best."""
    squares = [
        implied_change_bps(C_UPBIT[coin], C_BINANCE[coin], C_CORRELATION[coin][1]) ** 2
        for coin in C_UPBIT
    ]
    return math.sqrt(sum(squares) / len(squares))


def change_by_premia_bps() -> float:
    """
    Return the same by C's other rows; for any four series the two must be equal.

    The mean square of four changes is the square of their mean's change plus the mean
    square of the rest, and the rest has a std at rest of 4.8 at most and an
    autocorrelation of 0.52 at least.
    """
    rest = C["premium less mean BTC"][1] * math.sqrt(2 * (1 - C["acf 5 min"][0]))
    return math.hypot(C["factor 5 min"][1], rest)


CONTRADICTED: Final = frozenset(
    {*(f"Upbit {coin}" for coin in C_UPBIT), "correlation ETH", "correlation SOL"}
)
"""Rows of C that no market can have together with C's other rows (see docs/SIMULATOR.md)."""
