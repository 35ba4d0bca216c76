"""
``arb-ray market``: the simulated market measured with the calibration sheet's own yardsticks.

Tables A, C and F of the sheet are measured on the pure market, without sockets, next to
the real numbers; both have a sampling error. Then the honest question: in how many
samples, one a second and symbol, would a taker have had an edge.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from rich.console import Group
from rich.table import Table

from arb_ray.adapters.venues.sim.book_shape import Book
from arb_ray.adapters.venues.sim.coins import E8
from arb_ray.adapters.venues.sim.exchange import ORIGIN_NS
from arb_ray.adapters.venues.sim.instruments import BinanceBook, UpbitBook
from arb_ray.adapters.venues.sim.market import Market
from arb_ray.adapters.venues.sim.noise import (
    MINUTES_PER_DAY,
    STEPS_PER_DAY,
    STEPS_PER_MINUTE,
    STEPS_PER_S,
    bits,
)
from arb_ray.adapters.venues.sim.presets import preset_named
from arb_ray.domain.errors import BadInput
from arb_ray.domain.instrument import Symbol
from arb_ray.engine.spread import CostTerms, Sides, both_directions, target_qty

Edge = tuple[float, float]
"""The better direction's (gross - entry fees, net), bps."""

Evaluate = Callable[[str, Sides, Sides, Sides], Edge | None]
"""Prices one sample: symbol, Upbit's book, Binance's, KRW-USDT's; None when depth is short."""

T = TypeVar("T")

MAJORS: Final = ("BTC", "ETH", "SOL", "XRP")
BAR_STEPS = 5 * STEPS_PER_MINUTE
BARS_PER_DAY = MINUTES_PER_DAY // 5
BARS_PER_PAIR = 6  # table A's snapshots lie half an hour and more apart
RESAMPLES = 200  # of the block bootstrap behind each sampling error
BLOCK_BARS = 48  # four hours: beyond the slow premium's half-life
BUSY = 1.25 / 0.55  # how much busier F's eleven minutes were than a calm market
BUSY_MINUTES = 11
C_HALF_SPREAD_BPS: Final = {"BTC": 0.7, "ETH": 1.2, "SOL": 1.5, "XRP": 1.5}
"""How far a close lay from the fair price in C: in 2025-09 ticks were a fraction of today's."""
SIDES_LEVELS = 20  # levels a side that the economics look at

A_REAL: Final[dict[str, dict[str, float]]] = {
    "BTC": {"mean": 0.4, "std": 7.0, "p01": -15, "p05": -11, "p50": 0.5, "p95": 12, "p99": 16,
            "over10": 15, "over15": 2.7, "over20": 0.4, "over30": 0.06},
    "ETH": {"mean": 0.2, "std": 7.8, "p01": -18, "p05": -12, "p50": 0.2, "p95": 13, "p99": 19,
            "over10": 19, "over15": 4.9, "over20": 0.9, "over30": 0.2},
    "XRP": {"mean": -0.4, "std": 8.4, "p01": -21, "p05": -13, "p50": -0.6, "p95": 13, "p99": 18,
            "over10": 21, "over15": 6.4, "over20": 1.8, "over30": 0.2},
}  # fmt: skip
A_SAMPLES = 1_806
C_REAL: Final[dict[str, float]] = {
    "factor 5 min": 4.5, "factor 1 h": 10.9, "factor 1 d": 40.0,
    "premium less mean BTC": 4.5, "premium less mean ETH": 4.5,
    "premium less mean SOL": 4.5, "premium less mean XRP": 4.5,
    "ETH-BTC": 7.4, "SOL-BTC": 7.1, "XRP-BTC": 6.6,
    "acf 5 min": 0.57, "acf 1 h": 0.32, "acf 4 h": 0.15,
    "P(abs>15) %": 2.4, "P(abs>20) %": 0.3, "P(abs>30) %": 0.05,
    "Binance BTC": 9.3, "Binance ETH": 18.1, "Binance SOL": 21.6, "Binance XRP": 16.3,
    "Upbit BTC": 7.0, "Upbit ETH": 12.9, "Upbit SOL": 17.7, "Upbit XRP": 13.1,
    "correlation BTC": 0.78, "correlation ETH": 0.915, "correlation SOL": 0.915,
    "correlation XRP": 0.915,
}  # fmt: skip
C_BARS = 5_556
F_REAL: Final[dict[str, dict[str, float]]] = {
    "spot BTC": {"spread median": 0.0016, "spread p95": 0.16, "top bid median": 65_000,
                 "depth ev/s": 10.0, "levels/event median": 22, "mid 0.1 s": 0.33,
                 "mid 1 s": 1.25, "mid 5 s": 3.1, "max 1 s / std": 9.0, "bookTicker/s": 112},
    "spot ETH": {"spread median": 0.037, "spread p95": 0.30, "top bid median": 14_000,
                 "depth ev/s": 9.9, "levels/event median": 18, "bookTicker/s": 90},
    "perp BTC": {"spread median": 0.016, "spread p95": 0.032, "top bid median": 165_000,
                 "basis mean": -3.7, "basis std": 0.57, "bookTicker/s": 192},
    "perp ETH": {"spread median": 0.037, "spread p95": 0.037, "top bid median": 36_000,
                 "basis mean": -4.4, "basis std": 0.57, "bookTicker/s": 157},
}  # fmt: skip


def spot_taker(notional_usdt: float) -> Evaluate:
    """Return the evaluator of a VIP0 taker on both spot markets (H), allowances 2 + 2 bps."""
    terms = CostTerms(5.0, 10.0, slippage_allowance_bps=2.0, safety_buffer_bps=2.0)

    def evaluate(symbol: str, u: Sides, n: Sides, f: Sides) -> Edge | None:
        qty = target_qty(n, notional_usdt, 1.0)
        found = [
            one
            for one in both_directions(u, n, f, qty, terms, symbol=Symbol(symbol), at_ns=0)
            if one is not None
        ]
        if not found:
            return None
        return max(one.after_entry_fees_bps for one in found), max(one.net_bps for one in found)

    return evaluate


def report(
    preset: str = "calibrated",
    seed: int = 1,
    hours: float = 1.0,
    symbols: Sequence[str] = MAJORS,
    *,
    days: float = 7.0,
    notional_usdt: float = 1_000.0,
    evaluate: Evaluate | None = None,
) -> dict[str, Any]:
    """
    Measure a preset: tables A and C over ``days``, F over a busy window, edges over ``hours``.

    Every row of a table has ``sim``, ``real``, their standard errors and ``z``, the
    difference in standard errors of both.

    Raises:
        BadConfig: No such preset or symbol.
        BadInput: Too short a time to measure anything.
    """
    if hours <= 0 or days < 1:
        raise BadInput("market report", "hours must be above 0 and days at least 1", "Give more.")
    chosen = preset_named(preset)
    every = tuple(dict.fromkeys((*MAJORS, *symbols)))
    market = Market(chosen, seed, every, ORIGIN_NS)
    closes = _Closes(market, days)
    return {
        "preset": preset,
        "is_realistic": chosen.is_realistic,
        "label": chosen.label,
        "seed": seed,
        "days": days,
        "hours": hours,
        "symbols": list(symbols),
        "table_a": {coin: _table_a(closes, coin) for coin in A_REAL},
        "table_c": _table_c(closes),
        "table_f": _table_f(market),
        "edges": _edges(market, symbols, hours, evaluate or spot_taker(notional_usdt)),
    }


def render(measured: dict[str, Any]) -> Group:
    """Lay a report out for a terminal."""
    parts = []
    head = f"{measured['preset']} (seed {measured['seed']}): {measured['label']}"
    for coin, rows in measured["table_a"].items():
        parts.append(_comparison(f"A. Premium of {coin}, bps (last prices)", rows))
    parts.append(_comparison("C. Five-minute closes, bps", measured["table_c"]))
    for book, rows in measured["table_f"].items():
        parts.append(_comparison(f"F. {book}, a busy window", rows))
    edges = measured["edges"]
    table = Table(title=f"Edges, one sample a second and symbol\n{head}")
    for column in ("", "share %", "± %", "allowed %"):
        table.add_column(column, justify="left" if not column else "right")
    for name, allowed in (("after_entry_fees", 2.0), ("net", 0.2)):
        share, error = edges[f"{name}_share"] * 100, edges[f"{name}_share_se"] * 100
        limit = f"{allowed:g}" if measured["is_realistic"] else "-"
        table.add_row(f"{name} > 0", f"{share:.4f}", f"{error:.4f}", limit)
    table.add_row("samples", str(edges["samples"]), "", "")
    return Group(*parts, table)


def _comparison(title: str, rows: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=title)
    for column in ("", "simulated", "±", "real", "±", "z"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in rows.items():
        cells = ("-" if row[key] is None else f"{row[key]:.4g}" for key in _COLUMNS)
        table.add_row(name, *cells)
    return table


_COLUMNS: Final = ("sim", "sim_se", "real", "real_se", "z")


class _Closes:
    """Five-minute bars of four coins on both venues and of KRW-USDT, logs in bps."""

    def __init__(self, market: Market, days: float) -> None:
        self.bars = round(days * BARS_PER_DAY)
        upbit = {coin: UpbitBook(market, coin) for coin in MAJORS}
        fx = UpbitBook(market, "USDT")
        self.upbit: dict[str, list[float]] = {coin: [] for coin in MAJORS}
        self.binance: dict[str, list[float]] = {coin: [] for coin in MAJORS}
        self.later: dict[str, list[float]] = {coin: [] for coin in MAJORS}
        self.closes: dict[str, list[float]] = {coin: [] for coin in MAJORS}
        self.fx: list[float] = []
        for bar in range(self.bars):
            step = bar * BAR_STEPS
            # The three prices were asked for one after the other, seconds apart (A).
            self.fx.append(_last(fx, step + 2 * STEPS_PER_S))
            for coin in MAJORS:
                self.upbit[coin].append(_last(upbit[coin], step))
                self.closes[coin].append(_close(upbit[coin], coin, step))
                for prices, at in ((self.binance, step), (self.later, step + STEPS_PER_S)):
                    prices[coin].append(math.log(market.spot_mid(coin, at)) * 1e4)

    def premium(self, coin: str) -> list[float]:
        """Return the premium against KRW-USDT at each bar, bps."""
        prices = zip(self.upbit[coin], self.later[coin], self.fx, strict=True)
        return [u - n - f for u, n, f in prices]

    def implied(self, coin: str) -> list[float]:
        """Return the log of KRW per USDT that the coin implies at each bar, bps."""
        prices = zip(self.closes[coin], self.binance[coin], strict=True)
        return [u - n for u, n in prices]


def _last(book: UpbitBook, step: int) -> float:
    """Return the log of a last price: bid or ask, whichever was hit, bps."""
    _, rows = book.book_at(step)
    is_bid = bits(len(book.code) + 17, step) & 1
    return math.log((rows.bids if is_bid else rows.asks)[0][0] / E8) * 1e4


def _close(book: UpbitBook, coin: str, step: int) -> float:
    """Return the log of a close as C saw it: the last book's fair price, give or take."""
    side = 1 if bits(len(coin) + 23, step) & 1 else -1
    at = book.changed_at(step)
    return math.log(book.fair(at)) * 1e4 + side * C_HALF_SPREAD_BPS[coin]


def _table_a(closes: _Closes, coin: str) -> dict[str, dict[str, Any]]:
    premium = closes.premium(coin)[::BARS_PER_PAIR]
    measures: dict[str, Callable[[list[float]], float]] = {
        "mean": statistics.fmean,
        "std": statistics.pstdev,
        **{f"p{p:02d}": _quantile(p) for p in (1, 5, 50, 95, 99)},
        **{f"over{bound}": _share_over(bound) for bound in (10, 15, 20, 30)},
    }
    block = BLOCK_BARS // BARS_PER_PAIR
    return {
        name: _row(measure, premium, block, A_REAL[coin][name], A_SAMPLES)
        for name, measure in measures.items()
    }


def _table_c(closes: _Closes) -> dict[str, dict[str, Any]]:
    implied = {coin: closes.implied(coin) for coin in MAJORS}
    factor = [statistics.fmean(row) for row in zip(*implied.values(), strict=True)]
    rows: dict[str, dict[str, Any]] = {}

    def add(
        name: str, measure: Callable[[list[float]], float], series: list[float], lag: int = 1
    ) -> None:
        # Changes over a lag overlap: a block shorter than the lag would hide that.
        rows[name] = _row(measure, series, max(BLOCK_BARS, lag), C_REAL[name], C_BARS)

    for name, lag in (("factor 5 min", 1), ("factor 1 h", 12), ("factor 1 d", BARS_PER_DAY)):
        if closes.bars > 3 * lag:
            add(name, statistics.pstdev, _changes(factor, lag), lag)
    for coin in MAJORS:
        less = [a - b for a, b in zip(implied[coin], factor, strict=True)]
        add(f"premium less mean {coin}", statistics.pstdev, less)
    pair: list[float] = []
    for coin in ("ETH", "SOL", "XRP"):
        pair = [a - b for a, b in zip(implied[coin], implied["BTC"], strict=True)]
        add(f"{coin}-BTC", statistics.pstdev, pair)
    for name, lag in (("acf 5 min", 1), ("acf 1 h", 12), ("acf 4 h", 48)):
        add(name, _autocorrelation(lag), pair)
    for bound in (15, 20, 30):
        add(f"P(abs>{bound}) %", _share_over(bound), pair)
    moves: dict[str, list[tuple[float, float]]] = {}
    for coin in MAJORS:
        binance, upbit = _changes(closes.binance[coin], 1), _changes(closes.closes[coin], 1)
        add(f"Binance {coin}", statistics.pstdev, binance)
        add(f"Upbit {coin}", statistics.pstdev, upbit)
        moves[coin] = list(zip(binance, upbit, strict=True))
    for coin in MAJORS:
        name = f"correlation {coin}"
        rows[name] = _row(_correlation, moves[coin], BLOCK_BARS, C_REAL[name], C_BARS)
    return rows


def _table_f(market: Market) -> dict[str, dict[str, dict[str, Any]]]:
    start = _busy_minute(market) * STEPS_PER_MINUTE
    tables = {}
    for name, real in F_REAL.items():
        kind, coin = name.split()
        is_perp = kind == "perp"
        book = BinanceBook(market, coin, is_perp=is_perp, rate=1.0)
        samples = _watch(market, book, start, BUSY_MINUTES * STEPS_PER_MINUTE)
        seconds = BUSY_MINUTES * 60
        found: dict[str, float] = {
            "spread median": statistics.median(samples["spread"]),
            "spread p95": _quantile(95)(samples["spread"]),
            "top bid median": statistics.median(samples["top"]),
            "depth ev/s": len(samples["levels"]) / seconds,
            "levels/event median": statistics.median(samples["levels"]),
            "bookTicker/s": sum(samples["tickers"]) / seconds,
            "basis mean": statistics.fmean(samples["basis"]),
            "basis std": statistics.pstdev(samples["basis"]),
        }
        for lag in (1, 10, 50):
            found[f"mid {lag / 10:g} s"] = statistics.pstdev(_changes(samples["mid"], lag))
        moves = _changes(samples["mid"], 10)
        found["max 1 s / std"] = max(map(abs, moves)) / statistics.pstdev(moves)
        tables[name] = {key: _compare(found[key], None, real[key], 1, 1) for key in real}
    return tables


def _watch(market: Market, book: BinanceBook, start: int, steps: int) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = {
        key: [] for key in ("spread", "top", "levels", "tickers", "basis", "mid")
    }
    for step in range(start, start + steps):
        change = book.advance(step)
        if change is not None:
            seen["levels"].append(len(change.bids) + len(change.asks))
            seen["tickers"].append(len(change.tickers))
        (bid, size), (ask, _) = book.book.bids[0], book.book.asks[0]
        seen["spread"].append((ask - bid) / bid * 1e4)
        seen["top"].append(bid * size / E8**2)
        seen["mid"].append(math.log((bid + ask) / 2) * 1e4)
        seen["basis"].append(market.basis_bps(book.asset, step))
    return seen


def _busy_minute(market: Market) -> int:
    """Return the start of eleven minutes about as busy as F's."""
    best, best_miss = 0, math.inf
    for start in range(0, 14 * MINUTES_PER_DAY, BUSY_MINUTES):
        minutes = range(start, start + BUSY_MINUTES)
        square = statistics.fmean(market.busyness(m * STEPS_PER_MINUTE) ** 2 for m in minutes)
        miss = abs(math.sqrt(square) - BUSY)
        if miss < best_miss:
            best, best_miss = start, miss
    return best


def _edges(
    market: Market, symbols: Sequence[str], hours: float, evaluate: Evaluate
) -> dict[str, Any]:
    fx = UpbitBook(market, "USDT")
    pairs = [
        (symbol, UpbitBook(market, symbol), BinanceBook(market, symbol, is_perp=False, rate=0.0))
        for symbol in symbols
    ]
    seconds = round(hours * 3_600)
    samples = short = 0
    best = -math.inf
    per_minute: list[tuple[int, int]] = []
    for second in range(seconds):
        if second % 60 == 0:
            per_minute.append((0, 0))
        step = STEPS_PER_DAY + second * STEPS_PER_S
        f = _sides(fx.book_at(step)[1])
        for symbol, upbit, binance in pairs:
            edge = evaluate(
                symbol, _sides(upbit.book_at(step)[1]), _sides(binance.book_at(step)[1]), f
            )
            if edge is None:
                short += 1
                continue
            samples += 1
            best = max(best, edge[1])
            if edge[0] > 0:
                crossed, paid = per_minute[-1]
                per_minute[-1] = (crossed + 1, paid + (edge[1] > 0))
    found: dict[str, Any] = {"samples": samples, "depth_short": short, "best_net_bps": best}
    for index, name in enumerate(("after_entry_fees", "net")):
        counts = [float(row[index]) for row in per_minute]
        found[f"{name}_share"] = sum(counts) / max(1, samples)
        found[f"{name}_share_se"] = _error(sum, counts, 10) / max(1, samples)
    return found


def _sides(book: Book) -> Sides:
    return (
        tuple([(price / E8, size / E8) for price, size in book.bids[:SIDES_LEVELS]]),
        tuple([(price / E8, size / E8) for price, size in book.asks[:SIDES_LEVELS]]),
    )


def _changes(series: list[float], lag: int) -> list[float]:
    return [b - a for a, b in zip(series, series[lag:], strict=False)]


def _quantile(percent: int) -> Callable[[list[float]], float]:
    return lambda series: sorted(series)[min(len(series) - 1, len(series) * percent // 100)]


def _share_over(bound: float) -> Callable[[list[float]], float]:
    return lambda series: 100 * sum(abs(x) > bound for x in series) / len(series)


def _correlation(pairs: list[tuple[float, float]]) -> float:
    return statistics.correlation([a for a, _ in pairs], [b for _, b in pairs])


def _autocorrelation(lag: int) -> Callable[[list[float]], float]:
    return lambda series: statistics.correlation(series[:-lag], series[lag:])


def _row(
    measure: Callable[[list[T]], float],
    series: list[T],
    block: int,
    real: float,
    real_count: int,
) -> dict[str, Any]:
    return _compare(measure(series), _error(measure, series, block), real, real_count, len(series))


def _compare(
    sim: float, error: float | None, real: float, real_count: int, count: int
) -> dict[str, Any]:
    """Set a number beside the real one; the real one's error is ours at its sample size."""
    real_error = None if error is None else error * math.sqrt(count / real_count)
    z = None
    if error and real_error:
        z = (sim - real) / math.hypot(error, real_error)
    return {"sim": sim, "sim_se": error, "real": real, "real_se": real_error, "z": z}


def _error(measure: Callable[[list[T]], float], series: list[T], block: int) -> float:
    """Return a standard error by the moving-block bootstrap, which keeps autocorrelation."""
    rng = random.Random(len(series))  # noqa: S311  # resampling, and the same for the same data
    block = min(block, len(series))
    count = math.ceil(len(series) / block)
    resampled = []
    for _ in range(RESAMPLES):
        joined: list[T] = []
        for _ in range(count):
            at = rng.randrange(len(series) - block + 1)
            joined += series[at : at + block]
        resampled.append(measure(joined))
    return statistics.pstdev(resampled)
