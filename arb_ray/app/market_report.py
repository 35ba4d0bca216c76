"""
A simulated market measured with the calibration sheet's own yardsticks, without sockets.

Table A is sampled as the sheet's was (8.6 snapshots a day, prices seconds apart), table C
at five-minute closes, table F over busy windows of eleven minutes. Then the honest
question, in ``market_edges``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from arb_ray.adapters.venues.sim.book_shape import Book
from arb_ray.adapters.venues.sim.coins import E8
from arb_ray.adapters.venues.sim.exchange import ORIGIN_NS
from arb_ray.adapters.venues.sim.instruments import BUSY, BinanceBook, UpbitBook
from arb_ray.adapters.venues.sim.market import Market
from arb_ray.adapters.venues.sim.noise import (
    MINUTES_PER_DAY,
    STEPS_PER_DAY,
    STEPS_PER_MINUTE,
    STEPS_PER_S,
    bits,
    key_of,
    unit,
)
from arb_ray.adapters.venues.sim.presets import preset_named
from arb_ray.app import market_sheet as sheet
from arb_ray.app.market_edges import Evaluate, LegB, count_edges, verdict
from arb_ray.app.market_errors import (
    Row,
    Tell,
    bootstrap_error,
    changes,
    compare,
    correlation,
    quantile,
    share_over,
    silent,
)
from arb_ray.domain.errors import BadInput

T = TypeVar("T")

MAJORS: Final = ("BTC", "ETH", "SOL", "XRP")
BAR_STEPS = 5 * STEPS_PER_MINUTE
BARS_PER_DAY = MINUTES_PER_DAY // 5
DAY_FACTOR = 10  # table A and the edges span ten times the days of table C, as the sheet's do
F_WINDOWS = 8  # of eleven minutes
F_SEARCH_DAYS = 84
C_HALF_SPREAD_BPS: Final = {"BTC": 0.7, "ETH": 1.2, "SOL": 1.5, "XRP": 1.5}
"""How far a close lay from the fair price in C: in 2025-09 ticks were a fraction of today's."""


def report(
    preset: str = "calibrated",
    seed: int = 1,
    hours: float = 1.0,
    symbols: Sequence[str] = MAJORS,
    *,
    days: float = sheet.C_DAYS,
    leg_b: LegB = "spot",
    notional_usdt: float = 1_000.0,
    evaluate: Evaluate | None = None,
    tell: Tell = silent,
) -> dict[str, Any]:
    """
    Measure a preset: table C over ``days``, A over ten times as many, F over busy windows.

    Edges are counted over ``hours`` of seconds, spread in minutes over A's days.

    Raises:
        BadConfig: No such preset or symbol.
        BadInput: Too short a time to measure anything.
    """
    if hours <= 0 or days < 1:
        raise BadInput("market report", "hours must be above 0 and days at least 1", "Give more.")
    chosen = preset_named(preset)
    every = tuple(dict.fromkeys((*MAJORS, *symbols)))
    market = Market(chosen, seed, every, ORIGIN_NS)
    span_days = DAY_FACTOR * days
    edges = count_edges(
        market, symbols, hours, span_days, leg_b, notional_usdt, evaluate=evaluate, tell=tell
    )
    return {
        "preset": preset,
        "is_realistic": chosen.is_realistic,
        "label": chosen.label,
        "seed": seed,
        "days": days,
        "hours": hours,
        "leg_b": leg_b,
        "symbols": list(symbols),
        "table_a": _table_a(market, span_days, tell),
        "table_c": _table_c(_Closes(market, days, tell)),
        "table_f": _table_f(market, tell),
        "change_by_returns_bps": sheet.change_by_returns_bps(),
        "change_by_premia_bps": sheet.change_by_premia_bps(),
        "edges": edges,
        "verdict": verdict(edges),
    }


def _table_a(market: Market, span_days: float, tell: Tell) -> dict[str, dict[str, Row]]:
    count = max(20, round(sheet.A_SAMPLES * span_days / sheet.A_DAYS))
    every = span_days * STEPS_PER_DAY / count
    steps = [round((i + unit(market.seed, i)) * every) for i in range(count)]
    fx = UpbitBook(market, "USDT")
    books = {coin: UpbitBook(market, coin) for coin in sheet.A}
    premia: dict[str, list[float]] = {coin: [] for coin in sheet.A}
    for done, step in enumerate(steps, 1):
        # The three prices were asked for one after the other, seconds apart.
        krw = _last(fx, step + 2 * STEPS_PER_S)
        for coin, book in books.items():
            usdt = math.log(market.spot_mid(coin, step + STEPS_PER_S)) * 1e4
            premia[coin].append(_last(book, step) - usdt - krw)
        tell(done, count, "snapshots of table A")
    block = round(STEPS_PER_DAY / every)  # a day: eight half-lives of the slow premium
    return {coin: _table_a_of(premia[coin], sheet.A[coin], block) for coin in sheet.A}


def _table_a_of(
    premium: list[float], real: dict[str, sheet.Interval], block: int
) -> dict[str, Row]:
    measures: dict[str, Callable[[list[float]], float]] = {
        "mean": statistics.fmean,
        "std": statistics.pstdev,
        **{f"p{p:02d}": quantile(p) for p in (1, 5, 50, 95, 99)},
        **{f"over{bound}": share_over(bound) for bound in (10, 15, 20, 30)},
    }
    return {
        name: _row(
            measure,
            premium,
            block,
            real[name],
            sheet.A_SAMPLES,
            is_share=name.startswith("over"),
        )
        for name, measure in measures.items()
    }


def _last(book: UpbitBook, step: int) -> float:
    """Return the log of a last price: bid or ask, whichever was hit, bps."""
    bid, ask = book.touch_at(step)
    is_bid = bits(key_of(17, book.code), step) & 1
    return math.log((bid if is_bid else ask) / E8) * 1e4


class _Closes:
    """Five-minute closes of four coins on both venues, logs in bps."""

    def __init__(self, market: Market, days: float, tell: Tell) -> None:
        self.bars = round(days * BARS_PER_DAY)
        books = {coin: UpbitBook(market, coin) for coin in MAJORS}
        self.upbit: dict[str, list[float]] = {coin: [] for coin in MAJORS}
        self.binance: dict[str, list[float]] = {coin: [] for coin in MAJORS}
        for bar in range(self.bars):
            step = bar * BAR_STEPS
            for coin, book in books.items():
                self.upbit[coin].append(_close(book, coin, step))
                self.binance[coin].append(math.log(market.spot_mid(coin, step)) * 1e4)
            tell(bar + 1, self.bars, "bars of table C")

    def implied(self, coin: str) -> list[float]:
        """Return the log of KRW per USDT that the coin implies at each bar, bps."""
        prices = zip(self.upbit[coin], self.binance[coin], strict=True)
        return [u - n for u, n in prices]


def _close(book: UpbitBook, coin: str, step: int) -> float:
    """Return the log of a close as C saw it: the last trade's fair price, give or take."""
    side = 1 if bits(key_of(23, coin), step) & 1 else -1
    at = book.changed_at(book.last_trade_at(step))
    return math.log(book.fair(at)) * 1e4 + side * C_HALF_SPREAD_BPS[coin]


def _table_c(closes: _Closes) -> dict[str, Row]:
    implied = {coin: closes.implied(coin) for coin in MAJORS}
    factor = [statistics.fmean(row) for row in zip(*implied.values(), strict=True)]
    rows: dict[str, Row] = {}

    def add(name: str, measure: Callable[[list[T]], float], series: list[T]) -> None:
        # A day is beyond the premium's memory; a day's changes overlap for another one.
        block = 3 * BARS_PER_DAY if name == "factor 1 d" else BARS_PER_DAY
        rows[name] = _row(
            measure,
            series,
            block,
            sheet.C[name],
            sheet.C_BARS,
            is_share=name.startswith("P("),
            is_contradicted=name in sheet.CONTRADICTED,
        )

    for name, lag in (("factor 5 min", 1), ("factor 1 h", 12), ("factor 1 d", BARS_PER_DAY)):
        # A day's changes are too few in less than a fortnight to have an error.
        if closes.bars > 14 * lag:
            add(name, statistics.pstdev, changes(factor, lag))
    for coin in MAJORS:
        less = [a - b for a, b in zip(implied[coin], factor, strict=True)]
        add(f"premium less mean {coin}", statistics.pstdev, less)
    pair: list[float] = []
    for coin in ("ETH", "SOL", "XRP"):
        pair = [a - b for a, b in zip(implied[coin], implied["BTC"], strict=True)]
        add(f"{coin}-BTC", statistics.pstdev, pair)
    for name, lag in (("acf 5 min", 1), ("acf 1 h", 12), ("acf 4 h", 48)):
        # Pairs are made before resampling, so that none spans the seam of two blocks.
        add(name, correlation, list(zip(pair[:-lag], pair[lag:], strict=True)))
    for bound in (15, 20, 30):
        add(f"P(abs>{bound}) %", share_over(bound), pair)
    for coin in MAJORS:
        binance, upbit = changes(closes.binance[coin], 1), changes(closes.upbit[coin], 1)
        add(f"Binance {coin}", statistics.pstdev, binance)
        add(f"Upbit {coin}", statistics.pstdev, upbit)
        add(f"correlation {coin}", correlation, list(zip(binance, upbit, strict=True)))
    return rows


def _table_f(market: Market, tell: Tell) -> dict[str, dict[str, Row]]:
    starts = _busy_minutes(market)
    tables = {}
    done = 0
    for name, real in sheet.F.items():
        kind, coin = name.split()
        found: list[dict[str, float]] = []
        for start in starts:
            book = BinanceBook(market, coin, is_perp=kind == "perp", rate=1.0)
            found.append(_watch(market, book, start * STEPS_PER_MINUTE))
            done += 1
            tell(done, len(starts) * len(sheet.F), "windows of table F")
        rows = {}
        for key, within in real.items():
            values = [one[key] for one in found]
            # The sheet has one window, so its error is that of one.
            spread = statistics.stdev(values)
            error = spread / math.sqrt(len(values))
            rows[key] = compare(statistics.fmean(values), error, within, spread)
        tables[name] = rows
    return tables


def _watch(market: Market, book: BinanceBook, start: int) -> dict[str, float]:
    """Measure eleven minutes of a book every 100 ms, as the sheet's was."""
    spreads, tops, mids, basis, levels, tickers = ([] for _ in range(6))
    ticks = []
    tick = book.coin.perp_tick_e8 if book.is_perp else book.coin.spot_tick_e8
    steps = sheet.F_MINUTES * STEPS_PER_MINUTE
    for step in range(start, start + steps):
        change = book.advance(step)
        if change is not None:
            levels.append(len(change.bids) + len(change.asks))
            tickers.append(len(change.tickers))
        shown: Book = book.book
        (bid, size), (ask, _) = shown.bids[0], shown.asks[0]
        ticks.append((ask - bid) / tick)
        spreads.append((ask - bid) / bid * 1e4)
        tops.append(bid * size / E8**2)
        mids.append(math.log((bid + ask) / 2) * 1e4)
        basis.append(market.basis_bps(book.asset, step))
    seconds = sheet.F_MINUTES * 60
    moves = changes(mids[::STEPS_PER_S], 1)
    return {
        "spread median, ticks": statistics.median(ticks),
        "spread p95, ticks": quantile(95)(ticks),
        "spread p95, bps": quantile(95)(spreads),
        "top bid median, USDT": statistics.median(tops),
        # The first event is the whole book, not a change of it.
        "depth ev/s": len(levels) / seconds,
        "levels/event median": statistics.median(levels[1:]),
        "bookTicker/s": sum(tickers) / seconds,
        "basis mean": statistics.fmean(basis),
        "basis std": statistics.pstdev(basis),
        **{f"mid {n / 10:g} s": statistics.pstdev(changes(mids, n)) for n in (1, 10, 50)},
        "max 1 s / std": max(map(abs, moves)) / statistics.pstdev(moves),
    }


def _busy_minutes(market: Market) -> list[int]:
    """Return the starts of the windows that are most nearly as busy as F's."""
    misses = []
    for start in range(0, F_SEARCH_DAYS * MINUTES_PER_DAY, sheet.F_MINUTES):
        minutes = range(start, start + sheet.F_MINUTES)
        square = statistics.fmean(market.busyness(m * STEPS_PER_MINUTE) ** 2 for m in minutes)
        misses.append((abs(math.sqrt(square) - BUSY), start))
    return [start for _, start in sorted(misses)[:F_WINDOWS]]


def _row(
    measure: Callable[[list[T]], float],
    series: list[T],
    block: int,
    real: sheet.Interval,
    real_count: int,
    *,
    is_share: bool = False,
    is_contradicted: bool = False,
) -> Row:
    """Measure with both errors; the sheet's is ours at its sample size."""
    error = bootstrap_error(measure, series, block)
    if is_share:
        # What was met never or once is no surer than independent draws would make it.
        error = max(error, math.sqrt(real[1] * (100 - real[1]) / len(series)))
    real_error = error * math.sqrt(len(series) / real_count)
    return compare(measure(series), error, real, real_error, is_contradicted=is_contradicted)
